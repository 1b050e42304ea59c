"""`sidestream lab`: a server for any client, its story on stderr, its records on stdout."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from commands import CANARY, process, sidestream

from sidestream.lab import KINDS, Fault, Lab, Plan, script

REQUEST = {"index", "method", "path", "events_sent", "bytes_sent", "fault", "ended_by"}


class Served:
    """A running `lab serve --json`: its address, and its records as they come."""

    def __init__(self, child: subprocess.Popen[str]) -> None:
        assert child.stdout is not None
        self.child = child
        self.lines = child.stdout
        self.url = self.record()["url"]

    def record(self) -> Any:
        return json.loads(self.lines.readline())

    def end(self, number: int = signal.SIGTERM) -> tuple[int, str]:
        self.child.send_signal(number)
        _, err = self.child.communicate(timeout=20)
        return self.child.returncode, err


@contextmanager
def served(*options: object, env: Mapping[str, str] = {}) -> Iterator[Served]:
    child = process("lab", "serve", "--port", "0", "--pace", "0", "--json", *options, env=env)
    try:
        yield Served(child)
    finally:
        child.kill()
        child.communicate()


def post(url: str, path: str = "/chat/completions") -> bytes:
    """What a plain client gets, up to where it breaks."""
    address = urlsplit(url)
    assert address.hostname
    connection = http.client.HTTPConnection(address.hostname, address.port, timeout=20)
    try:
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {CANARY}"}
        connection.request("POST", address.path + path, '{"stream": true}', headers)
        return connection.getresponse().read()
    except http.client.IncompleteRead as torn:
        return torn.partial
    finally:
        connection.close()


def test_faults_come_in_order() -> None:
    """Each --fault meets the next attempt, `none` leaves one alone; --json records each with stable names."""
    with served("--fault", "cut:after_event=4", "--fault", "none", "--text", "a b c d e f") as lab:
        whole = [b"[DONE]" in post(lab.url) for _ in range(3)]
        records = [lab.record() for _ in range(3)]
        code, err = lab.end()
    assert whole == [False, True, True]
    assert [record["fault"] for record in records] == ["cut", "", ""]
    assert [record["index"] for record in records] == [0, 1, 2]
    assert all(set(record) == REQUEST for record in records)
    assert (code, err) == (0, "")
    assert CANARY not in json.dumps(records)


def test_always_repeats_the_last_fault() -> None:
    """--always gives every further attempt the last fault."""
    with served("--fault", "none", "--fault", "end:after_event=2", "--always") as lab:
        whole = [b"[DONE]" in post(lab.url) for _ in range(4)]
    assert whole == [True, False, False, False]


def test_every_wire_is_served() -> None:
    """The text comes on every wire."""
    with served("--text", "hello there") as lab:
        assert b"message_stop" in post(lab.url, "/messages")
        assert b"response.completed" in post(lab.url, "/responses")
        assert b"[DONE]" in post(lab.url)


def test_a_recording_is_replayed_exactly(tmp_path: Path) -> None:
    """--replay sends the recorded bytes."""
    recording = tmp_path / "recorded.sse"
    recording.write_bytes(script.chat_text("as it was").body)
    with served("--replay", recording) as lab:
        assert post(lab.url) == recording.read_bytes()


def test_a_proxy_cuts_a_real_server() -> None:
    """--upstream puts the faults before another server's answers."""
    with Lab(script.chat_text("one two three four")) as real:
        base = real.url.removesuffix("/v1")
        with served("--upstream", base, "--fault", "cut:after_event=3,tail=0") as lab:
            cut, whole = post(lab.url), post(lab.url)
    assert cut == whole[: len(cut)]
    assert b"[DONE]" not in cut
    assert b"[DONE]" in whole


def test_tls_hands_out_its_certificate(tmp_path: Path) -> None:
    """--tls FILE serves TLS; a client that trusts FILE gets its answer."""
    pytest.importorskip("trustme")
    certificate = tmp_path / "ca.pem"
    with served("--tls", certificate, "--text", "in private") as lab:
        assert lab.url.startswith("https://")
        arguments = ("ask", "hi", "--model", "m", "--base-url", lab.url)
        with process(*arguments, env={"SSL_CERT_FILE": str(certificate)}) as child:
            out, err = child.communicate(timeout=30)
    assert (child.returncode, out) == (0, "in private\n"), err


@pytest.mark.skipif(os.name != "posix", reason="POSIX signals")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_the_normal_end(number: int) -> None:
    """Ctrl-C and SIGTERM end the lab cleanly: exit code 0 and not a word more."""
    with served() as lab:
        assert lab.end(number) == (0, "")


def test_the_story_is_on_stderr() -> None:
    """Without --json stdout stays empty; stderr says where it listens and what became of each request."""
    with process("lab", "serve", "--port", "0", "--pace", "0", "-f", "cut:after_event=2") as child:
        assert child.stderr is not None
        first = child.stderr.readline()
        post(first.split()[2])
        row = child.stderr.readline()
        child.terminate()
        out, rest = child.communicate(timeout=20)
    assert first.startswith("listening on http://127.0.0.1:")
    assert row.strip().startswith("0 /v1/chat/completions: cut, 2 events, ")
    assert row.strip().endswith("ended by the server")
    assert (out, rest) == ("", "")


def test_a_hazard_is_repeatable() -> None:
    """--hazard and --seed cut at the events that the same plan names in Python."""
    plan = Plan.hazard(0.2, seed=7)
    with served("--hazard", "0.2", "--seed", "7", "--text", "a b c d e f g h") as lab:
        for attempt in range(6):
            post(lab.url)
            record = lab.record()
            assert record["events_sent"] == plan.at(attempt)[0].after_event or not record["fault"]


def test_every_fault_is_listed_with_its_arguments() -> None:
    """`lab faults` lists each fault once, one a line, with the arguments that `--fault` takes."""
    lines = sidestream("lab", "faults").out.splitlines()
    assert [line.split()[0] for line in lines] == [str(kind) for kind in KINDS]
    assert lines[1].endswith("(after_event, at_byte, tail)")
    listed = json.loads(sidestream("lab", "faults", "--json").out)
    assert [set(row) for row in listed] == [{"name", "number", "meaning", "arguments"}] * len(KINDS)


@pytest.mark.parametrize("kind", list(KINDS))
def test_listed_arguments_are_accepted(kind: Any) -> None:
    """Every argument that is listed is one that the fault can be built with."""
    with pytest.raises(TypeError, match="unexpected keyword"):
        getattr(Fault, kind.value)(nonsense=1)
    assert all(name.isidentifier() for name in Fault.arguments(kind))


def test_a_reader_that_leaves_ends_the_lab() -> None:
    """When nobody reads the records any more, the lab ends with 141 and no traceback."""
    reading, writing = os.pipe()
    with process("lab", "serve", "--port", "0", "--json", stdout=writing) as child:
        os.close(writing)
        with os.fdopen(reading) as reader:
            url = json.loads(reader.readline())["url"]
        post(url)
        _, err = child.communicate(timeout=20)
    assert (child.returncode, err) == (141, "")
