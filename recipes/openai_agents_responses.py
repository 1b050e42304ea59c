"""OpenAI Agents SDK over Responses: an agent that calls a tool, read along."""

import asyncio

from agents import Agent, Runner, function_tool, set_default_openai_client, set_tracing_disabled
from openai import AsyncOpenAI

import sidestream

set_tracing_disabled(True)  # traces go to OpenAI, by a client of their own
set_default_openai_client(sidestream.wrap(AsyncOpenAI()), use_for_tracing=False)


@function_tool
def get_weather(city: str, unit: str) -> str:
    """The weather in a city."""
    print(f"tool: {city}, {unit}")
    return f"7 degrees {unit} in {city}"


async def main() -> None:
    result = Runner.run_streamed(Agent("Weather", model="gpt-5.1", tools=[get_weather]), "Weather in Oslo?")
    async for event in result.stream_events():
        if event.type == "raw_response_event" and event.data.type == "response.output_text.delta":
            print(event.data.delta, end="", flush=True)


asyncio.run(main())
