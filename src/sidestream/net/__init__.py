"""Connections, and who may do what to them.

Strategy: connections are our own, HTTP/1.1 on them is parsed by httptools (`http1`). So every socket is ours
from its first packet: it can be severed in any phase, it waits exactly as long as its call's clocks allow,
and it belongs to one thread at a time. `sync` and `aio` are twins: open, send, iterate, keep or close.

Not here: what to send, when to give up, what a failure means. This is the lowest place that does I/O.
"""
