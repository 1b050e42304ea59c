"""How often and how long: the numbers of recovery."""

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidestream.errors import UsageError
from sidestream.recovery.faults import Fault, FaultKind
from sidestream.recovery.policy import Backoff, Policy

DROPPED, THROTTLED = Fault(FaultKind.DROPPED), Fault(FaultKind.THROTTLED)


@given(st.integers(0, 1000), st.floats(0, 1, exclude_max=True))
def test_backoff_is_full_jitter_below_its_cap(retry: int, draw: float) -> None:
    """A delay is the draw times min(cap, base * 2**n): never more, whatever the count."""
    backoff = Backoff(base=0.5, throttled_base=1.0, cap=8.0)
    assert backoff.delay(DROPPED, retry, lambda: draw) == draw * min(8.0, 0.5 * 2.0 ** min(retry, 16))
    assert backoff.delay(THROTTLED, retry, lambda: draw) == draw * min(8.0, 1.0 * 2.0 ** min(retry, 16))


def test_retry_after_is_a_floor_under_the_jitter() -> None:
    """A crowd that was told one second comes back spread out, and nobody before the second is over."""
    rng = random.Random(20261122)
    fault = Fault(FaultKind.THROTTLED, retry_after=1.0)
    delays = [Backoff().delay(fault, 0, rng.random) for _ in range(200)]
    assert min(delays) >= 1.0
    assert max(delays) - min(delays) >= 0.5


@pytest.mark.parametrize("value", [-1.0, math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("name", ["base", "throttled_base", "cap"])
def test_backoff_takes_finite_times_only(name: str, value: float) -> None:
    """Backoff times are finite and not below zero."""
    with pytest.raises(UsageError):
        Backoff(**{name: value})


@pytest.mark.parametrize(
    "settings",
    [
        {"tries": 0},
        {"tries": -1},
        {"tries": 101},
        {"recoveries": -1},
        {"recoveries": 101},
        {"recoveries": math.inf},
        {"tries": math.nan},
        {"longest_wait": -1},
        {"longest_wait": math.inf},
        {"longest_wait": math.nan},
        {"patience": -1},
        {"patience": math.nan},
    ],
)
def test_retrying_for_ever_cannot_be_configured(settings: dict[str, float]) -> None:
    """Every limit of a policy is finite: there is no setting for ever."""
    with pytest.raises(UsageError):
        Policy(**settings)  # type: ignore[arg-type]


def test_the_edges_of_a_policy_are_allowed() -> None:
    """One try, no recovery and no waiting are sensible wishes."""
    assert Policy(tries=1, recoveries=0, longest_wait=0, patience=0).recoveries == 0
    assert Policy(tries=100, recoveries=100).tries == 100


def test_defaults_are_those_of_the_documentation() -> None:
    """Two tries, eight recoveries, two minutes of Retry-After; half a second doubling to eight."""
    policy = Policy()
    assert (policy.tries, policy.recoveries, policy.longest_wait, policy.patience) == (2, 8, 120.0, 8.0)
    assert policy.backoff == Backoff(0.5, 1.0, 8.0)
