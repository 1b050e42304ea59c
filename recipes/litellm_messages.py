"""LiteLLM over Anthropic's Messages: text, read along. It sends these requests itself, through a handler."""

import sys

import litellm
from litellm.llms.custom_httpx.http_handler import HTTPHandler

import sidestream

handler = HTTPHandler(timeout=600)  # for acompletion: AsyncHTTPHandler
client = sidestream.wrap(handler.client)
for chunk in litellm.completion(
    model="anthropic/claude-sonnet-4-6",
    messages=[{"role": "user", "content": "Tell me about three rivers."}],
    client=handler,
    stream=True,
):
    print(chunk.choices[0].delta.content or "", end="", flush=True)
for attempt in sidestream.last_call(client).attempts:
    print(attempt.rung, attempt.ended, file=sys.stderr)
