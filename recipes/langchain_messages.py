"""LangChain over Anthropic's Messages: a tool call, read along with asyncio."""

import asyncio

from langchain_anthropic import ChatAnthropic
from langchain_core.tools import tool

import sidestream


@tool
def get_weather(city: str, unit: str) -> str:
    """The weather in a city."""
    return f"7 degrees {unit} in {city}"


async def main() -> None:
    llm = ChatAnthropic(model="claude-sonnet-4-6", streaming=True)
    sidestream.wrap(llm._async_client)  # for invoke and stream: llm._client
    answer = await llm.bind_tools([get_weather]).ainvoke("How is the weather in Oslo?")
    for call in answer.tool_calls:
        print(get_weather.invoke(call["args"]))


asyncio.run(main())
