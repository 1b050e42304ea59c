"""A real model on this machine, without a key: llama.cpp in a child process, SmolLM2-135M as its weights.

It is there for first contact, demos, short titles and tests: a complete endpoint for the three wires that
streams within a second and costs nothing. It is far too small to be trusted with a summary.

`weights` fetches and checks the model file, `server` is the parent's side of the child process, `child` is
the child itself and the only place that loads llama.cpp. Importing this package loads none of it.
"""

from .server import LocalModel
from .weights import WEIGHTS, Weights, fetch_weights

__all__ = ["WEIGHTS", "LocalModel", "Weights", "fetch_weights"]
