"""A lean sender of the lab's streams, in a process of its own: one loop, answers made beforehand.

The lab is a server that can fail; this one can only keep time. It sends what the lab would (`lab.script`), to
any number of clients, without taking longer than they do:

    paced   every event its own write, TCP segment and HTTP chunk, `pace` seconds apart, as real APIs send
    burst   the whole answer in one write, every event its own HTTP chunk
    length  the whole answer in one write, one body with a Content-Length
    held    up to the first event with text, then nothing more

`Source` starts it, tells it how to send (`send`) and asks what it sent when (`report`). Run as a script it is
that process: it says its port, then answers each line of JSON on stdin with one on stdout.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import socket
import subprocess
import sys
import time
from collections import deque
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, Self

Way = Literal["paced", "burst", "length", "held"]
_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"
_TEXTS = {
    "/responses": "responses_text",
    "/chat/completions": "chat_text",
    "/messages": "messages_text",
}
_OUT_OF_TURN = 0.5  # a late stream's next event comes at least this share of the pace after the last


@dataclass(frozen=True)
class Order:
    """How answers are sent from now on.

    Attributes:
        way: see above.
        pace: seconds from one event to the next, when paced.
        together: answers begin when so many are waiting for one, evenly spread over one pace.
        pid: whose CPU time is noted at the first event.
    """

    way: Way = "burst"
    pace: float = 0.0
    together: int = 1
    pid: int = 0


class Source:
    """The process, as the one who uses it sees it."""

    def __init__(self, *, events: int) -> None:
        self._process = subprocess.Popen(
            [sys.executable, Path(__file__).resolve(), str(events)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        ready = self._answer()
        self.pid = self._process.pid
        self.url = f"http://127.0.0.1:{ready['port']}/v1"
        self.events: dict[str, int] = ready["events"]  # of an answer, by wire

    def send(self, order: Order) -> None:
        """Forget what was sent so far and send like this from now on."""
        self._ask(asdict(order))

    def report(self) -> dict[str, Any]:
        """Of what was sent since `send`: `sent`, when each answer's last event left; `late`, by how much the
        sender itself missed its times, at most; `wall`, from the first event to the last; `cpu`, what the
        order's pid had used at the first. Seconds, of the system's monotonic clock.
        """
        return self._ask({})

    def _ask(self, order: dict[str, Any]) -> dict[str, Any]:
        if self._process.stdin is None:
            raise RuntimeError("a source has a stdin")
        print(json.dumps(order), file=self._process.stdin, flush=True)
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        line = self._process.stdout.readline() if self._process.stdout else ""
        if not line:
            raise RuntimeError(f"the source ended with code {self._process.wait()}")
        found: dict[str, Any] = json.loads(line)
        return found

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def answers(events: int) -> dict[tuple[str, Way], list[bytes]]:
    """Every answer of each path and way, as the pieces that are written."""
    from sidestream.lab import script

    made: dict[tuple[str, Way], list[bytes]] = {}
    text = script.words(events)  # that vary: LiteLLM gives up a model that repeats itself
    for path, name in _TEXTS.items():
        said: tuple[bytes, ...] = getattr(script, name)(text, tokens=events).events
        chunks = [b"%x\r\n%s\r\n" % (len(event), event) for event in said]
        opening = next(at for at, event in enumerate(said) if text.split()[0].encode() in event)
        head = _HEAD + b"transfer-encoding: chunked\r\n\r\n"
        body = b"".join(said)
        made[path, "paced"] = [head, *chunks[:-1], chunks[-1] + b"0\r\n\r\n"]
        made[path, "burst"] = [b"".join(made[path, "paced"])]
        made[path, "length"] = [_HEAD + b"content-length: %d\r\n\r\n" % len(body) + body]
        made[path, "held"] = [head + b"".join(chunks[: opening + 1])]
    return made


class _Stream:
    """One connection and what it still gets."""

    __slots__ = ("asked", "at", "due", "gone", "pieces", "rest", "sock")

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.asked = b""
        self.pieces: list[bytes] = []
        self.at = 0
        self.due = 0.0
        self.rest = b""
        self.gone = False


class _Sender:
    def __init__(self, events: int) -> None:
        self._answers = answers(events)
        self._order = Order()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=4096)
        self._listener.setblocking(False)
        self._poll = selectors.DefaultSelector()
        self._poll.register(self._listener, selectors.EVENT_READ)
        self._poll.register(sys.stdin, selectors.EVENT_READ)
        self._waiting: list[_Stream] = []
        self._queue: deque[_Stream] = deque()  # by `due`: all have the same pace
        self._forget()

    def ready(self) -> dict[str, Any]:
        counts = {path: len(self._answers[path, "paced"]) - 1 for path in _TEXTS}
        wires = {"responses": "/responses", "chat": "/chat/completions", "messages": "/messages"}
        return {
            "port": self._listener.getsockname()[1],
            "events": {wire: counts[path] for wire, path in wires.items()},
        }

    def run(self) -> None:
        while True:
            wait = max(0.0, self._queue[0].due - time.monotonic()) if self._queue else None
            for key, _ in self._poll.select(wait):
                if key.fileobj is self._listener:
                    self._accept()
                elif key.fileobj is not sys.stdin:
                    self._serve(key.data)
                elif not self._obey():
                    return
            self._send_due()

    def _forget(self) -> None:
        self._sent: list[float] = []
        self._late = 0.0
        self._began = (0.0, 0.0)  # monotonic, CPU of the client
        self._ended = 0.0

    def _obey(self) -> bool:
        line = sys.stdin.readline()
        if not line:
            return False
        asked = json.loads(line)
        if asked:
            self._order = Order(**asked)
            self._forget()
            told: dict[str, Any] = {}
        else:
            wall = self._ended - self._began[0]
            told = {"sent": self._sent, "late": self._late, "wall": wall, "cpu": self._began[1]}
        print(json.dumps(told), flush=True)
        return True

    def _accept(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while True:
                sock, _ = self._listener.accept()
                sock.setblocking(False)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._poll.register(sock, selectors.EVENT_READ, _Stream(sock))

    def _serve(self, stream: _Stream) -> None:
        """It has asked, left, or has room for what it could not take."""
        if stream.rest:
            self._write(stream, b"")
        try:
            got = stream.sock.recv(1 << 16)
        except BlockingIOError:
            return
        except OSError:
            got = b""
        if not got:
            self._close(stream)
            return
        stream.asked += got
        if (path := _asked(stream.asked)) is not None:
            stream.asked = b""
            self._begin(stream, path)

    def _close(self, stream: _Stream) -> None:
        stream.gone = True
        self._poll.unregister(stream.sock)
        stream.sock.close()

    def _begin(self, stream: _Stream, path: str) -> None:
        found = next((end for end in _TEXTS if path.endswith(end)), None)
        if found is None:
            self._write(stream, b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n")
            return
        stream.pieces, stream.at = self._answers[found, self._order.way], 0
        self._waiting.append(stream)
        if len(self._waiting) < self._order.together:
            return
        now, gap = time.monotonic(), self._order.pace / self._order.together
        for number, waiting in enumerate(self._waiting):
            waiting.due = now + number * gap
            self._queue.append(waiting)
        self._waiting.clear()
        if not self._began[0]:
            self._began = now, self._cpu()

    def _send_due(self) -> None:
        queue, pace = self._queue, self._order.pace
        now = time.monotonic()
        while queue and queue[0].due <= now:
            stream = queue.popleft()
            if stream.gone:
                continue
            self._late = max(self._late, now - stream.due)
            self._write(stream, stream.pieces[stream.at])
            stream.at += 1
            now = time.monotonic()
            if stream.at < len(stream.pieces):
                stream.due = max(stream.due + pace, now + _OUT_OF_TURN * pace)
                queue.append(stream)
            else:
                self._sent.append(now)
                self._ended = now

    def _write(self, stream: _Stream, piece: bytes) -> None:
        """Send it; what does not fit is sent when there is room."""
        had, data = bool(stream.rest), stream.rest + piece
        try:
            done = stream.sock.send(data)
        except BlockingIOError:
            done = 0
        except OSError:
            return  # it has left; `_serve` will hear of it
        stream.rest = data[done:]
        if bool(stream.rest) != had:
            events = selectors.EVENT_READ | (selectors.EVENT_WRITE if stream.rest else 0)
            self._poll.modify(stream.sock, events, stream)

    def _cpu(self) -> float:
        return cpu_of(self._order.pid) if self._order.pid else 0.0


def cpu_of(pid: int) -> float:
    """CPU seconds of a process so far, all threads: Linux names that clock by the process's number."""
    return time.clock_gettime((~pid << 3) | 2)


def pin(pid: int, core: int) -> None:
    """Keep a process, all its threads, on one of the cores we may use (-1: the last), where one can."""
    if not hasattr(os, "sched_setaffinity"):
        return
    core = sorted(os.sched_getaffinity(0))[core]
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(ProcessLookupError):
            os.sched_setaffinity(int(task.name), {core})


def _asked(data: bytes) -> str | None:
    """The path of a whole request, or None while it is not whole."""
    head, found, body = data.partition(b"\r\n\r\n")
    if not found:
        return None
    lines = head.split(b"\r\n")
    length = next((int(line[15:]) for line in lines if line.lower().startswith(b"content-length:")), 0)
    return lines[0].split(b" ")[1].decode().partition("?")[0] if len(body) >= length else None


if __name__ == "__main__":
    sender = _Sender(int(sys.argv[1]))
    print(json.dumps(sender.ready()), flush=True)
    sender.run()
