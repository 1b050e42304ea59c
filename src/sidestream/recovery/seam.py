"""Where a continued answer joins the part that arrived: exactly, or not at all. Pure.

Strategy: the caller has `given`. A continuation is asked for in one of two ways, and each has its seam, which
is fed the new text and passes on what belongs after `given`:

- prefill: the request ends with `sent`, which is `given` but for the white space at its end, and the new text
  is what follows. It has to begin with that rest (after repeating `sent`, where the endpoint does that). A
  new text that begins as `given` does is no rest: that endpoint took the prefill for history.
- anchor: a user turn asks to repeat the last words first. They are looked for in the beginning of the new
  text, everything up to their end is cut, and what follows is the rest. No anchor, no splice. Before it may
  stand more of what was told already, or a line of talk; nothing that opens a quotation, a tag or a fence,
  which would be closed somewhere in the rest.

Nothing is guessed: an anchor has to occur once in what arrived, what cannot be told apart (the anchor twice,
in quotes, after a long detour) fails the seam, and the ladder goes on to its next rung. White space at the
end of `given` is no anchor: models change it. It is compared afterwards, and what was delivered stands.
What is undecided is looked at character by character, so that no chunking changes the outcome.
"""

from __future__ import annotations

import unicodedata
from typing import Literal

from msgspec import Struct

__all__ = ["Anchor", "AnchorSeam", "PrefillSeam", "Seam", "find_anchor", "whole_words", "without_end"]

# An anchor has about this many characters; more while it occurs twice.
_LENGTHS = (28, 56, 112, 240)
_SHORTEST = 12
# The last word of a held partial may be half a word and is left out, unless it is longer than this.
_HALF_WORD = 24
# So much may come before the anchor ("Sure, here is the rest: ").
PREAMBLE = 400
# So much is looked at behind the anchor before it counts, if so much comes.
_BEHIND = 4
# A new text that says so much of the beginning again is no continuation.
_ANEW = 28
_TAG = "</last_words"  # what closes the quotation in the request
_FENCES = ("```", "~~~")
_OPENERS = "\"'`*_~<>([{\u201c\u2018\u201a\u2039«„「『"
_JOINERS = "\u200c\u200d"
_VIRAMA = 9  # its combining class: joins two consonants
# Halves of surrogate pairs, vowels and finals of Korean syllables, tags of flags, skin tones.
_EXTENDERS = (
    ("\udc00", "\udfff"),
    ("\u1160", "\u11ff"),
    ("\ud7b0", "\ud7ff"),
    ("\U000e0020", "\U000e007f"),
    ("\U0001f3fb", "\U0001f3ff"),
)


class Anchor(Struct, frozen=True):
    """The last words of a partial: `text`, and the white space `after` them."""

    text: str
    after: str


def find_anchor(given: str) -> Anchor | str:
    """The anchor of a partial, or the reason why it has none."""
    body = without_end(given)
    if len(body.lstrip()) < _SHORTEST:
        return "too little has arrived to quote"
    for length in _LENGTHS:
        text = body[_start_of_word(body, max(0, len(body) - length)) :]
        if len(text) >= _SHORTEST and body.find(text) == len(body) - len(text):
            return Anchor(text, given[len(body) :])
    return "what arrived repeats itself: no last words stand out"


def without_end(given: str) -> str:
    """A partial without the white space at its end, which no endpoint takes back well."""
    return _without_half_characters(given).rstrip()


def whole_words(given: str) -> str:
    """A partial up to its last whole word: where a model goes on most naturally."""
    body = _without_half_characters(given)
    if body == body.rstrip() and (space := _last_space(body)) >= max(0, len(body) - _HALF_WORD):
        body = body[:space]
    return body.rstrip()


def _without_half_characters(text: str) -> str:
    """Without a surrogate at the end that waits for its other half."""
    return text[:-1] if "\ud800" <= text[-1:] <= "\udbff" else text


def _last_space(text: str) -> int:
    return next((at for at in range(len(text) - 1, -1, -1) if text[at].isspace()), -1)


def _start_of_word(text: str, start: int) -> int:
    """The next start of a word, if near; never inside a character made of several code points."""
    near = next((at + 1 for at in range(start, min(start + 8, len(text))) if text[at].isspace()), start)
    start = near if start else 0
    while text[start].isspace():
        start += 1
    while start > 0 and _continues_character(text, start):
        start -= 1
    return start


def _continues_character(text: str, at: int) -> bool:
    here, before = text[at], text[at - 1]
    return (
        unicodedata.category(here)[0] == "M"
        or here in _JOINERS
        or before == "\u200d"
        or unicodedata.combining(before) == _VIRAMA
        or any(first <= here <= last for first, last in _EXTENDERS)
        or ("\U0001f1e6" <= here <= "\U0001f1ff" and "\U0001f1e6" <= before <= "\U0001f1ff")
    )


_GOES_ON = ",;:-\u2013\u2014/\\([{<=+&"


class Seam:
    """Joins a new text to what the caller has.

    Attributes:
        state: "open" until it is decided.
        reason: why it failed.
        cut: where in the new text, counted from its start, the part that was kept begins.
        goes_on: a continuation that adds nothing is no end: the text stops where no text ends.
    """

    def __init__(self) -> None:
        self.state: Literal["open", "joined", "failed"] = "open"
        self.reason = ""
        self.cut = 0
        self.goes_on = False
        self._raw = ""  # the part of the new text that is still looked at: bounded
        self._before = 0  # how much of it came before that

    def feed(self, text: str) -> str:
        """Take the next piece of the new text, return what joins now: "" as long as that is undecided."""
        at = 0
        while self.state == "open" and at < len(text):
            piece = text[at : at + self._stride()]
            at += len(piece)
            self._take(piece)
            if self.state == "open":
                self._look(ended=False)
        return self._kept() + (text[at:] if self.state == "joined" else "")

    def end(self) -> str:
        """The new text is over: what joins, if it does."""
        if self.state != "open":
            return ""
        self._look(ended=True)
        if self.state == "open":
            self._fail("the continuation ended before it joined")
        return self._kept()

    def _stride(self) -> int:
        """How much may be taken in one go: more than a character only of what is compared, not looked at."""
        return 1

    def _take(self, text: str) -> None:
        self._raw += text

    def _look(self, *, ended: bool) -> None:
        raise NotImplementedError

    def _kept(self) -> str:
        """What is left of the text that was looked at, once."""
        if self.state != "joined":
            return ""
        kept, self._raw = self._raw[self.cut - self._before :], ""
        self._before = self.cut
        return kept

    def _join(self, at: int) -> None:
        self.state, self.cut = "joined", self._before + at

    def _fail(self, reason: str) -> None:
        self.state, self.reason, self._raw = "failed", reason, ""

    def _skip(self, told: str, text: str) -> str | None:
        """What of `text` is left when it goes on repeating `told`; None if it does not."""
        part = text[: len(told) - self._before]
        if not told.startswith(part, self._before):
            return None
        self._before += len(part)
        return text[len(part) :]


class PrefillSeam(Seam):
    """After a prefill of `sent`; the caller has `given`, which begins with it."""

    def __init__(self, given: str, sent: str, *, echoed: bool) -> None:
        super().__init__()
        self._rest = given[len(sent) :]
        self._echo = sent if echoed else ""
        self._beginning = "" if echoed else sent.lstrip()[:_ANEW]

    def _stride(self) -> int:
        return max(1, len(self._echo) - self._before)

    def _take(self, text: str) -> None:
        rest: str | None = text
        if self._before < len(self._echo):
            rest = self._skip(self._echo, text)
        if rest is None:
            self._fail("the endpoint should repeat the prefilled text and does not")
        else:
            self._raw += rest

    def _look(self, *, ended: bool) -> None:
        late = ended or len(self._raw) > PREAMBLE
        if self._before < len(self._echo) or self._begins_anew(late=late):
            return
        if not self._rest or self._rest.isspace():
            cut = after_space(self._raw, 0, self._rest, ended=late)
            if cut is not None:
                self._join(cut)
        elif self._raw.startswith(self._rest):
            self._join(len(self._rest))
        elif not self._rest.startswith(self._raw):
            self._fail("the continuation goes on differently from what was delivered")

    def _begins_anew(self, *, late: bool) -> bool:
        """Whether the new text begins as the answer did, or still might."""
        new = self._raw.lstrip()
        if self._beginning and new.startswith(self._beginning):
            self._fail("the endpoint did not go on: the new text begins as the answer did")
            return True
        return bool(self._beginning) and not late and self._beginning.startswith(new)


class AnchorSeam(Seam):
    """After a request to repeat `anchor` first; the caller has `given`, which ends with it."""

    def __init__(self, given: str, anchor: Anchor) -> None:
        super().__init__()
        self._anchor = anchor
        self._told = given[: len(given) - len(anchor.after)]
        self.goes_on = not is_finished(given)
        self._retells = False  # the new text is the old one from its start, and longer than a preamble
        self._found = (-1, -1)  # where the anchor is in `_raw`
        self._talk = ""  # what stands before it and was not told there

    def _stride(self) -> int:
        return max(1, len(self._told) - self._before) if self._retells else 1

    def _take(self, text: str) -> None:
        rest: str | None = text
        if self._retells and self._found[1] < 0:
            rest = self._skip(self._told, text)
        if rest is None:
            self._fail("the continuation began anew, and differently")
            return
        self._raw += rest
        if self._retells and self._before == len(self._told):
            self._found = (0, 0)

    def _look(self, *, ended: bool) -> None:
        if self._found[1] < 0 and not self._find(ended=ended):
            return
        end = self._found[1]
        late = ended or len(self._raw) - end > PREAMBLE
        trouble = self._doubtful(late=late)
        if trouble:
            self._fail(trouble)
        elif trouble is not None:
            cut = after_space(self._raw, end, self._anchor.after, ended=late)
            if cut is not None:
                self._join(cut)

    def _find(self, *, ended: bool) -> bool:
        if self._retells:
            return False
        wanted = self._anchor.text
        at = self._raw.find(wanted, 0, PREAMBLE + len(wanted))
        if at >= 0:
            self._place(at, at + len(wanted))
        elif self._told.startswith(self._raw) and not ended:
            self._retell()
        elif ended or len(self._raw) > PREAMBLE + 2 * len(wanted):
            start, end = find_alike(self._raw, wanted)
            if not 0 <= start <= PREAMBLE:
                self._fail("the continuation did not repeat the last words")
            else:
                self._place(start, end)
        return self.state == "open" and self._found[1] >= 0

    def _place(self, start: int, end: int) -> None:
        at = len(self._told) - len(self._anchor.text)
        self._found = (start, end)
        self._talk = talk(self._raw[:start], self._told[max(0, at - 2 * PREAMBLE) : at])
        if self._talk and not is_introduction(self._talk):
            self._fail("the last words came in the middle of something else")

    def _retell(self) -> None:
        """So far the new text says the old one again. Beyond a preamble, it is compared and not kept."""
        if len(self._raw) > PREAMBLE:
            text, self._raw, self._retells = self._raw, "", True
            self._take(text)

    def _doubtful(self, *, late: bool) -> str | None:
        """Why what is behind the anchor cannot be trusted: "" if it can, None if more is needed to tell."""
        anchor = self._anchor.text
        bare = self._raw[self._found[1] :].lstrip()
        if bare.startswith(anchor) or (self._talk and anchor in bare):
            return "the last words came twice"
        if bare.startswith(_TAG):
            return "the last words came in tags"
        undecided = len(bare) < _BEHIND or anchor.startswith(bare) or _TAG.startswith(bare)
        return None if not late and (undecided or self._talk) else ""


def talk(before: str, told: str) -> str:
    """What stands `before` the anchor, without the end that it has in common with what was `told` there.

    A few characters in common that may just as well open a quotation, or end a line of talk, are no such end.
    """
    new, places = _alike(before.rstrip())
    old, _ = _alike(told.rstrip())
    pairs = enumerate(zip(reversed(new), reversed(old), strict=False))
    same = next((number for number, (one, other) in pairs if one != other), min(len(new), len(old)))
    if same and new[-same] == " ":
        same -= 1
    few = same < _SHORTEST and (new[-1:] in _OPENERS or is_introduction(before))
    common = same and not few
    return (before[: places[-same]] if common else before).lstrip()


def is_introduction(text: str) -> bool:
    """Whether this is talk that leads to an answer, and opens nothing that would have to be closed."""
    bare = text.rstrip()
    fences = sum(line.lstrip().startswith(_FENCES) for line in bare.splitlines())
    ends_line = bare.endswith((".", "!", "…")) and "\n" in text[len(bare) :]
    return fences % 2 == 0 and (bare.endswith(":") or ends_line)


def is_finished(text: str) -> bool:
    """Whether a text may end here: not in the middle of a word, a list or a bracket."""
    last = text.rstrip()[-1:]
    return bool(last) and not last.isalnum() and last not in _GOES_ON


def after_space(raw: str, at: int, delivered: str, *, ended: bool) -> int | None:
    """Where to go on in `raw` from `at`, if white space was `delivered` already: None if more is needed.

    The same white space is cut. Other white space gives way to what was delivered, unless it brings the
    line break that is missing there.
    """
    if raw.startswith(delivered, at):
        return at + len(delivered)
    new = raw[at:]
    if not ended and (not new or delivered.startswith(new)):
        return None
    text = new.lstrip()
    if not text and not ended:
        return None
    space = new[: len(new) - len(text)]
    return at if "\n" in space and "\n" not in delivered else at + len(space)


_ALIKE = str.maketrans("\u2019\u2018\u201c\u201d\u2011…", "''\"\"-.")


def find_alike(raw: str, anchor: str) -> tuple[int, int]:
    """Start and end in `raw` of what reads like the anchor: other white space, other quotation marks.

    (-1, -1) if there is none, or more than one.
    """
    wanted, _ = _alike(anchor)
    text, places = _alike(raw)
    at = text.find(wanted)
    if at < 0 or text.find(wanted, at + 1) >= 0:
        return -1, -1
    return places[at], places[at + len(wanted) - 1] + 1


def _alike(text: str) -> tuple[str, list[int]]:
    """The text with single blanks and plain quotation marks, and where each of its characters came from."""
    out: list[str] = []
    places: list[int] = []
    for at, character in enumerate(text.translate(_ALIKE)):
        blank = character.isspace()
        if not (blank and out and out[-1] == " "):
            out.append(" " if blank else character)
            places.append(at)
    return "".join(out), places
