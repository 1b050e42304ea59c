"""LLM streams that finish.

The public names, and nothing else. Everything is loaded on first use: importing the package costs next to
nothing, and a program that only runs a lab never loads a client.
"""

from __future__ import annotations

TYPE_CHECKING = False  # importing typing would cost more than all the rest

if TYPE_CHECKING:
    from .cancel import Cancel
    from .client import AsyncClient, AsyncReplyStream, Client, ReplyStream
    from .errors import (
        AuthFailed,
        BadRequest,
        BudgetExhausted,
        Cancelled,
        ConfigError,
        ContextTooLong,
        DeadlineExceeded,
        InvalidAnswer,
        NoRoute,
        ProviderError,
        QuotaExceeded,
        RateLimited,
        Refused,
        ServerError,
        SidestreamError,
        StreamDropped,
        UsageError,
    )
    from .recovery.clocks import Timeouts
    from .recovery.faults import Fault, FaultKind
    from .recovery.policy import Backoff, Policy
    from .reply import Attempt, Reply, ToolCall, Usage
    from .route import Credential, Prices, Route, RouteClocks, Secret
    from .routes.config import Config, TaskConfig, load_config
    from .routes.plan import Plan
    from .tasks.compression import (
        Budget,
        Compaction,
        CompactionBusy,
        Compactor,
        CompressionPolicy,
        StaleCompaction,
        acompress,
        compress,
    )
    from .transport import last_call, wrap
    from .wire.events import (
        CommentaryDelta,
        ReasoningDelta,
        Recovering,
        RefusalDelta,
        Restarted,
        StreamEvent,
        TextDelta,
    )
    from .wire.sse import Limits

# module -> names it gives
_NAMES: dict[str, tuple[str, ...]] = {
    "cancel": ("Cancel",),
    "client": ("AsyncClient", "AsyncReplyStream", "Client", "ReplyStream"),
    "errors": (
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
    ),
    "recovery.clocks": ("Timeouts",),
    "recovery.faults": ("Fault", "FaultKind"),
    "recovery.policy": ("Backoff", "Policy"),
    "reply": ("Attempt", "Reply", "ToolCall", "Usage"),
    "route": ("Credential", "Prices", "Route", "RouteClocks", "Secret"),
    "routes.config": ("Config", "TaskConfig", "load_config"),
    "routes.plan": ("Plan",),
    "transport": ("last_call", "wrap"),
    "tasks.compression": (
        "Budget",
        "Compaction",
        "CompactionBusy",
        "Compactor",
        "CompressionPolicy",
        "StaleCompaction",
        "acompress",
        "compress",
    ),
    "wire.events": (
        "CommentaryDelta",
        "ReasoningDelta",
        "Recovering",
        "RefusalDelta",
        "Restarted",
        "StreamEvent",
        "TextDelta",
    ),
    "wire.sse": ("Limits",),
}
_HOME = {name: module for module, names in _NAMES.items() for name in names}

__version__ = "0.1.0"

__all__ = [
    "AsyncClient",
    "AsyncReplyStream",
    "Attempt",
    "AuthFailed",
    "Backoff",
    "BadRequest",
    "Budget",
    "BudgetExhausted",
    "Cancel",
    "Cancelled",
    "Client",
    "CommentaryDelta",
    "Compaction",
    "CompactionBusy",
    "Compactor",
    "CompressionPolicy",
    "Config",
    "ConfigError",
    "ContextTooLong",
    "Credential",
    "DeadlineExceeded",
    "Fault",
    "FaultKind",
    "InvalidAnswer",
    "Limits",
    "NoRoute",
    "Plan",
    "Policy",
    "Prices",
    "ProviderError",
    "QuotaExceeded",
    "RateLimited",
    "ReasoningDelta",
    "Recovering",
    "RefusalDelta",
    "Refused",
    "Reply",
    "ReplyStream",
    "Restarted",
    "Route",
    "RouteClocks",
    "Secret",
    "ServerError",
    "SidestreamError",
    "StaleCompaction",
    "StreamDropped",
    "StreamEvent",
    "TaskConfig",
    "TextDelta",
    "Timeouts",
    "ToolCall",
    "Usage",
    "UsageError",
    "__version__",
    "acompress",
    "compress",
    "last_call",
    "load_config",
    "wrap",
]


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(f".{_HOME[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
