"""The field cases about the process: hosts that give up, interrupts, races, descriptors, loops, keys.

Each function is one case of cases/*.toml (its `test`), small on purpose; the heavy versions are in
tests/drivers. A call runs in a thread of its own, sync or in an event loop there, and the test is its host.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import sys
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sidestream import (
    AsyncClient,
    Backoff,
    BudgetExhausted,
    Cancel,
    Cancelled,
    Client,
    DeadlineExceeded,
    NoRoute,
    Policy,
    Reply,
    Route,
    RouteClocks,
    ServerError,
    SidestreamError,
    Timeouts,
)
from sidestream.lab import Fault, Lab, Plan, Request, Script, fingerprint, script
from sidestream.tasks.compression import Compactor
from sidestream.wire import responses
from sidestream.wire._json import dumps
from sidestream.wire.prompt import Request as Prompt

Labs = Callable[..., Lab]
BOTH = pytest.mark.parametrize("mode", ["sync", "async"])
LONG = script.words(300)
# An answer whose second event never comes within a test.
SILENT = script.responses_text("Late.").sent(pace=30.0)
DESCRIPTORS = Path("/proc/self/fd")


def settings(*labs: Lab, tries: int = 1) -> dict[str, Any]:
    """The arguments of a client with one route per lab."""
    routes = [Route(lab.url, "lab-1", name=f"route {number}") for number, lab in enumerate(labs)]
    return {"routes": routes, "policy": Policy(tries=tries, backoff=Backoff(base=0, throttled_base=0))}


def call(mode: str, options: dict[str, Any], method: str, *args: Any, **kwargs: Any) -> Any:
    """One call on a client of its own, in this thread."""
    if mode == "sync":
        with Client(**options) as client:
            return getattr(client, method)(*args, **kwargs)

    async def main() -> Any:
        async with AsyncClient(**options) as client:
            return await getattr(client, method)(*args, **kwargs)

    return asyncio.run(main())


@pytest.fixture
def begin() -> Iterator[Callable[..., Future[Any]]]:
    """`call` in a thread of its own: begin(mode, options, method, ...) -> Future."""
    with ThreadPoolExecutor(8) as threads:
        yield lambda *args, **kwargs: threads.submit(call, *args, **kwargs)


def stopped(future: Future[Any]) -> Cancelled:
    """How a stopped call ended: with Cancelled and nothing else."""
    error = future.exception(timeout=5.0)
    assert isinstance(error, Cancelled)
    return error


def closed_within(lab: Lab, number: int, since: float) -> float:
    """Seconds from `since` until the socket of a request was closed."""
    closed = lab.wait_closed(number).closed_at
    assert closed is not None
    return closed - since


def conversation(turns: int = 40) -> list[dict[str, Any]]:
    """A conversation worth compressing."""
    said = [("user", "Rename the module."), *[("assistant", f"{n}: {LONG[:200]}") for n in range(turns)]]
    return [{"role": role, "content": text} for role, text in [*said, ("user", "Go on.")]]


@BOTH
def test_case_34_host_gives_up(lab: Labs, begin: Callable[..., Future[Any]], mode: str) -> None:
    """When the host gives up on a healthy stream, its socket closes within 100 ms and nothing is retried."""
    main, backup = lab(script.responses_text(LONG).sent(pace=0.01)), lab()
    token = Cancel()
    future = begin(mode, settings(main, backup), "complete", "Go.", cancel=token)
    main.wait_sent(0, 10)
    since = time.monotonic()
    token.cancel()
    error = stopped(future)
    assert closed_within(main, 0, since) <= 0.1
    assert error.kind == "cancel"
    assert error.reply is not None
    assert error.reply.status == "dropped"
    assert error.reply.text
    assert LONG.startswith(error.reply.text)
    assert [attempt.ended for attempt in error.attempts] == ["cancel"]
    assert (len(main.requests), len(backup.requests)) == (1, 0)


def test_case_34_task_cancelled(lab: Labs) -> None:
    """When the host's own asyncio.timeout fires, it gets its TimeoutError and the socket closes in 100 ms."""
    main = lab(script.responses_text(LONG).sent(pace=0.01))

    async def host() -> float:
        async with AsyncClient(**settings(main)) as client:
            try:
                async with asyncio.timeout(0.15):
                    await client.complete("Go.")
            except TimeoutError:
                return time.monotonic()
        raise AssertionError("the stream lasts three seconds")

    since = asyncio.run(host())
    assert closed_within(main, 0, since) <= 0.1
    assert len(main.requests) == 1


@BOTH
def test_case_37_stall_and_the_fallback_of_the_same_turn(lab: Labs, mode: str) -> None:
    """A stalled main route never keeps a call from its fallback, in the same turn or in the next one."""
    stalling, backup = lab(plan=Plan.always(Fault.hang())), lab(script.responses_text("A summary."))
    options = settings(stalling, backup) | {"timeout": Timeouts(total=20.0)}
    first, second = options["routes"]
    options["routes"] = [replace(first, clocks=RouteClocks(first=0.1)), second]
    turns = [call(mode, options, "compress", conversation(), budget=900) for _ in range(2)]
    assert [turn.method for turn in turns] == ["summary", "summary"]
    assert all("A summary." in str(turn.messages) for turn in turns)
    assert (len(stalling.requests), len(backup.requests)) == (2, 2)


@BOTH
def test_case_37_nothing_is_committed_without_a_summary(lab: Labs, mode: str) -> None:
    """When every route stalls, the conversation comes back untouched and says so."""
    stalling = lab(plan=Plan.always(Fault.hang()))
    options = settings(stalling) | {"timeout": Timeouts(total=5.0, first=0.1)}
    before = conversation()
    compaction = call(mode, options, "compress", before, budget=900)
    assert compaction.kept
    assert compaction.messages == before
    assert "did not answer in time" in compaction.notice


@BOTH
def test_case_42_interrupt_during_compression(
    lab: Labs, begin: Callable[..., Future[Any]], mode: str
) -> None:
    """An interrupt after the third delta does not touch a compression: its summary completes."""
    main = lab(script.responses_text("A summary of what was done.").sent(pace=0.02))
    token = Cancel()
    future = begin(mode, settings(main), "compress", conversation(), budget=900, cancel=token)
    main.wait_sent(0, 7)
    token.interrupt()
    compaction = future.result(timeout=5.0)
    assert compaction.method == "summary"
    assert "A summary of what was done." in str(compaction.messages)
    assert len(main.requests) == 1


@BOTH
def test_case_42_cancel_during_compression(lab: Labs, begin: Callable[..., Future[Any]], mode: str) -> None:
    """An explicit cancel ends a compression within 50 ms, in whatever phase, and nothing is retried."""
    took: list[float] = []
    for number in range(3):  # a busy machine may be late, but not three times
        main = lab(script.responses_text(LONG).sent(pace=0.01), plan=Plan([Fault.hang()] if number else []))
        token = Cancel()
        future = begin(mode, settings(main, tries=2), "compress", conversation(), budget=900, cancel=token)
        main.wait_request(0) if number else main.wait_sent(0, 7)
        since = time.monotonic()
        token.cancel()
        assert stopped(future).kind == "cancel"
        took.append(max(time.monotonic() - since, closed_within(main, 0, since)))
        assert len(main.requests) == 1
    assert min(took) <= 0.05


@BOTH
def test_case_42_interrupt_of_an_ordinary_call(
    lab: Labs, begin: Callable[..., Future[Any]], mode: str
) -> None:
    """A call that is not atomic does stop on an interrupt, and the token serves the next call."""
    main = lab([script.responses_text(LONG).sent(pace=0.01), script.responses_text("Next.")])
    token = Cancel()
    future = begin(mode, settings(main), "complete", "Go.", cancel=token)
    main.wait_sent(0, 7)
    token.interrupt()
    assert stopped(future).kind == "interrupt"
    assert call(mode, settings(main), "complete", "Go on.", cancel=token).text == "Next."


def _by_session(request: Request) -> Script:
    """Session A gets silence, session B a slow healthy answer."""
    return SILENT if b"session A" in request.body else script.responses_text("Yours.").sent(pace=0.01)


def _end_of(error: BaseException | None) -> str:
    """Which of the two ends a call had, and that it had one."""
    assert isinstance(error, (Cancelled, DeadlineExceeded))
    assert [attempt.ended for attempt in error.attempts] in (["cancel"], ["deadline"])
    return type(error).__name__


def test_case_43_cancel_and_timeout_at_once_sync(lab: Labs) -> None:
    """Cancelled and timed out at the same tick, a call has exactly one end, and its neighbour none of it."""
    main = lab(_by_session)
    with Client(**settings(main)) as client, ThreadPoolExecutor(4) as threads:
        for _ in range(8):
            token = Cancel()
            doomed = threads.submit(client.complete, "session A", timeout=0.06, cancel=token)
            healthy = threads.submit(client.complete, "session B")
            timer = threading.Timer(0.06, token.cancel)
            timer.start()
            _end_of(doomed.exception(timeout=5.0))
            assert healthy.result(timeout=5.0).text == "Yours."
            timer.join()
    assert len(main.requests) == 16


def test_case_43_cancel_and_timeout_at_once_async(lab: Labs) -> None:
    """The same for two tasks of one loop that share a client."""
    main = lab(_by_session)

    async def sessions() -> None:
        async with AsyncClient(**settings(main)) as client:
            for _ in range(8):
                token = Cancel()
                asyncio.get_running_loop().call_later(0.06, token.cancel)
                healthy = asyncio.create_task(client.complete("session B"))
                with pytest.raises((Cancelled, DeadlineExceeded)) as raised:
                    await client.complete("session A", timeout=0.06, cancel=token)
                _end_of(raised.value)
                assert (await healthy).text == "Yours."

    asyncio.run(sessions())
    assert len(main.requests) == 16


@BOTH
def test_case_44_fd_reuse(lab: Labs, begin: Callable[..., Future[Any]], tmp_path: Path, mode: str) -> None:
    """Files opened while TLS calls are stopped from another thread never hold a byte of anybody else's."""
    pytest.importorskip("trustme")
    main = lab(script.responses_text(LONG).sent(pace=0.001), tls=True)
    (tmp_path / "ca.pem").write_bytes(main.ca_pem)
    options = settings(main) | {"cafile": str(tmp_path / "ca.pem")}
    content, done, written = b"SQLite format 3\0" * 64, threading.Event(), list[Path]()

    def write_files() -> None:
        while not done.is_set() and len(written) < 20_000:
            path = tmp_path / f"{len(written) % 50}.db"
            path.write_bytes(content)
            written.append(path)
            assert path.read_bytes() == content

    with ThreadPoolExecutor(1) as threads:
        files = threads.submit(write_files)
        for number in range(12):
            token = Cancel()
            future = begin(mode, options, "complete", "Go.", cancel=token)
            main.wait_sent(number, 3 + number)
            token.cancel()
            stopped(future)
        done.set()
        files.result(timeout=5.0)
    assert written
    assert {path.read_bytes() for path in set(written)} == {content}


def test_case_46_poisoned_client_sync(lab: Labs) -> None:
    """After a call that timed out, the next one on the same client succeeds on a new connection."""
    main = lab(script.responses_text("Here."), plan=Plan([Fault.stall(after_event=6)]))
    with Client(**settings(main), timeout=Timeouts(total=0.15)) as client:
        with pytest.raises(DeadlineExceeded):
            client.complete("Go.")
        assert client.complete("Go.", timeout=5.0).text == "Here."
    first, second = main.requests
    assert first.connection != second.connection


def test_case_46_poisoned_client_async(lab: Labs) -> None:
    """The same for the async client, which keeps connections while it is entered."""
    main = lab(script.responses_text("Here."), plan=Plan([Fault.stall(after_event=6)]))

    async def twice() -> Reply:
        async with AsyncClient(**settings(main), timeout=Timeouts(total=0.15)) as client:
            with pytest.raises(DeadlineExceeded):
                await client.complete("Go.")
            return await client.complete("Go.", timeout=5.0)

    assert asyncio.run(twice()).text == "Here."
    first, second = main.requests
    assert first.connection != second.connection


@contextlib.contextmanager
def as_many_descriptors_after() -> Iterator[None]:
    """What happens inside leaves no file descriptor behind."""
    if not DESCRIPTORS.exists():
        pytest.skip("needs a system that lists a process's descriptors")
    gc.collect()
    before = len(list(DESCRIPTORS.iterdir()))
    yield
    gc.collect()
    assert len(list(DESCRIPTORS.iterdir())) <= before


def _all_closed(lab: Lab) -> None:
    for number in range(len(lab.requests)):
        lab.wait_closed(number)


def test_case_47_timeouts_leave_no_descriptor_sync(lab: Labs) -> None:
    """Forty calls that time out leave as many descriptors open as before: none."""
    main = lab(SILENT)
    with as_many_descriptors_after():
        with Client(**settings(main), timeout=Timeouts(total=0.02)) as client:
            for _ in range(40):
                with pytest.raises(DeadlineExceeded):
                    client.complete("Go.")
        _all_closed(main)


def test_case_47_timeouts_leave_no_descriptor_async(lab: Labs) -> None:
    """The same for forty tasks, ten at a time."""
    main = lab(SILENT)

    async def ten(client: AsyncClient) -> list[BaseException | Reply]:
        calls: list[Coroutine[Any, Any, Reply]] = [client.complete("Go.") for _ in range(10)]
        return await asyncio.gather(*calls, return_exceptions=True)

    async def forty() -> None:
        async with AsyncClient(**settings(main), timeout=Timeouts(total=0.05)) as client:
            for _ in range(4):
                assert {type(end) for end in await ten(client)} == {DeadlineExceeded}

    with as_many_descriptors_after():
        asyncio.run(forty())
        _all_closed(main)


@pytest.mark.parametrize("entered", [False, True])
def test_case_48_loop_churn(lab: Labs, entered: bool) -> None:
    """One async client used in forty event loops, one after the other: no warning, no leak, no deadlock."""
    main = lab(script.responses_text("Here."))
    client = AsyncClient(**settings(main), timeout=Timeouts(total=5.0))

    async def once() -> Reply:
        if not entered:
            return await client.complete("Go.")
        async with client:
            return await client.complete("Go.")

    with as_many_descriptors_after():
        for _ in range(40):
            assert asyncio.run(once()).text == "Here."
        _all_closed(main)
    assert len(main.requests) == 40


def configured(tmp_path: Path, text: str) -> dict[str, Any]:
    """The arguments of a client that reads this configuration."""
    path = tmp_path / "config.toml"
    path.write_text(text, encoding="utf-8")
    path.chmod(0o600)
    return {"config": path, "policy": Policy(tries=1, backoff=Backoff(base=0, throttled_base=0))}


@BOTH
def test_case_49_key_rotated(lab: Labs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str) -> None:
    """A key that is replaced where it stands is used by the next call of the same client, and by a call under
    way whose key was rejected."""
    valid = ["first-key"]
    monkeypatch.setenv("FIELD_LAB_KEY", "first-key")

    def rotate(key: str) -> None:
        valid[0] = key
        monkeypatch.setenv("FIELD_LAB_KEY", key)

    def answer(request: Request) -> Script:
        if request.attempt == 2:
            rotate("third-key")  # between reading the key and using it
        if request.header("authorization") != fingerprint(f"Bearer {valid[0]}"):
            return script.problem(401, "Incorrect API key provided", code="invalid_api_key")
        return script.responses_text("Here.")

    main = lab(answer)
    options = configured(
        tmp_path,
        f'main = "work"\n[routes.work]\nbase_url = "{main.url}"\nmodel = "lab-1"\nwire = "responses"\n'
        'api_key_env = ["FIELD_LAB_KEY"]\n',
    )
    steps = [lambda: None, lambda: rotate("second-key"), lambda: None]
    assert three_calls(mode, options, steps) == ["Here."] * 3
    assert len(main.requests) == 4


def three_calls(mode: str, options: dict[str, Any], steps: list[Callable[[], None]]) -> list[str]:
    """What one client answers, with something happening before each call."""
    if mode == "sync":
        with Client(**options) as client:
            return [(step(), client.complete("Go.").text)[1] for step in steps]

    async def main() -> list[str]:
        async with AsyncClient(**options) as client:
            return [(step(), (await client.complete("Go.")).text)[1] for step in steps]

    return asyncio.run(main())


@BOTH
def test_case_50_probing_has_no_side_effect(lab: Labs, mode: str) -> None:
    """Asking what a call would get sends nothing, opens nothing, and leaves the next call as it was."""
    main = lab(script.responses_text("Here."))
    with as_many_descriptors_after():
        client = (Client if mode == "sync" else AsyncClient)(**settings(main))
        for task in ("vision", "title", "compression", "") * 5:
            assert [route.name for route in client.plan(task).routes] == ["route 0"]
        assert (main.accepted, main.requests) == (0, ())
        reply = client.complete("Look.", task="vision")
        assert (asyncio.run(reply) if isinstance(reply, Coroutine) else reply).text == "Here."
        if isinstance(client, Client):
            client.close()
        _all_closed(main)
    assert len(main.requests) == 1


def huge(items: int) -> list[dict[str, Any]]:
    """A conversation of so many items of some 1,300 characters."""
    words = script.words(220)[:1300]
    return [{"role": ("user", "assistant")[n % 2], "content": f"{n} {words}"} for n in range(items)]


@BOTH
def test_case_51_huge_body(lab: Labs, mode: str) -> None:
    """1.4 MB in 1,093 items arrive whole; a deadline that ends before the network does ends the call."""
    main = lab(script.responses_text("Here."))
    messages = huge(1093)
    assert call(mode, settings(main), "complete", messages).text == "Here."
    (request,) = main.requests
    assert len(request.body) > 1_400_000
    assert [_words_of(each) for each in request.json()["input"]] == [each["content"] for each in messages]
    with pytest.raises(DeadlineExceeded) as raised:
        call(mode, settings(main), "complete", messages, timeout=1e-4)
    assert raised.value.clock == "total"
    assert len(main.requests) <= 2


def _words_of(item: dict[str, Any]) -> str:
    content = item["content"]
    return content if isinstance(content, str) else "".join(part["text"] for part in content)


def test_case_51_huge_body_in_linear_time() -> None:
    """Twice the items take twice the calls of functions, and no more."""
    one, two = (_function_calls(huge(items)) for items in (500, 1000))
    assert two <= 2.05 * one


def _function_calls(messages: list[dict[str, Any]]) -> int:
    """How many functions are called, Python's and C's, to make a request's body."""
    count = 0

    def profile(_: object, event: str, __: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    prompt = Prompt(tuple(messages))
    sys.setprofile(profile)
    try:
        dumps(responses.encode(prompt, "lab-1"))
    finally:
        sys.setprofile(None)
    return count


def _ends(outcomes: list[Any]) -> None:
    """Every call ended with an error that says what happened."""
    assert len(outcomes) == 50
    assert {type(error) for error in outcomes} <= {ServerError, BudgetExhausted}


def test_case_53_incident_amplification_sync(lab: Labs) -> None:
    """Fifty threads against 503: hardly more requests than calls, where each retrying thrice makes 150."""
    main = lab(script.error(503, "UNAVAILABLE"))

    def ask(client: Client) -> SidestreamError | None:
        try:
            client.complete("Go.", timeout=5.0)
        except SidestreamError as error:
            return error
        return None

    options = settings(main, tries=3)
    options["policy"] = Policy(tries=3, queue=0.0, backoff=Backoff(base=0, throttled_base=0))
    with Client(**options) as client, ThreadPoolExecutor(50) as threads:
        _ends(list(threads.map(ask, [client] * 50)))
    assert len(main.requests) <= 60


def test_case_53_incident_amplification_async(lab: Labs) -> None:
    """The same for fifty tasks."""
    main = lab(script.error(503, "UNAVAILABLE"))

    async def fifty() -> list[Any]:
        async with AsyncClient(
            **settings(main) | {"policy": Policy(tries=3, queue=0.0, backoff=Backoff(base=0))}
        ) as client:
            calls: list[Coroutine[Any, Any, Reply]] = [client.complete("Go.", timeout=5.0) for _ in range(50)]
            return await asyncio.gather(*calls, return_exceptions=True)

    _ends(asyncio.run(fifty()))
    assert len(main.requests) <= 60


@BOTH
def test_case_68_no_tool_role_in_responses_input(lab: Labs, mode: str) -> None:
    """Chat-style calls and results go to a Responses endpoint as items of their own."""

    def answer(request: Request) -> Script:
        roles = [item.get("role") for item in request.json()["input"]]
        return (
            script.problem(400, "Invalid role: tool") if "tool" in roles else script.responses_text("Here.")
        )

    main = lab(answer)
    asked = {"id": "call_1", "type": "function", "function": {"name": "add", "arguments": "{}"}}
    messages = [
        {"role": "user", "content": "Add."},
        {"role": "assistant", "content": None, "tool_calls": [asked]},
        {"role": "tool", "tool_call_id": "call_1", "content": "42"},
    ]
    assert call(mode, settings(main), "complete", messages).text == "Here."
    items = main.requests[0].json()["input"]
    assert [item.get("type", "message") for item in items] == [
        "message",
        "function_call",
        "function_call_output",
    ]
    assert {item["call_id"] for item in items[1:]} == {"call_1"}


@BOTH
@pytest.mark.parametrize("chosen", ["a route", "nothing"])
def test_case_72_silent_spend(
    lab: Labs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str, chosen: str
) -> None:
    """A key that lies in the environment is not used: neither after a failure nor when no route is chosen."""
    main, paid = lab(plan=Plan.always(Fault.hang())), lab(script.chat_text("That was 3 dollars."))
    monkeypatch.setenv("OPENROUTER_BASE_URL", paid.url)
    monkeypatch.setenv("OPENROUTER_API_KEY", "left-over-key")
    for name in ("SIDESTREAM_MODEL", "OPENAI_MODEL", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    text = f'[routes.work]\nbase_url = "{main.url}"\nmodel = "lab-1"\nwire = "responses"\n'
    options = configured(tmp_path, f'main = "work"\n{text}' if chosen == "a route" else text)
    with pytest.raises(SidestreamError) as raised:
        call(mode, options, "complete", "Go.", task="title", timeout=Timeouts(total=5.0, first=0.1))
    assert type(raised.value) is (DeadlineExceeded if chosen == "a route" else NoRoute)
    assert (len(main.requests), paid.accepted) == (1 if chosen == "a route" else 0, 0)


@BOTH
def test_case_73_network_blip_at_compaction(lab: Labs, mode: str) -> None:
    """Refused connections keep every message, with a notice and a cooldown; afterwards a summary is made."""
    main = lab(script.responses_text("A summary of what was done."))
    main.refuse()
    now = [1000.0]
    before = conversation(400)
    with contextlib.closing(Client(**settings(main, tries=2))) as client:
        aclient = AsyncClient(**settings(main, tries=2))

        def ask(prompt: list[dict[str, str]]) -> Any:
            one = client if mode == "sync" else aclient
            return one.complete(prompt, task="compression")

        def ask_text(prompt: list[dict[str, str]]) -> Any:
            return ask(prompt).text

        async def await_text(prompt: list[dict[str, str]]) -> str:
            return (await ask(prompt)).text

        session = Compactor(ask_text if mode == "sync" else await_text, window=16_000, clock=lambda: now[0])

        def compact() -> Any:
            return session.compact(before) if mode == "sync" else asyncio.run(session.acompact(before))

        lost = compact()
        assert lost.kept
        assert lost.messages == before
        assert (lost.failure, bool(lost.notice)) == ("network", True)
        assert session.check(15_000).why == "cooldown"
        assert len(main.requests) == 0
        main.accept()
        now[0] = session.history.cooldown_until + 1
        done = compact()
        assert done.method == "summary"
        assert "A summary of what was done." in str(done.messages)
