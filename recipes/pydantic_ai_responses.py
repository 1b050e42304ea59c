"""pydantic-ai over Responses: an agent that calls a tool. `hold` carries its calls as streams."""

from openai import AsyncOpenAI
from pydantic_ai import Agent
from pydantic_ai.models.openai import OpenAIResponsesModel
from pydantic_ai.providers.openai import OpenAIProvider

import sidestream

client = sidestream.wrap(AsyncOpenAI(), hold=True)
agent = Agent(OpenAIResponsesModel("gpt-5.1", provider=OpenAIProvider(openai_client=client)))


@agent.tool_plain
def get_weather(city: str, unit: str) -> str:
    """The weather in a city."""
    print(f"tool: {city}, {unit}")
    return f"7 degrees {unit} in {city}"


print(agent.run_sync("How is the weather in Oslo?").output)
