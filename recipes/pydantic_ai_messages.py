"""pydantic-ai over Anthropic's Messages: text, read along."""

import asyncio

from anthropic import AsyncAnthropic
from pydantic_ai import Agent
from pydantic_ai.models.anthropic import AnthropicModel
from pydantic_ai.providers.anthropic import AnthropicProvider

import sidestream

provider = AnthropicProvider(anthropic_client=sidestream.wrap(AsyncAnthropic()))
agent = Agent(AnthropicModel("claude-sonnet-4-6", provider=provider))


async def main() -> None:
    async with agent.run_stream("Tell me about three rivers.") as result:
        async for piece in result.stream_text(delta=True):
            print(piece, end="", flush=True)


asyncio.run(main())
