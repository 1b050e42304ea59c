"""LangChain over Chat Completions: text, read along."""

import sys

from langchain_openai import ChatOpenAI

import sidestream

llm = ChatOpenAI(model="gpt-5.1", stream_usage=True)
client = sidestream.wrap(llm.root_client)  # for ainvoke and astream: llm.root_async_client
for chunk in llm.stream("Tell me about three rivers."):
    print(chunk.text, end="", flush=True)
for attempt in sidestream.last_call(client).attempts:
    print(attempt.rung, attempt.ended, file=sys.stderr)
