"""A session's compressions: when, one at a time, never late. Plain values, threads only where they matter."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from test_compression_model import an_error
from transcripts import alternates, chat, orphans, responses

from sidestream import errors
from sidestream.errors import UsageError
from sidestream.tasks.compression import (
    KEEP,
    QUOTE,
    CompactionBusy,
    Compactor,
    CompressionPolicy,
    History,
    StaleCompaction,
    SummaryRejected,
    load,
)

SMALL = CompressionPolicy(floor=0, digest_least=50, prune=False)
WINDOW = 1_500  # chat(24) has about 3,000 tokens by the estimate
SUMMARY = "## Goal\nA faster import.\n## Key decisions\njobs/part_3.py was changed because of E1030."
NOW = 1_790_000_000.0


class Clock:
    """Unix time that stands still until told."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        return self.now


def says(text: str = SUMMARY) -> Callable[[list[dict[str, str]]], str]:
    return lambda _: text


def fails(error: BaseException) -> Callable[[list[dict[str, str]]], str]:
    def complete(_: list[dict[str, str]]) -> str:
        raise error

    return complete


def made(complete: Any = None, **options: Any) -> Compactor:
    return Compactor(complete, **{"window": WINDOW, "policy": SMALL, "clock": Clock(), **options})


def test_a_turn_of_a_session() -> None:
    """Check, compact, commit: the summary takes effect, what arrived meanwhile is behind it."""
    compactor, messages = made(says()), chat(24)
    assert compactor.check(200).why == "below"
    assert compactor.check(2_000)
    done = compactor.compact(messages, tokens=2_000)
    assert done.method == "summary"
    new = [{"role": "assistant", "content": "Two things are left."}, {"role": "user", "content": "Which?"}]
    after = compactor.commit(done, [*messages, *new])
    assert after[: len(done.messages)] == done.messages
    assert after[-2:] == new
    assert "E1030" in json.dumps(after)
    assert compactor.history.compactions == 1
    assert compactor.check(2_000, estimated=True).why == "waiting"


def test_sync_and_async_do_the_same() -> None:
    """The same compaction, notice and history, with a summary and with a failure."""
    for complete in (says(), fails(an_error(errors.RateLimited)), fails(an_error(errors.Refused)), None):

        async def later(prompt: list[dict[str, str]], complete: Any = complete) -> str:
            return str(complete(prompt))

        one, two = made(complete), made(later if complete else None)
        first, second = one.compact(chat(24)), asyncio.run(two.acompact(chat(24)))
        assert (first.method, first.notice, first.messages) == (second.method, second.notice, second.messages)
        assert one.history == two.history


def test_an_asynchronous_complete_needs_acompact() -> None:
    """A coroutine is no text."""

    async def later(_: list[dict[str, str]]) -> str:
        return SUMMARY

    waiting = later([])
    with pytest.raises(UsageError, match="asynchronous"):
        made(lambda _: waiting).compact(chat(24))
    asyncio.run(waiting)


# The fence


def test_a_compaction_takes_effect_once() -> None:
    """The second commit of the same one is refused."""
    compactor, messages = made(says()), chat(24)
    done = compactor.compact(messages)
    compactor.commit(done, messages)
    with pytest.raises(StaleCompaction, match="committed before"):
        compactor.commit(done, messages)
    assert compactor.history.compactions == 1


def test_an_abandoned_compaction_is_refused_however_late() -> None:
    """A host that gave up waiting gets nothing committed behind its back, and can start anew at once."""
    asked, answer = threading.Event(), threading.Event()

    def slow(_: list[dict[str, str]]) -> str:
        asked.set()
        answer.wait(10)
        return "late"

    compactor, messages = made(slow), chat(24)
    late: list[Any] = []
    worker = threading.Thread(target=lambda: late.append(compactor.compact(messages)))
    worker.start()
    assert asked.wait(10)
    compactor.abandon()
    other = Compactor(says(), window=WINDOW, policy=SMALL, clock=Clock())
    compactor._ask = other._ask  # the next attempt is answered at once
    done = compactor.compact(messages)
    answer.set()
    worker.join(10)
    with pytest.raises(StaleCompaction):
        compactor.commit(late[0], messages)
    assert "E1030" in json.dumps(compactor.commit(done, messages))
    assert compactor.history.compactions == 1


def test_a_second_caller_is_told_at_once() -> None:
    """One compaction of a session at a time; the other caller does not wait and nothing is asked twice."""
    asked: list[int] = []

    def nested(_: list[dict[str, str]]) -> str:
        asked.append(1)
        with pytest.raises(CompactionBusy) as caught:
            compactor.compact(chat(24))
        assert caught.value.hint
        return SUMMARY

    compactor = made(nested)
    assert compactor.compact(chat(24)).method == "summary"
    assert compactor.compact(chat(24), manual=True).method == "summary"
    assert asked == [1, 1]


def test_any_number_of_threads_commit_each_compaction_once() -> None:
    """Eight threads on one session: every attempt ends in its commit or in a typed refusal."""
    compactor, messages = made(says()), chat(24)
    start, ends = threading.Barrier(8), []

    def work() -> None:
        start.wait(10)
        for _ in range(10):
            try:
                compactor.commit(compactor.compact(messages, manual=True), messages)
                ends.append("committed")
            except (CompactionBusy, StaleCompaction) as error:
                ends.append(type(error).__name__)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for each in threads:
        each.start()
    for each in threads:
        each.join(60)
    assert len(ends) == 80
    assert 1 <= ends.count("committed") == compactor.history.compactions


def test_a_cancelled_task_leaves_the_session_free() -> None:
    """The task that waits for the model is cancelled: the next compaction may start at once."""

    async def scenario() -> None:
        asked = asyncio.Event()

        async def never(_: list[dict[str, str]]) -> str:
            asked.set()
            await asyncio.Event().wait()
            return "late"

        compactor = made(never)
        task = asyncio.create_task(compactor.acompact(chat(24)))
        await asked.wait()
        with pytest.raises(CompactionBusy):
            await compactor.acompact(chat(24))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert compactor.history == History()
        compactor._ask = says()
        assert (await compactor.acompact(chat(24))).method == "summary"

    asyncio.run(scenario())


def test_a_newer_compaction_overtakes_an_older_one() -> None:
    """Only the newest can be committed."""
    compactor, messages = made(says()), chat(24)
    old = compactor.compact(messages)
    new = compactor.compact(messages)
    with pytest.raises(StaleCompaction, match="overtaken"):
        compactor.commit(old, messages)
    compactor.commit(new, messages)


@pytest.mark.parametrize("change", ["shorter", "other", "first", "empty"])
def test_a_conversation_that_changed_underneath_is_not_overwritten(change: str) -> None:
    """An edited, shortened or replaced history refuses the compaction made from the old one."""
    compactor, messages = made(says()), chat(24)
    done = compactor.compact(messages)
    edited = {**messages[5], "content": "edited"}
    now = {
        "shorter": messages[:-1],
        "other": [*messages[:5], edited, *messages[6:]],
        "first": messages[1:],
        "empty": [],
    }[change]
    with pytest.raises(StaleCompaction, match="not the one"):
        compactor.commit(done, now)
    assert compactor.history.compactions == 0
    assert compactor.commit(done, [dict(each) for each in messages])  # equal is the same


@pytest.mark.parametrize("stop", [errors.Cancelled(), KeyboardInterrupt(), RuntimeError("our bug")])
def test_a_stop_leaves_nothing_behind(stop: BaseException) -> None:
    """Cancelled in the middle: nothing to commit, no cooldown, and the next one may start."""
    compactor = made(fails(stop))
    with pytest.raises(type(stop)):
        compactor.compact(chat(24))
    assert compactor.history == History()
    compactor._ask = says()
    assert compactor.compact(chat(24)).method == "summary"


def test_what_changed_nothing_commits_to_the_messages_as_they_are() -> None:
    """A kept conversation can be "committed" without care, before or after anything else."""
    compactor, messages = made(fails(an_error(errors.ServerError))), chat(24)
    done = compactor.compact(messages)
    assert compactor.commit(done, messages) == messages
    assert compactor.commit(done, [*messages, {"role": "user", "content": "x"}])[-1]["content"] == "x"
    assert compactor.history.compactions == 0


def test_results_that_arrive_meanwhile_find_their_call() -> None:
    """A call that waits when the compaction begins is in its result, whole."""
    compactor, messages = made(says()), chat(24)[:-2]
    done = compactor.compact(messages)
    assert done.messages[-1] is messages[-1]
    answer = {"role": "tool", "tool_call_id": "call_23", "content": "late"}
    after = compactor.commit(done, [*messages, answer])
    assert not orphans(load(after))
    assert after[-1] is answer


def test_a_result_for_a_summarised_call_is_refused() -> None:
    """The user spoke before a call was answered; its late answer must not become an orphan."""
    messages = chat(24)[:-2]
    messages.append({"role": "user", "content": "Wait."})
    compactor = made(says())
    done = compactor.compact(messages)
    late = {"role": "tool", "tool_call_id": "call_23", "content": "late"}
    with pytest.raises(StaleCompaction, match="result arrived"):
        compactor.commit(done, [*messages, late])


def test_the_seam_alternates_too() -> None:
    """A user who spoke meanwhile is merged with the user who spoke last, both word for word."""
    compactor, messages = made(says()), chat(24)
    done = compactor.compact(messages)
    after = compactor.commit(done, [*messages, {"role": "user", "content": "And hurry."}])
    assert alternates(after)
    assert after[-1] == {"role": "user", "content": "What is left?\n\nAnd hurry."}


class Fence(RuleBasedStateMachine):
    """Any order of turns, compactions, commits and abandoned attempts."""

    @initialize()
    def begin(self) -> None:
        self.compactor = made(says(), policy=CompressionPolicy(floor=0, digest_least=50))
        self.messages: list[Any] = chat(2)
        self.said = ["Please make the import job faster. Never touch prod.", "What is left?"]
        self.made: list[tuple[Any, int]] = []
        self.best: Any = None

    @rule(turns=st.integers(1, 12))
    def talk(self, turns: int) -> None:
        number = len(self.said)
        text = f"Request number {number}."
        self.said.append(text)
        more = chat(turns)[2:-1]
        for each in more:
            for call in each.get("tool_calls", ()):
                call["id"] += f"_{number}"
            if "tool_call_id" in each:
                each["tool_call_id"] += f"_{number}"
        self.messages = [*self.messages, *more, {"role": "user", "content": text}]

    @rule()
    def compact(self) -> None:
        self.best = self.compactor.compact(self.messages, manual=True)
        self.made.append((self.best, len(self.messages)))

    @rule()
    def abandon(self) -> None:
        self.compactor.abandon()
        self.best = None

    @precondition(lambda self: self.made)
    @rule(data=st.data())
    def commit(self, data: st.DataObject) -> None:
        done, _ = data.draw(st.sampled_from(self.made))
        if done.changed and done is not self.best:
            with pytest.raises(StaleCompaction):
                self.compactor.commit(done, self.messages)
            return
        self.messages = self.compactor.commit(done, self.messages)
        self.best = None if done.changed else self.best

    @invariant()
    def nothing_is_lost(self) -> None:
        """Every request of the user is there once, in order, and no call is alone."""
        if hasattr(self, "messages"):
            text = "\n".join(each.text for each in load(self.messages).messages if each.role == "user")
            places = [text.find(each) for each in self.said]
            assert -1 not in places
            assert places == sorted(places)
            assert all(text.count(each) == 1 for each in self.said)
            assert not orphans(load(self.messages))


TestFence = Fence.TestCase
TestFence.settings = settings(max_examples=30, stateful_step_count=12, deadline=None)


# Failures


@pytest.mark.parametrize("kind", KEEP)
def test_a_failure_keeps_every_message_and_rests(kind: type[Exception]) -> None:
    """Untouched, with a notice, and not asked again before the cooldown is over or somebody insists."""
    asked: list[int] = []

    def failing(_: list[dict[str, str]]) -> str:
        asked.append(1)
        raise an_error(kind)

    clock = Clock()
    compactor, messages = made(failing, clock=clock), chat(24)
    done = compactor.compact(messages)
    assert done.kept
    assert done.messages == messages
    assert "every message is untouched" in done.notice
    until = compactor.history.cooldown_until
    assert until > NOW
    assert compactor.check(2_000).why == "cooldown"
    again = compactor.compact(messages)
    assert again.kept
    assert "Resting" in again.notice
    assert again.messages == messages
    assert compactor.history.cooldown_until == until  # being blocked is no further failure
    assert len(asked) == 1
    assert compactor.compact(messages, manual=True).kept
    clock.now = compactor.history.cooldown_until
    assert compactor.compact(messages).kept
    assert len(asked) == 3


@pytest.mark.parametrize("kind", [kind for kind in QUOTE if kind is not SummaryRejected])
def test_a_model_that_cannot_help_leads_to_the_digest_twice(kind: type[Exception]) -> None:
    """Two digests in a row are enough; somebody can still ask for a third."""
    compactor, messages = made(fails(an_error(kind))), chat(24)
    for _ in range(2):
        done = compactor.compact(messages)
        assert done.method == "extractive"
        messages = [*compactor.commit(done, messages), *chat(24)[2:]]
    assert compactor.check(2_000).why == "digests"
    assert compactor.compact(messages).kept
    assert compactor.compact(messages, manual=True).method == "extractive"


def test_a_policy_may_keep_instead_of_quoting() -> None:
    """With fallback="keep" a refusal leaves every message, and rests like any failure."""
    policy = CompressionPolicy(floor=0, digest_least=50, prune=False, fallback="keep")
    compactor, messages = made(fails(an_error(errors.Refused)), policy=policy), chat(24)
    done = compactor.compact(messages)
    assert done.kept
    assert done.messages == messages
    assert "declined to summarise" in done.notice
    assert compactor.history.cooldown_until == NOW + 60


def test_without_a_model_a_digest_is_no_failure() -> None:
    """Quoting is what was asked for, as often as it is due."""
    compactor, messages = made(), chat(24)
    for _ in range(3):
        done = compactor.compact(messages)
        assert done.method == "extractive"
        messages = [*compactor.commit(done, messages), *chat(24)[2:]]
    assert compactor.check(2_000)


def test_an_attempt_that_finds_nothing_is_a_strike() -> None:
    """Two of them end it: asking again and again about the same messages costs and brings nothing."""
    compactor = made(says())
    messages = [{"role": "user", "content": "important words " * 400}]
    assert compactor.compact(messages).method == "none"
    assert compactor.compact(messages).method == "none"
    assert compactor.check(3_000).why == "ineffective"
    assert compactor.compact(messages, manual=True).method == "none"


def test_a_compaction_that_was_not_enough_is_a_strike() -> None:
    """The provider counts as much as before: twice, and it ends."""
    compactor, messages = made(says()), chat(24)
    for _ in range(2):
        assert compactor.check(2_000)
        messages = [*compactor.commit(compactor.compact(messages), messages), *chat(24)[2:]]
    assert compactor.check(2_000).why == "ineffective"


def test_a_history_outlives_the_process() -> None:
    """What one compactor learned blocks the next one, through JSON."""
    first = made(fails(an_error(errors.NoRoute)))
    first.compact(chat(24))
    kept = json.loads(json.dumps(first.history.to_dict()))
    second = made(says(), history=History.from_dict(kept))
    assert second.check(2_000).until == NOW + 600
    assert second.compact(chat(24)).kept


# What stays


def test_pruning_alone_can_be_enough() -> None:
    """When shortening tool output frees enough, no model is asked."""
    policy = CompressionPolicy(floor=0, digest_least=50, prune_least=100)
    compactor, messages = made(fails(AssertionError("asked")), policy=policy, window=4_000), chat(40)
    done = compactor.compact(messages, tokens=3_100)
    assert done.method == "pruned"
    assert done.messages_after == done.messages_before
    assert not orphans(done)
    assert compactor.commit(done, messages) == done.messages
    assert compactor.history == History(awaiting=True)  # the head's turn, and a row of digests, are still on


def test_pruning_that_frees_too_little_is_not_committed() -> None:
    """A few tokens are not worth a new prompt cache: then the model is asked."""
    policy = CompressionPolicy(floor=0, digest_least=50, prune_least=4_096)
    assert made(says(), policy=policy).compact(chat(24)).method == "summary"


def test_the_head_stays_once() -> None:
    """The first three messages stay in the first compaction and go in the next."""
    messages = [
        {"role": "system", "content": "You are careful."},
        {"role": "user", "content": "Make it faster."},
        {"role": "assistant", "content": "I will begin with a plan: measure first."},
        {"role": "user", "content": "Good."},
        *chat(24)[2:],
    ]
    compactor = made(says(SUMMARY))
    after = compactor.commit(compactor.compact(messages), messages)
    assert messages[2] in after
    longer = [*after, *chat(24)[2:]]
    assert messages[2] not in compactor.commit(compactor.compact(longer), longer)


def test_the_tail_has_three_messages_and_the_last_reply() -> None:
    """However large the newest results are, three messages stay, shortened; so do the last words said."""
    messages = [*chat(12)[:-1], {"role": "assistant", "content": "Half is done, E1050 is open."}]
    for number in range(4):
        call = {"id": f"z{number}", "function": {"name": "shell", "arguments": "{}"}}
        messages.append({"role": "assistant", "content": None, "tool_calls": [call]})
        messages.append({"role": "tool", "tool_call_id": f"z{number}", "content": "big\n" * 4_000})
    done = made(says()).compact(messages)
    assert done.messages[-1]["tool_call_id"] == "z3"
    assert done.messages[-3]["tool_call_id"] == "z2"
    assert len(done.messages[-1]["content"]) < 2_000
    assert any("Half is done, E1050 is open." in str(each.get("content")) for each in done.messages)


def test_tokens_are_those_of_the_target_model() -> None:
    """A model that needs twice as many tokens keeps half as many words of the newest turns."""
    policy = CompressionPolicy(floor=0, digest_least=50, digest_most=50, prune=False, head=0)
    plain = Compactor(window=6_000, policy=policy, count=lambda text: len(text) // 4)
    dense = Compactor(window=6_000, policy=policy, count=lambda text: len(text) // 2)
    one, two = plain.compact(chat(80)), dense.compact(chat(80))
    assert one.chars_after > 1.6 * two.chars_after
    assert two.tokens_after == sum(
        len(part.text) // 2 for each in two.conversation.messages for part in each.parts
    )


def test_a_focus_reaches_the_model_without_secrets() -> None:
    """The topic, 60 to 70 % of the room, the date; no key in it."""
    prompts: list[list[dict[str, str]]] = []

    def complete(prompt: list[dict[str, str]]) -> str:
        prompts.append(prompt)
        return SUMMARY

    made(complete).compact(chat(24), focus="the E1030 bug, api_key = sk-live-0123456789abcdef01")
    system = prompts[0][0]["content"]
    assert "60 to 70 % of the room" in system
    assert "the E1030 bug" in system
    assert "0123456789abcdef" not in system
    assert "today is 2026-09-21" in system


def test_items_are_compacted_as_chats_are() -> None:
    """Responses items keep their form, their pairs and what arrives meanwhile."""
    compactor, items = made(says()), responses(24)
    done = compactor.compact(items)
    new = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Go on."}]}
    after = compactor.commit(done, [*items, new])
    assert done.method == "summary"
    assert after[-1] is new
    assert not orphans(load(after))


def test_below_the_threshold_nothing_is_done_where_that_is_asked_for() -> None:
    """`due=True` is for hosts that do not check beforehand; it is no strike."""
    compactor = made(fails(AssertionError("asked")), window=400_000)
    done = compactor.compact(chat(4), due=True)
    assert done.method == "none"
    assert "below the threshold" in done.notice
    assert compactor.history == History()
