"""How well a model goes on when it is asked to (continuation="anchor"): seams, refusals, text, time, tokens.

    python bench/anchor_quality.py [--prompts 8] [--cuts 3] [--json FILE] [--examples 4]
    python bench/anchor_quality.py --base-url URL --model NAME     # another model; its key in OPENAI_API_KEY

Each prompt is answered once uncut, then again with the stream ended after shares of its pieces; the lab in
between does the cutting, the real client (held) the rest. By default the embedded model is asked, at
temperature 0. Printed is what came of each seam, beside what the uncut run says. Nothing is asserted, but a
text that says its last words twice at the seam is counted as doubled.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from difflib import SequenceMatcher
from pathlib import Path
from statistics import mean, median
from typing import Any

from sidestream import Backoff, Client, Policy, SidestreamError
from sidestream.lab import Fault, Lab, Plan
from sidestream.local import LocalModel
from sidestream.recovery import continuing
from sidestream.recovery.seam import find_anchor
from sidestream.reply import Attempt, Reply
from sidestream.route import Route, Secret
from sidestream.wire.events import TextDelta

PROMPTS = (
    "Explain in four sentences why the sky is blue.",
    "What does a doctor do?",
    "What is bread made of?",
    "What is a computer? Answer briefly.",
    "Write a Python function add(a, b). Code only.",
    "Tell me about the city of Paris.",
    "Describe how bread is baked.",
    "What is a database index and when is it useful?",
)
BEFORE_TEXT = 1  # the chunk that brings the role
ECHO = 20  # characters that, said again right after the seam, count as doubled


@dataclass(frozen=True)
class Endpoint:
    url: str
    model: str
    key: str


@dataclass(frozen=True)
class Seam:
    """What came of one cut."""

    prompt: str
    share: float
    partial: str
    text: str
    uncut: str
    rungs: list[str]
    outcome: str  # "joined", or why it did not
    seconds: float
    seconds_uncut: float
    tokens: int
    tokens_uncut: int

    @property
    def joined(self) -> bool:
        return self.outcome == "joined"

    @property
    def same(self) -> bool:
        return self.text == self.uncut

    @property
    def similarity(self) -> float:
        """Of what was written after the seam to what the uncut run says there, 0 to 1."""
        at = len(self.partial)
        return SequenceMatcher(None, self.text[at:], self.uncut[at:], autojunk=False).ratio()

    @property
    def doubled(self) -> bool:
        end = self.partial[-ECHO:]
        return self.joined and self.text[len(self.partial) :].lstrip().startswith(end.lstrip())


@contextlib.contextmanager
def endpoint(arguments: argparse.Namespace) -> Iterator[Endpoint]:
    if arguments.base_url:
        yield Endpoint(arguments.base_url, arguments.model, os.environ.get("OPENAI_API_KEY", ""))
        return
    with LocalModel() as model:
        yield Endpoint(model.url, model.model, model.api_key)


def ask(to: Endpoint, prompt: str, limit: int, cut_after: int | None) -> tuple[Reply | None, list[str], Any]:
    """The reply (None if the call failed), the pieces of an uncut run, and the attempts."""
    plan = Plan([Fault.end(after_event=BEFORE_TEXT + cut_after)] if cut_after else ())
    call: dict[str, Any] = {"input": prompt, "max_output_tokens": limit, "temperature": 0, "seed": 1}
    with Lab(upstream=to.url.removesuffix("/v1"), plan=plan) as lab:
        route = Route(lab.url, to.model, "chat", Secret(to.key), continuation="anchor")
        policy = Policy(backoff=Backoff(base=0), extra_output=8)
        with Client(routes=[route], policy=policy, timeout=600, observe=()) as client:
            if cut_after is None:
                with client.stream(**call) as stream:
                    pieces = [event.delta for event in stream if isinstance(event, TextDelta)]
                return stream.reply, pieces, stream.reply.attempts
            try:
                reply = client.complete(**call)
            except SidestreamError as error:
                return None, [], getattr(error, "attempts", ())
            return reply, [], reply.attempts


def outcome_of(attempts: tuple[Attempt, ...]) -> str:
    """What became of the first continuation."""
    if len(attempts) < 2:
        return "not cut"
    second = attempts[1]
    if second.rung != "anchor":
        return next((why for why in second.why if why.startswith("anchor")), f"not asked: {second.rung}")
    return "joined" if second.ended in ("complete", "incomplete") else second.detail or second.ended


def measure(to: Endpoint, prompt: str, shares: list[float], limit: int) -> Iterator[Seam]:
    begun = time.perf_counter()
    whole, pieces, _ = ask(to, prompt, limit, None)
    alone = time.perf_counter() - begun
    if whole is None or whole.usage is None:
        return
    for share in shares:
        at = max(1, round(len(pieces) * share))
        begun = time.perf_counter()
        reply, _, attempts = ask(to, prompt, limit, at)
        yield Seam(
            prompt=prompt,
            share=share,
            partial="".join(pieces[:at]).rstrip(),
            text=reply.text if reply else "",
            uncut=whole.text,
            rungs=[attempt.rung for attempt in attempts],
            outcome=outcome_of(attempts),
            seconds=time.perf_counter() - begun,
            seconds_uncut=alone,
            tokens=sum(attempt.tokens or 0 for attempt in attempts),
            tokens_uncut=whole.usage.output_tokens or 0,
        )


def show(seam: Seam) -> None:
    anchor = find_anchor(seam.partial)
    quoted = anchor if isinstance(anchor, str) else anchor.text
    at = len(seam.partial)
    print(f"  {seam.prompt}  [cut at {seam.share:.0%}, quoted: {quoted!r}]")
    print(f"    joined  …{seam.partial[-40:]!r} + {seam.text[at : at + 160]!r}")
    print(f"    uncut   …{seam.partial[-40:]!r} + {seam.uncut[at : at + 160]!r}")


def summary(seams: list[Seam]) -> None:
    joined = [seam for seam in seams if seam.joined]
    whole = sum(bool(seam.text) for seam in seams)
    print(f"\nseams {len(seams)}, joined at first try {len(joined)} ({len(joined) / len(seams):.0%})")
    for reason, count in Counter(seam.outcome for seam in seams if not seam.joined).most_common():
        print(f"  {count:3}  {reason}")
    print(f"answers brought back {whole}, of these equal to the uncut run {sum(s.same for s in seams)}")
    print(f"said twice at the seam {sum(seam.doubled for seam in seams)}")
    if joined:
        print(f"similarity of what was joined to the uncut run: {mean(s.similarity for s in joined):.2f}")
    print(f"tokens, as a multiple of the uncut run: {mean(s.tokens / s.tokens_uncut for s in seams):.2f}")
    print(f"seconds, the same: {median(s.seconds / s.seconds_uncut for s in seams):.2f}")


def main() -> None:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("--prompts", type=int, default=len(PROMPTS), help="how many of the prompts")
    parser.add_argument("--cuts", type=int, default=3, help="cuts per prompt, evenly spread")
    parser.add_argument("--tokens", type=int, default=120, help="output limit")
    parser.add_argument("--examples", type=int, default=4, help="joined texts to print")
    parser.add_argument("--base-url", default="", help="another endpoint on the chat wire")
    parser.add_argument("--model", default="")
    parser.add_argument("--words", type=Path, help="try this wording instead, with {quote} and {tools}")
    parser.add_argument("--json", type=Path, help="write every seam here")
    arguments = parser.parse_args()
    if arguments.words:
        continuing._WORDS = arguments.words.read_text()
    shares = [(number + 1) / (arguments.cuts + 1) for number in range(arguments.cuts)]
    seams: list[Seam] = []
    with endpoint(arguments) as to:
        for prompt in PROMPTS[: arguments.prompts]:
            for seam in measure(to, prompt, shares, arguments.tokens):
                seams.append(seam)
                print(f"{seam.share:4.0%}  {seam.outcome[:60]:60} {'+'.join(seam.rungs):28} {prompt}")
    summary(seams)
    for seam in [seam for seam in seams if seam.joined][: arguments.examples]:
        show(seam)
    if arguments.json:
        arguments.json.write_text(json.dumps([asdict(seam) for seam in seams], indent=1))


if __name__ == "__main__":
    main()
