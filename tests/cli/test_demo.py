"""`sidestream demo`: with a lab in the model's place, and once with the real model where it can run."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Self

import pytest
from commands import CANARY, Done, on_terminal, sidestream

import sidestream.cli.demo as demo
from sidestream.errors import ConfigError
from sidestream.lab import Continuing, Lab, Request, Script, script
from sidestream.local import fetch_weights
from sidestream.local.weights import Weights

STORY = (
    "1. A real model", "2. The lab", "> Explain", "✂", "incomplete chunked read", "↻ prefill", "✂",
    "without the end of the answer", "↻ prefill", "attempt  route", "all", "3. The same question",
    "the text is the same: yes", "4. An agent's conversation", "messages",
)  # fmt: skip
WORDS = script.words(96, seed=1)
MODEL = Continuing(WORDS, accepts=("trailing",))
Answer = Callable[[Request], Script]


class StandIn:
    """A lab that plays the model."""

    api_key, model = CANARY, "stand-in"

    def __init__(self, answer: Answer) -> None:
        self._lab = Lab(answer)

    def __enter__(self) -> Self:
        self.url = self._lab.start().url
        return self

    def __exit__(self, *_: object) -> None:
        self._lab.stop()


def demonstrated(
    monkeypatch: pytest.MonkeyPatch, answer: Answer = MODEL, options: tuple[str, ...] = ()
) -> Done:
    monkeypatch.setattr(demo, "LocalModel", lambda **_: StandIn(answer))
    environ = {"OPENAI_API_KEY": CANARY, "SIDESTREAM_FALLBACK_MODEL": "half a route"}
    return sidestream("demo", *options, env=environ)


def check_story(done: Done) -> None:
    at = -1
    for words in STORY:
        at = done.err.find(words, at + 1)
        assert at >= 0, f"{words!r} is missing or out of order:\n{done.err}"
    assert CANARY not in done.out + done.err


def test_the_story_is_on_stderr_and_the_answer_on_stdout(monkeypatch: pytest.MonkeyPatch) -> None:
    """stdout has the answer once and whole; stderr tells cuts, returns, ledger and comparison, in order."""
    done = demonstrated(monkeypatch)
    assert (done.code, done.out) == (0, WORDS + "\n")
    check_story(done)


def test_nothing_is_paid_for_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each cut is continued where it was: all that the model wrote is in the answer."""
    reply = json.loads(demonstrated(monkeypatch, options=("--json",)).out)["reply"]
    assert [row["rung"] for row in reply["attempts"]] == ["send", "prefill", "prefill"]
    assert reply["usage"]["wasted_tokens"] == 0


def test_quiet_leaves_the_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """--quiet leaves stderr empty."""
    assert demonstrated(monkeypatch, options=("--quiet",)) == Done(0, WORDS + "\n", "")


def test_json_has_a_stable_schema(monkeypatch: pytest.MonkeyPatch) -> None:
    """--json prints one object with the documented names, and nothing on stderr."""
    done = demonstrated(monkeypatch, options=("--json",))
    said = json.loads(done.out)
    assert (done.code, done.err) == (0, "")
    assert set(said) == {"reply", "cuts", "restarts_announced", "same_as_uncut", "compression"}
    assert set(said["compression"]) == {"method", "chars_before", "chars_after"}
    assert (said["cuts"], said["restarts_announced"], said["same_as_uncut"]) == (2, 0, True)
    assert len(said["reply"]["attempts"]) == 3


def test_an_answer_too_short_to_be_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer that ends before the first cut demonstrates nothing, and that is said."""
    done = demonstrated(monkeypatch, Continuing("Yes."))
    assert done.code == 2
    assert "too short to be cut" in done.err
    assert "hint: ask for a longer one" in done.err


def test_a_model_that_goes_on_in_other_words(monkeypatch: pytest.MonkeyPatch) -> None:
    """If the continued answer is not the uncut one, the demo does not claim success."""
    done = demonstrated(monkeypatch, lambda request: script.chat_text(script.words(96, seed=request.attempt)))
    assert done.code == 1
    assert "the text is the same: NO" in done.err


def test_a_model_that_says_something_else(monkeypatch: pytest.MonkeyPatch) -> None:
    """If it neither goes on nor repeats itself, the restart is announced, which is no success, either."""

    def another(request: Request) -> Script:
        return Continuing(script.words(96, seed=request.attempt), accepts=())(request)

    done = demonstrated(monkeypatch, another)
    assert done.code == 1
    assert "↻ restart" in done.err
    assert "what stands above is void" in done.err


def test_a_model_that_cannot_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the model cannot run, the error says what to install and no traceback follows."""

    @contextmanager
    def broken() -> Iterator[None]:
        raise ConfigError("the system library libgomp.so.1 is missing", hint="apt install libgomp1")
        yield

    monkeypatch.setattr(demo, "LocalModel", lambda **_: broken())
    done = sidestream("demo")
    assert (done.code, done.out) == (2, "")
    assert done.err.endswith(
        "error: the system library libgomp.so.1 is missing\nhint: apt install libgomp1\n"
    )


# The real model.


@pytest.fixture(scope="module")
def runs_here() -> None:
    """The model and llama.cpp are there, or the test is skipped."""

    def only_what_is_cached(_weights: Weights, _folder: object) -> None:
        raise ConfigError("the model file is not cached (python3 run.py test fetches it)")

    probe = subprocess.run([sys.executable, "-c", "import xllamacpp"], capture_output=True, timeout=60)
    if probe.returncode:
        pytest.skip(f"llama.cpp does not load here: exit code {probe.returncode}")
    try:
        fetch_weights(download=only_what_is_cached)
    except ConfigError as error:
        pytest.skip(str(error))


@pytest.mark.local
@pytest.mark.xdist_group("local")
def test_the_real_model_finishes(runs_here: None) -> None:
    """With the real model the answer comes out whole and equal to an uncut one."""
    done = sidestream("demo", "--max-tokens", "64")
    assert done.code == 0, done.err
    assert done.out.count("The sky is blue because") == 1
    check_story(done)


@pytest.mark.local
@pytest.mark.xdist_group("local")
def test_ask_local(runs_here: None) -> None:
    """`ask --local` needs no key and uses no route of the environment."""
    env = {"SIDESTREAM_BASE_URL": "http://127.0.0.1:1/v1", "SIDESTREAM_MODEL": "m", "OPENAI_API_KEY": CANARY}
    done = sidestream("ask", "--local", "Say hello.", "--max-tokens", "12", "--json", env=env)
    assert done.code in (0, 3)
    assert json.loads(done.out)["model"] == "smollm2-135m-instruct"


@pytest.mark.local
@pytest.mark.xdist_group("local")
@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo terminal")
def test_ctrl_c_while_the_model_starts(runs_here: None) -> None:
    """Ctrl-C while the model starts ends quietly with 130."""
    done = on_terminal("demo", type_when={"1. A real model": b"\x03"}, env={"NO_COLOR": "1"})
    assert done.code == 130
    assert "Traceback" not in done.out
    assert done.out.rstrip().endswith("stopped")
