"""When waiting has been too long, with the time as data."""

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidestream.errors import UsageError
from sidestream.recovery.clocks import LINGER, Clocks, Meter, Timeouts
from sidestream.route import RouteClocks

NAMES = ("total", "first", "idle", "connect")
seconds = st.floats(0.001, 1e6)


@pytest.mark.parametrize("value", [0, 0.0, -1, -0.5, math.nan, math.inf, -math.inf, True, False, "5", [5]])
@pytest.mark.parametrize("name", NAMES)
def test_a_timeout_is_a_finite_number_above_zero(name: str, value: Any) -> None:
    """Zero, negative, not-a-number, infinite, bool and text are refused, with the setting's name."""
    with pytest.raises(UsageError, match=rf"timeout\.{name}"):
        Timeouts(**{name: value})


@pytest.mark.parametrize("name", ["total", "idle", "connect"])
def test_only_first_may_be_left_open(name: str) -> None:
    """None means "by prompt size" for the first output and nothing for the others."""
    assert Timeouts(first=None).first is None
    with pytest.raises(UsageError):
        Timeouts(**{name: None})


def test_timeouts_from_what_a_caller_passes() -> None:
    """A number is total seconds, None the defaults, a value itself."""
    assert Timeouts.of(5) == Timeouts(total=5)
    assert Timeouts.of(None) == Timeouts()
    own = Timeouts(idle=3)
    assert Timeouts.of(own) is own
    with pytest.raises(UsageError):
        Timeouts.of(0)


def test_first_grows_with_the_prompt() -> None:
    """Without a setting, the first output gets 90 s and a second for every 2,000 characters."""
    assert Timeouts().clocks(0, 1800, 0).first == 90
    assert Timeouts().clocks(0, 1800, 20_000).first == 100
    assert Timeouts(first=7).clocks(0, 1800, 20_000).first == 7


def test_routes_left_keep_their_share() -> None:
    """With two routes left, silence may use a third of what is left; alone, a route gets all its settings."""
    timeouts = Timeouts(total=30, first=90, idle=60, connect=20)
    assert timeouts.clocks(0, 30, 0, 10) == Clocks(connect=10, first=10, idle=10, deadline=30, until=10)
    assert timeouts.clocks(0, 30, 0) == Clocks(connect=20, first=90, idle=60, deadline=30)
    assert timeouts.clocks(24, 30, 0, 27) == Clocks(connect=3, first=3, idle=3, deadline=30, until=27)


def test_a_routes_own_clocks_win() -> None:
    """What a route says of its own clocks beats what the call says, inside its share."""
    own = RouteClocks(first=5, idle=70)
    assert Timeouts().clocks(0, 900, 0, own=own) == Clocks(connect=10, first=5, idle=70, deadline=900)
    assert Timeouts().clocks(0, 900, 0, 3, own) == Clocks(connect=3, first=3, idle=3, deadline=900, until=3)


@given(seconds, seconds, st.integers(0, 10**6), st.none() | seconds)
def test_clocks_never_exceed_their_settings(now: float, left: float, chars: int, share: float | None) -> None:
    """Every clock of an attempt is within its setting and, while routes are left, within its share."""
    timeouts = Timeouts()
    until = math.inf if share is None else now + share
    clocks = timeouts.clocks(now, now + left, chars, until)
    assert clocks.connect <= timeouts.connect
    assert clocks.idle <= timeouts.idle
    if share is not None:
        assert max(clocks.connect, clocks.first, clocks.idle) <= until - now


def test_silence_ends_with_the_share_whatever_it_is_called() -> None:
    """Connecting and the first output share one share: the second does not get a new one."""
    meter = Meter(Timeouts().clocks(0, 900, 0, 12), 0)
    assert meter.due == 10
    meter.connected(8)
    assert (meter.due, meter.clock) == (12, "first")
    meter.progress(11)
    assert meter.due == 23


def test_no_share_of_time_that_is_over() -> None:
    """Past the deadline every clock is at zero, not below."""
    assert Timeouts().clocks(50, 40, 0, 45) == Clocks(0, 0, 0, 40, 45)


CLOCKS = Clocks(connect=10, first=90, idle=60, deadline=1800)


def test_meter_follows_the_phases_of_an_attempt() -> None:
    """Connect, then first output, then the gap between outputs, each from the moment it began."""
    meter = Meter(CLOCKS, 0)
    assert (meter.due, meter.clock) == (10, "connect")
    meter.connected(3)
    assert (meter.due, meter.clock) == (93, "first")
    meter.progress(50)
    assert (meter.due, meter.clock) == (110, "idle")
    meter.progress(109)
    assert (meter.due, meter.clock) == (169, "idle")


def test_a_keep_alive_does_not_re_arm_the_meter() -> None:
    """What is no output is not told to the meter, and without being told it never moves."""
    meter = Meter(CLOCKS, 0)
    meter.connected(0)
    due = meter.due
    for _ in range(10):  # comments and lifecycle events arrive here: a driver asks, and tells nothing
        assert meter.due == due
    assert meter.clock == "first"


def test_total_wins_over_every_other_clock() -> None:
    """No phase outlives the deadline, and then it is the deadline that ran out."""
    meter = Meter(Clocks(connect=10, first=90, idle=60, deadline=70), 0)
    meter.connected(5)
    assert (meter.due, meter.clock) == (70, "total")
    meter.progress(9)
    assert (meter.due, meter.clock) == (69, "idle")
    meter.progress(10)
    assert (meter.due, meter.clock) == (70, "total")


def test_a_finished_answer_gets_only_a_moment() -> None:
    """After the answer is over, usage and the end marker have a moment, never more than the idle clock."""
    meter = Meter(CLOCKS, 0)
    meter.progress(5)
    meter.over(6)
    assert meter.due == 6 + LINGER
    meter.over(6.5)  # a keep-alive after the end
    assert meter.due == 6 + LINGER
    quick = Meter(Clocks(1, 1, 0.25, 100), 0)
    quick.over(6)
    assert quick.due == 6.25
    quick.drain(7, 0.01)
    assert quick.due == 7.01


@given(st.lists(st.tuples(st.sampled_from(["connected", "progress", "over"]), seconds), max_size=8), seconds)
def test_the_meter_is_never_due_after_the_deadline(steps: list[tuple[str, float]], deadline: float) -> None:
    """Whatever happens, waiting ends at the deadline."""
    meter = Meter(Clocks(10, 90, 60, deadline), 0)
    for name, now in steps:
        getattr(meter, name)(now)
        assert meter.due <= deadline
        assert (meter.clock == "total") == (meter.due == deadline)
