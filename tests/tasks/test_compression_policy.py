"""When to compress and when not: the numbers of the policy, and what a session remembers. Plain values."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidestream.errors import UsageError
from sidestream.tasks.compression import CompressionPolicy, History, Override
from sidestream.tasks.compression.failures import FAILURES, KEEP, KINDS
from sidestream.tasks.compression.policy import COOLDOWNS, Failure

POLICY = CompressionPolicy()
NOW = 1_790_000_000.0
NEW = History()

# window, reserved, model, route, threshold
THRESHOLDS = [
    (1_000_000, 0, "", "", 500_000),  # half of a large window
    (1_000_000, 100_000, "", "", 450_000),  # of what the answer leaves of it
    (512_000, 0, "", "", 256_000),  # large begins here
    (400_000, 0, "", "", 300_000),  # three quarters of a smaller one
    (200_000, 20_000, "", "", 135_000),
    (80_000, 0, "", "", 64_000),  # never below the floor
    (64_000, 0, "", "", 54_400),  # where the floor is the window: 85 % of it
    (8_192, 0, "", "", 6_963),
    (70_000, 10_000, "", "", 51_000),  # the floor does not fit what the answer leaves
    (272_000, 0, "gpt-5.5-codex", "codex", 231_200),  # Codex plans: 85 %
    (272_000, 0, "gpt-5.5-codex", "openai", 204_000),  # the same model elsewhere
    (128_000, 0, "gpt-5.3-codex-spark", "codex", 89_600),
    (272_000, 0, "Astra-2", "my-codex-plan", 231_200),
]


@pytest.mark.parametrize(("window", "reserved", "model", "route", "expected"), THRESHOLDS)
def test_the_threshold(window: int, reserved: int, model: str, route: str, expected: int) -> None:
    """A share of the usable window, within floor and window, with the overrides of some models."""
    assert POLICY.threshold(window, reserved=reserved, model=model, route=route) == expected


@given(st.integers(1, 4_000_000), st.integers(0, 4_000_000))
def test_a_threshold_is_always_within_the_usable_window(window: int, reserved: int) -> None:
    """Compression comes before the provider refuses: never above what the answer leaves."""
    reserved %= window
    assert 1 <= POLICY.threshold(window, reserved=reserved) <= window - reserved


def test_the_longest_override_wins_and_a_cap_caps() -> None:
    """The most particular name counts, in any case; a row of the route beats one of all routes."""
    rows = (
        Override("gpt", 0.5),
        Override("GPT-9", 0.9),
        Override("gpt-9", tokens=50_000, route="azure"),
    )
    policy = CompressionPolicy(overrides=rows, floor=0)
    assert policy.threshold(1_000_000, model="gpt-9-mini") == 900_000
    assert policy.threshold(1_000_000, model="gpt-8") == 500_000
    assert policy.threshold(1_000_000, model="gpt-9", route="my-azure") == 50_000
    assert replace(policy, cap=120_000).threshold(1_000_000, model="gpt-9") == 120_000


def ask(tokens: int, history: History = NEW, **options: Any) -> str:
    return POLICY.should_compress(tokens, 200_000, now=NOW, history=history, **options).why


def test_compression_is_due_at_the_threshold_and_says_so() -> None:
    """Exactly at the threshold, not a token before, with a sentence for a person."""
    assert (ask(149_999), ask(150_000)) == ("below", "due")
    verdict = POLICY.should_compress(160_000, 200_000, now=NOW)
    assert verdict
    assert "160,000 tokens have reached the threshold of 150,000" in verdict.reason


def test_after_a_compaction_an_estimate_waits_for_real_usage() -> None:
    """The first number after a compaction must be the provider's own."""
    history = History().committed(digest=False)
    assert ask(180_000, history, estimated=True) == "waiting"
    assert ask(180_000, history) == "due"
    assert ask(180_000, history.measured(60_000, 150_000), estimated=True) == "due"


@pytest.mark.parametrize(
    ("fit", "estimate", "why"),
    [
        (149_000, 153_096, "estimate"),  # grew by 4,096
        (140_000, 150_000, "due"),  # grew by more than 5 %
        (149_000, 156_450, "estimate"),  # grew by 5 %
        (149_000, 156_451, "due"),
    ],
)
def test_a_small_growth_of_an_estimate_is_no_reason(fit: int, estimate: int, why: str) -> None:
    """What was proven to fit and grew by little, by a guess, still fits."""
    history = History().measured(fit, 150_000)
    assert ask(estimate, history, estimated=True) == why
    assert ask(estimate, history) == "due"


def test_two_compactions_that_freed_too_little_end_it() -> None:
    """A strike is real usage still over the threshold, or an attempt that found nothing; two are enough."""
    once = History().committed(digest=False).measured(151_000, 150_000)
    assert ask(151_000, once) == "due"
    assert ask(151_000, once.futile()) == "ineffective"
    assert ask(151_000, History().futile().futile()) == "ineffective"
    assert ask(151_000, once.futile().cleared()) == "due"
    assert once.futile().measured(90_000, 150_000).strikes == 0


def test_real_usage_counts_as_a_strike_once() -> None:
    """Later turns over the threshold are no further strikes of the same compaction."""
    history = History().committed(digest=False)
    for _ in range(3):
        history = history.measured(151_000, 150_000)
    assert history.strikes == 1


def test_two_fallback_digests_in_a_row_end_it() -> None:
    """A summary between them starts the count anew."""
    history = History().committed(digest=True)
    assert ask(151_000, history) == "due"
    assert ask(151_000, history.committed(digest=True)) == "digests"
    assert ask(151_000, history.committed(digest=False).committed(digest=True)) == "due"
    assert ask(151_000, history.committed(digest=True).cleared()) == "due"


@pytest.mark.parametrize(
    ("kind", "seconds"),
    [
        ("no-route", [600, 600]),
        ("timeout", [60, 300, 900, 900]),
        ("stream", [30, 30]),
        ("network", [60]),
        ("auth", [60]),
        ("quota", [60]),
        ("throttled", [60]),
        ("server", [60]),
        ("other", [60]),
        ("of a later version", [60]),
    ],
)
def test_a_failure_earns_its_cooldown(kind: str, seconds: list[int]) -> None:
    """So many seconds after the first, second, third failure of a kind in a row."""
    history = History()
    for rest in seconds:
        history = history.failed(kind, NOW, "it failed")
        assert history.cooldown_until == NOW + rest
        assert ask(180_000, history) == "cooldown"
        late = POLICY.should_compress(180_000, 200_000, now=NOW + rest, history=history)
        assert late
    assert "it failed" in POLICY.should_compress(180_000, 200_000, now=NOW, history=history).reason
    assert ask(180_000, history.cleared()) == "due"


def test_every_kind_of_failure_has_a_cooldown() -> None:
    """The tables agree: every error that keeps messages has a kind, every kind its seconds."""
    assert set(COOLDOWNS) == set(get_args(Failure))
    assert set(KINDS) == set(KEEP) < set(FAILURES)


@pytest.mark.parametrize(("retry_in", "rest"), [(10, 60), (200, 200), (86_400 * 5, 3_600)])
def test_the_providers_word_on_when_to_come_back_is_kept_within_an_hour(retry_in: int, rest: int) -> None:
    """A quota that resets in days does not end compression for days: the user may have paid."""
    history = History().failed("quota", NOW, "no money", retry_at=NOW + retry_in)
    assert history.cooldown_until == NOW + rest


def test_a_success_forgets_failures() -> None:
    """The next timeout is a first one again."""
    history = History().failed("timeout", NOW, "x").failed("timeout", NOW, "x").committed(digest=False)
    assert history.failed("timeout", NOW, "x").cooldown_until == NOW + 60


HISTORIES = st.builds(
    History,
    compactions=st.integers(0, 9),
    strikes=st.integers(0, 9),
    digests=st.integers(0, 9),
    failures=st.dictionaries(st.sampled_from(list(COOLDOWNS)), st.integers(0, 9)),
    cooldown_until=st.floats(0, 2e9),
    cooldown_reason=st.text(),
    awaiting=st.booleans(),
    fit=st.none() | st.integers(0, 10**6),
)


@given(HISTORIES)
def test_a_history_survives_json(history: History) -> None:
    """A host can keep it beside its messages."""
    assert History.from_dict(json.loads(json.dumps(history.to_dict()))) == history


def test_a_history_of_another_version_is_read_and_a_damaged_one_refused() -> None:
    """Unknown names are left aside, missing ones are their defaults, wrong values are named."""
    assert History.from_dict({"strikes": 1, "new": "x"}) == History(strikes=1)
    for name, value in {
        "strikes": -1, "digests": "2", "compactions": True, "failures": [1], "awaiting": 1,
        "cooldown_until": float("nan"), "cooldown_reason": None, "fit": 1.5,
    }.items():  # fmt: skip
        with pytest.raises(UsageError, match=name):
            History.from_dict({name: value})


@pytest.mark.parametrize(
    "options",
    [
        {"ratio": 0}, {"ratio": 1.1}, {"tail_share": 0.05}, {"tail_share": 0.9}, {"tail_messages": 2},
        {"tail_messages": 9}, {"overshoot": 0.5}, {"cap": 0}, {"fallback": "panic"}, {"strikes": 0},
    ],
)  # fmt: skip
def test_a_policy_without_sense_is_refused(options: dict[str, Any]) -> None:
    """Each number has limits; the message names it."""
    with pytest.raises(UsageError, match=next(iter(options))):
        CompressionPolicy(**options)


def test_a_window_without_room_is_refused() -> None:
    """A window, and an answer that leaves something of it."""
    for window, reserved in ((0, 0), (-1, 0), (1_000, 1_000), (1_000, -1)):
        with pytest.raises(UsageError):
            POLICY.threshold(window, reserved=reserved)
    with pytest.raises(UsageError):
        Override("m")


@pytest.mark.parametrize(
    ("window", "compactions", "head", "tail", "least", "most"),
    [
        (1_000_000, 0, 3, 100_000, 2_000, 10_000),
        (200_000, 1, 0, 30_000, 2_000, 10_000),
        (100_000, 0, 3, 15_000, 2_000, 5_000),
        (8_000, 0, 3, 1_360, 400, 400),
    ],
)
def test_what_stays(window: int, compactions: int, head: int, tail: int, least: int, most: int) -> None:
    """Three first messages once, a fifth of the threshold at the end, 2,000 to 10,000 tokens between."""
    history = History(compactions=compactions)
    shape = POLICY.shape(POLICY.threshold(window), window, history)
    assert (shape.head, shape.tail, shape.digest_least, shape.digest_most) == (head, tail, least, most)
