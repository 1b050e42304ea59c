"""With a model: the prompt, what is accepted, and what a failure of the model leads to."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from transcripts import chat, codex, jsonl

from sidestream import errors
from sidestream.recovery.faults import Fault, FaultKind
from sidestream.tasks.compression import (
    KEEP,
    QUOTE,
    Budget,
    SummaryRejected,
    acompress,
    compress,
    load,
    prepare,
)
from sidestream.tasks.compression.prompt import MAX_MATERIAL, SECTIONS

BUDGET = Budget(ratio=0.4)


def an_error(kind: type[Exception]) -> Exception:
    if issubclass(kind, errors.DeadlineExceeded):
        return kind("the clock ran out", clock="total", fault=Fault(FaultKind.DROPPED))
    if issubclass(kind, errors.BudgetExhausted):
        return kind("too much failed", budget="origin", fault=Fault(FaultKind.WITHHELD))
    if issubclass(kind, errors.CallFailed):
        return kind("it failed with sk-0123456789abcdefgh", fault=Fault(FaultKind.DROPPED))
    return kind("it failed")


def _raises(error: BaseException) -> Callable[[list[dict[str, str]]], str]:
    def complete(messages: list[dict[str, str]]) -> str:
        raise error

    return complete


def _both(complete: Callable[[list[dict[str, str]]], str], transcript: Any = None) -> Any:
    """The result of both drivers, which must be the same."""

    async def later(messages: list[dict[str, str]]) -> str:
        return complete(messages)

    transcript = transcript or chat()
    result = compress(transcript, budget=BUDGET, complete=complete)
    again = asyncio.run(acompress(transcript, budget=BUDGET, complete=later))
    assert again.messages == result.messages
    assert again.notice == result.notice
    return result


def test_a_summary_takes_the_place_of_the_middle() -> None:
    """One message, marked, between the user's words and the newest turn."""
    result = _both(
        lambda _: "<think>hm</think>## Goal\nA faster import. The key is ghp_0123456789012345678901."
    )
    text = next(message.text for message in result.conversation.messages if message.digest)
    assert result.method == "summary"
    assert text.startswith("[sidestream summary")
    assert text.endswith("[end]")
    assert "hm" not in text
    assert "ghp_" not in text


@pytest.mark.parametrize("kind", KEEP)
def test_network_quota_and_auth_failures_leave_every_message_untouched(kind: type[Exception]) -> None:
    """The history is worth more than a shorter prompt; the notice names the failure and no secret."""
    messages = chat()
    result = _both(_raises(an_error(kind)), messages)
    assert result.kept
    assert result.messages == messages
    assert kind.__name__ in result.notice
    assert "sk-0123" not in result.notice


def test_a_failure_leaves_a_file_byte_for_byte_as_it_was() -> None:
    """Also in a session format with bookkeeping lines."""
    data = jsonl(codex())
    assert _both(_raises(an_error(errors.StreamDropped)), data).to_bytes() == data


@pytest.mark.parametrize("kind", [kind for kind in QUOTE if kind is not SummaryRejected])
def test_a_model_that_cannot_help_leads_to_the_digest(kind: type[Exception]) -> None:
    """It answered, so waiting changes nothing: quote instead, and say so."""
    result = _both(_raises(an_error(kind)))
    assert result.method == "extractive"
    assert result.notice.startswith(QUOTE[kind])


@pytest.mark.parametrize("empty", ["", " \n", "<think>only thoughts</think>", "…", "---"])
def test_an_empty_summary_leads_to_the_digest(empty: str) -> None:
    """Nothing is not a summary."""
    assert _both(lambda _: empty).method == "extractive"
    with pytest.raises(SummaryRejected):
        prepare(load(chat()), BUDGET).accept(empty)


@pytest.mark.parametrize("error", [errors.Cancelled(), KeyboardInterrupt(), RuntimeError("our bug")])
def test_a_stop_and_our_own_bugs_pass_through(error: BaseException) -> None:
    """A cancel is not a failure to work around, and a bug is not to be hidden."""
    with pytest.raises(type(error)):
        compress(chat(), budget=BUDGET, complete=_raises(error))


def test_every_error_of_a_call_has_its_consequence() -> None:
    """The two tables cover all errors a call can end with; the caller's own mistakes are not among them."""
    calls = {getattr(errors, name) for name in errors.__all__} - {
        errors.SidestreamError,
        errors.ProviderError,
    }
    others = {errors.UsageError, errors.ConfigError, errors.Cancelled, errors.InvalidAnswer}
    assert calls - others == {*KEEP, *QUOTE} - {SummaryRejected}


def test_a_summary_longer_than_the_source_is_not_used() -> None:
    """A result is never larger than what went in: a summary that grows is rejected, and quoted instead."""
    result = _both(lambda _: "word " * 5000)
    assert result.method == "extractive"
    assert result.notice.startswith("The model's summary was longer than what it replaces.")
    with pytest.raises(SummaryRejected, match="longer"):
        prepare(load(chat()), BUDGET).accept("word " * 5000)


def test_the_model_is_not_asked_when_nothing_is_to_be_done() -> None:
    """No call, no cost."""
    result = compress(chat(), budget=1_000_000, complete=_raises(AssertionError("asked")))
    assert result.method == "none"


def test_the_prompt_has_the_sections_and_the_material_without_secrets() -> None:
    """What is asked: the headings, the user's language, source material only, secrets out."""
    messages = chat()
    messages[2]["content"] += " password = hunter2hunter2"
    system, user = prepare(load(messages), BUDGET).prompt()
    assert all(f"## {name}" in system["content"] for name in SECTIONS)
    assert "language the user writes in" in system["content"]
    assert "E1000" in user["content"]
    assert "hunter2" not in user["content"]
    assert "[REDACTED]" in user["content"]


def test_the_material_is_bounded_and_its_gap_is_marked() -> None:
    """Per message and as a whole, with the cut said in the text."""
    messages = [
        {"role": "user", "content": "go"},
        *({"role": "assistant", "content": "x " * 4000} for _ in range(60)),
    ]
    material = prepare(load(messages), Budget(ratio=0.1)).prompt()[1]["content"]
    assert len(material) < MAX_MATERIAL + 500
    assert "characters left out" in material
    assert "messages left out" in material


def test_an_earlier_summary_is_updated_not_repeated() -> None:
    """The next prompt hands the old summary over by name; the old message goes."""
    first = compress(chat(), budget=BUDGET, complete=lambda _: "## Goal\nOLD-SUMMARY " * 12)
    longer = [*first.messages, *chat()[2:]]
    plan = prepare(load(longer), Budget(ratio=0.3))
    system, user = plan.prompt()
    assert "<previous_summary>" in user["content"]
    assert "OLD-SUMMARY" in user["content"].split("<material>")[0]
    assert "OLD-SUMMARY" not in user["content"].split("<material>")[1]
    assert "Update it" in system["content"]
    assert sum(each.digest for each in plan.accept("NEW").conversation.messages) == 1


def test_the_model_sees_what_the_user_said_in_between() -> None:
    """Goal and language are the user's: their words are shown, marked as staying."""
    messages = chat()
    messages.insert(6, {"role": "user", "content": "Bitte zuerst die Indizes. password = hunter2hunter2"})
    system, user = prepare(load(messages), BUDGET).prompt()
    assert "USER (stays word for word): Please make the import job faster." in user["content"]
    assert "USER (stays word for word): Bitte zuerst die Indizes." in user["content"]
    assert (
        user["content"].index("E1000")
        < user["content"].index("Bitte zuerst")
        < user["content"].index("E1040")
    )
    assert "hunter2" not in user["content"]
    assert "do not repeat them" in system["content"]


def test_a_conversation_without_a_user_gets_none() -> None:
    """The prompt does not speak of one, and a summary that invents one is rejected and quoted instead."""
    messages = [each for each in chat(12) if each["role"] != "user"]
    plan = prepare(load(messages), BUDGET)
    system, _ = plan.prompt()
    assert "No user takes part" in system["content"]
    assert "language of the material" in system["content"]
    for invented in ("## Goal\nThe user wants speed.", "Der Nutzer bat um E1000.", "用户要求修复 E1000。"):
        with pytest.raises(SummaryRejected, match="user that there was not"):
            plan.accept(invented)
        assert _both(lambda _, said=invented: said, messages).method == "extractive"  # type: ignore[misc]
    assert plan.accept("## Goal\nSpeed; E1000 was fixed.").method == "summary"


def test_the_end_mark_within_a_summary_does_not_end_it() -> None:
    """A model that repeats our labels does not cut its own summary short for the next compression."""
    first = compress(chat(), budget=BUDGET, complete=lambda _: "## Goal\nSpeed.\n[end]\nE1000 is open.")
    digest = next(each for each in first.conversation.messages if each.digest)
    assert digest.text.count("[end]") == 1
    plan = prepare(load([*first.messages, *chat()[2:]]), Budget(ratio=0.3))
    assert "E1000 is open." in plan.prompt()[1]["content"].split("<material>")[0]


def test_another_policy_keeps_every_message_where_a_digest_was_to_be() -> None:
    """fallback="keep": nothing is quoted when the model cannot help."""
    result = compress(chat(), budget=BUDGET, complete=lambda _: "", fallback="keep")
    assert result.kept
    assert "the model's summary was empty" in result.notice
