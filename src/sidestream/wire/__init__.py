"""Bytes to events and requests to bytes, one wire per file. Pure: no I/O, no clock, no randomness.

`sse` splits a body into server-sent events, `responses` and `chat` turn those into the one vocabulary of
`events`, and `prompt` turns what callers write (chat messages or Responses items) into what a wire wants.
A wire module offers `Decoder` and `encode`; nothing else about it is known outside this folder.
"""
