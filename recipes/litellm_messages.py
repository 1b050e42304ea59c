"""LiteLLM over Anthropic's Messages: text, read along. Its own handlers take an httpx client or transport."""

import sys

import httpx
import litellm
from litellm.llms.custom_httpx.http_handler import HTTPHandler

import sidestream

# For acompletion: AsyncHTTPHandler(transport=sidestream.wrap(httpx.AsyncHTTPTransport()))
client = sidestream.wrap(httpx.Client(timeout=600))
for chunk in litellm.completion(
    model="anthropic/claude-sonnet-4-6",
    messages=[{"role": "user", "content": "Tell me about three rivers."}],
    client=HTTPHandler(client=client),
    stream=True,
):
    print(chunk.choices[0].delta.content or "", end="", flush=True)
for attempt in sidestream.last_call(client).attempts:
    print(attempt.rung, attempt.ended, file=sys.stderr)
