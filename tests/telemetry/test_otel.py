"""OpenTelemetry: exactly the named spans, attributes and metrics, by the real SDK's in-memory exporters."""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from callers import WAYS
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import HistogramDataPoint, InMemoryMetricReader, NumberDataPoint
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.semconv._incubating.attributes import gen_ai_attributes
from opentelemetry.semconv._incubating.metrics import gen_ai_metrics
from opentelemetry.trace import SpanKind, StatusCode
from verdicts import Outcome

from sidestream import (
    Attempt,
    BudgetExhausted,
    ConfigError,
    Fault,
    FaultKind,
    Reply,
    Route,
    Secret,
)
from sidestream.lab import Fault as Break
from sidestream.lab import Lab, Plan, script
from sidestream.otel import METRICS, NAMES, OpenTelemetry, Version, names_of
from sidestream.recovery.flow import Call
from sidestream.telemetry import CallRecord, Stopwatch
from sidestream.wire.prompt import Request

Make = Callable[..., tuple[Outcome, CallRecord]]
Point = HistogramDataPoint | NumberDataPoint

PAGE = Path(__file__).parents[2] / "docs" / "telemetry.md"
TEXT = "The quick brown fox jumps over the lazy dog."
KEY = "Canary0d41d8cd98f00b204"
ways = pytest.mark.parametrize("way", WAYS)


class Collector:
    """Providers that keep what they are given, and an observer that exports to them."""

    def __init__(self, names: Version = "1.41.0") -> None:
        self._spans, self._metrics = InMemorySpanExporter(), InMemoryMetricReader()
        self.tracers = TracerProvider()
        self.tracers.add_span_processor(SimpleSpanProcessor(self._spans))
        self.observer = OpenTelemetry(self.tracers, MeterProvider([self._metrics]), names)

    @property
    def spans(self) -> list[ReadableSpan]:
        """Finished spans, by their start."""
        return sorted(self._spans.get_finished_spans(), key=lambda span: span.start_time or 0)

    def metrics(self) -> dict[str, Any]:
        """Metrics by name."""
        data = self._metrics.get_metrics_data()
        assert data is not None
        return {
            metric.name: metric
            for resource in data.resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
        }

    def everything(self) -> str:
        """All that was exported, as text."""
        data = self._metrics.get_metrics_data()
        return "".join(span.to_json() for span in self.spans) + (data.to_json() if data else "")


def points(metric: Any) -> list[Point]:
    return list(metric.data.data_points)


def totals(metric: Any) -> dict[tuple[object, ...], float]:
    """Of a counter: what there is, by the attributes that only this metric has."""
    own = ("sidestream.rung", "sidestream.fault", "sidestream.budget")
    return {
        tuple(point.attributes[name] for name in own if name in point.attributes): point.value
        for point in points(metric)
    }


# A call through the lab.

CALL = {
    "gen_ai.operation.name", "gen_ai.provider.name", "gen_ai.request.model", "gen_ai.request.stream",
    "gen_ai.request.max_tokens", "gen_ai.request.temperature", "gen_ai.response.id", "gen_ai.response.model",
    "gen_ai.response.finish_reasons", "gen_ai.usage.output_tokens", "server.address", "server.port",
    "sidestream.ended", "sidestream.status", "sidestream.route", "sidestream.attempts", "sidestream.rungs",
    "sidestream.faults", "sidestream.tokens.kept", "sidestream.tokens.wasted", "sidestream.tokens.confidence",
}  # fmt: skip
ATTEMPT = {
    "sidestream.route", "sidestream.rung", "sidestream.ended", "http.response.status_code",
    "sidestream.request_id", "gen_ai.usage.output_tokens",
    "sidestream.tokens.kept", "sidestream.tokens.wasted", "sidestream.tokens.confidence",
}  # fmt: skip
# What depends on what the provider reported, and on whether the call was live.
SOMETIMES = {
    "gen_ai.usage.input_tokens", "gen_ai.usage.cache_read.input_tokens",
    "gen_ai.usage.reasoning.output_tokens", "gen_ai.response.time_to_first_chunk", "sidestream.tokens.reread",
}  # fmt: skip


@ways
@pytest.mark.parametrize("names", ["1.41.0", "main"])
def test_a_recovered_call(way: str, names: Version, make: Make) -> None:
    """A client span with exactly the named attributes, and in it a span for each attempt."""
    collector = Collector(names)
    asked = {"max_output_tokens": 50, "temperature": 0}
    with Lab(script.say(TEXT), plan=Plan([Break.cut(after_event=5)])) as lab:
        _, record = make(way, lab.url, asked, observe=[collector.observer])
    call, first, second = collector.spans
    attributes = dict(call.attributes or {})
    assert (call.name, call.kind, call.status.status_code) == ("chat m", SpanKind.CLIENT, StatusCode.UNSET)
    assert set(attributes) - SOMETIMES == CALL
    assert attributes["gen_ai.operation.name"] == "chat"
    assert attributes["gen_ai.request.stream"] is way.endswith("live")
    assert attributes["gen_ai.response.finish_reasons"] == ("stop",)
    assert attributes["server.port"] == lab.port
    assert attributes["sidestream.attempts"] == 2
    assert attributes["sidestream.faults"] == ("dropped",)
    assert ("gen_ai.response.time_to_first_chunk" in attributes) == (record.live and record.first is not None)
    for span, row in ((first, record.attempts[0]), (second, record.attempts[1])):
        assert span.parent is not None
        assert call.context is not None
        assert span.parent.span_id == call.context.span_id
        assert span.name == f"attempt {row.rung}"
        assert set(span.attributes or {}) - SOMETIMES <= ATTEMPT
        assert (span.attributes or {})["sidestream.ended"] == row.ended


def test_spans_have_the_times_of_the_call() -> None:
    """Spans start and end when the call and its attempts did, not when they were exported."""
    collector = Collector()
    collector.observer(RECORD)
    spans = [(span.name, span.start_time, span.end_time) for span in collector.spans]
    start = 1_790_000_000_000_000_000
    assert spans == [
        ("chat m", start, start + 9_000_000_000),
        ("attempt send", start + 1_000_000_000, start + 3_000_000_000),
        ("attempt anchor", start + 4_000_000_000, start + 8_000_000_000),
    ]


def test_a_span_is_inside_that_of_its_caller(make: Make) -> None:
    """A call made inside a span is a child of it."""
    collector = Collector()
    tracer = collector.tracers.get_tracer("test")
    with Lab(script.say(TEXT)) as lab, tracer.start_as_current_span("agent turn") as turn:
        make("sync-live", lab.url, observe=[collector.observer])
    call = next(span for span in collector.spans if span.name == "chat m")
    assert call.parent is not None
    assert call.parent.span_id == turn.get_span_context().span_id


# Calls as plain values.

ROWS = (
    Attempt("main", "send", "dropped", "Qdetail", 200, "req-1", 2.0, 0.5, 5, 7, input_tokens=40),
    Attempt(
        "main", "anchor", "complete", "", 200, "req-2", 4.0, 1.0, 9, 12, 9,
        input_tokens=50, cached_tokens=30, reread=40, confidence="reported", cost=0.25,
    ),
)  # fmt: skip
ROUTE = Route("https://api.openai.com/v1", "m", name="main")


def recorded(reply: Reply | None, error: BaseException | None = None, *, live: bool = True) -> CallRecord:
    times = iter((0.0, 1.0, 4.0, 9.0))
    watch = Stopwatch(times.__next__, lambda: 1_790_000_000.0)
    watch.send()
    watch.send()
    call = Call(Request((), params={"n": 2, "stop": ["a"], "top_p": 0.5}), (ROUTE,), live=live)
    return CallRecord.of(call, watch, reply, error)


RECORD = recorded(
    replace(Reply("complete", model="m-1", id="r-1"), finish_reason="stop").with_attempts(ROWS, 3)
)
LOST = recorded(
    None,
    BudgetExhausted(
        "Qmessage", budget="origin", fault=Fault(FaultKind.DROPPED, "Qdetail"), attempts=ROWS[:1]
    ),
)


def test_attributes_of_a_call_in_full() -> None:
    """Every attribute a call can have, with its value."""
    collector = Collector()
    collector.observer(RECORD)
    assert dict(collector.spans[0].attributes or {}) == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "m",
        "gen_ai.request.stream": True,
        "gen_ai.request.top_p": 0.5,
        "gen_ai.request.choice.count": 2,
        "gen_ai.response.id": "r-1",
        "gen_ai.response.model": "m-1",
        "gen_ai.response.finish_reasons": ("stop",),
        "gen_ai.response.time_to_first_chunk": 1.5,
        "gen_ai.usage.input_tokens": 90,
        "gen_ai.usage.output_tokens": 19,
        "gen_ai.usage.cache_read.input_tokens": 30,
        "gen_ai.usage.reasoning.output_tokens": 3,
        "server.address": "api.openai.com",
        "server.port": 443,
        "sidestream.ended": "complete",
        "sidestream.status": "complete",
        "sidestream.route": "main",
        "sidestream.attempts": 2,
        "sidestream.rungs": ("anchor",),
        "sidestream.faults": ("dropped",),
        "sidestream.request.stop_count": 1,
        "sidestream.tokens.kept": 9,
        "sidestream.tokens.wasted": 10,
        "sidestream.tokens.reread": 40,
        "sidestream.tokens.confidence": "estimated",
    }


def test_attributes_of_an_attempt_in_full() -> None:
    """Every attribute an attempt can have, with its value; its words are not among them."""
    collector = Collector()
    collector.observer(RECORD)
    assert dict(collector.spans[2].attributes or {}) == {
        "sidestream.route": "main",
        "sidestream.rung": "anchor",
        "sidestream.ended": "complete",
        "http.response.status_code": 200,
        "sidestream.request_id": "req-2",
        "gen_ai.usage.input_tokens": 50,
        "gen_ai.usage.output_tokens": 12,
        "gen_ai.usage.cache_read.input_tokens": 30,
        "sidestream.tokens.kept": 9,
        "sidestream.tokens.wasted": 3,
        "sidestream.tokens.reread": 40,
        "sidestream.tokens.confidence": "reported",
        "sidestream.cost": 0.25,
    }


def test_a_failed_call() -> None:
    """A failed call's span is an error with the exception's name, its fault and the budget that refused."""
    collector = Collector()
    collector.observer(LOST)
    span = collector.spans[0]
    attributes = span.attributes or {}
    assert span.status.status_code is StatusCode.ERROR
    assert attributes["error.type"] == "BudgetExhausted"
    assert attributes["sidestream.fault"] == "dropped"
    assert attributes["sidestream.budget"] == "origin"
    assert "Q" not in collector.everything()


@pytest.mark.parametrize("error", [GeneratorExit(), KeyboardInterrupt()])
def test_a_call_that_its_caller_gave_up_is_no_error(error: BaseException) -> None:
    """A call that was left or stopped by its caller does not count as a failure of the provider."""
    collector = Collector()
    collector.observer(recorded(Reply("dropped").with_attempts(ROWS[:1]), error))
    assert collector.spans[0].status.status_code is StatusCode.UNSET
    assert "sidestream.client.gave_up" not in collector.metrics()


# Metrics.

OURS = {
    "sidestream.client.attempts", "sidestream.client.recovered", "sidestream.client.gave_up",
    "sidestream.client.tokens.wasted", "sidestream.client.tokens.reread", "sidestream.client.budget_refusals",
}  # fmt: skip
CONVENTIONAL: dict[Version, set[str]] = {
    "1.41.0": {
        "gen_ai.client.operation.duration", "gen_ai.client.operation.time_to_first_chunk",
        "gen_ai.client.token.usage",
    },
    "main": {
        "gen_ai.client.inference.duration", "gen_ai.client.inference.time_to_first_chunk",
        "gen_ai.client.inference.operation.input_tokens", "gen_ai.client.inference.operation.output_tokens",
        "gen_ai.client.inference.usage.input_tokens", "gen_ai.client.inference.usage.output_tokens",
        "gen_ai.client.inference.usage.cache_read.input_tokens",
        "gen_ai.client.inference.usage.reasoning.output_tokens",
    },
}  # fmt: skip


@pytest.mark.parametrize("names", ["1.41.0", "main"])
def test_metrics_by_name(names: Version) -> None:
    """Exactly the metrics of the chosen conventions and our own, each with the unit it should have."""
    collector = Collector(names)
    collector.observer(RECORD)
    collector.observer(LOST)
    metrics = collector.metrics()
    assert set(metrics) == CONVENTIONAL[names] | OURS
    column = names_of(names)
    assert all(metrics[column[what]].unit == METRICS[what].unit for what in METRICS if column[what])


def test_the_duration_has_the_recommended_buckets_and_attributes() -> None:
    """Durations are in seconds, in the conventions' buckets, by operation, provider, model and server."""
    collector = Collector()
    collector.observer(RECORD)
    (point,) = points(collector.metrics()["gen_ai.client.operation.duration"])
    assert isinstance(point, HistogramDataPoint)
    assert (point.sum, point.count) == (9.0, 1)
    assert point.explicit_bounds == (
        0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92,
    )  # fmt: skip
    assert dict(point.attributes or {}) == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "m",
        "gen_ai.response.model": "m-1",
        "server.address": "api.openai.com",
        "server.port": 443,
    }


def test_tokens_are_those_of_all_attempts() -> None:
    """Token figures are sums over the attempts, in the conventions' buckets, with how sure they are."""
    collector = Collector()
    collector.observer(RECORD)
    found = {}
    for point in points(collector.metrics()["gen_ai.client.token.usage"]):
        assert isinstance(point, HistogramDataPoint)
        assert point.explicit_bounds[:4] == (1, 4, 16, 64)
        assert (point.attributes or {})["sidestream.tokens.confidence"] == "estimated"
        found[(point.attributes or {})["gen_ai.token.type"]] = point.sum
    assert found == {"input": 90, "output": 19}


def test_unknown_tokens_are_not_reported() -> None:
    """Tokens that nobody knows are no metric and no attribute: unknown is not 0."""
    collector = Collector()
    row = replace(ROWS[0], tokens=None, input_tokens=None, reread=None, confidence="unknown")
    collector.observer(recorded(Reply("complete").with_attempts((row,))))
    assert "gen_ai.client.token.usage" not in collector.metrics()
    attributes = collector.spans[0].attributes or {}
    assert {name for name in attributes if "tokens" in name} == {"sidestream.tokens.confidence"}


def test_the_first_chunk_is_measured_where_somebody_reads_along() -> None:
    """Time to first output has the failed attempts and waits in it, and is for streamed calls only."""
    collector = Collector()
    collector.observer(replace(RECORD, live=False))
    assert "gen_ai.client.operation.time_to_first_chunk" not in collector.metrics()
    assert "gen_ai.response.time_to_first_chunk" not in (collector.spans[0].attributes or {})
    collector.observer(RECORD)
    (point,) = points(collector.metrics()["gen_ai.client.operation.time_to_first_chunk"])
    assert isinstance(point, HistogramDataPoint)
    assert (point.sum, point.count) == (1.5, 1)


def test_recovery_is_counted() -> None:
    """Attempts by rung, calls that recovered, gave up (by fault) or were refused (by budget), tokens lost."""
    collector = Collector()
    for record in (RECORD, RECORD, LOST):
        collector.observer(record)
    metrics = collector.metrics()
    attempts: dict[object, float] = {}
    for point in points(metrics["sidestream.client.attempts"]):
        assert isinstance(point, NumberDataPoint)
        rung = (point.attributes or {})["sidestream.rung"]
        attempts[rung] = attempts.get(rung, 0) + point.value
    assert attempts == {"send": 3, "anchor": 2}
    assert totals(metrics["sidestream.client.recovered"]) == {(): 2}
    assert totals(metrics["sidestream.client.gave_up"]) == {("dropped",): 1}
    assert totals(metrics["sidestream.client.budget_refusals"]) == {("origin",): 1}
    assert sum(point.value for point in points(metrics["sidestream.client.tokens.wasted"])) == 27  # type: ignore[union-attr]
    assert sum(point.value for point in points(metrics["sidestream.client.tokens.reread"])) == 80  # type: ignore[union-attr]


# Secrets and content.


@ways
@pytest.mark.parametrize("status", [200, 401, 500])
def test_no_secret_and_no_content_is_exported(way: str, status: int, make: Make) -> None:
    """Prompt, answer, key and header values are in no span and no metric, quoted back or not."""
    collector = Collector()
    quoted = f"{KEY} and header-{KEY}"
    refusal = script.error(status, {"error": {"message": quoted}}, headers={"X-Request-Id": quoted})
    with Lab(script.say("Qanswer is what was said.") if status == 200 else refusal) as lab:
        route = Route(lab.url, "m", "chat", Secret(KEY), headers={"X-Extra": f"header-{KEY}"})
        make(way, None, {"input": "Qprompt", "stop": "Qstop"}, routes=[route], observe=[collector.observer])
    said = collector.everything()
    assert "chat m" in said
    assert KEY not in said
    assert "Qprompt" not in said
    assert "Qanswer" not in said
    assert "Qstop" not in said


# The table.


def test_the_first_column_is_what_the_conventions_say() -> None:
    """Every GenAI name of v1.41.0 is one that the conventions' own package has."""
    known = {
        value
        for module in (gen_ai_attributes, gen_ai_metrics)
        for name, value in inspect.getmembers(module)
        if name.startswith("GEN_AI_")
    }
    ours = {name for name in names_of("1.41.0").values() if name.startswith("gen_ai.")}
    assert ours <= known


def test_every_metric_has_a_name_and_a_description() -> None:
    """The tables fit together: a metric is in both, and has a name in at least one version."""
    assert {what for what in NAMES if what.endswith((" metric", " total"))} == set(METRICS)
    for what in METRICS:
        assert names_of("1.41.0")[what] or names_of("main")[what]


def test_the_page_lists_every_name() -> None:
    """docs/telemetry.md has the table as the code has it."""
    said = PAGE.read_text().split("<!-- names -->\n")[1].split("<!-- /names -->")[0].splitlines()[2:]
    old, new = names_of("1.41.0"), names_of("main")

    def shown(what: str) -> str:
        cells = (f"`{name}`" if name else "" for name in (old[what], new[what]))
        return f"| {what} | {' | '.join(cells) if old[what] != new[what] else f'`{old[what]}` | the same'} |"

    assert said == [shown(what) for what in NAMES]


def test_unknown_names_are_refused() -> None:
    """A version of the conventions that is not in the table is a mistake in the configuration."""
    with pytest.raises(ConfigError, match="no names for"):
        OpenTelemetry(names="0.9")  # type: ignore[arg-type]


def test_without_opentelemetry_the_import_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the extra is missing, the error names it, in its message and its hint."""
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    monkeypatch.delitem(sys.modules, "sidestream.otel")
    with pytest.raises(ConfigError, match=r"pip install 'sidestream\[otel\]'") as caught:
        importlib.import_module("sidestream.otel")
    assert caught.value.hint == "pip install 'sidestream[otel]'"
