"""Bad input: each case a `UsageError` with a hint that names the place, never a traceback from a parser."""

from __future__ import annotations

import json
from typing import Any

import pytest
from transcripts import chat, codex, jsonl

from sidestream.errors import UsageError
from sidestream.tasks.compression import Budget, compress, load
from sidestream.tasks.compression.formats import base

BAD_FILES = {
    "empty": (b"", "empty"),
    "only spaces": (b" \n\t\n", "empty"),
    "empty array": (b"[]", "no messages"),
    "cut line": (jsonl(chat())[:-20], "line 19 is cut off"),
    "cut array": (json.dumps(chat(), indent=1).encode()[:-9], "cut off"),
    "cut rollout": (jsonl(codex())[:-30], "is cut off"),
    "not JSON": (b"hello there", "line 1 is not valid JSON"),
    "broken line": (b'{"role": "user", "content": "a"}\n{"role": user}\n', "line 2 is not valid JSON"),
    "two values on a line": (
        b'{"role":"user"} {"role":"user"}\n{"role":"user"}\n',
        "line 1 holds more than one",
    ),
    "a number": (b"42", "expected an object"),
    "numbers in a list": (b"[1, 2]", "element 1 is a int"),
    "text after the array": (b'[{"role": "user", "content": "a"}] x', "unexpected"),
    "missing comma": (b'[{"role": "user"} {"role": "user"}]', "unexpected"),
    "other objects": (b'{"id": 1, "title": "x"}\n{"id": 2, "title": "y"}\n', "the keys: id, title"),
    "unknown role": (b'[{"role": "robot", "content": "x"}]', "unknown role 'robot'"),
    "content of the wrong type": (b'[{"role": "user", "content": 7}]', "content is a int"),
    "tool role in items": (
        b'[{"type": "reasoning", "summary": []}, {"type": "message", "role": "tool", "content": "x"}]',
        "unknown role 'tool'",
    ),
    "rollout without payload": (
        b'{"type": "session_meta", "payload": {}}\n{"type": "response_item", "payload": 3}\n',
        "line 2 of the Codex rollout",
    ),
    "session without message": (
        b'{"type": "user", "uuid": "a", "parentUuid": null}\n',
        "line 1 of the Claude Code",
    ),
    "UTF-16": ("[]".encode("utf-16"), "UTF-16"),
    "binary": (b"\x7fELF\0\0\1", "binary"),
    "Latin-1": ('[{"role": "user",\n "content": "für"}]'.encode("latin-1"), "line 2 is not UTF-8"),
    "nested too deeply": (b"[" * 200_000 + b"]" * 200_000, "nested too deeply"),
    "nested too deeply on a line": (
        b'{"role":"user"}\n{"a":' + b"[" * 200_000,
        "line 2 is nested too deeply",
    ),
    "a number too long": (
        b'[{"role": "user", "content": "a", "n": ' + b"1" * 5000 + b"}]",
        "not usable JSON",
    ),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_a_bad_file_is_explained(name: str) -> None:
    """The message says what is wrong and where, the hint what to do."""
    data, expected = BAD_FILES[name]
    with pytest.raises(UsageError, match=expected) as caught:
        load(data)
    assert caught.value.hint
    assert caught.value.__cause__ is None


def test_files_and_lines_have_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file over the limit, or one endless line, is refused before it is parsed."""
    monkeypatch.setattr(base, "MAX_LINE", 100)
    with pytest.raises(UsageError, match="line 1 is over"):
        load(jsonl([{"role": "user", "content": "x" * 200}, {"role": "user", "content": "y"}]))
    monkeypatch.setattr(base, "MAX_FILE", 300)
    with pytest.raises(UsageError, match="the limit is 64 MiB"):
        load(jsonl(chat()))


@pytest.mark.parametrize(
    "make",
    [
        lambda: Budget(),
        lambda: Budget(ratio=0.2, tokens=5),
        lambda: Budget(ratio=0),
        lambda: Budget(ratio=1.5),
        lambda: Budget(ratio=float("nan")),
        lambda: Budget(tokens=-1),
        lambda: Budget(chars=0),
        lambda: Budget(tokens=1.5),  # type: ignore[arg-type]
        lambda: Budget(chars=True),
        lambda: compress(chat(), budget=0.2),  # type: ignore[arg-type]
        lambda: compress(chat(), budget=0),
        lambda: compress(chat(), budget=True),
        lambda: compress("text", budget=8000),  # type: ignore[arg-type]
        lambda: compress(["text"], budget=8000),  # type: ignore[list-item]
        lambda: compress([], budget=8000),
    ],
)
def test_bad_arguments_are_explained(make: Any) -> None:
    """A budget is one positive measure; a transcript is messages or bytes."""
    with pytest.raises(UsageError) as caught:
        make()
    assert caught.value.hint


def test_an_integer_budget_means_tokens() -> None:
    """As everywhere in the API; they are estimates at the conversation's own rate."""
    result = compress(chat(), budget=300)
    assert result.tokens_after <= 310
    assert result.budget_chars == Budget(tokens=300).characters(load(chat()))


def test_chinese_gets_no_more_tokens_than_english() -> None:
    """A CJK character is about a token, so a token budget holds fewer of them."""
    text = "我们决定修改配置文件因为任务失败了。" * 40
    conversation = load([{"role": "user", "content": "好"}, {"role": "assistant", "content": text}])
    assert conversation.tokens == conversation.chars
    assert Budget(tokens=100).characters(conversation) == 100
