"""What became of a call, told once: its record, its counts, its line in the log.

Strategy: when a call ends, in whatever way, its run makes one `CallRecord` of the request's figures, the
ledger and the clock, and hands it to the client's observers. Nothing happens per event. A record has numbers
and names, no prompt, no answer and no credential. Only an attempt's `detail` may quote a provider, and it
goes neither into the log nor to OpenTelemetry. An observer runs where the call ended, in the context in which
it began (that of the surrounding span, say), and cannot break it.

Not here: OpenTelemetry (otel.py); what a fault means (recovery/).
"""

from __future__ import annotations

import contextvars
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from .errors import BudgetExhausted, CallFailed, Cancelled, SidestreamError, UsageError
from .recovery.faults import one_line
from .recovery.flow import Call
from .reply import Attempt, Reply, Status, Usage
from .route import Route

__all__ = ["PROVIDERS", "CallRecord", "Counts", "Observer", "Stopwatch", "log_calls", "observers_of", "tell"]

Ending = Literal["complete", "incomplete", "failed", "cancelled", "abandoned"]

# End of the host name -> provider, in the words of OpenTelemetry; another host stands for itself.
PROVIDERS: dict[str, str] = {
    "openai.com": "openai",
    "chatgpt.com": "openai",
    "openai.azure.com": "azure.ai.openai",
    "cognitiveservices.azure.com": "azure.ai.openai",
    "services.ai.azure.com": "azure.ai.inference",
    "anthropic.com": "anthropic",
    "generativelanguage.googleapis.com": "gcp.gemini",
    "aiplatform.googleapis.com": "gcp.vertex_ai",
    "amazonaws.com": "aws.bedrock",
    "cohere.com": "cohere",
    "cohere.ai": "cohere",
    "deepseek.com": "deepseek",
    "groq.com": "groq",
    "mistral.ai": "mistral_ai",
    "moonshot.ai": "moonshot_ai",
    "moonshot.cn": "moonshot_ai",
    "perplexity.ai": "perplexity",
    "x.ai": "x_ai",
}

_MAX_TOKENS = ("max_output_tokens", "max_completion_tokens", "max_tokens")
_NO_FAULT = ("complete", "incomplete", "settled", "cancel", "interrupt")
_NONE: Mapping[str, int] = {}


@dataclass(frozen=True, slots=True)
class CallRecord:
    """One finished call.

    Attributes:
        route, host, port, provider, model: the first route in the call's order.
        task: the side task it was for, "" for none.
        live: whether the caller read along.
        ended: "complete", "incomplete" (a token limit), "failed", "cancelled" (any stop from outside, Ctrl-C
            included) or "abandoned" (a stream closed before its end).
        started: Unix time in seconds.
        seconds: from start to end, the caller's own time between two events included.
        operation: the kind of call; always "chat".
        max_tokens, temperature, top_p, stop_count, choices: what was asked, None if it was not said.
        status, finish_reason, settled: of the reply, as far as there is one.
        response_id, response_model: as the provider gave them, one line of at most 500 characters each.
        usage: tokens of all exchanges together, None if there was none.
        attempts: the ledger.
        sent: when each attempt was sent, in seconds after the start.
        error: name of the exception's class, "" if there was none.
        fault: the kind of fault that ended a failed call, "" if it was none.
        budget: which limit ended it, for `BudgetExhausted`.
    """

    route: str
    host: str
    port: int
    provider: str
    model: str
    live: bool
    ended: Ending
    started: float
    seconds: float
    operation: str = "chat"
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    stop_count: int | None = None
    choices: int = 1
    status: Status | None = None
    finish_reason: str | None = None
    settled: bool = False
    response_id: str | None = None
    response_model: str | None = None
    usage: Usage | None = None
    attempts: tuple[Attempt, ...] = ()
    sent: tuple[float, ...] = ()
    error: str = ""
    fault: str = ""
    budget: str = ""
    task: str = ""

    @property
    def first(self) -> float | None:
        """Seconds from the start to the first output, failed attempts and waits included."""
        pairs = zip(self.sent, self.attempts, strict=False)
        return next((sent + row.first for sent, row in pairs if row.first is not None), None)

    @property
    def rungs(self) -> tuple[str, ...]:
        """The ways of recovering that were taken, in order."""
        again = tuple(row.rung for row in self.attempts if row.rung != "send")
        return (*again, "settle") if self.settled else again

    @property
    def faults(self) -> tuple[str, ...]:
        """What ended the attempts that did not bring the answer."""
        return tuple(row.ended for row in self.attempts if row.ended not in _NO_FAULT)

    @property
    def recovered(self) -> bool:
        """Whether something broke and the answer came nevertheless."""
        return self.ended in ("complete", "incomplete") and bool(self.rungs)

    @property
    def counts(self) -> Counts:
        """The record as numbers that can be added up."""
        usage = self.usage or Usage()
        return Counts(
            calls=1,
            attempts=len(self.attempts),
            recovered=int(self.recovered),
            gave_up={self.fault or self.error: 1} if self.ended == "failed" else _NONE,
            refusals={self.budget: 1} if self.budget else _NONE,
            wasted_tokens=usage.wasted_tokens or 0,
            reread_tokens=usage.reread_tokens or 0,
            uncounted=sum(row.tokens is None for row in self.attempts),
        )

    @classmethod
    def of(
        cls, call: Call, watch: Stopwatch, reply: Reply | None, error: BaseException | None = None
    ) -> CallRecord:
        """The record of a call that has just ended: with a reply, or with an error and what had arrived."""
        known = reply or Reply("dropped")
        attempts = known.attempts
        if not attempts and isinstance(error, (SidestreamError, Cancelled)):
            attempts = error.attempts

        def plain(text: str | None) -> str | None:
            return None if text is None else _plain(call.routes, text)

        return cls(
            **_asked(call),
            ended=_ended(known, error),
            started=watch.started,
            seconds=watch.seconds,
            status=reply.status if reply else None,
            finish_reason=plain(known.finish_reason),
            settled=known.settled,
            response_id=plain(known.id),
            response_model=plain(known.model),
            usage=Usage.of(attempts) if known.usage is None and attempts else known.usage,
            attempts=tuple(_scrubbed(row, call.routes) for row in attempts),
            sent=tuple(watch.sent),
            error=type(error).__name__ if error is not None and not _is_closed(error) else "",
            fault=error.fault.kind.word if isinstance(error, CallFailed) else "",
            budget=error.budget if isinstance(error, BudgetExhausted) else "",
        )


@dataclass(frozen=True, slots=True)
class Counts:
    """Numbers of one call, or of many: they add up with `+`.

    Attributes:
        calls, attempts: calls and HTTP exchanges.
        recovered: calls that broke and brought the answer nevertheless.
        gave_up: failed calls by the fault that ended them (or the error's name).
        refusals: calls that a budget ended, by its name.
        wasted_tokens, reread_tokens: as far as known: output thrown away (what a restart said again
            included), prompt read again.
        uncounted: attempts of whose output nobody knows the tokens.
    """

    calls: int = 0
    attempts: int = 0
    recovered: int = 0
    gave_up: Mapping[str, int] = field(default_factory=dict)
    refusals: Mapping[str, int] = field(default_factory=dict)
    wasted_tokens: int = 0
    reread_tokens: int = 0
    uncounted: int = 0

    def __add__(self, other: Counts) -> Counts:
        return Counts(
            self.calls + other.calls,
            self.attempts + other.attempts,
            self.recovered + other.recovered,
            Counter(self.gave_up) + Counter(other.gave_up),
            Counter(self.refusals) + Counter(other.refusals),
            self.wasted_tokens + other.wasted_tokens,
            self.reread_tokens + other.reread_tokens,
            self.uncounted + other.uncounted,
        )


Observer = Callable[[CallRecord], object]


class Stopwatch:
    """When a call began, in which context, and when each of its requests went out.

    `clock` is monotonic seconds, `unix_time` the wall.
    """

    __slots__ = ("_began", "_clock", "context", "sent", "started")

    def __init__(self, clock: Callable[[], float], unix_time: Callable[[], float]) -> None:
        self._clock = clock
        self._began = clock()
        self.started = unix_time()
        self.sent: list[float] = []
        self.context = contextvars.copy_context()

    @property
    def seconds(self) -> float:
        """Since the start."""
        return self._clock() - self._began

    def send(self) -> None:
        """A request goes out now."""
        self.sent.append(self.seconds)


def observers_of(observe: Observer | Iterable[Observer] | None) -> tuple[Observer, ...]:
    """What `observe=` means: None is the log, one observer or several are themselves.

    Raises:
        UsageError: it is nothing that can be called with a record.
    """
    if observe is None:
        return (log_calls(),)
    observers = (observe,) if callable(observe) else tuple(observe)
    if not all(callable(observer) for observer in observers):
        raise UsageError("observe= takes functions of one CallRecord", hint="observe=() observes nothing")
    return observers


def tell(
    observers: Iterable[Observer],
    call: Call,
    watch: Stopwatch,
    reply: Reply | None,
    error: BaseException | None = None,
) -> None:
    """Tell every observer of a call that has just ended. Raises nothing."""
    record: CallRecord | None = None
    for observer in observers:
        record = record or CallRecord.of(call, watch, reply, error)
        try:
            watch.context.run(observer, record)
        except Exception:  # the answer is worth more than whatever an observer does with a record
            import logging

            logging.getLogger("sidestream").exception("an observer of calls failed; the call is not affected")


def log_calls() -> Observer:
    """An observer that writes one line per call to the logger "sidestream".

    DEBUG for a call that went through or was given up by its caller, INFO if something had to be recovered,
    WARNING if it failed. A program that configures no logging sees nothing.
    """

    def log(record: CallRecord) -> None:
        import logging  # when there is something to say: a client is made without it

        logger = logging.getLogger("sidestream")
        if not logger.handlers:
            logger.addHandler(logging.NullHandler())
        level = logging.INFO if record.rungs else logging.DEBUG
        if record.ended == "failed":
            level = logging.WARNING
        if logger.isEnabledFor(level):
            logger.log(level, "%s", _line(record))

    return log


def _line(record: CallRecord) -> str:
    """Who was asked, how it ended, what broke, what brought it back, what it took."""
    by = f" ({record.error})" if record.error else ""
    after = f" after {', '.join(record.faults)}" if record.faults else ""
    rungs = f"; {', '.join(record.rungs)}" if record.rungs else ""
    last = record.attempts[-1].route if record.attempts else record.route
    to = f" → {last}" if last != record.route else ""
    usage = record.usage or Usage()
    about = "~" if usage.confidence == "estimated" else ""
    kept, wasted = (
        "?" if tokens is None else f"{about if tokens else ''}{tokens}"
        for tokens in (usage.kept_tokens, usage.wasted_tokens)
    )
    return (
        f"{record.route}{to}: {record.ended}{by} in {record.seconds:.2f} s{after}{rungs}; "
        f"{kept} tokens kept, {wasted} wasted"
    )


def _ended(reply: Reply, error: BaseException | None) -> Ending:
    if error is None:
        return "incomplete" if reply.status == "incomplete" else "complete"
    if _is_closed(error):
        return "abandoned"
    return "failed" if isinstance(error, Exception) else "cancelled"


def _is_closed(error: BaseException) -> bool:
    """Whether this is what a generator sees that is closed before its end."""
    return isinstance(error, GeneratorExit)


def _asked(call: Call) -> dict[str, Any]:
    """The main route and the figures of the request."""
    params = call.request.params
    stop = params.get("stop")
    main = call.routes[0] if call.routes else None
    max_tokens = next((n for n in map(params.get, _MAX_TOKENS) if isinstance(n, int)), None)
    return {
        "route": main.name if main else "",
        "host": main.host if main else "",
        "port": main.port if main else 0,
        "provider": _provider(main.host) if main else "",
        "model": main.model if main else "",
        "live": call.live,
        "task": call.task,
        "max_tokens": max_tokens,
        "temperature": _float(params.get("temperature")),
        "top_p": _float(params.get("top_p")),
        "stop_count": 1 if isinstance(stop, str) else len(stop) if isinstance(stop, (list, tuple)) else None,
        "choices": call.request.choices,
    }


def _float(value: object) -> float | None:
    return float(value) if isinstance(value, (int, float)) else None


def _provider(host: str) -> str:
    labels = host.split(".")
    ends = (".".join(labels[at:]) for at in range(len(labels)))
    return next((PROVIDERS[end] for end in ends if end in PROVIDERS), host)


def _scrubbed(row: Attempt, routes: Iterable[Route]) -> Attempt:
    request_id = _plain(routes, row.request_id)
    return row if request_id == row.request_id else replace(row, request_id=request_id)


def _plain(routes: Iterable[Route], text: str) -> str:
    """Words of a provider as one line, without the credentials it may quote back."""
    for route in routes:
        text = route.without_credentials(text)
    return one_line(text)
