"""Bad input, as a table: what is given, and how the command must end.

Every case ends with the same promises: its exit code, its words on stderr, one `error:` line and a `hint:`,
nothing on stdout, no file made or changed, no traceback and no credential anywhere.
"""

from __future__ import annotations

import os
import shlex
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from commands import CANARY, PROGRAM, SAMPLE, Done, environment, process, sidestream

from sidestream.lab import Lab, Script, script

MIB = 1024 * 1024
HTML = "<html><head><title>Please log in</title></head></html>"


def refusal(status: int, message: str, **headers: str) -> Script:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return script.error(status, {"error": {"message": message}}, headers=named)


SERVERS: dict[str, Script] = {
    "html": script.error(200, HTML),
    "html 502": script.error(502, HTML),
    "json": script.json({"hello": "world"}),
    "garbage": script.from_sse(b"data: {not json\n\ndata: at all\n\n"),
    "empty": script.error(200, ""),
    "302": script.error(302, "", headers={"Location": "https://example.com/v1"}),
    "401": refusal(401, f"Incorrect API key provided: {CANARY}"),
    "402": refusal(402, "payment required"),
    "403": refusal(403, "not for you"),
    "404": refusal(404, "no such model"),
    "400": refusal(400, "bad temperature"),
    "429": refusal(429, "slow down", Retry_After="300"),
    "500": refusal(500, f"it broke, {CANARY}"),
    "whole": script.chat_text("never asked for"),
}


@dataclass(frozen=True)
class Case:
    """One command line, and how it must end. `{url}` is the server, `{tmp}` the folder of `files`."""

    name: str
    line: str
    code: int
    words: tuple[str, ...]
    server: str = ""
    stdin: bytes = b""
    env: dict[str, str] = field(default_factory=dict)
    posix: bool = False


ASK = "ask hi --model m --base-url {url}"
NOWHERE = "ask hi --model m --base-url"

CASES = (
    # What the server says.
    Case("web page", ASK, 1, ("web page", "base URL"), "html"),
    Case("web page with an error", ASK, 1, ("502", "Please log in"), "html 502"),
    Case("json of another kind", ASK, 1, ("m:",), "json"),
    Case("events that are no json", ASK, 1, ("breaks the format", "--wire"), "garbage"),
    Case("nothing at all", ASK, 1, ("m:",), "empty"),
    Case("redirect", ASK, 1, ("302", "not followed"), "302"),
    Case("wrong key", ASK, 5, ("credential was not accepted", "***", "SIDESTREAM_API_KEY"), "401"),
    Case("wrong key in json", ASK + " --quiet", 5, ("credential was not accepted",), "401"),
    Case("no money", ASK, 5, ("quota", "payment required"), "402"),
    Case("forbidden", ASK, 5, ("not for you",), "403"),
    Case("unknown model", ASK, 1, ("no such model", "--model"), "404"),
    Case("bad request", ASK, 1, ("bad temperature",), "400"),
    Case("told to wait too long", ASK, 1, ("too many requests", "wait 300 s"), "429"),
    Case("server error", ASK, 1, ("it broke, ***", "second route"), "500"),
    # Where there is no server.
    Case("connection refused", f"{NOWHERE} http://127.0.0.1:{{closed}}", 1, ("refused", "running?")),
    Case("no such host", f"{NOWHERE} http://nowhere.invalid/v1", 1, ("no connection", "base URL")),
    Case("no scheme", f"{NOWHERE} localhost:8080", 2, ("not an http(s) URL", "looks like")),
    Case("other scheme", f"{NOWHERE} ftp://example.com/", 2, ("not an http(s) URL",)),
    Case("bad port", f"{NOWHERE} http://127.0.0.1:99999/", 2, ("Port out of range",)),
    Case("space in the URL", f"{NOWHERE} http://exa%20mple/{{space}}", 2, ("characters",)),
    Case("password in the URL", f"{NOWHERE} https://me:{CANARY}@example.com/", 2, ("SIDESTREAM_API_KEY",)),
    # Configuration.
    Case("no model", "ask hi", 2, ("no model", "--model", "--local")),
    Case("no key for OpenAI", "ask hi --model m", 2, ("OPENAI_API_KEY",), env={"SIDESTREAM_API_KEY": ""}),
    Case("unknown wire", ASK + " --wire smoke", 2, ("'smoke'", "responses"), "whole"),
    Case(
        "unknown wire set", ASK, 2, ("'smoke'", "responses, chat"), "whole", env={"SIDESTREAM_WIRE": "smoke"}
    ),
    Case("half a fallback", ASK, 2, ("half configured",), "whole", env={"SIDESTREAM_FALLBACK_MODEL": "m"}),
    Case("no key file", ASK, 2, ("key file", "No such file"), "whole", env={"KEY_FILE": "{tmp}/none"}),
    Case(
        "key file is a folder",
        ASK,
        2,
        ("key file", "directory"),
        "whole",
        env={"KEY_FILE": "{tmp}"},
        posix=True,
    ),
    Case("key file is empty", ASK, 2, ("is empty",), "whole", env={"KEY_FILE": "{tmp}/empty"}),
    Case("key file is binary", ASK, 2, ("not text",), "whole", env={"KEY_FILE": "{tmp}/binary"}),
    Case(
        "key of two lines",
        ASK,
        2,
        ("Authorization", "line break"),
        "whole",
        env={"SIDESTREAM_API_KEY": "a\nb"},
    ),
    Case(
        "key over plain http",
        f"{NOWHERE} http://example.com/v1",
        2,
        ("refusing", "https"),
        env={"SIDESTREAM_BASE_URL": "http://example.com/v1"},
    ),
    # The question.
    Case("nothing asked", "ask", 2, ("empty", "Why is the sky blue")),
    Case("only spaces", "ask - --model m", 2, ("empty",), stdin=b" \n\t"),
    Case("not UTF-8", "ask", 2, ("stdin is not UTF-8", "byte 3", "iconv"), stdin=b"ab\xff\xfe"),
    Case("not UTF-8 as an argument", "ask a\udcff --model m", 2, ("not UTF-8",)),
    Case("too long", "ask", 2, ("larger than 4 MiB",), stdin=b"x" * (4 * MIB + 1)),
    Case("json and live", ASK + " --json --live", 2, ("--json", "--live"), "whole"),
    Case("local and a model", ASK + " --local", 2, ("--local",), "whole"),
    *(
        Case(f"{option} {value}", f"{ASK} {option} {value}", 2, (option, "is not a number"), "whole")
        for option in ("--timeout", "--idle", "--first")
        for value in ("0", "-1", "nan", "inf", "soon")
    ),
    Case("temperature nan", ASK + " --temperature nan", 2, ("--temperature",), "whole"),
    Case("no tokens", ASK + " --max-tokens 0", 2, ("--max-tokens",), "whole"),
    # Conversations.
    Case("missing file", "compress {tmp}/none", 2, ("cannot read", "No such file")),
    Case("a folder", "compress {tmp}", 2, ("cannot read", "directory"), posix=True),
    Case("empty file", "compress {tmp}/empty", 2, ("empty", "Known formats")),
    Case("empty stdin", "compress -", 2, ("empty",)),
    Case("binary file", "compress {tmp}/binary", 2, ("binary",)),
    Case("not UTF-8 file", "compress {tmp}/latin1", 2, ("line 1", "UTF-8")),
    Case("UTF-16 file", "compress {tmp}/utf16", 2, ("UTF-16", "iconv")),
    Case("truncated JSONL", "compress {tmp}/cut.jsonl", 2, ("line 2", "cut off")),
    Case("truncated JSON", "compress {tmp}/cut.json", 2, ("cut off",)),
    Case("wrong schema", "compress {tmp}/schema.json", 2, ("no known transcript format", "colour")),
    Case("JSON that is no conversation", "compress {tmp}/number.json", 2, ("hint",)),
    Case("no messages", "compress -", 2, ("no messages",), stdin=b"[]"),
    Case("nested too deeply", "compress -", 2, ("nested",), stdin=b"[" * 100_000),
    Case("1 GiB file", "compress {tmp}/sparse", 2, ("larger than 64 MiB", "split")),
    Case("line over 16 MiB", "compress {tmp}/line.jsonl", 2, ("line 2", "16 MiB")),
    *(
        Case(f"ratio {ratio}", f"compress {{sample}} --ratio {ratio}", 2, ("--ratio", "at most 1"))
        for ratio in ("0", "-1", "nan", "1.5", "much")
    ),
    *(
        Case(f"tokens {tokens}", f"compress {{sample}} --tokens {tokens}", 2, ("--tokens",))
        for tokens in ("0", "-5", "many")
    ),
    Case("two targets", "compress {sample} --ratio 0.5 --tokens 9", 2, ("--ratio and --tokens", "one of")),
    Case("output folder missing", "compress {sample} -o {tmp}/none/out", 2, ("cannot write", "No such")),
    Case("output below a file", "compress {sample} -o {tmp}/empty/out", 2, ("cannot write",)),
    Case("output is a folder", "compress {sample} -o {tmp}", 2, ("cannot write", "irectory"), posix=True),
    Case("output device is full", "compress {sample} -o /dev/full", 2, ("No space",), posix=True),
    Case("model named, key missing", "compress {sample} -m m", 2, ("key",), env={"SIDESTREAM_API_KEY": ""}),
    # The lab.
    Case("unknown fault", "lab serve -f smash", 2, ("no fault named 'smash'", "cut")),
    Case("unknown argument of a fault", "lab serve -f cut:when=3", 2, ("'when'", "cut takes after_event")),
    Case("word for a number", "lab serve -f cut:after_event=x", 2, ("cut takes after_event",)),
    Case("part of an event", "lab serve -f cut:after_event=1.5", 2, ("whole numbers",)),
    Case("endless time", "lab serve -f stall:seconds=inf", 2, ("finite",)),
    Case("negative position", "lab serve -f cut:at_byte=-1", 2, ("negative",)),
    Case("too many arguments", "lab serve -f close:1,2", 2, ("close takes no arguments",)),
    Case("always what", "lab serve --always", 2, ("--always", "--fault")),
    Case("hazard and fault", "lab serve --hazard 0.1 -f cut", 2, ("--hazard", "--fault")),
    Case("hazard above 1", "lab serve --hazard 2", 2, ("--hazard", "at most 1")),
    Case("port above 65535", "lab serve --port 70000", 2, ("--port", "65535")),
    Case("port in use", "lab serve --port {taken}", 2, ("cannot listen", "in use", "--port 0"), "whole"),
    Case("foreign address", "lab serve --port 0 --host 192.0.2.1", 2, ("cannot listen", "--host")),
    Case("pace nan", "lab serve --pace nan", 2, ("--pace",)),
    Case("replay missing", "lab serve --replay {tmp}/none", 2, ("cannot read", ".sse")),
    Case("replay empty", "lab serve --replay {tmp}/empty", 2, ("no events",)),
    Case("replay without end", "lab serve --replay /dev/zero", 2, ("larger than 64 MiB",), posix=True),
    Case("replay and upstream", "lab serve --replay x --upstream http://h", 2, ("--replay", "--upstream")),
    Case("upstream no URL", "lab serve --upstream somewhere", 2, ("not an http(s) URL", "for example")),
    Case("upstream bad port", "lab serve --upstream http://h:x/", 2, ("not an http(s) URL",)),
    Case("upstream unreachable", "lab serve --upstream http://127.0.0.1:{closed}", 2, ("nothing answers",)),
    Case("certificate nowhere", "lab serve --port 0 --tls {tmp}/none/ca.pem", 2, ("cannot write",)),
    # The command itself.
    Case("unknown command", "sing", 2, ("No such command 'sing'", "sidestream --help")),
    Case("unknown option", "ask --loudly", 2, ("--loudly", "sidestream ask --help")),
    Case("too many words", "ask why not", 2, ("extra argument", "sidestream ask --help")),
    Case("file missing from the line", "compress", 2, ("FILE", "sidestream compress --help")),
    Case("short demo", "demo --max-tokens 3", 2, ("--max-tokens", "sidestream demo --help")),
)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of damaged files, which no test may change."""
    folder = tmp_path_factory.mktemp("files")
    message = b'{"role": "user", "content": "hello"}'
    contents = {
        "empty": b"",
        "binary": b"\x7fELF\x00\x01\xff",
        "latin1": b'[{"role": "user", "content": "caf\xe9"}]',
        "utf16": '[{"role": "user"}]'.encode("utf-16"),
        "cut.jsonl": message + b"\n" + message[:20],
        "cut.json": b"[" + message + b", ",
        "schema.json": b'[{"colour": "red"}]',
        "number.json": b"42",
        "line.jsonl": message + b"\n" + b'{"role": "user", "content": "' + b"x" * (16 * MIB) + b'"}\n',
    }
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    with (folder / "sparse").open("wb") as sparse:
        sparse.truncate(1024 * MIB)
    return folder


@contextmanager
def closed_port() -> Iterator[int]:
    """A port that is bound and not listening: connecting to it is refused."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        yield sock.getsockname()[1]


def run(case: Case, folder: Path) -> Done:
    with Lab(SERVERS[case.server or "whole"]) as lab, closed_port() as closed:
        places = {"url": lab.url, "tmp": folder, "sample": SAMPLE, "closed": closed, "taken": lab.port}
        keys = {"SIDESTREAM_API_KEY": CANARY} | ({"SIDESTREAM_BASE_URL": lab.url} if case.server else {})
        env = {**keys, **{name: value.format(**places) for name, value in case.env.items()}}
        if path := env.pop("KEY_FILE", ""):
            env |= {"SIDESTREAM_API_KEY": "", "SIDESTREAM_API_KEY_FILE": path}
        words = case.line.split()
        return sidestream(*(word.format(**places, space=" ") for word in words), stdin=case.stdin, env=env)


def listing(folder: Path) -> dict[str, tuple[int, int]]:
    return {path.name: (path.stat().st_size, path.stat().st_mtime_ns) for path in folder.iterdir()}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_bad_input(case: Case, files: Path) -> None:
    """Bad input ends in one clear line with a hint, a fitting exit code, and nothing half written."""
    if case.posix and os.name != "posix":
        pytest.skip("needs POSIX paths")
    before = listing(files)
    done = run(case, files)
    assert done.code == case.code, done.err
    assert not [word for word in case.words if word not in done.err], done.err
    assert done.err.count("error: ") == 1, done.err
    *_, error, hint = done.err.splitlines()
    assert error.startswith("error: "), done.err
    assert hint.startswith("hint: "), done.err
    assert done.out == ""
    assert listing(files) == before
    assert "Traceback" not in done.err
    assert CANARY not in done.err


def test_case_names_are_unique() -> None:
    """Every case has a name of its own, so a failure says which it was."""
    assert len({case.name for case in CASES}) == len(CASES)


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write anywhere")
def test_read_only_folder(tmp_path: Path) -> None:
    """A folder that cannot be written to stays as it was."""
    tmp_path.chmod(0o500)
    done = sidestream("compress", SAMPLE, "--extractive", "-o", tmp_path / "out")
    tmp_path.chmod(0o700)
    assert (done.code, list(tmp_path.iterdir())) == (2, [])
    assert "cannot write" in done.err


def test_tls_without_the_extra(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """TLS without the package for it says what to install, and leaves no certificate."""
    monkeypatch.setitem(sys.modules, "trustme", None)
    done = sidestream("lab", "serve", "--port", "0", "--tls", tmp_path / "ca.pem")
    assert (done.code, list(tmp_path.iterdir())) == (2, [])
    assert "pip install 'sidestream[lab]'" in done.err


# The same in a process of its own, where memory, closed streams and full devices are real.


@contextmanager
def endless_line() -> Iterator[str]:
    """A server that begins an event and never ends its line."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(20)

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: ")
                try:
                    for _ in range(1024 * 16):  # 1 GiB in all
                        connection.sendall(b"x" * 65536)
                except OSError:
                    pass

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}/v1"
        thread.join(20)


# Linux keeps a peak through exec, so what getrusage says there is at least the size of this test run. VmHWM
# begins anew.
MEASURED = """
import resource, sys
from sidestream.cli.app import run
code = run(sys.argv[1:])
if sys.platform == "linux":
    peak = next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))
    peak //= 1024
else:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 2**20
print(peak)
sys.exit(code)
"""


def measured(*arguments: object, stdin: int = subprocess.DEVNULL) -> tuple[int, float, int, str]:
    """Exit code, seconds, peak MiB and stderr of a command in a process of its own."""
    started = time.monotonic()
    argv = [sys.executable, "-c", MEASURED, *map(str, arguments)]
    done = subprocess.run(argv, env=environment(), stdin=stdin, capture_output=True, text=True, timeout=60)
    return done.returncode, time.monotonic() - started, int(done.stdout), done.stderr


posix = pytest.mark.skipif(os.name != "posix", reason="measures with getrusage, writes to /dev/full")


@posix
def test_endless_line_from_a_server() -> None:
    """A line without end is given up at 16 MiB: soon, with a typed error, in bounded memory."""
    with endless_line() as url:
        code, seconds, peak, err = measured("ask", "hi", "--model", "m", "--base-url", url)
    assert code == 1
    assert "larger than" in err
    assert "16,777,216" in err
    assert seconds < 20
    assert peak < 200


@posix
@pytest.mark.parametrize(("command", "limit"), [(("compress", "-"), "64 MiB"), (("ask",), "4 MiB")])
def test_gigabyte_on_stdin(command: tuple[str, ...], limit: str, tmp_path: Path) -> None:
    """A line of 1 GiB on stdin is read no further than the limit."""
    with (tmp_path / "line").open("wb+") as sparse:
        sparse.truncate(1024 * MIB)
        code, seconds, peak, err = measured(*command, stdin=sparse.fileno())
    assert (code, limit in err) == (2, True), err
    assert seconds < 20
    assert peak < 200


@posix
@pytest.mark.parametrize("line", ["compress {sample} --extractive", "lab faults", "--help"])
def test_full_stdout(line: str) -> None:
    """Output that does not fit is an error, said once."""
    with Path("/dev/full").open("wb") as full:
        child = process(*line.format(sample=SAMPLE).split(), stdout=full)
        _, err = child.communicate(timeout=30)
    assert child.returncode == 2
    assert "No space left on device" in err
    assert "Traceback" not in err
    assert "Exception ignored" not in err


@posix
def test_closed_streams() -> None:
    """Streams that are closed before the start are no reason for a traceback."""
    shell = f"{shlex.join([*PROGRAM, 'ask', '--model', 'm'])} <&- >&-"
    done = subprocess.run(["sh", "-c", shell], env=environment(), capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: the prompt is empty")
