"""`sidestream demo`: a real model's stream, cut on purpose, coming back whole; then compression.

The lab stands as a proxy between the client and the embedded model. The model's answer is cut in the middle
twice, the second time with a clean end that looks like success to other clients; the model goes on where it
stopped, the text on stdout comes out once and whole, and is compared with an uncut run of the same model.
"""

from __future__ import annotations

from importlib.resources import files
from typing import Any

import click

from ..client import Client
from ..errors import UsageError
from ..lab import Fault, Lab, Plan
from ..local import LocalModel
from ..recovery.policy import Backoff, Policy
from ..reply import Reply
from ..route import Route, Secret
from ..tasks.compression import Budget
from ..tasks.compression import compress as compress_conversation
from ..wire.events import Recovering, Restarted, TextDelta
from .options import output_options
from .shapes import as_json, reply_json
from .terminal import Story, write

__all__ = ["demo"]

PROMPT = "Explain in four sentences why the sky is blue."
CUTS = (Fault.cut(after_event=24), Fault.end(after_event=20))


@click.command("demo")
@click.argument("prompt", default=PROMPT)
@click.option("--max-tokens", type=click.IntRange(64, 512), metavar="N", default=96, show_default=True)
@output_options
def demo(prompt: str, max_tokens: int, json: bool, quiet: bool) -> None:
    """Break a real model's stream on purpose and watch it finish. Needs no key and no network after setup."""
    story = Story(quiet or json)
    asked: dict[str, Any] = {"input": prompt, "max_output_tokens": max_tokens, "temperature": 0, "seed": 1}
    story.say("1. A real model: SmolLM2-135M in llama.cpp, a child process on this machine.", "bold")
    with LocalModel(progress=story.say) as model:
        with Lab(upstream=model.url.removesuffix("/v1"), plan=Plan(CUTS)) as lab:
            story.say(f"2. The lab in between, at {lab.url}, cuts the answer twice.", "bold")
            story.say(f"\n> {prompt}\n")
            reply, restarts = _ask(_client(model, lab.url), asked, story, json=json)
            requests = len(lab.requests)
        story.say("")
        story.ledger(reply.attempts)
        if requests < 2:
            raise UsageError("the answer was too short to be cut", hint="ask for a longer one")
        story.say("\n3. The same question, straight to the model, uncut.", "bold")
        with _client(model, model.url) as client, story.waiting("asking again"):
            same = client.complete(**asked).text == reply.text
    verdict = (
        f"Cut {requests - 1} times, {requests} requests, the text is the same: {'yes' if same else 'NO'}."
    )
    story.say(f"   {verdict}", "green" if same else "red")
    compression = _compress(story)
    if json:
        told = {"cuts": requests - 1, "restarts_announced": restarts, "same_as_uncut": same}
        write(as_json({"reply": reply_json(reply), **told, "compression": compression}))
    if restarts or not same:  # then it did not go on as it would have, and nothing was demonstrated
        raise SystemExit(1)


def _client(model: LocalModel, url: str) -> Client:
    """A client with this one route: what the environment configures is none of the demo's business."""
    key = Secret(model.api_key)
    route = Route(url, model.model, "chat", key, name=model.model, continuation="trailing")
    return Client(routes=[route], policy=Policy(backoff=Backoff(base=0.2)))


def _ask(client: Client, asked: dict[str, Any], story: Story, *, json: bool) -> tuple[Reply, int]:
    restarts = 0
    with client, client.stream(**asked) as stream, story.waiting("waiting for the model") as begin:
        for event in stream:
            begin()
            if isinstance(event, TextDelta) and not json:
                story.answer(event.delta)
            elif isinstance(event, Recovering):
                story.recovering(event)
            elif isinstance(event, Restarted):
                restarts += 1
                story.restarted(event.reason)
        story.end_answer()
        return stream.reply, restarts


def _compress(story: Story) -> dict[str, object]:
    """The bundled agent conversation, without a model: an embedded one this small would invent things."""
    story.say("\n4. An agent's conversation, compressed by quoting (no model invents anything here).", "bold")
    sample = files("sidestream.tasks.compression") / "samples" / "agent-session.json"
    done = compress_conversation(sample.read_bytes(), budget=Budget(ratio=0.3))
    story.say(
        f"   {done.messages_before} → {done.messages_after} messages, "
        f"{done.chars_before:,} → {done.chars_after:,} characters. {done.notice}"
    )
    return {"method": done.method, "chars_before": done.chars_before, "chars_after": done.chars_after}
