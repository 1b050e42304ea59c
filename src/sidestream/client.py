"""The clients: what a program calls.

Strategy: `Client` and `AsyncClient` turn arguments into a `Call` and hand it to a run (drivers.py); they hold
the routes, the defaults and the connections, and nothing of a call. `complete` waits for the whole reply
(held: every way back is sound, nothing partial leaks). `stream` lets you read along (live): text is never
repeated or mixed, and when an answer has to begin anew you are told with a `Restarted` event.

The two clients have the same methods with the same arguments; a test compares them.
"""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Generator, Iterable, Mapping
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from .cancel import Cancel
from .drivers import AsyncRun, Notify, Orders, Run, System
from .errors import NoRoute, UsageError
from .net import sync
from .recovery.clocks import Timeouts
from .recovery.flow import Call
from .recovery.policy import Policy
from .reply import Reply
from .route import Continuation, Route
from .routes.config_schema import Config, TaskConfig
from .routes.environment import main_from_environment, routes_from_environment
from .routes.plan import Choice, Plan, Planner
from .telemetry import Observer, observers_of
from .wire.events import StreamEvent, TextDelta
from .wire.prompt import Request, from_input, one_meaning
from .wire.sse import Limits

if TYPE_CHECKING:
    from .net import aio
    from .tasks.compression import Budget, Compaction

__all__ = ["AsyncClient", "AsyncReplyStream", "Client", "ReplyStream"]

Input = str | Iterable[Mapping[str, Any]]
Timeout = Timeouts | float | None


class _Settings:
    """What both clients know: routes, defaults, and how a call is made of arguments."""

    def __init__(
        self,
        base_url: str | None = None,
        *,
        api_key: str | None = None,
        model: str | None = None,
        wire: str | None = None,
        continuation: Continuation | None = None,
        routes: Iterable[Route] | None = None,
        config: Config | str | os.PathLike[str] | None = None,
        tasks: Mapping[str, TaskConfig] | None = None,
        timeout: Timeout = None,
        policy: Policy | None = None,
        limits: Limits | None = None,
        cafile: str | None = None,
        insecure: bool = False,
        observe: Observer | Iterable[Observer] | None = None,
        system: System | None = None,
    ) -> None:
        """Choose routes and defaults.

        Args:
            base_url: endpoint, for example "https://api.openai.com/v1". Default: the environment.
            api_key: credential for `base_url`. Default: the environment's, if it belongs to that endpoint.
            model: model name. Default: SIDESTREAM_MODEL or OPENAI_MODEL.
            wire: "responses", "chat" or "messages". Default: by the endpoint.
            continuation: how a broken answer is continued there. Default: by the provider table.
            routes: the routes to use, in order, instead of all of the above; () if every call brings its own.
            config: a configuration or a file's path. Default: the user's and the project's files
                (docs/configuration.md), which are not read if a route is given in place.
            tasks: side tasks of your own by name, below what the configuration says of them.
            timeout: total seconds of a call, or `Timeouts`.
            policy: how often and how long to recover.
            limits: sizes in bytes above which an answer is given up.
            cafile: file with the certificates to trust instead of the system's.
            insecure: allow plain http with a credential to another machine.
            observe: one function or several, called with a `CallRecord` when a call has ended in any way.
                Default: a line in the log "sidestream". () observes nothing.
            system: clock and randomness, for tests.

        Raises:
            NoRoute: nothing to send a call to.
            ConfigError: a route makes no sense.
            UsageError: a timeout, a limit or an observer makes no sense.
        """
        in_place = base_url or api_key or wire or continuation
        if routes is not None and (in_place or model):
            raise UsageError("pass either routes= or a single route's arguments, not both")
        if routes is not None and config is not None:
            raise UsageError("pass either routes= or config=, not both")
        found: tuple[Route, ...] = ()
        if in_place:
            said = base_url, api_key, model, wire
            more: Any = {"continuation": continuation, "insecure": insecure}
            if config is None:
                found = routes_from_environment(*said, **more)
            else:  # the configuration says the others
                found = (main_from_environment(*said, **more),)
        self._planner = _planner(found, routes, config, tasks, model)
        self._planner.timeouts(timeout)  # what makes no sense is said now
        self._timeout = timeout
        self._policy = policy or self._planner.policy()
        self._limits = limits or Limits()
        self._cafile = cafile
        self._observers = observers_of(observe)
        self._system = system or System()
        if routes != () and not self._planner.config.files:  # with (), every call brings its own
            self._planner.plan(Choice())  # what cannot work at all is said now, not by the first call
        self._open_pool()

    def _open_pool(self) -> None:
        raise NotImplementedError

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(route.name for route in self.routes)})"

    @property
    def routes(self) -> tuple[Route, ...]:
        """The routes of a call that is for no task, in the order they are asked; none if there are none."""
        try:
            return self._planner.plan(Choice()).routes
        except NoRoute:
            return ()

    @property
    def main(self) -> Route | str | None:
        """The main route of the host's moment: a route, a configured name or "provider:model"; None leaves
        it to what was configured. Calls under way keep theirs."""
        return self._planner.main

    @main.setter
    def main(self, route: Route | str | None) -> None:
        if route is not None:
            self._planner.plan(Choice(main=route))  # what leads nowhere is said here
        self._planner.main = route

    def plan(self, task: str = "", *, route: Route | str | None = None, model: str | None = None) -> Plan:
        """What a call would get, without making it: its routes in order, and what is left out with why.

        Raises:
            NoRoute: nothing is left to ask.
            UsageError: there is no such task. ConfigError: a name leads nowhere.
        """
        return self._planner.plan(Choice(task, route, model))

    def task(self, name: str) -> TaskConfig:
        """What is configured of a task. Raises UsageError: there is no such task."""
        return self._planner.task(name)

    def timeouts(self, task: str = "", timeout: Timeout = None) -> Timeouts:
        """The clocks of a call for that task with that `timeout=`."""
        usual = self._planner.timeouts(self._timeout, task)
        return usual if timeout is None else _timeouts(timeout, usual)

    def _call(
        self,
        input: Input,
        instructions: str,
        tools: Iterable[Mapping[str, Any]],
        choice: Choice,
        timeout: Timeout,
        empty_is_failure: bool | None,
        params: dict[str, Any],
        *,
        live: bool,
    ) -> Call:
        try:
            messages = from_input(input)
        except ValueError as error:
            raise UsageError(f"the input makes no sense: {error}") from None
        for name in ("stream", "messages"):
            if name in params:
                raise UsageError(f"{name}= is not an argument of a call", hint=_INSTEAD[name])
        task = self._planner.task(choice.task)
        said = {name: value for name, value in params.items() if value is not None}
        given = one_meaning(task.params, said)
        words = instructions or task.instructions or ""
        request = Request(messages, words, tuple(dict(tool) for tool in tools), given)
        nowhere: NoRoute | None = None
        try:
            plan = self._planner.plan(choice, request)
        except NoRoute as error:  # the end of a call like others: whoever observes calls hears of it
            plan, nowhere = Plan((), task=task), error.with_traceback(None)  # which would hold on to us
        return Call(
            request,
            plan.routes,
            self.timeouts(choice.task, timeout),
            plan.policy(self._policy),
            live=live,
            empty_is_failure=bool(task.empty_is_failure if empty_is_failure is None else empty_is_failure),
            limits=self._limits,
            task=choice.task,
            concurrency=task.concurrency,
            priority=1 if choice.task else 0,  # the user's own turn goes before side tasks
            skipped=plan.skipped,
            nowhere=nowhere,
        )

    def _orders(
        self, task: str | None, cancel: Cancel | None, atomic: bool | None, notify: Notify | None
    ) -> Orders:
        if atomic is None:
            atomic = bool(self._planner.task(task or "").atomic)
        return Orders(cancel, atomic, notify, self._observers)


def _planner(
    in_place: tuple[Route, ...],
    routes: Iterable[Route] | None,
    config: Config | str | os.PathLike[str] | None,
    tasks: Mapping[str, TaskConfig] | None,
    model: str | None,
) -> Planner:
    """Routes that were given are all there is; beside a configuration, one that was given is the main one."""
    if routes is not None or (in_place and config is None):
        return Planner(routes=in_place if routes is None else routes, tasks=tasks)
    planner = Planner.load(config, tasks=tasks, model=model)
    if in_place:
        planner.main = in_place[0]
    return planner


def _timeouts(given: Timeouts | float, usual: Timeouts) -> Timeouts:
    """A call's own clocks; a number is the total, and the others stay."""
    return given if isinstance(given, Timeouts) else replace(usual, total=given)


_INSTEAD = {
    "stream": "use client.stream(...) to read along and client.complete(...) to wait",
    "messages": "pass the messages as the first argument",
}


class Client(_Settings):
    """Calls that block. One client may serve many threads; `with` closes its idle connections.

    Arguments and errors: see `_Settings.__init__`.
    """

    def _open_pool(self) -> None:
        self._pool = sync.Pool(self._cafile)

    def complete(
        self,
        input: Input,
        *,
        instructions: str = "",
        tools: Iterable[Mapping[str, Any]] = (),
        task: str | None = None,
        route: Route | str | None = None,
        main: Route | str | None = None,
        model: str | None = None,
        timeout: Timeout = None,
        cancel: Cancel | None = None,
        atomic: bool | None = None,
        empty_is_failure: bool | None = None,
        notify: Notify | None = None,
        **params: Any,
    ) -> Reply:
        """Ask, and wait for the whole reply.

        Args:
            input: a string, chat-style messages, or Responses items.
            instructions: a system message of its own.
            tools: tools the model may call, in Chat or Responses form.
            task: the side task this is: its routes, clocks and request fields, as configured.
            route: a route, a configured name or "provider:model" to ask first instead of the main one; then
                only the task's own fallbacks are asked.
            main: the main route of this call instead of the client's; a task's own route still goes first.
            model: another model on the route that is asked first, for this call.
            timeout: total seconds, or `Timeouts`; default: the task's, then the client's.
            cancel: a token that may stop the call.
            atomic: ignore interrupts of that token; cancels and deadlines still count. Default: as the task.
            empty_is_failure: treat a complete but empty answer as a fault. Default: as the task.
            notify: called with a `Recovering` each time a fault is recovered from.
            params: request fields, for example temperature=0, max_output_tokens=200.

        Returns:
            a reply whose status is "complete", or "incomplete" if a token limit ended it.

        Raises:
            StreamDropped, ProviderError, DeadlineExceeded: with the partial reply and the ledger.
            UsageError: the input or a setting makes no sense.
            Cancelled: the call was stopped.
        """
        call = self._call(
            input,
            instructions,
            tools,
            Choice(task or "", route, model, main),
            timeout,
            empty_is_failure,
            params,
            live=False,
        )
        run = Run(call, self._pool, self._system, self._orders(task, cancel, atomic, notify))
        for _ in run.events():
            raise RuntimeError("a held call delivers no events")
        return run.so_far

    def stream(
        self,
        input: Input,
        *,
        instructions: str = "",
        tools: Iterable[Mapping[str, Any]] = (),
        task: str | None = None,
        route: Route | str | None = None,
        main: Route | str | None = None,
        model: str | None = None,
        timeout: Timeout = None,
        cancel: Cancel | None = None,
        atomic: bool | None = None,
        empty_is_failure: bool | None = None,
        notify: Notify | None = None,
        **params: Any,
    ) -> ReplyStream:
        """Ask, and read along: `with client.stream(...) as stream: for event in stream: ...`.

        Arguments as for `complete`. The request is sent when iteration begins.
        """
        call = self._call(
            input,
            instructions,
            tools,
            Choice(task or "", route, model, main),
            timeout,
            empty_is_failure,
            params,
            live=True,
        )
        return ReplyStream(Run(call, self._pool, self._system, self._orders(task, cancel, atomic, notify)))

    def compress(
        self,
        messages: Iterable[Mapping[str, Any]],
        *,
        budget: Budget | int,
        focus: str = "",
        timeout: Timeout = None,
        cancel: Cancel | None = None,
        notify: Notify | None = None,
    ) -> Compaction:
        """Shorten a conversation with a summary by this client's model. See `sidestream.tasks.compression`.

        Args:
            messages: chat-style messages or Responses items.
            budget: a `Budget`, or a number of tokens.
            focus: a topic that the summary gives most of its room to.
            timeout, cancel, notify: as for `complete`; it is the task "compression".

        Returns:
            the compacted conversation, or the untouched one with a notice if the model cannot be reached.
        """
        from .tasks import compression  # the one door upwards: a task is built on its client

        def ask(prompt: list[dict[str, Any]]) -> str:
            return self.complete(
                prompt, task="compression", timeout=timeout, cancel=cancel, notify=notify
            ).text

        return compression.compress(list(messages), budget=budget, complete=ask, focus=focus)

    def close(self) -> None:
        """Close idle connections. Calls in flight keep theirs."""
        self._pool.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        if pool := getattr(self, "_pool", None):
            pool.close()


class ReplyStream:
    """A reply being read. A context manager: leaving it closes the connection at once.

    Iterate it for events, or `text()` for the text alone. `reply` is the reply so far, and the finished one
    after the last event.
    """

    def __init__(self, run: Run) -> None:
        self._run = run
        self._events: Generator[StreamEvent, None, None] | None = None

    def __enter__(self) -> Self:
        if self._events is not None:
            raise UsageError("a stream is read once", hint="call client.stream(...) again")
        self._events = self._run.events()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __iter__(self) -> Generator[StreamEvent, None, None]:
        if self._events is None:
            raise UsageError("a stream is read inside `with`", hint="with client.stream(...) as stream:")
        return self._events

    def text(self) -> Generator[str, None, None]:
        """The pieces of the final answer's text.

        Raises:
            StreamDropped: the answer had to begin anew, which text alone cannot show.
        """
        self._run.strict()
        for event in self:
            if isinstance(event, TextDelta):
                yield event.delta

    @property
    def reply(self) -> Reply:
        """The reply as it stands; its status is "dropped" until it is finished."""
        return self._run.so_far

    def cancel(self) -> None:
        """Stop the call, from any thread: the reader gets `Cancelled`."""
        self._run.stop()

    def close(self) -> None:
        """Read no further and close the connection."""
        if self._events is not None:
            self._events.close()


class AsyncClient(_Settings):
    """Calls for asyncio. `async with` keeps connections between calls and closes them at its end.

    Arguments and errors: see `_Settings.__init__`.
    """

    def _open_pool(self) -> None:
        from .net import aio  # brings asyncio, which a sync program need not load

        self._pool = aio.Pool(self._cafile)

    async def complete(
        self,
        input: Input,
        *,
        instructions: str = "",
        tools: Iterable[Mapping[str, Any]] = (),
        task: str | None = None,
        route: Route | str | None = None,
        main: Route | str | None = None,
        model: str | None = None,
        timeout: Timeout = None,
        cancel: Cancel | None = None,
        atomic: bool | None = None,
        empty_is_failure: bool | None = None,
        notify: Notify | None = None,
        **params: Any,
    ) -> Reply:
        """Ask, and wait for the whole reply. As `Client.complete`."""
        call = self._call(
            input,
            instructions,
            tools,
            Choice(task or "", route, model, main),
            timeout,
            empty_is_failure,
            params,
            live=False,
        )
        run = AsyncRun(call, self._pool, self._system, self._orders(task, cancel, atomic, notify))
        async for _ in run.events():
            raise RuntimeError("a held call delivers no events")
        return run.so_far

    def stream(
        self,
        input: Input,
        *,
        instructions: str = "",
        tools: Iterable[Mapping[str, Any]] = (),
        task: str | None = None,
        route: Route | str | None = None,
        main: Route | str | None = None,
        model: str | None = None,
        timeout: Timeout = None,
        cancel: Cancel | None = None,
        atomic: bool | None = None,
        empty_is_failure: bool | None = None,
        notify: Notify | None = None,
        **params: Any,
    ) -> AsyncReplyStream:
        """Ask, and read along: `async with client.stream(...) as stream: async for event in stream: ...`."""
        call = self._call(
            input,
            instructions,
            tools,
            Choice(task or "", route, model, main),
            timeout,
            empty_is_failure,
            params,
            live=True,
        )
        return AsyncReplyStream(call, self._pool, self._system, self._orders(task, cancel, atomic, notify))

    async def compress(
        self,
        messages: Iterable[Mapping[str, Any]],
        *,
        budget: Budget | int,
        focus: str = "",
        timeout: Timeout = None,
        cancel: Cancel | None = None,
        notify: Notify | None = None,
    ) -> Compaction:
        """Shorten a conversation with a summary by this client's model. As `Client.compress`."""
        from .tasks import compression  # the one door upwards: a task is built on its client

        async def ask(prompt: list[dict[str, Any]]) -> str:
            reply = await self.complete(
                prompt, task="compression", timeout=timeout, cancel=cancel, notify=notify
            )
            return reply.text

        return await compression.acompress(list(messages), budget=budget, complete=ask, focus=focus)

    async def close(self) -> None:
        """Close idle connections. Calls in flight keep theirs."""
        self._pool.close()

    async def __aenter__(self) -> Self:
        await self._pool.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._pool.__aexit__(kind, error, trace)


class AsyncReplyStream:
    """A reply being read. An async context manager: leaving it closes the connection at once."""

    def __init__(self, call: Call, pool: aio.Pool, system: System, orders: Orders) -> None:
        self._args = (call, pool, system, orders)
        self._run: AsyncRun | None = None
        self._events: AsyncGenerator[StreamEvent, None] | None = None

    async def __aenter__(self) -> Self:
        if self._run is not None:
            raise UsageError("a stream is read once", hint="call client.stream(...) again")
        self._run = AsyncRun(*self._args)
        self._events = self._run.events()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def __aiter__(self) -> AsyncGenerator[StreamEvent, None]:
        if self._events is None:
            raise UsageError(
                "a stream is read inside `async with`", hint="async with client.stream(...) as stream:"
            )
        return self._events

    async def text(self) -> AsyncGenerator[str, None]:
        """The pieces of the final answer's text. As `ReplyStream.text`."""
        if self._run is not None:
            self._run.strict()
        async for event in self:
            if isinstance(event, TextDelta):
                yield event.delta

    @property
    def reply(self) -> Reply:
        """The reply as it stands; its status is "dropped" until it is finished."""
        return self._run.so_far if self._run is not None else Reply("dropped")

    def cancel(self) -> None:
        """Stop the call, from any thread: the reader gets `Cancelled`."""
        if self._run is not None:
            self._run.stop()

    async def close(self) -> None:
        """Read no further and close the connection."""
        if self._events is not None:
            await self._events.aclose()
