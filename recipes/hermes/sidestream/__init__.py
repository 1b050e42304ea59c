"""A hermes-agent plugin: compression and titles are asked through sidestream, everything else as before.

Copy this folder to `~/.hermes/plugins/`, install sidestream beside the agent, and enable it:
`hermes plugins enable sidestream`. Routes are the agent's own: each call brings its model, endpoint and key.
"""

import sys

import agent.auxiliary_client as theirs
import agent.context_compressor
import agent.title_generator  # noqa: F401  loaded before `register`, so that its call is replaced as well

from sidestream import BudgetExhausted, Client, DeadlineExceeded, ProviderError, StreamDropped
from sidestream.host import Host

TASKS = {"compression", "title_generation"}


def as_theirs(error):
    """The agent tells a lost connection by the exception's name, and a refusal by its `status_code`."""
    if isinstance(error, (StreamDropped, DeadlineExceeded, BudgetExhausted)):
        return ConnectionError(str(error))
    if isinstance(error, ProviderError):
        error.status_code = error.status
    return error


def register(_):
    host = Host(Client(routes=()), raises=as_theirs)
    ask_theirs = theirs.call_llm

    def call_llm(task=None, **arguments):
        ask = host.call_llm if task in TASKS else ask_theirs
        return ask(task, **arguments)

    for module in list(sys.modules.values()):  # those that took the function by name
        if getattr(module, "call_llm", None) is ask_theirs:
            module.call_llm = call_llm
