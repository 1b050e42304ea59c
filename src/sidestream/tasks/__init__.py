"""Side tasks: what an agent asks a model for beside its main conversation.

`title`, `extract` and `describe` are functions on a client, each with a twin for `AsyncClient`;
`compression` is a package of its own, with a pure core that also works without a model. A task's routes,
clocks and request fields are configuration (`[tasks.NAME]`), whether it is one of these or a program's own:
docs/tasks.md.
"""

from .extract import aextract, extract
from .title import atitle, title
from .vision import adescribe, describe

__all__ = ["adescribe", "aextract", "atitle", "describe", "extract", "title"]
