"""Loaded by Python itself before a recipe that `check.py` runs: the recipe stays as its users write it.

With SIDESTREAM_OFF, `wrap` does nothing: the framework as it is. An error that ends the recipe is noted in
the file that SIDESTREAM_NOTE names: its type, and how many attempts `last_call` finds on it.
"""

import json
import os
import sys
from pathlib import Path

import sidestream
from sidestream import Reply


def note(kind, error, traceback):
    found = sidestream.last_call(error) if "SIDESTREAM_OFF" not in os.environ else None
    told = {
        "type": f"{kind.__module__.partition('.')[0]}.{kind.__qualname__}",
        "kept": None if found is None else len(found.attempts),
    }
    Path(os.environ["SIDESTREAM_NOTE"]).write_text(json.dumps(told))
    sys.__excepthook__(kind, error, traceback)


if "SIDESTREAM_NOTE" in os.environ:
    sys.excepthook = note
if "SIDESTREAM_OFF" in os.environ:
    sidestream.wrap = lambda client, **_: client
    sidestream.last_call = lambda _: Reply("dropped")
