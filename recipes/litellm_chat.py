"""LiteLLM over Chat Completions: a tool call, read along with asyncio. It takes an OpenAI client as it is."""

import asyncio
import json

import litellm
from openai import AsyncOpenAI

import sidestream

properties = {"city": {"type": "string"}, "unit": {"type": "string"}}
weather = {"name": "get_weather", "parameters": {"type": "object", "properties": properties}}


async def main() -> None:
    stream = await litellm.acompletion(
        model="openai/gpt-5.1",
        messages=[{"role": "user", "content": "How is the weather in Oslo?"}],
        tools=[{"type": "function", "function": weather}],
        client=sidestream.wrap(AsyncOpenAI()),
        stream=True,
    )
    answer = litellm.stream_chunk_builder([chunk async for chunk in stream])
    for call in answer.choices[0].message.tool_calls:
        print(call.function.name, json.loads(call.function.arguments))


asyncio.run(main())
