"""What the compression tests share: conversations, how facts are scored, and builders of transcripts."""

from __future__ import annotations

import itertools
import json
import os
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from sidestream.tasks.compression import Budget, Compaction, compress, load
from sidestream.tasks.compression.facts import Fact, kept, read_facts

SAMPLES = files("sidestream.tasks.compression") / "samples"
CONVERSATIONS = Path(__file__).parent / "conversations"
SHARED = os.environ.get("SIDESTREAM_SHARED_DATA", "")


@dataclass(frozen=True)
class Case:
    """A conversation with facts that should survive."""

    name: str
    messages: list[dict[str, Any]]
    facts: list[Fact]

    @classmethod
    def read(cls, data: bytes, facts: bytes = b"") -> Case:
        value = json.loads(data)
        return cls(value["name"], value["messages"], read_facts(facts or data))


def case(name: str) -> Case:
    """A conversation by file name; the packaged sample is one too."""
    if name == "agent-session":
        return Case.read(sample_bytes(), (SAMPLES / "agent-session.facts.json").read_bytes())
    return Case.read((CONVERSATIONS / f"{name}.json").read_bytes())


def sample_bytes() -> bytes:
    return (SAMPLES / "agent-session.json").read_bytes()


def shared_cases() -> list[Case]:
    """Conversations that are not part of this repository, when their folder is named."""
    folder = Path(SHARED)
    return [Case.read(path.read_bytes()) for path in sorted(folder.glob("*.json"))] if SHARED else []


def facts_in(text: str, facts: list[Fact]) -> int:
    """How many facts the text still tells."""
    return len(kept(facts, text))


def strict(given: Case) -> Compaction:
    """Compressed so that the whole result, user messages included, is a fifth of the source."""
    return compress(given.messages, budget=Budget(ratio=0.2))


def digest_only(given: Case) -> Compaction:
    """Compressed so that what is not the user's or the system's is a fifth of the source."""
    source = load(given.messages)
    fixed = sum(message.chars for message in source.messages if message.role in ("user", "system"))
    return compress(given.messages, budget=Budget(chars=fixed + source.chars // 5))


def digest_of(result: Compaction) -> str:
    return next((message.text for message in result.conversation.messages if message.digest), "")


def user_texts(result: Compaction | Any) -> list[str]:
    conversation = getattr(result, "conversation", result)
    return [each.text for each in conversation.messages if each.role == "user" and not each.digest]


def chat(turns: int = 8) -> list[dict[str, Any]]:
    """A chat with real tool calls, long enough to be worth compressing."""
    messages: list[dict[str, Any]] = [
        {"role": "system", "content": "You are a careful agent."},
        {"role": "user", "content": "Please make the import job faster. Never touch prod."},
    ]
    for turn in range(turns):
        call = {
            "id": f"call_{turn}",
            "type": "function",
            "function": {"name": "shell", "arguments": json.dumps({"command": f"run step_{turn}.sh"})},
        }
        said = f"Step {turn}: I decided to change jobs/part_{turn}.py because E10{turn}0 was raised."
        messages += [
            {"role": "assistant", "content": said, "tool_calls": [call]},
            {
                "role": "tool",
                "tool_call_id": f"call_{turn}",
                "content": f"ERROR E10{turn}0 in part_{turn}\n" + "row ok\n" * 40,
            },
        ]
    return [*messages, {"role": "user", "content": "What is left?"}]


def responses(turns: int = 8) -> list[dict[str, Any]]:
    """The same as Responses items, reasoning included."""
    items: list[dict[str, Any]] = [
        {"type": "message", "role": "developer", "content": [{"type": "input_text", "text": "Be brief."}]},
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Speed up the job."}]},
    ]
    for turn in range(turns):
        items += [
            {"type": "reasoning", "id": f"rs_{turn}", "summary": [], "encrypted_content": "gAAA"},
            {
                "type": "function_call",
                "call_id": f"c{turn}",
                "name": "shell",
                "arguments": f'{{"cmd":"step_{turn}"}}',
            },
            {
                "type": "function_call_output",
                "call_id": f"c{turn}",
                "output": f"ERROR E10{turn}0\n" + "row ok\n" * 40,
            },
            {
                "type": "message",
                "role": "assistant",
                "content": [
                    {"type": "output_text", "text": f"I decided to fix part_{turn}.py because of E10{turn}0."}
                ],
            },
        ]
    return [
        *items,
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "And now?"}]},
    ]


def codex(turns: int = 8) -> list[dict[str, Any]]:
    """The same as the lines of a Codex rollout."""
    lines = [{"type": "session_meta", "payload": {"id": "5f", "cwd": "/w", "cli_version": "1.2.0"}}]
    lines += [{"type": "turn_context", "payload": {"model": "m", "cwd": "/w"}}]
    for each in responses(turns):
        lines.append({"type": "response_item", "payload": each})
        if each.get("role") == "user":
            text = each["content"][0]["text"]
            lines.append({"type": "event_msg", "payload": {"type": "user_message", "message": text}})
        elif each.get("type") == "function_call_output":
            lines.append({"type": "event_msg", "payload": {"type": "token_count", "info": None}})
    return [{"timestamp": f"2027-01-01T00:00:{at % 60:02d}.000Z", **line} for at, line in enumerate(lines)]


def claude(turns: int = 8) -> list[dict[str, Any]]:
    """The same as a Claude Code session: one block a line, linked by parent."""
    lines: list[dict[str, Any]] = []

    def add(kind: str, content: Any, **more: Any) -> None:
        parent = lines[-1]["uuid"] if lines else None
        message = {"role": kind, "content": content}
        if kind == "assistant":
            message["id"] = f"msg_{more.pop('turn')}"
        at = len(lines)
        common = {"parentUuid": parent, "isSidechain": False, "sessionId": "s1", "version": "2.0.1"}
        lines.append(
            {**common, "type": kind, "message": message, "uuid": f"u-{at}", "timestamp": f"t{at}", **more}
        )

    add("user", "Speed up the job. Never touch prod.")
    for turn in range(turns):
        call = {
            "type": "tool_use",
            "id": f"toolu_{turn}",
            "name": "Bash",
            "input": {"command": f"step_{turn}"},
        }
        result = {
            "type": "tool_result",
            "tool_use_id": f"toolu_{turn}",
            "content": f"ERROR E10{turn}0\n" + "row ok\n" * 40,
        }
        add(
            "assistant",
            [{"type": "text", "text": f"I decided to fix part_{turn}.py because of E10{turn}0."}],
            turn=turn,
        )
        add("assistant", [call], turn=turn)
        add("user", [result], toolUseResult={"stdout": "row ok"})
    add("user", "What is left?")
    return [{"type": "summary", "summary": "Import job", "leafUuid": "u-3"}, *lines]


def jsonl(objects: list[dict[str, Any]]) -> bytes:
    return b"".join(json.dumps(each, ensure_ascii=False).encode() + b"\n" for each in objects)


def orphans(result: Any) -> set[str]:
    """Call ids without a result, and the other way round."""
    conversation = getattr(result, "conversation", result)
    parts = [part for message in conversation.messages for part in message.parts if part.id]
    calls = {part.id for part in parts if part.kind == "call"}
    return calls ^ {part.id for part in parts if part.kind == "result"}


def alternates(messages: list[Any]) -> bool:
    """Whether no two neighbours of one role stand side by side (tools' results between them aside)."""
    spoken = [each for each in messages if each["role"] != "system"]
    return not any(
        one["role"] == two["role"] and one["role"] in ("user", "assistant")
        for one, two in itertools.pairwise(spoken)
    )


def blocks(turns: int = 8) -> list[dict[str, Any]]:
    """The chat with Anthropic's blocks: strictly alternating, calls and results as blocks."""
    messages: list[dict[str, Any]] = [{"role": "user", "content": "Speed up the job. Never touch prod."}]
    for turn in range(turns):
        said = f"Step {turn}: I decided to change jobs/part_{turn}.py because E10{turn}0 was raised."
        call = {"type": "tool_use", "id": f"t{turn}", "name": "shell", "input": {"command": f"run {turn}"}}
        result = {
            "type": "tool_result",
            "tool_use_id": f"t{turn}",
            "content": f"ERROR E10{turn}0\n" + "row ok\n" * 40,
        }
        messages += [
            {"role": "assistant", "content": [{"type": "text", "text": said}, call]},
            {"role": "user", "content": [result]},
        ]
    return [
        *messages,
        {"role": "assistant", "content": "Done."},
        {"role": "user", "content": "What is left?"},
    ]
