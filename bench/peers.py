"""Who is measured, in which environment and how configured; and the handle on a peer's process."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
sys.path.insert(0, str(ROOT / "recipes"))
from check import interpreter  # noqa: E402  the recipes' way to name an environment's interpreter

Wire = Literal["responses", "chat", "messages"]
START_SECONDS = 240.0  # to import a library on a cold machine


@dataclass(frozen=True)
class Peer:
    """One way to use one library.

    Attributes:
        name: as it stands in tables; unique.
        child, variant: which file of `children`, and what it is told to be.
        wire: what it speaks to the model.
        settings: its best documented configuration, in its own words. Printed with the tables.
        environment: the lock file in `requirements` it is installed from; "" is `.venv` itself.
        packages: whose versions are printed.
        is_async: whether many streams share a loop.
        fallbacks: how many routes besides the first it is given.
        ours: sidestream is in it.
    """

    name: str
    child: str
    variant: str
    wire: Wire
    settings: str
    environment: str = ""
    packages: tuple[str, ...] = ()
    is_async: bool = False
    fallbacks: int = 0
    ours: bool = False

    @property
    def python(self) -> Path:
        return interpreter(self.environment) if self.environment else Path(sys.executable)


_OPENAI = {"packages": ("openai", "httpx2")}
_ANTHROPIC = {"packages": ("anthropic", "httpx2"), "wire": "messages"}
_OPENAI_SAYS = "OpenAI(timeout=20), its 2 retries"
_ANTHROPIC_SAYS = "Anthropic(timeout=20), its 2 retries"
_OURS = {"ours": True, "packages": ("sidestream", "httpx2")}
_CLOCKS = "timeout=Timeouts(first=20, idle=20)"
_UNDER = {"ours": True, "packages": ("sidestream", "openai", "httpx2")}
_UNDER_ANTHROPIC = {
    "ours": True,
    "packages": ("sidestream", "anthropic", "httpx2"),
    "wire": "messages",
    "child": "under_anthropic",
}
_LITELLM = {
    "child": "with_litellm",
    "environment": "litellm",
    "packages": ("litellm", "openai", "httpx", "aiohttp"),
    "is_async": True,
}
_ROUTER = "num_retries=2, fallbacks to a second group, timeout=20, stream_timeout=20"
_PYDANTIC = {
    "child": "with_pydantic_ai",
    "environment": "frameworks",
    "packages": ("pydantic-ai-slim", "openai", "httpx2"),
    "is_async": True,
}
_PYDANTIC_SAYS = (
    "Agent.run_stream, timeout=20, first_event_timeout=80, "
    "the retrying transport of its documentation (5 tries)"
)
_LANGCHAIN = {
    "child": "with_langchain",
    "environment": "frameworks",
    "packages": ("langchain-openai", "langchain-core", "openai", "httpx2"),
}
_LANGCHAIN_SAYS = "ChatOpenAI(timeout=20, stream_chunk_timeout=20, max_retries=2)"
_HERMES = {
    "child": "with_hermes",
    "environment": "hermes",
    "packages": ("hermes-agent", "openai", "httpx"),
}
_HERMES_SAYS = "call_llm(timeout=20), its 2 retries for broken transports"


def _peer(name: str, variant: str, settings: str, shared: dict[str, Any], **more: Any) -> Peer:
    return Peer(name=name, variant=variant, settings=settings, **{"wire": "responses", **shared, **more})


def _openai(name: str, variant: str, settings: str, **more: Any) -> Peer:
    """The SDK by itself, and with sidestream under it."""
    return _peer(name, variant, settings, {**_OPENAI, "child": "openai_sdk"}, **more)


PEERS = (
    _openai("openai responses", "responses", f"{_OPENAI_SAYS}; responses.create(stream=True)"),
    _openai("openai responses.stream", "responses.stream", f"{_OPENAI_SAYS}; get_final_response()"),
    _openai("openai no stream", "responses.whole", f"{_OPENAI_SAYS}; responses.create()"),
    _openai("openai chat", "chat", f"{_OPENAI_SAYS}; create(stream=True)", wire="chat"),
    _openai("openai async", "responses.async", f"Async{_OPENAI_SAYS}; responses", is_async=True),
    _openai("openai chat async", "chat.async", f"Async{_OPENAI_SAYS}; chat", is_async=True, wire="chat"),
    _peer(
        "anthropic",
        "messages.stream",
        f"{_ANTHROPIC_SAYS}; get_final_message()",
        _ANTHROPIC,
        child="anthropic_sdk",
    ),
    _peer(
        "anthropic create",
        "messages.create",
        f"{_ANTHROPIC_SAYS}; create(stream=True)",
        _ANTHROPIC,
        child="anthropic_sdk",
    ),
    _peer(
        "anthropic async",
        "messages.async",
        f"Async{_ANTHROPIC_SAYS}; stream()",
        _ANTHROPIC,
        child="anthropic_sdk",
        is_async=True,
    ),
    _peer(
        "litellm",
        "acompletion",
        "acompletion(stream=True, num_retries=2, timeout=20, stream_timeout=20)",
        _LITELLM,
        wire="chat",
    ),
    _peer("litellm aresponses", "aresponses", "aresponses(stream=True, num_retries=2, timeout=20)", _LITELLM),
    _peer(
        "litellm router",
        "router",
        f"Router({_ROUTER}, enable_mid_stream_fallback_continuation=True).acompletion(stream=True); "
        "the second group is a model that LiteLLM lists as taking a prefill",
        _LITELLM,
        wire="chat",
        fallbacks=1,
    ),
    _peer(
        "litellm router responses",
        "router.aresponses",
        f"Router({_ROUTER}).aresponses(stream=True)",
        _LITELLM,
        fallbacks=1,
    ),
    _peer("pydantic-ai", "chat", f"OpenAIChatModel; {_PYDANTIC_SAYS}", _PYDANTIC, wire="chat"),
    _peer("pydantic-ai responses", "responses", f"OpenAIResponsesModel; {_PYDANTIC_SAYS}", _PYDANTIC),
    _peer(
        "pydantic-ai fallback",
        "fallback",
        f"FallbackModel of two OpenAIChatModel; {_PYDANTIC_SAYS}",
        _PYDANTIC,
        wire="chat",
        fallbacks=1,
    ),
    _peer("langchain", "chat", f"{_LANGCHAIN_SAYS}.stream()", _LANGCHAIN, wire="chat"),
    _peer("langchain responses", "responses", f"{_LANGCHAIN_SAYS} over Responses, stream()", _LANGCHAIN),
    _peer(
        "langchain async",
        "chat.async",
        f"{_LANGCHAIN_SAYS}.astream()",
        _LANGCHAIN,
        wire="chat",
        is_async=True,
    ),
    _peer(
        "langchain retry",
        "with_retry",
        f"{_LANGCHAIN_SAYS}, streaming=True, with_retry(3).invoke()",
        _LANGCHAIN,
        wire="chat",
    ),
    _peer(
        "langchain fallbacks",
        "with_fallbacks",
        f"{_LANGCHAIN_SAYS}.with_fallbacks(the same).stream()",
        _LANGCHAIN,
        wire="chat",
        fallbacks=1,
    ),
    _peer(
        "codex", "exec", "codex exec, its own retries, stream_idle_timeout_ms=20000", {"child": "with_codex"}
    ),
    _peer("hermes", "responses", f"{_HERMES_SAYS}; codex_responses", _HERMES),
    _peer("hermes chat", "chat", f"{_HERMES_SAYS}; chat_completions, without a stream", _HERMES, wire="chat"),
    # sidestream
    _peer(
        "sidestream responses", "complete", f"Client({_CLOCKS}).complete()", _OURS, child="with_sidestream"
    ),
    _peer("sidestream stream", "stream", f"Client({_CLOCKS}).stream()", _OURS, child="with_sidestream"),
    _peer(
        "sidestream chat",
        "complete.chat",
        f"Client({_CLOCKS}).complete(), continuation=trailing",
        _OURS,
        child="with_prefill",
        wire="chat",
    ),
    _peer(
        "sidestream chat stream",
        "stream.chat",
        f"Client({_CLOCKS}).stream()",
        _OURS,
        child="with_sidestream",
        wire="chat",
    ),
    _peer(
        "sidestream messages stream",
        "stream.messages",
        f"Client({_CLOCKS}).stream()",
        _OURS,
        child="with_sidestream",
        wire="messages",
    ),
    _peer(
        "sidestream async",
        "stream.async",
        f"AsyncClient({_CLOCKS}).stream()",
        _OURS,
        child="with_sidestream",
        is_async=True,
    ),
    _peer(
        "sidestream chat async",
        "stream.chat.async",
        f"AsyncClient({_CLOCKS}).stream()",
        _OURS,
        child="with_sidestream",
        wire="chat",
        is_async=True,
    ),
    _peer(
        "sidestream fallback",
        "stream.chat",
        f"Client(two routes, {_CLOCKS}).stream()",
        _OURS,
        child="with_sidestream",
        wire="chat",
        fallbacks=1,
    ),
    _peer(
        "sidestream openai",
        "responses",
        f"wrap(OpenAI()), {_CLOCKS}; as openai responses",
        _UNDER,
        child="under_openai",
    ),
    _peer(
        "sidestream openai.stream",
        "responses.stream",
        f"wrap(OpenAI()), {_CLOCKS}; get_final_response()",
        _UNDER,
        child="under_openai",
    ),
    _peer(
        "sidestream openai no stream",
        "responses.whole",
        f"wrap(OpenAI(), hold=True), {_CLOCKS}; create()",
        _UNDER,
        child="under_openai",
    ),
    _peer(
        "sidestream openai chat",
        "chat",
        f"wrap(OpenAI()), {_CLOCKS}; as openai chat",
        _UNDER,
        child="under_openai",
        wire="chat",
    ),
    _peer(
        "sidestream openai async",
        "responses.async",
        f"wrap(AsyncOpenAI()), {_CLOCKS}",
        _UNDER,
        child="under_openai",
        is_async=True,
    ),
    _peer(
        "sidestream openai chat async",
        "chat.async",
        f"wrap(AsyncOpenAI()), {_CLOCKS}",
        _UNDER,
        child="under_openai",
        wire="chat",
        is_async=True,
    ),
    _peer(
        "sidestream anthropic",
        "messages.stream",
        f"wrap(Anthropic()), {_CLOCKS}; get_final_message()",
        _UNDER_ANTHROPIC,
    ),
    _peer(
        "sidestream anthropic create",
        "messages.create",
        f"wrap(Anthropic()), {_CLOCKS}; create(stream=True)",
        _UNDER_ANTHROPIC,
    ),
    _peer(
        "sidestream anthropic async",
        "messages.async",
        f"wrap(AsyncAnthropic()), {_CLOCKS}",
        _UNDER_ANTHROPIC,
        is_async=True,
    ),
)


class Hang(Exception):
    """The peer did not answer in time. Its process is gone."""


class Died(Exception):
    """The peer's process ended by itself."""


class Child:
    """A peer's process, which does one thing after the other."""

    def __init__(
        self, peer: Peer, urls: list[str], *, log: Path | None = None, more: dict[str, str] | None = None
    ) -> None:
        self.peer = peer
        self._log = Path(log or os.devnull).open("ab")  # noqa: SIM115  it lives as long as the process
        self._process = subprocess.Popen(
            [peer.python, HERE / "children" / f"{peer.child}.py", peer.variant, *urls],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env={**surroundings(), **(more or {})},
            start_new_session=True,  # what it starts ends with it
        )
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._out, selectors.EVENT_READ)
        self.ready = self._answer(START_SECONDS)

    @property
    def pid(self) -> int:
        return self._process.pid

    def do(self, job: str, *, limit: float, **arguments: Any) -> dict[str, Any]:
        """Have the peer do something; the line it answers with.

        Raises:
            Hang: there was none within `limit` seconds.
            Died: there will be none.
        """
        if self._process.stdin is None:
            raise RuntimeError("a child has a stdin")
        self._process.stdin.write(json.dumps({"do": job, **arguments}).encode() + b"\n")
        self._process.stdin.flush()
        return self._answer(limit)

    def _answer(self, limit: float) -> dict[str, Any]:
        if not self._selector.select(limit):
            self.close()
            raise Hang(f"{self.peer.name}: no answer within {limit:.0f} s")
        line = self._out.readline()
        if not line:
            self.close()
            raise Died(f"{self.peer.name} ended with code {self._process.returncode}")
        found: dict[str, Any] = json.loads(line)
        return found

    @property
    def _out(self) -> Any:
        return self._process.stdout

    def close(self) -> None:
        if self._process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._selector.close()
        for pipe in (self._process.stdin, self._process.stdout, self._log):
            if pipe is not None:
                pipe.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def surroundings() -> dict[str, str]:
    """What a peer knows of the world: no keys, no proxies, nothing it could fetch."""
    passed = {key: os.environ[key] for key in ("PATH", "HOME", "SYSTEMROOT", "TEMP") if key in os.environ}
    return {
        **passed,
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "LANGSMITH_TRACING": "false",
        "PYTHONUNBUFFERED": "1",
    }
