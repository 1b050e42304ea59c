"""The call that agents already make, on top of a client: `call_llm(task, messages=…)` and what it returns.

Strategy: an agent's auxiliary layer is one function with a dozen arguments and an answer in the shape of a
chat completion. `Host` has that function, sync and async: the arguments are translated once (`_asked`), the
client does the rest, and its `Reply` gets that shape (`Completion.of`), ledger included. The agent's own
model is told with `set_main` or `main_runtime=`; a call keeps what it began with. What cannot be kept is
refused: an argument unknown here, or a raw stream.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Required, TypedDict, Unpack

from .cancel import Cancel
from .client import AsyncClient, Client
from .drivers import Notify
from .errors import SidestreamError, UsageError
from .recovery.clocks import Timeouts
from .reply import Reply
from .route import Route
from .routes.environment import main_from_environment

__all__ = ["Arguments", "Completion", "Host", "extract_content_or_reasoning"]

Key = str | Callable[[], str] | None
Main = Route | Mapping[str, Any] | None
_WIRES = {"chat_completions": "chat", "codex_responses": "responses", "anthropic_messages": "messages"}
_OWN = frozenset({"", "auto", "main", "custom"})  # words for what a call gets anyway: the agent's own
_TASKS = {"title_generation": "title"}  # names that are others here
_INSTEAD = {
    "extra_headers": "headers belong to a route: Route(headers=…)",
    "latency_info": "the ledger has it: .reply.attempts",
    "route_info": "the ledger has it: .reply.attempts",
}
_THOUGHT = re.compile(
    r"<(think(?:ing)?|reasoning(?:_scratchpad)?|thought)>.*?</\1>", re.DOTALL | re.IGNORECASE
)


class Arguments(TypedDict, total=False):
    """What `call_llm` and `async_call_llm` take besides `task`. None is the same as not given.

    Attributes:
        messages: chat-style messages.
        provider: with `model`, that model of a provider; alone, a configured route's name. "auto" and "main"
            are the agent's own.
        model: another model on the agent's own route; "auto" is that route's.
        base_url, api_key, api_mode: a route given in place; `api_mode` is its wire, for example
            "codex_responses". Without a key it gets that of the agent's own route, if the origin is the same.
        main_runtime: the agent's own route for this call: a `Route`, or its base_url, model, api_key and
            api_mode. A key may be a function.
        temperature, max_tokens, tools: of the request.
        timeout: total seconds of the call, or `Timeouts`.
        extra_body: further request fields.
        reasoning_config: {"effort": …} or {"enabled": False}.
        stream, stream_options: only for a stream, and there is none here.
        cancel, atomic, empty_is_failure, notify: as in `Client.complete`.
    """

    messages: Required[Sequence[Mapping[str, Any]]]
    provider: str | None
    model: str | None
    base_url: str | None
    api_key: Key
    api_mode: str | None
    main_runtime: Main
    temperature: float | None
    max_tokens: int | None
    tools: Sequence[Mapping[str, Any]] | None
    timeout: Timeouts | float | None
    extra_body: Mapping[str, Any] | None
    reasoning_config: Mapping[str, Any] | None
    stream: bool
    stream_options: Mapping[str, Any] | None
    cancel: Cancel | None
    atomic: bool | None
    empty_is_failure: bool | None
    notify: Notify | None


# The answer. Lists where an agent may have to write JSON of it.


@dataclass(frozen=True, slots=True)
class Function:
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class FunctionCall:
    id: str
    function: Function
    type: str = "function"


@dataclass(frozen=True, slots=True)
class Message:
    role: str
    content: str | None
    tool_calls: list[FunctionCall] | None
    reasoning: str | None
    refusal: str | None


@dataclass(frozen=True, slots=True)
class Choice:
    message: Message
    finish_reason: str
    index: int = 0


@dataclass(frozen=True, slots=True)
class Tokens:
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


@dataclass(frozen=True, slots=True)
class Completion:
    """A `Reply` in the shape of a chat completion.

    Attributes:
        choices: one, whose `finish_reason` is "stop", "tool_calls", or "length" if a token limit ended it.
        model: which model answered.
        usage: tokens of all exchanges together; None if one of them could not be counted.
        reply: the whole of it, with the ledger.
    """

    choices: list[Choice]
    model: str
    usage: Tokens | None
    reply: Reply

    @classmethod
    def of(cls, reply: Reply) -> Completion:
        """The shape of a reply."""
        calls = [FunctionCall(call.call_id, Function(call.name, call.arguments)) for call in reply.tool_calls]
        text = reply.text if reply.text or not calls else None
        message = Message("assistant", text, calls or None, reply.reasoning or None, reply.refusal or None)
        ended = "length" if reply.status == "incomplete" else "tool_calls" if calls else "stop"
        usage = None
        if (spent := reply.usage) and spent.input_tokens is not None and spent.output_tokens is not None:
            total = spent.input_tokens + spent.output_tokens
            usage = Tokens(spent.input_tokens, spent.output_tokens, total)
        return cls([Choice(message, ended)], reply.model or "", usage, reply)


def extract_content_or_reasoning(response: Any, max_reasoning_chars: int | None = None) -> str:
    """The text of a chat completion without inline thoughts; or the end of its reasoning; or ""."""
    message = response.choices[0].message
    if text := _THOUGHT.sub("", message.content or "").strip():
        return text
    thought = getattr(message, "reasoning", None) or getattr(message, "reasoning_content", None) or ""
    return str(thought).strip()[-(max_reasoning_chars or 0) :]


# The calls.


class Host:
    """An agent's auxiliary calls, answered by a client. Cheap: one for each session with a model of its own.

    Args:
        client: for `call_llm`.
        async_client: for `async_call_llm`.
        main: the agent's own route, see `set_main`.
        raises: makes of an error the exception that the agent tells failures by; ours becomes its cause.
    """

    def __init__(
        self,
        client: Client | None = None,
        async_client: AsyncClient | None = None,
        *,
        main: Main = None,
        raises: Callable[[SidestreamError], Exception] = lambda error: error,
    ) -> None:
        self._client, self._async_client, self._raises = client, async_client, raises
        self.set_main(main)

    def set_main(self, main: Main) -> None:
        """Tell the agent's own route, as `main_runtime=` does: calls that begin from now on ask it first.

        Raises:
            ConfigError, UsageError: it makes no sense.
        """
        _runtime(main)
        self._main = dict(main) if isinstance(main, Mapping) else main

    def call_llm(self, task: str | None = None, **arguments: Unpack[Arguments]) -> Completion:
        """Ask, and wait for the whole answer. The arguments: `Arguments`.

        Raises:
            SidestreamError: as `Client.complete`, or what `raises` makes of it.
            UsageError: an argument is unknown or makes no sense.
            Cancelled: the call was stopped.
        """
        if self._client is None:
            raise UsageError("call_llm has no client", hint="Host(Client(…), AsyncClient(…)) has both")
        asked = _asked(task, arguments, self._main)
        try:
            return Completion.of(self._client.complete(arguments["messages"], **asked))
        except SidestreamError as error:
            self._tell(error)
            raise

    async def async_call_llm(self, task: str | None = None, **arguments: Unpack[Arguments]) -> Completion:
        """As `call_llm`."""
        if self._async_client is None:
            raise UsageError("async_call_llm has no client", hint="Host(Client(…), AsyncClient(…)) has both")
        asked = _asked(task, arguments, self._main)
        try:
            return Completion.of(await self._async_client.complete(arguments["messages"], **asked))
        except SidestreamError as error:
            self._tell(error)
            raise

    def _tell(self, error: SidestreamError) -> None:
        if (theirs := self._raises(error)) is not error:
            raise theirs from error


# From their arguments to ours.


def _asked(task: str | None, given: Arguments, told: Main) -> dict[str, Any]:
    """How the client is asked."""
    _check(given)
    main = _runtime(given.get("main_runtime")) or _runtime(told)
    route, model = _route(given, main, _other(given.get("model")))
    params = {**(given.get("extra_body") or {}), **_reasoning(given.get("reasoning_config") or {})}
    params |= {name: given.get(name) for name in ("temperature", "max_tokens") if given.get(name) is not None}
    asked: dict[str, Any] = {
        "task": _TASKS.get(task, task) if task else None,
        "route": route,
        "main": main,
        "model": model,
        "tools": given.get("tools") or (),
        **{name: given.get(name) for name in ("timeout", "cancel", "atomic", "empty_is_failure", "notify")},
    }
    if twice := sorted(asked.keys() & params.keys()):
        raise UsageError(f"extra_body holds {twice[0]!r}", hint=f"pass {twice[0]}= as an argument")
    return params | asked


def _check(given: Mapping[str, Any]) -> None:
    known = Arguments.__annotations__
    if unknown := next((name for name in given if name not in known), None):
        near = difflib.get_close_matches(unknown, known, 1)
        hint = f"did you mean {near[0]}=?" if near else "a request field goes into extra_body="
        raise UsageError(f"call_llm has no argument {unknown}=", hint=_INSTEAD.get(unknown, hint))
    if given.get("stream"):
        raise UsageError("call_llm has no raw stream", hint="client.stream(…) reads along")
    if given.get("messages") is None:
        raise UsageError("call_llm has no messages=", hint="pass chat-style messages")


def _other(name: str | None) -> str | None:
    """A name that says more than "the agent's own"."""
    return None if (name or "").strip().lower() in _OWN else name


def _reasoning(config: Mapping[str, Any]) -> dict[str, Any]:
    effort = "none" if config.get("enabled") is False else config.get("effort")
    return {"reasoning": {"effort": effort}} if effort else {}


def _runtime(main: Main) -> Route | None:
    """The agent's own route; None if what it tells is not enough for one."""
    if main is None or isinstance(main, Route):
        return main
    base_url, model = main.get("base_url"), _other(main.get("model"))
    return _made(base_url, main.get("api_key"), model, main.get("api_mode")) if base_url and model else None


def _route(given: Arguments, main: Route | None, model: str | None) -> tuple[Route | str | None, str | None]:
    """The route that the call names, and what it says of the model apart from it."""
    base_url, key, provider = given.get("base_url"), given.get("api_key"), _other(given.get("provider"))
    if not base_url:
        if key:
            raise UsageError("api_key= without base_url=", hint="a key goes to the one endpoint it is for")
        return (f"{provider}:{model}", None) if provider and model else (provider, model)
    if not (model := model or (main.model if main else None)):
        raise UsageError("base_url= without a model", hint="pass model= with it")
    route = _made(base_url, key, model, given.get("api_mode"))
    if not key and main and main.origin == route.origin:
        route = replace(route, api_key=main.api_key, credential=main.credential, headers=main.headers)
    return route, None


def _made(base_url: str, key: Key, model: str, mode: str | None) -> Route:
    if mode and mode not in (*_WIRES, *_WIRES.values()):
        raise UsageError(f"no api_mode {mode!r}", hint=f"one of {', '.join(_WIRES)}")
    wire = _WIRES.get(mode, mode) if mode else None
    value = key() if callable(key) else key
    # No environment: such a route has the key it was given and no fallback.
    return main_from_environment(base_url, value or None, model, wire, environ={})
