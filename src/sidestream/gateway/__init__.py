"""A local server before a provider, for programs in any language.

So far one thing: `passthrough`, which forwards to one provider and lets its streams finish. It is the seed of
the gateway; a journal and resuming by cursor are not here yet.
"""

from __future__ import annotations

from .link import Limits
from .passthrough import Passthrough, upstream_transport

__all__ = ["Limits", "Passthrough", "upstream_transport"]
