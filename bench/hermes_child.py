"""One side of `bench/hermes.py`, in the environment of hermes-agent: its own compressor, turn by turn.

Reads settings and messages as JSON from the file it is given. For every line on stdin it compresses them
once, with a compressor of its own as a session has one, and prints what came of it as one line of JSON: what
hermes-agent's own hosts read off the compressor, and how the conversation looks. The first line says whose
`call_llm` it is.
"""

import contextlib
import json
import logging
import sys
import time
from pathlib import Path

from agent import context_compressor
from agent.context_compressor import ContextCompressor
from hermes_cli.plugins import discover_plugins


def compress(settings, messages):
    compressor = ContextCompressor(
        "lab-1",
        base_url=settings["base_url"],
        api_key="lab-key-main",
        provider="custom",
        api_mode=settings["api_mode"],
        config_context_length=64_000,
        summary_target_ratio=0.1,
    )
    begun = time.monotonic()
    after = compressor.compress(messages)
    seconds = time.monotonic() - begun
    summary = next((m["content"] for m in after if m.get("_compressed_summary")), "")
    return {
        "seconds": seconds,
        "kept_all": len(after) == len(messages),
        "dropped": compressor._last_summary_dropped_count,
        "digest": compressor._last_summary_fallback_used,
        "error": compressor._last_summary_error or "",
        "summary": summary,
    }


def main():
    settings = json.loads(Path(sys.argv[1]).read_text())
    logging.disable(logging.CRITICAL)
    said, sys.stdout = sys.stdout, sys.stderr  # whatever the agent prints is not an answer
    with contextlib.redirect_stdout(sys.stderr):
        discover_plugins()
    theirs = context_compressor.call_llm.__module__ == "agent.auxiliary_client"
    print(json.dumps("alone" if theirs else "host"), file=said, flush=True)
    for _ in sys.stdin:
        print(json.dumps(compress(settings, settings["messages"])), file=said, flush=True)


if __name__ == "__main__":
    main()
