"""What a client would do, and whether it can: its routes, its tasks, and on request one real call to each.

`examine` asks nobody; `check` and its twin `acheck` also make one tiny call to every route that can be used.
Each returns a `Report`. `sidestream doctor` shows it.
"""

from .examining import examine
from .live import acheck, check
from .report import Health, Key, Live, Report, RouteReport, TaskReport

__all__ = ["Health", "Key", "Live", "Report", "RouteReport", "TaskReport", "acheck", "check", "examine"]
