"""`last_call` on the errors of frameworks: they wrap ours in their own, each in its way."""

from __future__ import annotations

from sidestream import Reply, StreamDropped, last_call
from sidestream.recovery.faults import Fault, FaultKind

LOST = StreamDropped("lost", fault=Fault(FaultKind.DROPPED, "lost"), reply=Reply("dropped"))


class FrameworkError(Exception):
    """What a framework's user catches."""


def raised_from() -> FrameworkError:
    try:
        try:
            raise LOST
        except StreamDropped as error:
            raise FrameworkError from error
    except FrameworkError as error:
        return error


def raised_while_handling() -> FrameworkError:
    try:
        try:
            raise LOST
        except StreamDropped:
            raise FrameworkError  # noqa: B904  (as LiteLLM does)
    except FrameworkError as error:
        return error


def raised_from_none() -> FrameworkError:
    try:
        try:
            raise LOST
        except StreamDropped:
            raise FrameworkError from None
    except FrameworkError as error:
        return error


def test_the_cause_of_a_frameworks_error_is_found() -> None:
    """Raised `from` ours, or while ours was handled."""
    assert last_call(raised_from()) is LOST.reply
    assert last_call(raised_while_handling()) is LOST.reply


def test_what_a_framework_cut_off_is_not_found() -> None:
    """`from None` says that the one has nothing to do with the other."""
    assert last_call(raised_from_none()) is None


def test_a_chain_of_errors_that_bites_its_tail_ends() -> None:
    """Nothing stops a framework from building one."""
    first, second = FrameworkError(), FrameworkError()
    first.__cause__, second.__cause__ = second, first
    assert last_call(first) is None
