"""The child process: llama.cpp's own server, and nothing of sidestream.

It runs as a plain script, so that a CPU without AVX2 or a missing system library ends this process and not
the caller's. One JSON line on stdin brings the settings, the API key among them: nothing secret is ever in
argv or the environment. One JSON line on stdout says the address. What the C++ side prints goes to stderr.

The process leaves when stdin closes, that is, when the parent closes it or dies, and also when the parent is
gone while a fork of it still holds the pipe.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from typing import Any

PARENT_CHECK_SECONDS = 0.5


def main() -> None:
    parent = os.getppid()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C belongs to the parent, which then closes stdin
    settings = json.loads(sys.stdin.buffer.readline() or b"null")
    if settings is None:
        return
    threading.Thread(target=leave_with_stdin, daemon=True).start()
    threading.Thread(target=leave_with_parent, args=(parent,), daemon=True).start()
    answer = take_stdout()
    try:
        server = serve(settings)
    except Exception as error:  # noqa: BLE001  (one line the parent can show, instead of a traceback)
        sys.exit(f"{type(error).__name__}: {error}")
    os.write(answer, json.dumps({"address": server.listening_address}).encode() + b"\n")
    threading.Event().wait()


def leave_with_stdin() -> None:
    while os.read(0, 4096):
        pass
    os._exit(0)


def leave_with_parent(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(PARENT_CHECK_SECONDS)
    os._exit(0)


def take_stdout() -> int:
    """Keep stdout for the one line that matters; stray output of the C++ side goes to stderr."""
    answer = os.dup(1)
    os.dup2(2, 1)
    return answer


def serve(settings: dict[str, Any]) -> Any:
    """Load the model and listen; returns when requests are answered."""
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = settings["path"]
    params.model_alias = {settings["model"]}
    params.hostnames, params.port = ["127.0.0.1"], 0
    params.api_keys = [settings["api_key"]]
    params.cors_origins = ""  # the default lets any web page in
    params.ui = False
    params.n_ctx, params.n_parallel = settings["ctx"], 1
    params.cache_ram_mib = 0  # the default may grow to 8 GiB
    params.cache_type_k = params.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_Q8_0
    params.cpuparams.n_threads = (
        1  # one token at a time gains nothing from a second thread, and loses to waiting
    )
    params.cpuparams_batch.n_threads = settings["prompt_threads"]
    params.verbosity = 2  # warnings and errors
    return xllamacpp.Server(params)


if __name__ == "__main__":
    main()
