"""OpenTelemetry: every call as a span with a child for each attempt, and as metrics.

Strategy: `OpenTelemetry` is an observer. The span is made after the fact, with the times of the record. Names
are those of the GenAI conventions, which are still moving: `NAMES` has all of them in two columns, v1.41.0 of
the main conventions and the main branch of the repository they moved to. What has no convention (recovery) is
called `sidestream.*`. No prompt, no answer, no words of a provider.

Needs `opentelemetry-api`, the extra `sidestream[otel]`; nothing else in the library imports this file.
Sources: https://github.com/open-telemetry/semantic-conventions/tree/v1.41.0/docs/gen-ai,
https://github.com/open-telemetry/semantic-conventions-genai (status: development).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Literal, NamedTuple, get_args

from .errors import ConfigError
from .reply import Attempt, Usage
from .telemetry import CallRecord

try:
    from opentelemetry import metrics, trace
    from opentelemetry.util.types import AttributeValue
except ImportError as missing:
    raise ConfigError(
        "sidestream.otel needs opentelemetry-api: pip install 'sidestream[otel]'",
        hint="pip install 'sidestream[otel]'",
    ) from missing

__all__ = ["METRICS", "NAMES", "OpenTelemetry", "Version"]

Version = Literal["1.41.0", "main"]
Value = str | bool | int | float | tuple[str, ...] | None

# What it is -> its name, or its name in each version; "" where a version has none.
NAMES: dict[str, str | tuple[str, str]] = {
    # attributes by convention
    "operation": "gen_ai.operation.name",
    "provider": "gen_ai.provider.name",
    "model": "gen_ai.request.model",
    "stream": "gen_ai.request.stream",
    "max_tokens": "gen_ai.request.max_tokens",
    "temperature": "gen_ai.request.temperature",
    "top_p": "gen_ai.request.top_p",
    "choices": "gen_ai.request.choice.count",
    "response_id": "gen_ai.response.id",
    "response_model": "gen_ai.response.model",
    "finish_reasons": "gen_ai.response.finish_reasons",
    "first": "gen_ai.response.time_to_first_chunk",
    "input_tokens": "gen_ai.usage.input_tokens",
    "output_tokens": "gen_ai.usage.output_tokens",
    "cached_tokens": "gen_ai.usage.cache_read.input_tokens",
    "reasoning_tokens": "gen_ai.usage.reasoning.output_tokens",
    "token_type": ("gen_ai.token.type", ""),
    "host": "server.address",
    "port": "server.port",
    "error": "error.type",
    "http_status": "http.response.status_code",
    # attributes of our own
    "task": "sidestream.task",
    "status": "sidestream.status",
    "attempts": "sidestream.attempts",
    "rungs": "sidestream.rungs",
    "faults": "sidestream.faults",
    "settled": "sidestream.settled",
    "stop_count": "sidestream.request.stop_count",
    "kept": "sidestream.tokens.kept",
    "wasted": "sidestream.tokens.wasted",
    "reread": "sidestream.tokens.reread",
    "confidence": "sidestream.tokens.confidence",
    "cost": "sidestream.cost",
    "route": "sidestream.route",
    "rung": "sidestream.rung",
    "ended": "sidestream.ended",
    "fault": "sidestream.fault",
    "budget": "sidestream.budget",
    "request_id": "sidestream.request_id",
    # metrics by convention
    "duration metric": ("gen_ai.client.operation.duration", "gen_ai.client.inference.duration"),
    "first metric": (
        "gen_ai.client.operation.time_to_first_chunk",
        "gen_ai.client.inference.time_to_first_chunk",
    ),
    "input metric": ("gen_ai.client.token.usage", "gen_ai.client.inference.operation.input_tokens"),
    "output metric": ("gen_ai.client.token.usage", "gen_ai.client.inference.operation.output_tokens"),
    "input total": ("", "gen_ai.client.inference.usage.input_tokens"),
    "output total": ("", "gen_ai.client.inference.usage.output_tokens"),
    "cached total": ("", "gen_ai.client.inference.usage.cache_read.input_tokens"),
    "reasoning total": ("", "gen_ai.client.inference.usage.reasoning.output_tokens"),
    # metrics of our own
    "attempts total": "sidestream.client.attempts",
    "recovered total": "sidestream.client.recovered",
    "gave up total": "sidestream.client.gave_up",
    "wasted total": "sidestream.client.tokens.wasted",
    "reread total": "sidestream.client.tokens.reread",
    "refusals total": "sidestream.client.budget_refusals",
}

# Bucket boundaries that the conventions recommend.
_SECONDS = tuple(0.01 * 2**power for power in range(14))
_TOKENS = tuple(4**power for power in range(14))


class Metric(NamedTuple):
    """A counter, or with `buckets` a histogram."""

    unit: str
    meaning: str
    buckets: tuple[float, ...] = ()


METRICS: dict[str, Metric] = {
    "duration metric": Metric("s", "Duration of a call, every attempt and wait included.", _SECONDS),
    "first metric": Metric("s", "Time from the start of a streamed call to its first output.", _SECONDS),
    "input metric": Metric("{token}", "Tokens of a call, all of its attempts together.", _TOKENS),
    "output metric": Metric("{token}", "Tokens of a call, all of its attempts together.", _TOKENS),
    "input total": Metric("{token}", "Prompt tokens read."),
    "output total": Metric("{token}", "Output tokens generated."),
    "cached total": Metric("{token}", "Prompt tokens read from the provider's cache."),
    "reasoning total": Metric("{token}", "Output tokens spent on reasoning."),
    "attempts total": Metric("{attempt}", "HTTP exchanges, by the rung that made them."),
    "recovered total": Metric("{call}", "Calls that broke and brought the answer nevertheless."),
    "gave up total": Metric("{call}", "Calls that failed, by fault."),
    "wasted total": Metric("{token}", "Output tokens generated and thrown away."),
    "reread total": Metric("{token}", "Prompt tokens read again by a later attempt."),
    "refusals total": Metric("{call}", "Calls that a budget ended, by budget."),
}

_DIMENSIONS = ("operation", "provider", "model", "response_model", "host", "port", "error")


class OpenTelemetry:
    """An observer that exports calls: `Client(observe=OpenTelemetry())`.

    Args:
        tracer_provider: where spans go; default: the global one.
        meter_provider: where metrics go; default: the global one.
        names: "1.41.0", what SDKs export today, or "main", what the conventions are going to.

    Raises:
        ConfigError: there are no such names.
    """

    def __init__(
        self,
        tracer_provider: trace.TracerProvider | None = None,
        meter_provider: metrics.MeterProvider | None = None,
        names: Version = "1.41.0",
    ) -> None:
        if names not in get_args(Version):
            raise ConfigError(f"no names for {names!r}", hint=f"use one of {', '.join(get_args(Version))}")
        self._names = names_of(names)
        self._tracer = trace.get_tracer("sidestream", tracer_provider=tracer_provider)
        meter = metrics.get_meter("sidestream", meter_provider=meter_provider)
        made: dict[str, metrics.Counter | metrics.Histogram] = {}
        for what, metric in METRICS.items():
            name = self._names[what]
            if name and name not in made:
                made[name] = _instrument(meter, name, metric)
        self._instruments = made

    def __call__(self, record: CallRecord) -> None:
        """Export one finished call."""
        self._trace(record)
        attributes = _attributes(record)
        base = {what: attributes[what] for what in _DIMENSIONS}
        for what, amount, more in _measurements(record):
            if name := self._names[what]:
                self._measure(name, amount, self._named({**base, **more}))

    def _trace(self, record: CallRecord) -> None:
        start = record.started
        span = self._tracer.start_span(
            f"{record.operation} {record.model}",
            kind=trace.SpanKind.CLIENT,
            attributes=self._named(_attributes(record)),
            start_time=_nanoseconds(start),
        )
        inside = trace.set_span_in_context(span)
        for sent, row in zip(record.sent, record.attempts, strict=False):
            child = self._tracer.start_span(
                f"attempt {row.rung}",
                context=inside,
                attributes=self._named(_attempt_attributes(row)),
                start_time=_nanoseconds(start + sent),
            )
            child.end(_nanoseconds(start + sent + row.seconds))
        if record.ended == "failed":
            span.set_status(trace.StatusCode.ERROR)
        span.end(_nanoseconds(start + record.seconds))

    def _measure(self, name: str, amount: float, attributes: dict[str, AttributeValue]) -> None:
        instrument = self._instruments[name]
        if isinstance(instrument, metrics.Histogram):
            instrument.record(amount, attributes)
        else:
            instrument.add(amount, attributes)

    def _named(self, values: Mapping[str, Value]) -> dict[str, AttributeValue]:
        """The values that are known, by their names."""
        return {
            name: value
            for what, value in values.items()
            if value not in (None, "", ()) and (name := self._names[what])
        }


def names_of(version: Version) -> dict[str, str]:
    """One column of the table."""
    column = get_args(Version).index(version)
    return {what: name if isinstance(name, str) else name[column] for what, name in NAMES.items()}


def _instrument(meter: metrics.Meter, name: str, metric: Metric) -> metrics.Counter | metrics.Histogram:
    if not metric.buckets:
        return meter.create_counter(name, metric.unit, metric.meaning)
    return meter.create_histogram(
        name, metric.unit, metric.meaning, explicit_bucket_boundaries_advisory=metric.buckets
    )


def _attributes(record: CallRecord) -> dict[str, Value]:
    """A call's values by what they are."""
    usage = record.usage or Usage()
    return {
        "operation": record.operation,
        "provider": record.provider,
        "model": record.model,
        "stream": record.live,
        "max_tokens": record.max_tokens,
        "temperature": record.temperature,
        "top_p": record.top_p,
        "choices": record.choices if record.choices != 1 else None,
        "response_id": record.response_id,
        "response_model": record.response_model,
        "finish_reasons": (record.finish_reason,) if record.finish_reason else None,
        "first": record.first if record.live else None,
        "input_tokens": usage.input_tokens,
        "output_tokens": usage.output_tokens,
        "cached_tokens": usage.cached_tokens,
        "reasoning_tokens": usage.reasoning_tokens,
        "host": record.host,
        "port": record.port or None,
        "error": record.error,
        "task": record.task,
        "ended": record.ended,
        "status": record.status,
        "attempts": len(record.attempts),
        "rungs": record.rungs,
        "faults": record.faults,
        "settled": record.settled or None,
        "stop_count": record.stop_count,
        "kept": usage.kept_tokens,
        "wasted": usage.wasted_tokens,
        "reread": usage.reread_tokens,
        "confidence": usage.confidence,
        "cost": usage.cost,
        "route": record.route,
        "fault": record.fault,
        "budget": record.budget,
    }


def _attempt_attributes(row: Attempt) -> dict[str, Value]:
    return {
        "route": row.route,
        "rung": row.rung,
        "ended": row.ended,
        "http_status": row.status,
        "request_id": row.request_id,
        "input_tokens": row.input_tokens,
        "output_tokens": row.tokens,
        "cached_tokens": row.cached_tokens,
        "kept": row.kept,
        "wasted": row.wasted,
        "reread": row.reread,
        "confidence": row.confidence,
        "cost": row.cost,
    }


def _measurements(record: CallRecord) -> Iterator[tuple[str, float, dict[str, Value]]]:
    """What a call adds to which metric, with the attributes that only this metric has."""
    counts, usage = record.counts, record.usage or Usage()
    sure: dict[str, Value] = {"confidence": usage.confidence}
    yield "duration metric", record.seconds, {}
    if record.live and record.first is not None:
        yield "first metric", record.first, {}
    for what, tokens in (("input", usage.input_tokens), ("output", usage.output_tokens)):
        if tokens is not None:
            yield f"{what} metric", tokens, {"token_type": what, **sure}
            yield f"{what} total", tokens, sure
    for what, tokens in (("cached", usage.cached_tokens), ("reasoning", usage.reasoning_tokens)):
        if tokens:
            yield f"{what} total", tokens, sure
    for row in record.attempts:
        yield "attempts total", 1, {"rung": row.rung}
    if counts.recovered:
        yield "recovered total", 1, {}
    for fault, times in counts.gave_up.items():
        yield "gave up total", times, {"fault": fault}
    for budget, times in counts.refusals.items():
        yield "refusals total", times, {"budget": budget}
    for what, tokens in (("wasted", counts.wasted_tokens), ("reread", counts.reread_tokens)):
        if tokens:
            yield f"{what} total", tokens, sure


def _nanoseconds(seconds: float) -> int:
    return round(seconds * 1e9)
