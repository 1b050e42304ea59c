"""The same recovery under other people's clients: `wrap` an SDK's client, an httpx client or a transport.

Strategy: `requests` recognises the calls worth watching, `lanes` makes an httpx transport look like the
connections our own clients use, and `under` joins the two: it runs the call's flow over those lanes and hands
the SDK one coherent stream of the provider's bytes. `sdk` knows where each client keeps its transport and
which errors its users catch. httpx and httpx2 are never imported here: their classes come from the object
that is wrapped.
"""

from __future__ import annotations

from .sdk import last_call, wrap

__all__ = ["last_call", "wrap"]
