"""Bytes to events and requests to bytes, one wire per file. Pure: no I/O, no clock, no randomness.

`sse` splits a body into server-sent events; `responses`, `chat` and `messages` turn those into the one
vocabulary of `events`. `prompt` and `turns` turn what callers write (chat messages, Responses items, content
blocks) into what a wire wants.
A wire module offers `Decoder` and `encode`; nothing else about it is known outside this folder.
"""
