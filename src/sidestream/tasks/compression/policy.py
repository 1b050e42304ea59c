"""When to compress, how much stays, and when to leave it alone. Pure.

`CompressionPolicy` holds the numbers and never changes; `History` is what a session remembers between its
compressions: a small value that turns into plain JSON and back, so that a host can keep it beside its
messages. Every transition takes a history and returns another. Time is Unix seconds and arrives as an
argument. What is kept where in a conversation is `prepare`'s business, asking a model is nobody's here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, Final, Literal, TypeAlias

from ...errors import UsageError

__all__ = [
    "COOLDOWNS",
    "OVERRIDES",
    "CompressionPolicy",
    "Failure",
    "History",
    "Override",
    "Shape",
    "Verdict",
]

Failure: TypeAlias = Literal[
    "no-route", "timeout", "stream", "network", "auth", "quota", "throttled", "server", "other"
]
Why: TypeAlias = Literal["due", "below", "waiting", "estimate", "cooldown", "ineffective", "digests"]

# Seconds of rest after the first, second, third … failure of a kind in a row; the last one repeats.
COOLDOWNS: Final[Mapping[str, tuple[float, ...]]] = {
    "no-route": (600,),
    "timeout": (60, 300, 900),
    "stream": (30,),
    "network": (60,),
    "auth": (60,),
    "quota": (60,),
    "throttled": (60,),
    "server": (60,),
    "other": (60,),
}
_LONGEST_COOLDOWN = 3_600.0  # whatever a provider says about coming back

_LIMITS: Final[tuple[tuple[str, float, float], ...]] = (
    ("floor", 0, 10**9),
    ("cap", 1, 10**9),
    ("growth", 0, 10**9),
    ("growth_share", 0, 1),
    ("strikes", 1, 100),
    ("digests", 1, 100),
    ("head", 0, 100),
    ("tail_share", 0.1, 0.8),
    ("overshoot", 1, 3),
    ("tail_messages", 3, 8),
    ("digest_least", 1, 10**6),
    ("digest_most", 1, 10**6),
    ("prune_least", 0, 10**9),
)


def _share(name: str, value: float) -> None:
    if not 0 < value <= 1:
        raise UsageError(f"policy {name} must be above 0 and at most 1, got {value!r}", hint="It is a share.")


def _count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _counts(value: object) -> bool:
    return isinstance(value, Mapping) and all(isinstance(k, str) and _count(v) for k, v in value.items())


_CHECKS: Final[Mapping[str, Callable[[Any], bool]]] = {
    "compactions": _count,
    "strikes": _count,
    "digests": _count,
    "failures": _counts,
    "cooldown_until": lambda value: isinstance(value, int | float) and 0 <= value < 1e12,
    "cooldown_reason": lambda value: isinstance(value, str),
    "awaiting": lambda value: isinstance(value, bool),
    "fit": lambda value: value is None or _count(value),
}


@dataclass(frozen=True, slots=True)
class Override:
    """Another threshold for some models: the longest `model` that is part of the name wins.

    Attributes:
        model: part of a model's name, in any case.
        ratio: share of the usable window; windows of every size take it as it is.
        tokens: the threshold itself, instead of a ratio.
        route: part of a route's name; "" for all. A row with a route beats one without.
    """

    model: str
    ratio: float | None = None
    tokens: int | None = None
    route: str = ""

    def __post_init__(self) -> None:
        if (self.ratio is None) == (self.tokens is None):
            raise UsageError(f"the override for {self.model!r} needs a ratio or tokens", hint="Give one.")
        if self.ratio is not None:
            _share("override ratio", self.ratio)


# Windows that a plan makes smaller than the model's own: compress late, there is little to gain by less.
OVERRIDES: Final[tuple[Override, ...]] = (
    Override("gpt-5.4", 0.85, route="codex"),
    Override("gpt-5.5", 0.85, route="codex"),
    Override("gpt-5.6", 0.85, route="codex"),
    Override("astra", 0.85, route="codex"),
    Override("spark", 0.70, route="codex"),
)


@dataclass(frozen=True, slots=True)
class Shape:
    """What stays and how long the replacement may be, in tokens of the target model.

    Attributes:
        head: messages after the system's that stay.
        tail: tokens of the newest turns.
        overshoot: the group that crosses the tail's end stays up to this multiple of it.
        least: messages that the tail has at least, their results shortened if need be.
        digest_share: the replacement's length as a share of what it replaces …
        digest_least, digest_most: … and its limits.
    """

    head: int
    tail: int
    overshoot: float
    least: int
    digest_share: float
    digest_least: int
    digest_most: int


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether to compress now. True in a condition when it is.

    Attributes:
        compress: the answer.
        why: one word for programs.
        reason: one sentence for a person.
        threshold: tokens from which compression is due.
        until: Unix time at which a cooldown ends, or None.
    """

    compress: bool
    why: Why
    reason: str
    threshold: int
    until: float | None = None

    def __bool__(self) -> bool:
        return self.compress


@dataclass(frozen=True, slots=True)
class History:
    """What a session remembers of its compressions. `to_dict()` is plain JSON.

    Attributes:
        compactions: how many were committed.
        strikes: how many in a row brought nothing, or not enough.
        digests: how many in a row fell to the deterministic digest because the model could not help.
        failures: how often in a row each kind of failure happened.
        cooldown_until: Unix time before which nothing is tried; 0 for none.
        cooldown_reason: what it is for, for a person.
        awaiting: whether the first real usage after a compaction is still to come.
        fit: tokens when the conversation last fitted by the provider's own count, or None.
    """

    compactions: int = 0
    strikes: int = 0
    digests: int = 0
    failures: Mapping[str, int] = field(default_factory=dict)
    cooldown_until: float = 0.0
    cooldown_reason: str = ""
    awaiting: bool = False
    fit: int | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self) | {"failures": dict(self.failures)}

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> History:
        """What `to_dict` gave. Names of a later version are ignored.

        Raises:
            UsageError: a value has the wrong type.
        """
        known = {each.name: value[each.name] for each in fields(cls) if each.name in value}
        for name, given in known.items():
            if not _CHECKS[name](given):
                raise UsageError(f"history: {name} cannot be {given!r}", hint="Pass what to_dict() gave.")
        return cls(**known)

    def cleared(self) -> History:
        """Without cooldown and without strikes: somebody asked by hand."""
        return replace(self, strikes=0, digests=0, failures={}, cooldown_until=0.0, cooldown_reason="")

    def measured(self, tokens: int, threshold: int) -> History:
        """After a turn whose real prompt tokens are known."""
        fits = tokens < threshold
        if not self.awaiting:
            return replace(self, strikes=0, fit=tokens) if fits else self
        if fits:
            return replace(self, awaiting=False, strikes=0, fit=tokens)
        return replace(self, awaiting=False, strikes=self.strikes + 1, fit=None)

    def committed(self, *, digest: bool) -> History:
        """After a compaction took effect; `digest` when it was only the fallback of a failed summary."""
        digests = self.digests + 1 if digest else 0
        failures = self.failures if digest else {}
        return replace(
            self, compactions=self.compactions + 1, digests=digests, failures=failures, awaiting=True
        )

    def pruned(self) -> History:
        """After tool output was shortened and nothing else: whether it was enough shows in the next usage."""
        return replace(self, awaiting=True)

    def futile(self) -> History:
        """After an attempt that found nothing to shorten."""
        return replace(self, strikes=self.strikes + 1)

    def failed(self, kind: str, now: float, reason: str, retry_at: float | None = None) -> History:
        """After a failure that kept every message: rest for a while."""
        count = self.failures.get(kind, 0) + 1
        steps = COOLDOWNS.get(kind, COOLDOWNS["other"])
        until = now + steps[min(count, len(steps)) - 1]
        if retry_at is not None:
            until = min(max(until, retry_at), now + _LONGEST_COOLDOWN)
        failures = {**self.failures, kind: count}
        return replace(self, failures=failures, cooldown_until=until, cooldown_reason=reason)


@dataclass(frozen=True, slots=True)
class CompressionPolicy:
    """The numbers of compression. `docs/compression.md` has the table.

    Attributes:
        ratio: the threshold as a share of the window without the reserved output.
        small_window, small_ratio: for windows smaller than this the ratio is at least that.
        floor: the threshold is at least this many tokens …
        floor_share: … and this share of the usable window where that holds no more than the floor.
        cap: the threshold is at most this many tokens; None for no cap.
        overrides: thresholds of particular models.
        growth, growth_share: an estimate that grew by no more than the larger of these since the
            conversation last fitted does not count.
        strikes, digests: so many fruitless compactions, or fallback digests, in a row end it.
        head: messages after the system's that stay in the first compaction; later ones keep none.
        tail_share: tokens of the newest turns as a share of the threshold, 0.1 to 0.8.
        overshoot: how far the group at the tail's end may exceed it.
        tail_messages: messages the tail has at least, 3 to 8.
        digest_share, digest_least, digest_most, digest_window: length of the replacement as a share of what
            goes, within these tokens and at most this share of the window.
        prune: whether tool output is pruned first; enough by itself when it frees `prune_least` tokens and
            leaves at most `prune_enough` of the threshold.
        fallback: what a failure leads to that is neither network, credential, quota nor time: "digest" or
            "keep" every message.
        alternate: whether neighbours of one role are merged, for chat formats.
    """

    ratio: float = 0.50
    small_window: int = 512_000
    small_ratio: float = 0.75
    floor: int = 64_000
    floor_share: float = 0.85
    cap: int | None = None
    overrides: tuple[Override, ...] = OVERRIDES
    growth: int = 4_096
    growth_share: float = 0.05
    strikes: int = 2
    digests: int = 2
    head: int = 3
    tail_share: float = 0.20
    overshoot: float = 1.5
    tail_messages: int = 3
    digest_share: float = 0.20
    digest_least: int = 2_000
    digest_most: int = 10_000
    digest_window: float = 0.05
    prune: bool = True
    prune_least: int = 4_096
    prune_enough: float = 0.80
    fallback: Literal["digest", "keep"] = "digest"
    alternate: bool = True

    def __post_init__(self) -> None:
        for name in ("ratio", "small_ratio", "floor_share", "digest_share", "digest_window", "prune_enough"):
            _share(name, getattr(self, name))
        for name, least, most in _LIMITS:
            value = getattr(self, name)
            if value is not None and not least <= value <= most:
                raise UsageError(
                    f"policy {name} must be {least:g} to {most:g}, got {value!r}", hint="See compression.md."
                )
        if self.fallback not in ("digest", "keep"):
            raise UsageError(f"policy fallback cannot be {self.fallback!r}", hint='Say "digest" or "keep".')

    def threshold(self, window: int, *, reserved: int = 0, model: str = "", route: str = "") -> int:
        """Tokens from which compression is due.

        Args:
            window: the model's context window.
            reserved: tokens of the window that the answer may take.
            model, route: names, for the overrides.
        """
        if window < 1 or not 0 <= reserved < window:
            raise UsageError(
                f"a window of {window} tokens with {reserved} reserved has no room", hint="Check both."
            )
        usable = window - reserved
        override = self._override(model, route)
        ratio = self.ratio if window >= self.small_window else max(self.ratio, self.small_ratio)
        if override is not None and override.tokens is not None:
            due = min(override.tokens, usable)
        else:
            due = int(usable * (override.ratio if override and override.ratio is not None else ratio))
            due = max(due, self.floor) if self.floor < usable else int(usable * self.floor_share)
        return max(1, due if self.cap is None else min(due, self.cap))

    def should_compress(
        self,
        tokens: int,
        window: int,
        *,
        now: float,
        history: History = History(),
        reserved: int = 0,
        model: str = "",
        route: str = "",
        estimated: bool = False,
    ) -> Verdict:
        """Whether a conversation of so many tokens is to be compressed now, and why.

        Args:
            tokens: of the whole prompt, as the provider counted it, or `estimated`.
            now: Unix time in seconds.
        """
        due = self.threshold(window, reserved=reserved, model=model, route=route)
        if tokens < due:
            return Verdict(False, "below", f"{tokens:,} tokens are below the threshold of {due:,}.", due)
        if estimated and history.awaiting:
            return Verdict(False, "waiting", "Waiting for the real usage after the last compaction.", due)
        if estimated and history.fit is not None:
            grown = tokens - history.fit
            if grown <= max(self.growth, int(history.fit * self.growth_share)):
                reason = f"Only an estimate says so, {grown:,} tokens above what was proven to fit."
                return Verdict(False, "estimate", reason, due)
        blocked = self.blocked(history, now, due)
        if blocked is not None:  # a verdict that says no is false
            return blocked
        return Verdict(True, "due", f"{tokens:,} tokens have reached the threshold of {due:,}.", due)

    def blocked(self, history: History, now: float, due: int = 0) -> Verdict | None:
        """What forbids a compaction now although one is due, or None."""
        if now < history.cooldown_until:
            left = history.cooldown_until - now
            reason = f"Resting for another {left:.0f} s after a failure: {history.cooldown_reason}"
            return Verdict(False, "cooldown", reason, due, history.cooldown_until)
        if history.strikes >= self.strikes:
            reason = f"The last {history.strikes} compactions freed too little; by hand it is tried again."
            return Verdict(False, "ineffective", reason, due)
        if history.digests >= self.digests:
            reason = f"The last {history.digests} compactions had no summary; by hand it is tried again."
            return Verdict(False, "digests", reason, due)
        return None

    def shape(self, threshold: int, window: int, history: History = History()) -> Shape:
        """What stays of a conversation at this threshold."""
        most = max(1, min(self.digest_most, int(window * self.digest_window)))
        return Shape(
            head=0 if history.compactions else self.head,
            tail=max(1, int(threshold * self.tail_share)),
            overshoot=self.overshoot,
            least=self.tail_messages,
            digest_share=self.digest_share,
            digest_least=min(self.digest_least, most),
            digest_most=most,
        )

    def _override(self, model: str, route: str) -> Override | None:
        model, route = model.casefold(), route.casefold()
        rows = [
            row
            for row in self.overrides
            if row.model.casefold() in model and (not row.route or row.route.casefold() in route)
        ]
        return max(rows, key=lambda row: (bool(row.route), len(row.model)), default=None)
