"""The texts of corpus/seams, and models that go on with them: what the tests of seams share.

A model is a function from a request for the rest to what it says: obedient, chatty, quoting, retelling, deaf.
`GOES_ON` are those that a seam has to join wherever it can be sure, `REFUSED` those that leave a doubt.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass

from sidestream.recovery.seam import Anchor, AnchorSeam, find_anchor
from streams import CORPUS

# name -> text; a name is "<class>/<file>"
TEXTS = {
    f"{path.parent.name}/{path.stem}": path.read_bytes().decode()
    for path in sorted((CORPUS / "seams").glob("*/*.txt"))
}
CUTS = os.environ.get("SIDESTREAM_CUTS", "turns")


@dataclass(frozen=True)
class Asked:
    """A request for the rest of `text`, of which `given` arrived."""

    text: str
    given: str
    anchor: Anchor

    @property
    def told(self) -> str:
        return self.given[: len(self.given) - len(self.anchor.after)]

    @property
    def rest(self) -> str:
        return self.text[len(self.told) :]

    def seam(self) -> AnchorSeam:
        return AnchorSeam(self.given, self.anchor)


def asked(text: str, cut: int) -> Asked | None:
    anchor = find_anchor(text[:cut])
    return None if isinstance(anchor, str) else Asked(text, text[:cut], anchor)


Words = Callable[[Asked], str]


def last_word(a: Asked) -> int:
    """Where the word before the anchor starts."""
    head = a.told[: len(a.told) - len(a.anchor.text)].rstrip()
    return len(head) - len(head.split()[-1]) if head.split() else 0


GOES_ON: dict[str, Words] = {
    "obedient": lambda a: a.anchor.text + a.rest,
    "after white space": lambda a: f"\n\n {a.anchor.text}{a.rest}",
    "after a line": lambda a: f"Of course, here it is:\n\n{a.anchor.text}{a.rest}",
    "after a sentence": lambda a: f"Sorry about that!\n{a.anchor.text}{a.rest}",
    "in the line": lambda a: f"Going on: {a.anchor.text}{a.rest}",
    "after talk, from a word back": lambda a: f"Right:\n\n{a.told[last_word(a) :]}{a.rest}",
    "from further back": lambda a: a.told[max(0, len(a.told) - len(a.anchor.text) - 40) :] + a.rest,
    "from the start": lambda a: a.told + a.rest,
}
REFUSED: dict[str, Words] = {
    "no anchor": lambda a: a.rest,
    "half of it": lambda a: a.anchor.text[len(a.anchor.text) // 2 :] + a.rest,
    "twice": lambda a: a.anchor.text + a.anchor.text + a.rest,
    "twice, with a break": lambda a: f"{a.anchor.text}\n\n{a.anchor.text}{a.rest}",
    "mentioned, then said": lambda a: f"Your last words: {a.anchor.text}. Now:\n\n{a.anchor.text}{a.rest}",
    "mentioned": lambda a: f"I see that you got {a.anchor.text} so far.\n\n{a.rest}",
    "in quotes": lambda a: f'"{a.anchor.text}"{a.rest}',
    "all in quotes": lambda a: f'"{a.anchor.text}{a.rest}"',
    "all in curly quotes": lambda a: f"“{a.anchor.text}{a.rest}”",
    "all in a fence": lambda a: f"```\n{a.anchor.text}{a.rest}\n```",
    "all in a named fence": lambda a: f"Here it is:\n\n```text\n{a.anchor.text}{a.rest}\n```",
    "all in tildes": lambda a: f"~~~\n{a.anchor.text}{a.rest}\n~~~",
    "in bold": lambda a: f"**{a.anchor.text}**{a.rest}",
    "in tags": lambda a: f"<last_words>{a.anchor.text}</last_words>{a.rest}",
    "all in tags": lambda a: f"<last_words>{a.anchor.text}{a.rest}</last_words>",
    "with the closing tag": lambda a: f"{a.anchor.text}</last_words>{a.rest}",
    "after a long detour": lambda a: f"{'Let me think. ' * 60}\n{a.anchor.text}{a.rest}",
    "something else": lambda _: "I would rather say something else, and here it is: forty-two.",
    "nothing": lambda _: "",
    "only talk": lambda _: "Of course! Here is the rest:\n\n",
}
MODELS = GOES_ON | REFUSED

# What cannot be told apart: the text has at this place what the model adds or leaves out.
COINCIDENCES = {"no anchor", "half of it"}
