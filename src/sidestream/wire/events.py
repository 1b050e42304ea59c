"""The one vocabulary every wire decodes to.

Strategy: a decoder turns a provider's stream into these few events, whatever the wire. `index` numbers the
output items of one answer in the order they were announced: decoders resolve rotating ids, missing
indexes and aliases, so that nobody above them has to. Deltas carry text; `ItemDone` carries the item as the
provider gave it; `Finished` says, by the rules of its wire, that the answer is over.

The last group is what a live consumer sees besides deltas. Not here: how a wire spells any of this.
"""

from __future__ import annotations

from typing import Any, Literal

from msgspec import Struct, field

__all__ = [
    "ArgumentsDelta",
    "CommentaryDelta",
    "ErrorInfo",
    "Event",
    "Finished",
    "ItemDone",
    "ItemStarted",
    "Other",
    "ReasoningDelta",
    "Recovering",
    "RefusalDelta",
    "Restarted",
    "Started",
    "StreamEvent",
    "TextDelta",
    "TextDone",
    "TokenCounts",
    "ToolCall",
    "UsageReport",
]


class TokenCounts(Struct, frozen=True, gc=False):
    """Tokens of one exchange as the provider reported them; None where it did not."""

    input_tokens: int | None = None
    output_tokens: int | None = None
    total_tokens: int | None = None
    cached_tokens: int | None = None
    reasoning_tokens: int | None = None


class ErrorInfo(Struct, frozen=True):
    """An error as a provider spells it. `status` is its HTTP-like number, if it has one."""

    code: str = ""
    message: str = ""
    type: str = ""
    param: str = ""
    status: int | None = None
    headers: dict[str, str] = field(default_factory=dict)


# What decoders emit.


class Started(Struct, frozen=True, gc=False):
    """The provider named the answer."""

    id: str | None = None
    model: str | None = None


class TextDelta(Struct, frozen=True, gc=False):
    """The next piece of the final answer. `part` is the content part within the item."""

    delta: str
    index: int = 0
    part: int = 0


class CommentaryDelta(Struct, frozen=True, gc=False):
    """The next piece of what the model says besides its answer (phase `commentary`)."""

    delta: str
    index: int = 0
    part: int = 0


class ReasoningDelta(Struct, frozen=True, gc=False):
    """The next piece of reasoning or of its summary."""

    delta: str
    index: int = 0
    part: int = 0


class RefusalDelta(Struct, frozen=True, gc=False):
    """The next piece of a refusal."""

    delta: str
    index: int = 0
    part: int = 0


class ArgumentsDelta(Struct, frozen=True, gc=False):
    """The next piece of a tool call's arguments. Never delivered: half a call is no call."""

    delta: str
    index: int = 0


class TextDone(Struct, frozen=True, gc=False):
    """The whole text of one content part; `kind` says of which sort."""

    text: str
    kind: Literal["text", "refusal", "reasoning", "arguments"]
    index: int = 0
    part: int = 0


class ItemStarted(Struct, frozen=True):
    """An output item was announced. `choice` is the alternative it belongs to (chat, n > 1)."""

    index: int
    item: dict[str, Any]
    choice: int = 0


class ItemDone(Struct, frozen=True):
    """An output item is whole, as the provider gave it."""

    index: int
    item: dict[str, Any]
    choice: int = 0


class UsageReport(Struct, frozen=True, gc=False):
    """The provider reported tokens; a later report replaces an earlier one."""

    usage: TokenCounts


class Finished(Struct, frozen=True):
    """The answer is over, by the rules of its wire.

    `reason` is the field's finish reason: stop, length, tool_calls, content_filter or what the provider
    said. `confirmed` is False where the wire only stopped and never said why. `error` says why it failed, or
    why the model declined.
    """

    status: Literal["completed", "incomplete", "failed"]
    reason: str | None = None
    error: ErrorInfo | None = None
    confirmed: bool = True


class Other(Struct, frozen=True):
    """Anything else. `progress` tells whether it carries output (an image part, a code delta) or is a sign
    of life only."""

    type: str
    progress: bool = False


# What a live consumer sees besides text, commentary, reasoning and refusal deltas.


class ToolCall(Struct, frozen=True):
    """A finished tool call. `arguments` is JSON text as the model wrote it (free text if `custom`)."""

    call_id: str
    name: str
    arguments: str
    custom: bool = False
    choice: int = 0


class Recovering(Struct, frozen=True):
    """The stream broke and is on its way back: `fault` on `route`, `rung` taken next on `next_route`,
    after `delay` seconds; `detail` is one line for people."""

    fault: str
    detail: str
    rung: str
    route: str
    next_route: str
    delay: float


class Restarted(Struct, frozen=True):
    """What was delivered so far is void: the answer begins anew with the next event."""

    reason: str


Event = (
    TextDelta
    | ReasoningDelta
    | CommentaryDelta
    | RefusalDelta
    | ArgumentsDelta
    | TextDone
    | ItemStarted
    | ItemDone
    | Started
    | UsageReport
    | Finished
    | Other
)

StreamEvent = TextDelta | CommentaryDelta | ReasoningDelta | RefusalDelta | ToolCall | Recovering | Restarted
