"""A seam joins exactly or not at all: what it quotes, what it takes for the rest, and what it refuses.

The texts and the models that go on with them are in seams.py. `every_chunking` feeds what they say whole, by
character and in between, which must not make a difference.
"""

import random
from collections.abc import Callable, Iterator
from typing import Any, SupportsIndex

import pytest
from hypothesis import given
from hypothesis import strategies as st
from seams import COINCIDENCES, CUTS, GOES_ON, MODELS, TEXTS, Asked, asked

from sidestream.recovery.seam import (
    PREAMBLE,
    Anchor,
    AnchorSeam,
    PrefillSeam,
    Seam,
    after_space,
    find_alike,
    find_anchor,
    whole_words,
    without_end,
)

# More than a seam ever needs to look at: the longest preamble, and the longest anchor once more and a half.
BUFFER = 1500

STORY = "".join(
    f"On day {day} the keeper of the light wrote {day * 7919 % 1000} words.\n" for day in range(40)
)
LINE = "The lamp was lit at dusk, and the wind came from the west."


# What is quoted.


@pytest.mark.parametrize(
    ("given", "text", "after"),
    [
        (LINE, "wind came from the west.", ""),
        (LINE + " \n\n", "wind came from the west.", " \n\n"),
        ("Only twelve ch", "Only twelve ch", ""),
        ("    indented text", "indented text", ""),
        (f"{LINE} {LINE[:20]}", "west. The lamp was lit at", " "),
        ("x" * 40 + "y", "x" * 27 + "y", ""),
    ],
    ids=["words", "white space after", "all of it", "white space before", "word by word", "one long word"],
)
def test_last_words_are_whole_words_and_the_white_space_after_them(given: str, text: str, after: str) -> None:
    """The anchor is about thirty characters from the start of a word to the last character that is seen."""
    assert find_anchor(given) == Anchor(text, after)


@pytest.mark.parametrize(
    "given", ["", "   ", "Hello world", "Hello world" + " " * 50, " " * 50 + "Hello world"]
)
def test_too_little_is_not_quoted(given: str) -> None:
    """Fewer than twelve characters could be anywhere."""
    assert find_anchor(given) == "too little has arrived to quote"


@pytest.mark.parametrize(
    ("repeats", "most"), [(20, 28), (50, 56), (100, 112), (230, 240), (300, 0)], ids=lambda n: str(n)
)
def test_last_words_grow_until_they_stand_out(repeats: int, most: int) -> None:
    """Words that occurred before are quoted with more before them, within a limit; beyond it, none."""
    end = ("word " * 60)[-repeats:].strip()
    given = f"{'word ' * 60}. Then: {end}"
    found = find_anchor(given)
    if not most:
        assert found == "what arrived repeats itself: no last words stand out"
        return
    assert isinstance(found, Anchor)
    assert len(found.text) <= most
    assert given.count(found.text) == 1
    assert given.endswith(found.text)


@pytest.mark.parametrize("given", ["ha " * 100, "=" * 500, "a\n" * 300, "na" * 200])
def test_what_only_repeats_itself_has_no_last_words(given: str) -> None:
    """Where nothing stands out, nothing is quoted."""
    assert find_anchor(given) == "what arrived repeats itself: no last words stand out"


CLUSTERS = {
    "family": "👨‍👩‍👧‍👦",
    "profession": "👩🏽‍🚀",
    "flag": "🇩🇰",
    "flag of tags": "🏴󠁧󠁢󠁳󠁣󠁴󠁿",
    "skin tone": "👋🏿",
    "keycap": "1️⃣",
    "combining": "e\u0301\u0323",
    "devanagari": "क्षि",
    "tamil": "ஸ்ரீ",
    "thai": "กี่",
    "jamo": "\u1112\u1161\u11ab",
    "persian": "ی\u200c",
    "surrogates": "\ud83d\ude42",
}


@pytest.mark.parametrize("name", CLUSTERS)
def test_last_words_never_start_inside_a_character(name: str) -> None:
    """Wherever the count of characters falls, the anchor starts where a reader sees a character start."""
    cluster = CLUSTERS[name]
    for pad in range(2 * len(cluster)):
        given = f"start {cluster * 12}{'abcdefghijklmnopqrstuvwxyz'[:pad]}"
        found = find_anchor(given)
        assert isinstance(found, Anchor)
        head = given[: -len(found.text)].removeprefix("start ")
        whole = head in ("", "start") if name == "flag" else head == cluster * (len(head) // len(cluster))
        assert whole, (pad, head)


@given(st.text(st.sampled_from("ab \n\t👨\u200d👩e\u0301🇩🇰\ud83d"), max_size=120))
def test_last_words_occur_once_at_the_end(text: str) -> None:
    """Whatever arrived: its anchor is its end, occurs nowhere before, and neither starts nor ends blank."""
    found = find_anchor(text)
    if isinstance(found, Anchor):
        body = text[: len(text) - len(found.after)]
        assert body.endswith(found.text)
        assert body.find(found.text) == len(body) - len(found.text)
        assert not found.text[0].isspace() or found.text[1] in "\u200d\u0301"
        assert found.after.rstrip("\ud83d").strip() == ""


@pytest.mark.parametrize(
    ("text", "whole", "end"),
    [
        ("one two thr", "one two", "one two thr"),
        ("one two ", "one two", "one two"),
        ("one two\n\n  ", "one two", "one two"),
        ("one\ttw", "one", "one\ttw"),
        ("word", "word", "word"),
        ("one " + "x" * 23, "one", "one " + "x" * 23),
        ("one " + "x" * 24, "one " + "x" * 24, "one " + "x" * 24),
        ("\n\nwor", "", "\n\nwor"),
        ("你好世界", "你好世界", "你好世界"),
        ("one two\ud83d", "one", "one two"),
        ("", "", ""),
    ],
)
def test_what_is_sent_of_a_partial(text: str, whole: str, end: str) -> None:
    """A held partial is sent up to its last whole word, a live one up to its last character that is seen."""
    assert (whole_words(text), without_end(text)) == (whole, end)


# White space.


@pytest.mark.parametrize(
    ("raw", "delivered", "ended", "cut"),
    [
        ("text", "", False, 0),
        (" text", "", False, 0),
        ("", "", False, 0),
        ("\ntext", "\n", False, 1),
        ("\n\ntext", "\n", False, 1),
        ("text", " ", False, 0),
        ("text", "\n\n", False, 0),
        (" text", "\n", False, 1),
        ("\n text", "\n\n", False, 2),
        ("\n\ntext", " ", False, 0),
        (" \n  text", "  ", False, 0),
        ("\r\ntext", "\n", False, 2),
        ("\ttext", "    ", False, 1),
        ("", " ", False, None),
        ("\n", "\n\n", False, None),
        (" ", "\n", False, None),
        ("", " ", True, 0),
        ("\n", "\n\n", True, 1),
        (" ", "\n", True, 1),
        ("\n", " ", True, 0),
    ],
)  # fmt: skip
def test_white_space_at_the_seam(raw: str, delivered: str, ended: bool, cut: int | None) -> None:
    """The same white space is cut, other gives way to what was delivered, a missing line break is kept."""
    assert after_space(raw, 0, delivered, ended=ended) == cut
    assert after_space("before" + raw, 6, delivered, ended=ended) == (None if cut is None else cut + 6)


@pytest.mark.parametrize(
    ("raw", "found"),
    [
        ("Well: it's  the “last”\nwords", "it's  the “last”\nwords"),
        ("it\u2019s the \"last\" words…", "it\u2019s the \"last\" words"),
        ("it's the last words", None),
        ("it's the \"last\" words it's the \"last\" words", None),
        ("", None),
    ],
)  # fmt: skip
def test_what_reads_like_the_anchor_is_found_once_or_not(raw: str, found: str | None) -> None:
    """Other white space and other quotation marks are the same words; twice the same words are none."""
    start, end = find_alike(raw, 'it\'s the "last" words')
    assert (raw[start:end] if start >= 0 else None) == found


# Feeding.


def fed(seam: Seam, pieces: list[str]) -> tuple[str | None, str]:
    """What joined, or None, and why not; the buffer stays small all the way."""
    out = []
    for piece in pieces:
        out.append(seam.feed(piece))
        assert len(seam._raw) <= BUFFER
    out.append(seam.end())
    assert seam.state in ("joined", "failed")
    assert seam.state == "joined" or not any(out), "a seam that failed has let something through"
    assert seam.feed("more") == ("more" if seam.state == "joined" else "")
    return ("".join(out) if seam.state == "joined" else None), seam.reason


def cut_up(text: str, size: int) -> list[str]:
    return [text[at : at + size] for at in range(0, len(text), size)]


def every_chunking(make: Callable[[], Seam], new: str) -> tuple[str | None, str]:
    """The outcome, which is the same in one piece, in characters, and in between."""
    outcomes = [fed(make(), cut_up(new, size)) for size in (max(1, len(new)), 1, 2, 7, 401)]
    assert len(set(outcomes)) == 1, outcomes
    return outcomes[0]


# Prefill.


@pytest.mark.parametrize(
    ("given", "sent", "echoed", "new", "kept"),
    [
        ("one two", "one two", False, " three", " three"),
        ("one tw", "one tw", False, "o three", "o three"),
        ("one two", "one two", False, "", ""),
        ("one two ", "one two", False, " three", "three"),
        ("one two ", "one two", False, "three", "three"),
        ("one two\n", "one two", False, "\n\nthree", "\nthree"),
        ("one two ", "one two", False, "\n\nthree", "\n\nthree"),
        ("one two ", "one two", False, "", ""),
        ("one two three", "one two", False, " three four", " four"),
        ("one two three", "one two", False, " other four", None),
        ("one two three", "one two", False, " thr", None),
        ("one two", "one two", True, "one two three", " three"),
        ("one two ", "one two", True, "one two three", "three"),
        ("one two", "one two", True, "one two", ""),
        ("one two", "one two", True, "one", None),
        ("one two", "one two", True, " three", None),
        ("one two", "one two", True, "", None),
        ("one two", "one two", False, "one two three", None),
        ("\n one two", "\n one two", False, "one two three", None),
        (STORY, STORY.rstrip(), False, STORY, None),
        (LINE, LINE, False, LINE[:28], None),
        (LINE, LINE, False, LINE[:27], LINE[:27]),
        (LINE, LINE, False, LINE[:27] + "!", LINE[:27] + "!"),
        ("ha ha", "ha ha", False, " ha ha ha!", None),
        ("one two ", "one two", False, " " + " " * 5000 + "three", " " * 5000 + "three"),
        ("one two ", "one two", False, "\n" * 5000 + "three", "\n" * 5000 + "three"),
    ],
)  # fmt: skip
def test_what_follows_a_prefill(given: str, sent: str, echoed: bool, new: str, kept: str | None) -> None:
    """The rest is kept to the character, a due echo is cut, and an answer begun anew does not join."""
    out, reason = every_chunking(lambda: PrefillSeam(given, sent, echoed=echoed), new)
    assert out == kept
    assert bool(reason) is (kept is None)


# Anchor.


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("cut", [60, 130, 333, 399, 400, 401, 430, 500, 1200, len(STORY)])
def test_what_a_model_may_say_before_the_rest(name: str, cut: int) -> None:
    """Some talk, or more of what was told, is cut away; whatever leaves a doubt does not join."""
    request = asked(STORY, cut)
    assert request is not None
    out, reason = every_chunking(request.seam, MODELS[name](request))
    wanted = request.text[cut:] if name in GOES_ON else None
    assert (out, bool(reason)) == (wanted, wanted is None)


def turns(cut: int, number: int) -> list[str]:
    """All models, or one in turn."""
    return list(MODELS) if CUTS == "all" else [list(MODELS)[(cut + number) % len(MODELS)]]


@pytest.mark.parametrize("name", TEXTS)
def test_no_text_is_ever_doubled_lost_or_mixed(name: str) -> None:
    """Cut anywhere and continued by any model, held and live, a text joins to the character or not at all."""
    text, number = TEXTS[name], list(TEXTS).index(name)
    for cut in range(len(text) + 1):
        request = asked(text, cut)
        if request is None:
            continue
        held = Asked(text, request.told, Anchor(request.anchor.text, ""))
        for model in turns(cut, number):
            new = MODELS[model](request)
            for case in (request, held):
                out, _ = fed(case.seam(), cut_up(new, (cut % 5) ** 3 or len(new) or 1))
                if out is None or (name.startswith("repeating/") and model in COINCIDENCES):
                    continue
                assert case.given + out == text, (model, cut)


@pytest.mark.parametrize("name", TEXTS)
def test_an_obedient_model_is_joined_at_every_cut(name: str) -> None:
    """Where there are last words and the text does not say them once more, an obedient model always joins."""
    text = TEXTS[name]
    for cut in range(len(text) + 1):
        request = asked(text, cut)
        if request is None:
            continue
        out, reason = fed(request.seam(), cut_up(GOES_ON["obedient"](request), cut % 4 + 1))
        again = request.rest.lstrip().startswith((request.anchor.text, "</last_words"))
        assert out == (None if again else text[cut:]), (cut, reason)


@pytest.mark.parametrize("name", TEXTS)
def test_a_prefill_taken_for_history_is_never_doubled(name: str) -> None:
    """An endpoint that answers anew, or repeats the prefill unasked, fails the seam at every cut."""
    text = TEXTS[name]
    for cut in range(1, len(text) + 1):
        sent = without_end(text[:cut])
        if sent:
            out, _ = fed(PrefillSeam(text[:cut], sent, echoed=False), cut_up(text, cut % 40 + 1))
            assert out is None, cut


SCRAPS = [
    "a",
    "b",
    " ",
    "\n",
    "\n\n",
    "\t",
    '"',
    "```\n",
    "</last_words>",
    ":",
    "ha ",
    LINE,
    "e\u0301",
    "👨\u200d👩",
    "你好",
]


@given(st.lists(st.sampled_from(SCRAPS), max_size=60).map("".join), st.data())
def test_an_obedient_model_never_does_harm_to_any_text(text: str, data: st.DataObject) -> None:
    """Made of scraps that repeat, quote and break, a text joins to the character or not at all."""
    cut, size = data.draw(st.integers(0, len(text))), data.draw(st.integers(1, 50))
    request = asked(text, cut)
    if request is not None:
        out, _ = fed(request.seam(), cut_up(GOES_ON["obedient"](request), size))
        assert out in (None, text[cut:])
    sent = without_end(text[:cut])
    for echoed in (False, True) if sent else ():
        new = text if echoed else text[len(sent) :]
        out, _ = fed(PrefillSeam(text[:cut], sent, echoed=echoed), cut_up(new, size))
        assert out == text[cut:] or (out is None and not echoed)


@given(st.data())
def test_chunks_make_no_difference(data: st.DataObject) -> None:
    """However the new text is cut into pieces, what joins is the same."""
    text = data.draw(st.sampled_from([*TEXTS.values(), STORY]))
    request = asked(text, data.draw(st.integers(0, len(text))))
    sent = without_end(request.given) if request else text
    new = MODELS[data.draw(st.sampled_from(sorted(MODELS)))](request) if request else text
    rng = random.Random(data.draw(st.integers(0, 2**32)))
    seams: list[Callable[[], Seam]] = [
        lambda: PrefillSeam(sent, sent, echoed=False),
        lambda: PrefillSeam(sent, sent, echoed=True),
    ]
    if request is not None:
        seams.append(request.seam)
    for make in seams:
        cuts = sorted(rng.choices(range(len(new) + 1), k=rng.randrange(12)))
        pieces = [new[a:b] for a, b in zip([0, *cuts], [*cuts, len(new)], strict=True)]
        assert fed(make(), pieces) == fed(make(), [new]) == fed(make(), list(new))


@pytest.mark.parametrize(("length", "joins"), [(PREAMBLE, True), (PREAMBLE + 1, False)])
def test_what_comes_before_the_anchor_has_a_limit(length: int, joins: bool) -> None:
    """Talk of exactly the limit is cut away, one character more is a detour."""
    request = asked(STORY, 900)
    assert request is not None
    preamble = "x" * (length - 3) + ":\n\n"
    out, _ = every_chunking(request.seam, preamble + request.anchor.text + request.rest)
    assert (out is not None) is joins


@pytest.mark.parametrize(
    ("said", "joins"),
    [
        ("it\u2019s \u201cquite\u201d the story of the light", True),
        ("it's  \"quite\"\nthe story of the light", True),
        ("it's \"quite\" the story of the lamp", False),
        ("It's \"quite\" the story of the light", False),
    ],
)  # fmt: skip
def test_words_said_with_other_marks_are_the_same_words(said: str, joins: bool) -> None:
    """Curly quotes and other white space are read as the anchor; other words are not."""
    given = 'Well then, it\'s "quite" the story of the light'
    anchor = Anchor('it\'s "quite" the story of the light', "")
    out, _ = every_chunking(lambda: AnchorSeam(given, anchor), f"{said} that went out." + " So it goes." * 60)
    assert (out is not None and out.startswith(" that went out.")) is joins


def test_a_retelling_is_joined_where_the_old_text_ends() -> None:
    """A model that says the whole answer again is compared to the last character, and joined past it."""
    for cut in (399, 400, 401, 402, 1000, 2000):
        request = asked(STORY, cut)
        assert request is not None
        assert every_chunking(request.seam, STORY) == (STORY[cut:], "")


@pytest.mark.parametrize("at", [410, 700, 950])
def test_a_retelling_that_diverges_fails(at: int) -> None:
    """Another answer with the same beginning does not join, even if it has the last words somewhere."""
    request = asked(STORY, 1000)
    assert request is not None
    out, reason = every_chunking(request.seam, f"{STORY[:at]}~{STORY[at:]}")
    assert (out, reason) == (None, "the continuation began anew, and differently")


def test_a_retelling_that_ends_early_fails() -> None:
    """Half of the old text again is no continuation of it."""
    request = asked(STORY, 1000)
    assert request is not None
    assert every_chunking(request.seam, STORY[:900])[0] is None


# Limits.


@pytest.mark.parametrize("size", [1, 1000, 10**7])
@pytest.mark.parametrize("filler", ["x", " ", "\n", "and so on, "])
def test_an_anchor_a_megabyte_later_is_given_up_early(size: int, filler: str) -> None:
    """What does not join soon fails soon, and keeps no more than a small buffer on the way."""
    request = asked(STORY, 900)
    assert request is not None
    seam, new = request.seam(), filler * (10**6 // len(filler)) + request.anchor.text + request.rest
    for piece in cut_up(new[: 5000 if size == 1 else None], size):
        assert seam.feed(piece) == ""
        assert len(seam._raw) <= BUFFER
    assert (seam.state, seam._raw) == ("failed", "")


@pytest.mark.parametrize("filler", [" ", "\n"])
def test_endless_white_space_behind_the_anchor_does_not_pile_up(filler: str) -> None:
    """White space for ever is passed on, not collected until something follows."""
    request = asked(STORY + "  ", len(STORY) + 2)
    assert request is not None
    seam = request.seam()
    seam.feed(request.anchor.text)
    for _ in range(5000):
        seam.feed(filler)
        assert len(seam._raw) <= BUFFER
    assert seam.state == "joined"


class Counted(str):
    """A string that counts the characters it is compared with or copied to."""

    work = 0

    def startswith(
        self, prefix: Any, start: SupportsIndex | None = 0, end: SupportsIndex | None = None
    ) -> bool:
        Counted.work += len(prefix)
        return super().startswith(prefix, start, end)

    def __getitem__(self, key: SupportsIndex | slice) -> "Counted":
        part = Counted(super().__getitem__(key))
        Counted.work += len(part)
        return part


def test_a_long_retelling_is_compared_in_linear_time() -> None:
    """Twice as long an answer, said again in small pieces, is twice the work and no more."""
    work = []
    for size in (250_000, 500_000, 1_000_000):
        text = "".join(f"{number:07} " for number in range(size // 8))
        anchor = find_anchor(text)
        assert isinstance(anchor, Anchor)
        Counted.work = 0
        seam = AnchorSeam(Counted(text), anchor)
        assert "".join(map(seam.feed, pieces_of(text + "the end", 5))) + seam.end() == "the end"
        work.append(Counted.work)
    assert work[2] - work[1] <= 2.1 * (work[1] - work[0])
    assert work[2] < 4 * 1_000_000


def pieces_of(text: str, size: int) -> Iterator[str]:
    for at in range(0, len(text), size):
        yield text[at : at + size]
