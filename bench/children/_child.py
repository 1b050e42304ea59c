"""What every peer of the benchmarks does when it is told to: the loop of a child process.

A child is `python bench/children/LIBRARY.py VARIANT URL [URL ...]`, in the environment of its library: the
base URL of its route, then those of its fallbacks. It says `{"ready": true, "seconds": ...}` once it has a
client, then answers each line of JSON on stdin with one line on stdout:

    {"do": "ask", "prompt": ...}     one answer, as a user of the library asks for it     -> `Answer`, seconds
    {"do": "read", "streams": n}     n streams to their ends, one after the other         -> cpu, wall, waits
    {"do": "hold", "streams": n}     n streams at once, up to the first event of each     -> bytes, threads
    {"do": "keep", "streams": n}     n streams at once, each to its end                   -> cpu, wall, ends
    {"do": "fresh", "prompt": ..., "urls": [...], "seconds": s}
                                     `ask` of a client of its own, there, with timeouts of `s` seconds

`waits` is how often the process slept until something came; `ends` is when each stream was at its end, by the
system's monotonic clock.

A library's file has one class per variant, a `Variant`. What a library prints goes to stderr.
"""

from __future__ import annotations

import asyncio
import gc
import inspect
import json
import os
import sys
import threading
import time
from collections.abc import Callable, Coroutine
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

MODEL = "lab-1"
KEY = "bench-key-0001"
SECONDS = 20.0  # every library's own timeout, where it has one


@dataclass(frozen=True)
class Answer:
    """What a user of the library has in hand after one call.

    Attributes:
        text: what was returned; "" if an exception was raised.
        whole: whether the library says, by its documented means, that this is a whole answer.
        error: type and words of the exception, or "".
        kept: text that the exception carries, by documented means.
    """

    text: str = ""
    whole: bool = False
    error: str = ""
    kept: str = ""


class Variant:
    """One way to use a library. Methods may be coroutines: then all streams share one event loop.

    Attributes:
        seconds: the library's own timeouts, where it has them.
    """

    seconds = SECONDS

    def __init__(self, urls: list[str]) -> None:
        raise NotImplementedError

    def ask(self, prompt: str) -> Any:
        """One answer: its text, and whether the library calls it whole. What it raises is noted."""
        raise NotImplementedError

    def kept(self, error: BaseException) -> str:  # noqa: ARG002  most carry none
        """The text of the answer so far that an exception carries."""
        return ""

    def read(self, seen: Callable[[], None]) -> Any:
        """One stream to its end, as a user reads one; `seen` is called once, after the first text."""
        raise NotImplementedError


class _Child:
    def __init__(self, kind: type[Variant], urls: list[str]) -> None:
        self._kind = kind
        self._is_async = inspect.iscoroutinefunction(kind.read)
        self._runner = asyncio.Runner()
        self._variant = kind(urls)

    def ask(self, prompt: str) -> dict[str, Any]:
        begun = time.perf_counter()
        try:
            text, whole = self._run(self._variant.ask(prompt))
            answer = Answer(text or "", bool(whole))
        except Exception as error:  # noqa: BLE001  whatever a library raises is its answer
            told = f"{type(error).__module__}.{type(error).__name__}: {error}"
            answer = Answer(error=told[:300], kept=self._variant.kept(error))
        return {**asdict(answer), "seconds": time.perf_counter() - begun}

    def fresh(self, prompt: str, urls: list[str], seconds: float) -> dict[str, Any]:
        Variant.seconds = seconds
        self._variant = self._kind(urls)
        return self.ask(prompt)

    def read(self, streams: int) -> dict[str, Any]:
        gc.collect()
        waits = _waits()
        cpu, wall = time.process_time(), time.perf_counter()
        for _ in range(streams):
            self._run(self._variant.read(_nothing))
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
        return {"cpu": cpu, "wall": wall, "waits": _waits() - waits}

    def keep(self, streams: int) -> dict[str, Any]:
        gc.collect()
        ends: list[float] = []
        cpu, wall = time.process_time(), time.perf_counter()
        if self._is_async:
            self._runner.run(self._gather(streams, ends))
        else:
            threads = [threading.Thread(target=self._keep_one, args=(ends,)) for _ in range(streams)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        return {"cpu": time.process_time() - cpu, "wall": time.perf_counter() - wall, "ends": ends}

    async def _gather(self, streams: int, ends: list[float]) -> None:
        async def one() -> None:
            await self._variant.read(_nothing)
            ends.append(time.monotonic())

        await asyncio.gather(*(one() for _ in range(streams)))

    def _keep_one(self, ends: list[float]) -> None:
        self._variant.read(_nothing)
        ends.append(time.monotonic())

    def hold(self, streams: int) -> dict[str, Any]:
        gc.collect()
        before, threads = _resident(), threading.active_count()
        held = self._runner.run(self._hold(streams)) if self._is_async else self._hold_threads(streams)
        return {"bytes": (held[0] - before) / streams, "threads": held[1] - threads}

    async def _hold(self, streams: int) -> tuple[int, int]:
        left = asyncio.Semaphore(0)
        tasks = [asyncio.create_task(self._variant.read(left.release)) for _ in range(streams)]
        for _ in range(streams):
            await left.acquire()
        gc.collect()
        found = _resident(), threading.active_count()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return found

    def _hold_threads(self, streams: int) -> tuple[int, int]:
        left = threading.Semaphore(0)
        for _ in range(streams):
            threading.Thread(target=self._read_quietly, args=(left.release,), daemon=True).start()
        for _ in range(streams):
            left.acquire()
        gc.collect()
        return _resident(), threading.active_count()

    def _read_quietly(self, seen: Callable[[], None]) -> None:
        try:
            self._variant.read(seen)
        except Exception as error:  # noqa: BLE001  the server ends these streams with the run
            print(f"held stream ended: {error!r}", file=sys.stderr)

    def _run(self, made: Any) -> Any:
        return self._runner.run(made) if isinstance(made, Coroutine) else made


def _nothing() -> None:
    pass


def _waits() -> int:
    import resource  # not on Windows, where only this job needs it

    return resource.getrusage(resource.RUSAGE_SELF).ru_nvcsw


def _resident() -> int:
    """Bytes of memory this process has for itself."""
    with Path("/proc/self/smaps_rollup").open() as rollup:
        return 1024 * sum(int(line.split()[1]) for line in rollup if line.startswith("Private_"))


def serve(variants: dict[str, type[Variant]]) -> None:
    """Be the child: `sys.argv` says which variant and where its model is."""
    said, sys.stdout = os.fdopen(os.dup(1), "w"), sys.stderr
    os.dup2(2, 1)
    begun = time.perf_counter()
    child = _Child(variants[sys.argv[1]], sys.argv[2:])
    print(json.dumps({"ready": True, "seconds": time.perf_counter() - begun}), file=said, flush=True)
    for line in sys.stdin:
        job = json.loads(line)
        print(json.dumps(getattr(child, job.pop("do"))(**job)), file=said, flush=True)
