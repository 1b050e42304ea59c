"""pydantic-ai over Chat Completions: text, read along."""

import asyncio
import sys

from openai import AsyncOpenAI
from pydantic_ai import Agent
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider

import sidestream

client = sidestream.wrap(AsyncOpenAI())
agent = Agent(OpenAIChatModel("gpt-5.1", provider=OpenAIProvider(openai_client=client)))


async def main() -> None:
    async with agent.run_stream("Tell me about three rivers.") as result:
        async for piece in result.stream_text(delta=True):
            print(piece, end="", flush=True)
    for attempt in sidestream.last_call(client).attempts:
        print(attempt.rung, attempt.ended, file=sys.stderr)


asyncio.run(main())
