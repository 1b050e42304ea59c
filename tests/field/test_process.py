"""The field cases about the process: hosts that give up, interrupts, races, descriptors, loops.

Each function is one case of cases/*.toml (its `test`), small on purpose; the heavy versions are in
tests/drivers. A call runs in a thread of its own, sync or in an event loop there, and the test is its host.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from sidestream import (
    AsyncClient,
    Backoff,
    Cancel,
    Cancelled,
    Client,
    DeadlineExceeded,
    Policy,
    Reply,
    Route,
    Timeouts,
)
from sidestream.lab import Fault, Lab, Plan, Request, Script, script

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
    options = settings(stalling, backup) | {"timeout": Timeouts(total=5.0, first=0.1)}
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
