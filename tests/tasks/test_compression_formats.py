"""Reading and writing: told apart by content, written back as read, links and pairs intact."""

from __future__ import annotations

import json
from typing import Any

import pytest
from transcripts import chat, claude, codex, jsonl, responses, sample_bytes

from sidestream.tasks.compression import Budget, compress, load
from sidestream.tasks.compression.formats import FORMATS

FILES = {
    "chat array": (json.dumps(chat()).encode(), "chat messages"),
    "chat pretty": (json.dumps(chat(), indent=2).encode(), "chat messages"),
    "chat lines": (jsonl(chat()), "chat messages"),
    "chat lines of Windows": (jsonl(chat()).replace(b"\n", b"\r\n"), "chat messages"),
    "chat request": (
        json.dumps({"model": "m", "messages": chat(), "n": 1}, indent=1).encode(),
        "chat messages",
    ),
    "one message": (b'{"role": "user", "content": "hi"}\n', "chat messages"),
    "responses array": (json.dumps(responses()).encode(), "Responses items"),
    "responses lines": (jsonl(responses()), "Responses items"),
    "responses request": (json.dumps({"model": "m", "input": responses()}).encode(), "Responses items"),
    "codex": (jsonl(codex()), "Codex rollout"),
    "codex without last newline": (jsonl(codex()).rstrip(), "Codex rollout"),
    "claude": (jsonl(claude()), "Claude Code"),
    "with a byte order mark": (b"\xef\xbb\xbf" + json.dumps(chat()).encode(), "chat messages"),
    "with a lone surrogate": (b'[{"role": "user", "content": "cut \\ud83d"}]', "chat messages"),
}


@pytest.mark.parametrize("name", FILES)
def test_a_file_is_recognised_and_written_back_byte_for_byte(name: str) -> None:
    """Reading and writing without compressing changes nothing."""
    data, expected = FILES[name]
    conversation = load(data)
    assert conversation.format.name == expected
    assert conversation.to_bytes() == data


def test_formats_are_told_apart() -> None:
    """The first format that recognises a transcript is its own."""
    for objects, name in (
        (chat(), "chat messages"),
        (responses(), "Responses items"),
        (codex(), "Codex rollout"),
    ):
        assert next(each.name for each in FORMATS if each.recognises(objects)) == name


def test_each_format_reads_and_writes_by_itself() -> None:
    """A caller who knows the format need not have it detected."""
    for data, name in FILES.values():
        own = next(each for each in FORMATS if each.name == name)
        assert own.write(own.read(data)) == data


def test_the_packaged_sample_can_be_compressed_as_a_file() -> None:
    """The demo needs no other file; what stands around the messages stays."""
    result = compress(sample_bytes(), budget=Budget(ratio=0.2))
    value = json.loads(result.to_bytes())
    assert result.method == "extractive"
    assert value["name"]
    assert len(value["messages"]) == result.messages_after


def test_message_dicts_come_back_as_the_same_dicts() -> None:
    """A list in memory gives a list in memory, untouched messages being the very objects."""
    messages = chat()
    result = compress(messages, budget=Budget(ratio=0.4))
    assert result.messages[0] is messages[0]
    assert all(isinstance(each, dict) for each in result.messages)


def test_claude_code_parents_form_one_chain_after_compression() -> None:
    """Every parent exists and stands before its child; there is one root; titles point to something."""
    result = compress(jsonl(claude()), budget=Budget(ratio=0.4))
    seen: list[str] = []
    for line in (each for each in result.messages if "uuid" in each):
        assert line["parentUuid"] == (seen[-1] if seen else None)
        seen.append(line["uuid"])
    assert result.messages[0]["leafUuid"] in seen
    assert len(set(seen)) == len(seen)


def test_claude_code_lines_of_one_message_stay_together() -> None:
    """Text and call of one wire message are two lines; they stay or go as one."""
    for percent in range(5, 100, 5):
        result = compress(jsonl(claude()), budget=Budget(ratio=percent / 100))
        ids = [each["message"].get("id") for each in result.messages if each.get("type") == "assistant"]
        assert all(ids.count(each) == 2 for each in ids)


def test_a_users_words_inside_a_tool_result_line_survive() -> None:
    """A user may answer in the same message that carries a tool's result."""
    lines = claude()
    answer = next(
        each
        for each in lines
        if isinstance(each.get("message", {}).get("content"), list) and each["type"] == "user"
    )
    answer["message"]["content"].append({"type": "text", "text": "Stop, use the replica instead!"})
    result = compress(jsonl(lines), budget=Budget(ratio=0.1))
    assert "Stop, use the replica instead!" in result.conversation.text


def test_what_was_compacted_before_is_archive() -> None:
    """Lines above a compact boundary are out of the model's context: kept as they are, not counted."""
    lines = claude()
    boundary = {
        "type": "system",
        "subtype": "compact_boundary",
        "uuid": "b",
        "parentUuid": None,
        "content": "x",
    }
    result = compress(jsonl([*lines[:6], boundary, *lines[6:]]), budget=Budget(ratio=0.3))
    assert [dict(each) for each in result.messages[:6]] == lines[:6]
    assert load(jsonl([*lines[:6], boundary])).chars == 0


def test_codex_keeps_its_header_context_and_the_users_events() -> None:
    """A rollout can be resumed: session_meta, newest turn_context and each user_message event are there."""
    result = compress(jsonl(codex()), budget=Budget(ratio=0.3))
    kinds = [each["type"] for each in result.messages]
    events = [each["payload"]["type"] for each in result.messages if each["type"] == "event_msg"]
    assert kinds[:2] == ["session_meta", "turn_context"]
    assert events.count("user_message") == 2


def test_responses_output_never_holds_a_tool_role_and_keeps_reasoning_with_its_call() -> None:
    """No such item exists on that wire, and reasoning alone is refused by it."""
    result = compress(jsonl(responses()), budget=Budget(ratio=0.5))
    items = result.messages
    assert all(each.get("role") != "tool" for each in items)
    for at, each in enumerate(items):
        if each["type"] == "reasoning":
            assert items[at + 1]["type"] == "function_call"


def test_unreadable_memory_items_stay() -> None:
    """A compaction item is the model's memory, though nobody else can read it."""
    memory: dict[str, Any] = {"type": "compaction", "id": "cmp_1", "encrypted_content": "gAAA"}
    result = compress(jsonl([*responses()[:10], memory, *responses()[10:]]), budget=Budget(ratio=0.2))
    assert memory in result.messages


def test_anthropic_messages_are_read_as_chat() -> None:
    """Blocks with tool_use and tool_result group like tool calls."""
    messages: list[dict[str, Any]] = [{"role": "user", "content": "Go."}]
    for turn in range(6):
        use = {"type": "tool_use", "id": f"t{turn}", "name": "sh", "input": {"cmd": "make"}}
        answer = {
            "type": "tool_result",
            "tool_use_id": f"t{turn}",
            "content": [{"type": "text", "text": "ok\n" * 90}],
        }
        messages += [{"role": "assistant", "content": [use]}, {"role": "user", "content": [answer]}]
    result = compress(messages, budget=Budget(ratio=0.3))
    assert result.messages[-1]["content"][0]["tool_use_id"] == "t5"
    assert result.messages[-2] is messages[-2]
