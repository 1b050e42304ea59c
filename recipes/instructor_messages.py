"""instructor over Anthropic's Messages: an object, waited for. `hold` carries the call as a stream."""

import sys

import instructor
from anthropic import Anthropic
from pydantic import BaseModel

import sidestream


class Weather(BaseModel):
    city: str
    unit: str


anthropic = sidestream.wrap(Anthropic(), hold=True)
client = instructor.from_anthropic(anthropic)
question = [{"role": "user", "content": "How is the weather in Oslo?"}]
weather = client.messages.create(
    model="claude-sonnet-4-6", max_tokens=1000, messages=question, response_model=Weather
)
print(weather)
for attempt in sidestream.last_call(anthropic).attempts:
    print(attempt.rung, attempt.ended, file=sys.stderr)
