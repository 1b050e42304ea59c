"""What can go wrong, split by who must act.

::

    Exception
    └─ SidestreamError            .reply (the partial) .attempts (the ledger) .hint
       ├─ StreamDropped           nobody: the answer could not be brought back; .fault says what kept breaking
       ├─ ProviderError           the provider said no; .fault .status .code .retry_at .request_id
       │  ├─ RateLimited          wait until .retry_at
       │  ├─ QuotaExceeded        pay, or wait for the reset in .retry_at
       │  ├─ AuthFailed           fix the credential
       │  ├─ ContextTooLong       send less
       │  ├─ Refused              ask something else; the refusal is in .reply.refusal
       │  ├─ BadRequest           fix the request
       │  └─ ServerError          try later
       ├─ DeadlineExceeded        allow more time: .clock names which, .setting how to change it
       ├─ BudgetExhausted         wait until .retry_at, or allow more: .budget names which limit it was
       ├─ InvalidAnswer           ask differently, or another model: .problem says what is wrong
       ├─ NoRoute                 configure a route
       ├─ UsageError              fix the calling code or the input (also a ValueError)
       └─ ConfigError             fix the configuration (also a ValueError)
    BaseException
    └─ Cancelled                  you asked for it; not an Exception, so no retry loop can swallow a stop

Every error of a call carries what arrived before it. Messages name the route, the clock and the setting,
and never a credential.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .recovery.faults import Fault
    from .reply import Attempt, Reply

__all__ = [
    "AuthFailed",
    "BadRequest",
    "BudgetExhausted",
    "Cancelled",
    "ConfigError",
    "ContextTooLong",
    "DeadlineExceeded",
    "InvalidAnswer",
    "NoRoute",
    "ProviderError",
    "QuotaExceeded",
    "RateLimited",
    "Refused",
    "ServerError",
    "SidestreamError",
    "StreamDropped",
    "UsageError",
]


class SidestreamError(Exception):
    """Base of everything this library raises, `Cancelled` apart.

    Attributes:
        reply: what had arrived, or None when the call never got as far as an answer.
        attempts: every HTTP exchange of the call, oldest first.
        hint: one sentence on what to do next, or "".
    """

    def __init__(
        self,
        message: str,
        *,
        hint: str = "",
        reply: Reply | None = None,
        attempts: tuple[Attempt, ...] = (),
    ) -> None:
        super().__init__(message)
        self.hint = hint
        self.reply = reply
        self.attempts = attempts


class CallFailed(SidestreamError):
    """Common to the errors that end a call because of a fault. Not raised itself."""

    def __init__(
        self,
        message: str,
        *,
        fault: Fault,
        hint: str = "",
        reply: Reply | None = None,
        attempts: tuple[Attempt, ...] = (),
    ) -> None:
        super().__init__(message, hint=hint, reply=reply, attempts=attempts)
        self.fault = fault


class StreamDropped(CallFailed):
    """The stream kept breaking and the answer could not be brought back. `fault` says how it broke last."""


class ProviderError(CallFailed):
    """The provider answered, and the answer was no.

    Attributes:
        status: HTTP status, or None when the error arrived inside a stream.
        code: the provider's own error code, or "".
        retry_at: Unix time in seconds at which the provider said to come back, or None.
        request_id: the provider's id of the failed request, or "".
    """

    @property
    def status(self) -> int | None:
        return self.fault.status

    @property
    def code(self) -> str:
        return self.fault.code

    @property
    def retry_at(self) -> float | None:
        return self.fault.retry_at

    @property
    def request_id(self) -> str:
        return self.fault.request_id


class RateLimited(ProviderError):
    """Too many requests or tokens for now."""


class QuotaExceeded(ProviderError):
    """Money or plan: no retry helps before the quota is raised or resets."""


class AuthFailed(ProviderError):
    """The credential was missing, wrong or not allowed to do this."""


class ContextTooLong(ProviderError):
    """The request does not fit the model's context window."""


class Refused(ProviderError):
    """The model or a content filter declined; the words, if any, are in `reply.refusal`."""


class BadRequest(ProviderError):
    """The provider rejected the request itself."""


class ServerError(ProviderError):
    """The provider failed or was overloaded, and stayed so."""


class DeadlineExceeded(CallFailed):
    """A clock ran out.

    Attributes:
        clock: "connect", "first", "idle" or "total"; "route" is a route's own total.
        setting: the setting to change, for example "timeout.total", or "clocks.total" of the route.
    """

    def __init__(
        self,
        message: str,
        *,
        clock: str,
        fault: Fault,
        hint: str = "",
        reply: Reply | None = None,
        attempts: tuple[Attempt, ...] = (),
    ) -> None:
        super().__init__(message, fault=fault, hint=hint, reply=reply, attempts=attempts)
        self.clock = clock
        self.setting = "clocks.total" if clock == "route" else f"timeout.{clock}"


class BudgetExhausted(CallFailed):
    """A limit on recoveries forbade the next attempt, before the provider was asked again.

    Attributes:
        budget: "origin" (too many failures at this endpoint), "breaker" (it is taken for down), "busy" (too
            many recoveries at once), "queue" (no turn among the calls of a task or route) or "cost" (tokens
            or money of this call).
        retry_at: Unix time in seconds from which the limit allows another attempt, or None.
    """

    def __init__(
        self,
        message: str,
        *,
        budget: str,
        fault: Fault,
        retry_at: float | None = None,
        hint: str = "",
        reply: Reply | None = None,
        attempts: tuple[Attempt, ...] = (),
    ) -> None:
        super().__init__(message, fault=fault, hint=hint, reply=reply, attempts=attempts)
        self.budget = budget
        self.retry_at = retry_at


class InvalidAnswer(SidestreamError):
    """The model answered, but not what its task asked for: `problem` says what is wrong, `reply` has it."""

    def __init__(
        self,
        message: str,
        *,
        problem: str = "",
        hint: str = "",
        reply: Reply | None = None,
        attempts: tuple[Attempt, ...] = (),
    ) -> None:
        super().__init__(message, hint=hint, reply=reply, attempts=attempts)
        self.problem = problem or message


class NoRoute(SidestreamError):
    """No endpoint and model to send the call to."""


class UsageError(SidestreamError, ValueError):
    """The call itself makes no sense: fix the arguments or the input."""


class ConfigError(SidestreamError, ValueError):
    """The configuration or environment makes no sense: fix it where the message points."""


class Cancelled(BaseException):
    """The call was stopped on request. Derived from BaseException on purpose.

    Attributes:
        reply: what had arrived, or None.
        attempts: every HTTP exchange of the call so far.
        kind: "cancel" or "interrupt".
    """

    def __init__(
        self,
        message: str = "the call was cancelled",
        *,
        kind: str = "cancel",
        reply: Reply | None = None,
        attempts: tuple[Attempt, ...] = (),
    ) -> None:
        super().__init__(message)
        self.kind = kind
        self.reply = reply
        self.attempts = attempts
