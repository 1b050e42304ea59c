"""Faults and plans: the table is complete, and what strikes where is fixed beforehand."""

from __future__ import annotations

import pytest

from sidestream.errors import UsageError
from sidestream.lab import KINDS, Fault, Kind, Phase, Plan, play, rewrite, shapes
from sidestream.lab.sse import split_events


def test_every_kind_has_a_row_a_method_and_something_that_plays_it() -> None:
    """No fault is only half there: table, constructor, and the function that makes it happen."""
    assert set(KINDS) == set(Kind)
    for kind, row in KINDS.items():
        assert callable(getattr(Fault, kind))
        played = {
            Phase.BEFORE: kind in play._STRIKES,
            Phase.AT: kind in play._STRIKES,
            Phase.EVENTS: kind in rewrite._MAKERS,
            Phase.WRITES: kind in (Kind.SLICER, Kind.DRIP),
        }
        assert played[row.phase], kind
        assert row.meaning


def test_the_table_covers_the_numbered_kinds() -> None:
    """Every numbered fault of one HTTP/1.1 stream is there."""
    numbers = {row.number for row in KINDS.values()} - {""}
    assert numbers == {f"K{n}" for n in (*range(1, 9), *range(10, 14), *range(19, 25))}


def test_a_plan_goes_by_attempts_and_is_clean_afterwards() -> None:
    """Entry i hits attempt i; an entry may be several faults or none; after the list nothing is wrong."""
    cut, both = Fault.cut(after_event=1), (Fault.bom(), Fault.reset(at_byte=9))
    plan = Plan([cut, None, both])
    assert [plan.at(i) for i in range(4)] == [(cut,), (), both, ()]
    assert plan.faults == (cut, *both)


def test_always_means_every_attempt() -> None:
    """`always` hits the first attempt and the thousandth."""
    plan = Plan.always(Fault.hang())
    assert plan.at(0) == plan.at(1000) == (Fault.hang(),)


def test_a_hazard_is_fixed_by_its_seed() -> None:
    """The same seed strikes at the same events, another one elsewhere, and attempts differ."""
    draws = [f.after_event for i in range(50) for f in Plan.hazard(0.05, seed=7).at(i)]
    again = [f.after_event for i in reversed(range(50)) for f in Plan.hazard(0.05, seed=7).at(i)]
    other = [f.after_event for i in range(50) for f in Plan.hazard(0.05, seed=8).at(i)]
    assert draws == again[::-1]
    assert draws != other
    assert len(set(draws)) > 10


def test_a_hazard_has_the_probability_it_says() -> None:
    """With p per event, the mean number of events before the strike is (1-p)/p."""
    draws = [f.after_event or 0 for i in range(4000) for f in Plan.hazard(0.02, seed=1).at(i)]
    assert sum(draws) / len(draws) == pytest.approx(49, rel=0.1)


def test_a_hazard_may_be_certain_or_impossible_and_bring_company() -> None:
    """p=1 strikes before the first event, p=0 never; faults of the whole stream act besides."""
    certain = Plan.hazard(1, seed=0, fault=Fault.reset(), also=(Fault.bom(),))
    assert certain.at(0) == (Fault.reset(after_event=0), Fault.bom())
    assert Plan.hazard(0, seed=0).at(0) == ()


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: Fault.cut(after_event=1, at_byte=1),
        lambda: Fault.cut(after_event=-1),
        lambda: Fault.keepalive("nope"),
        lambda: Fault.error_event("nope"),
        lambda: Fault.splice(then="nope"),
        lambda: Fault.line_ends("nope"),
        lambda: Fault.drop_terminal("nope"),
        lambda: Fault.slicer(0),
        lambda: Plan([(Fault.cut(), Fault.reset())]),
        lambda: Plan.always(Fault.hang(), Fault.cut()),
        lambda: Plan.hazard(1.5, seed=0),
        lambda: Plan.hazard(0.5, seed=0, fault=Fault.bom()),
        lambda: Fault.parse("nope"),
        lambda: Fault.parse("cut:nope=1"),
    ],
)
def test_nonsense_is_a_usage_error(wrong: object) -> None:
    """A fault or plan that cannot be meant is refused where it is written."""
    with pytest.raises(UsageError):
        wrong()  # type: ignore[operator]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("hang", Fault.hang()),
        ("cut:after_event=3,tail=0", Fault.cut(after_event=3, tail=0)),
        ("keepalive:event,after_event=2,interval=0.5", Fault.keepalive("event", after_event=2, interval=0.5)),
        ("error_event:vllm,then=cut", Fault.error_event("vllm", then="cut")),
        ("drop_terminal:done,usage", Fault.drop_terminal("done", "usage")),
        (" slicer : 2 ", Fault.slicer(2)),
    ],
)
def test_a_fault_can_be_written_on_one_line(text: str, fault: Fault) -> None:
    """`kind:arguments` is the same fault as the call."""
    assert Fault.parse(text) == fault


def test_every_named_shape_is_whole() -> None:
    """Keep-alives and error events end with a line end, so they never run into the next event."""
    for name, data in (shapes.KEEPALIVES | shapes.ERRORS).items():
        assert data.endswith(b"\n"), name
        assert b"".join(split_events(data)) == data
