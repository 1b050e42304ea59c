"""Every field case on real sockets: sync and async, waiting for the reply and reading along.

The cases are data (cases/*.toml). Each is required to end as its `[expect]` says, and each call besides has
to keep the promises that hold for all: a ledger that matches the requests, no socket left open, each
credential only at its own origin, and a live consumer who holds exactly what the reply says.
"""

from __future__ import annotations

import ast
import asyncio
import itertools
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import test_process
from fieldcase import ABSENT, Case, Expect, Outcome, ask, ask_async, labs, load
from make_table import ANCESTOR, PAGE, ancestor_page, classes, page

from sidestream import errors
from sidestream.lab import Lab, Request, fingerprint

ALL = load()
CASES = {name: case for name, case in ALL.items() if not case.test}
MODES = ("sync", "async", "sync-live", "async-live")
BEGINNINGS = ("send", "restart")
# A server may notice a close and the next request in one turn of its loop, in either order.
SAME_TURN = 0.02
# The numbers of the list that the cases come from, with its gaps.
# Classes in the list of the ancestor's tests.
CLASSES = 65
GAPS = {7, 17, 25, 30, 45, 60, 63, 66}
NUMBERS = {*range(1, 74)} - GAPS
ROOT = Path(__file__).resolve().parents[2]


def runs() -> list[object]:
    """Every case with every mode, as pytest takes it."""
    modes = {name: MODES if case.live else MODES[:2] for name, case in CASES.items()}
    return [pytest.param(name, mode, id=f"{name}[{mode}]") for name in CASES for mode in modes[name]]


@pytest.mark.parametrize(("name", "mode"), runs())
def test_case(name: str, mode: str) -> None:
    """A call against this server ends as the case requires."""
    case = CASES[name]
    assert case.expect is not None
    with labs(case) as running:
        live = mode.endswith("-live")
        if mode.startswith("async"):
            outcomes = asyncio.run(ask_async(case, running, live=live))
        else:
            outcomes = ask(case, running, live=live)
        check_sockets(running, case.expect)
    check_requests(case, running, case.expected[-1])
    for outcome, expect in zip(outcomes, case.expected, strict=True):
        check_end(outcome, expect)
        check_reply(outcome, expect)
        if live:
            check_delivery(outcome, expect)


def test_every_number_has_a_case() -> None:
    """Every field case about wires, time and process is here, each file under its number."""
    assert {case.number for case in ALL.values()} == NUMBERS
    assert [name for name, case in ALL.items() if not name.startswith(f"{case.number:02}-")] == []


def test_every_file_says_what_is_required() -> None:
    """A case has routes and an expectation, or names its functions; each function has one case."""
    assert [name for name, case in CASES.items() if not case.route or case.expect is None] == []
    described = [case.test for case in ALL.values() if case.test.startswith("test_")]
    functions = [name for name in vars(test_process) if name.startswith("test_case_")]
    owners = {name: [test for test in described if name.startswith(test)] for name in functions}
    assert {name: len(tests) for name, tests in owners.items()} == dict.fromkeys(functions, 1)
    assert sorted({test for tests in owners.values() for test in tests}) == sorted(described)


def test_every_named_test_exists() -> None:
    """What the two tables point to elsewhere is there."""
    named = [name for case in ALL.values() for name in (case.test, *case.also) if "::" in name]
    named += [name for row in classes() for name in row.tests]
    assert [name for name in named if not exists(name)] == []
    assert [name for row in classes() for name in row.cases if name not in ALL] == []


def test_every_class_of_the_ancestor_has_a_counterpart_or_a_reason() -> None:
    """A row names tests, or says why there are none; no class is in two rows."""
    assert [row.names for row in classes() if bool(row.tests or row.cases) == bool(row.none)] == []
    names = [name for row in classes() for name in row.names]
    assert len(names) == len(set(names)) == CLASSES


def exists(name: str) -> bool:
    """Whether "file::test" is a function of that file."""
    file, _, test = name.partition("::")
    return test in functions_of(file)


@cache
def functions_of(file: str) -> frozenset[str]:
    """The names of all test functions of a file, found without running it."""
    path = ROOT / file
    if not path.is_file():
        return frozenset()
    tree = ast.parse(path.read_text(encoding="utf-8"))
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    return frozenset(node.name for node in ast.walk(tree) if isinstance(node, kinds))


def test_pages_are_up_to_date() -> None:
    """docs/field-cases.md and docs/ancestor.md are what make_table.py makes of the data."""
    assert PAGE.read_text(encoding="utf-8") == page()
    assert ANCESTOR.read_text(encoding="utf-8") == ancestor_page()


def check_sockets(running: list[Lab], expect: Expect) -> None:
    """Every connection is closed soon after the client, and where it matters before the next request."""
    for lab in running:
        for number in range(len(lab.requests)):
            lab.wait_closed(number, timeout=2.0)
        requests = lab.requests
        if expect.closed_in_order:
            for earlier, later in itertools.pairwise(requests):
                assert earlier.connection != later.connection
                assert earlier.closed_at is not None
                assert earlier.closed_at <= later.received_at + SAME_TURN


def check_requests(case: Case, running: list[Lab], expect: Expect) -> None:
    """Each server saw as many requests as declared, with its own credentials and no other."""
    assert tuple(len(lab.requests) for lab in running) == expect.requests
    for server, lab in zip(case.servers, running, strict=True):
        here = [route for route in case.route if case.home(route) == case.home(server)]
        own = {secret for route in here for secret in (route.secret, *route.renews)}
        used = [sent_key(request, own) for request in lab.requests]
        assert None not in used
        assert tuple(used) == expect.keys.get(server.name, tuple(used))
        paths = tuple(request.path for request in lab.requests)
        assert paths == expect.paths.get(server.name, paths)
        if server.name in expect.sent:
            check_sent(lab, expect.sent[server.name])


def sent_key(request: Request, own: set[str]) -> str | None:
    """Which of its own credentials a server got with a request."""
    given = request.header("authorization"), request.header("x-api-key")
    prints = {
        print_: secret for secret in own for print_ in (fingerprint(f"Bearer {secret}"), fingerprint(secret))
    }
    return next((prints[each] for each in given if each in prints), None)


def check_sent(lab: Lab, wanted: tuple[dict[str, Any], ...]) -> None:
    """The bodies of a server's requests hold these fields, and not those."""
    for request, fields in zip(lab.requests, wanted, strict=True):
        body = request.fields()
        assert {name: body.get(name, ABSENT) for name in fields} == fields


def check_end(outcome: Outcome, expect: Expect) -> None:
    """The call returned, or raised the error that is required, in the time that is allowed."""
    error = outcome.error
    assert (type(error).__name__ if error else "") == expect.error, error
    words = "" if error is None else f"{error} {error.hint}"
    assert [part for part in expect.message if part not in words] == [], words
    if isinstance(error, errors.CallFailed):
        assert error.fault.kind.word == expect.fault
        assert expect.code in (None, error.fault.code)
        assert expect.retry_at in (None, error.fault.retry_after)
    if expect.clock is not None:
        assert isinstance(error, errors.DeadlineExceeded)
        assert (error.clock, error.setting) == (expect.clock, f"timeout.{expect.clock}")
    if expect.seconds is not None:
        assert expect.seconds[0] <= outcome.seconds <= expect.seconds[1]


def check_reply(outcome: Outcome, expect: Expect) -> None:
    """The reply, or the partial reply of the error, holds what is required and nothing else."""
    reply = outcome.partial
    if reply is None:
        assert expect.status == "none"
        return
    assert (reply.status, reply.text, reply.settled) == (expect.status, expect.text, expect.settled)
    said = (reply.reasoning, reply.commentary, reply.refusal)
    assert said == (expect.reasoning, expect.commentary, expect.refusal)
    assert tuple((call.name, call.arguments) for call in reply.tool_calls) == expect.calls
    assert reply.dropped_calls == expect.dropped_calls
    assert expect.finish_reason in (None, reply.finish_reason)
    if expect.output_tokens is not None:
        assert reply.usage is not None
        assert reply.usage.output_tokens == expect.output_tokens
    assert tuple(f"{a.route} {a.rung} {a.ended}" for a in reply.attempts) == expect.attempts
    assert all(attempt.kept <= (attempt.tokens or 0) for attempt in reply.attempts)
    if reply.status == "complete":  # what came before the last new beginning is in no answer
        begun = max(n for n, attempt in enumerate(reply.attempts) if attempt.rung in BEGINNINGS)
        assert all(attempt.kept == 0 for attempt in reply.attempts[:begun])


def check_delivery(outcome: Outcome, expect: Expect) -> None:
    """A live consumer holds exactly the reply, and was told of every new beginning."""
    reply = outcome.partial
    assert outcome.restarts == expect.restarts
    if reply is not None:
        assert outcome.delivered == (reply.text, reply.tool_calls)
