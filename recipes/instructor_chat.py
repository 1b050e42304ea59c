"""instructor over Chat Completions: an object that grows. Its fields are the arguments of a tool call."""

import instructor
from openai import OpenAI
from pydantic import BaseModel

import sidestream


class Weather(BaseModel):
    city: str
    unit: str


client = instructor.from_openai(sidestream.wrap(OpenAI()))
question = [{"role": "user", "content": "How is the weather in Oslo?"}]
*growing, weather = client.chat.completions.create_partial(
    model="gpt-5.1", messages=question, response_model=Weather
)
print(weather)
