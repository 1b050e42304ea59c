"""OpenAI Agents SDK over Chat Completions: text, read along."""

import asyncio
import sys

from agents import Agent, OpenAIChatCompletionsModel, Runner, set_tracing_disabled
from openai import AsyncOpenAI

import sidestream

set_tracing_disabled(True)
client = sidestream.wrap(AsyncOpenAI())
agent = Agent("Guide", model=OpenAIChatCompletionsModel("gpt-5.1", client))


async def main() -> None:
    result = Runner.run_streamed(agent, "Tell me about three rivers.")
    async for event in result.stream_events():
        if event.type == "raw_response_event" and event.data.type == "response.output_text.delta":
            print(event.data.delta, end="", flush=True)
    for attempt in sidestream.last_call(client).attempts:
        print(attempt.rung, attempt.ended, file=sys.stderr)


asyncio.run(main())
