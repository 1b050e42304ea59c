"""Field cases: every row plays."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from raw_client import CHAT, MESSAGES, RESPONSES, ask, request

from sidestream.lab import Limits, cases

if TYPE_CHECKING:
    from collections.abc import Callable

    from sidestream.lab import Lab
    from sidestream.lab.cases import Case


@pytest.mark.parametrize("case", cases.CASES.values(), ids=lambda case: case.name)
def test_every_case_plays(lab: Callable[..., Lab], case: Case) -> None:
    """Each case answers its wire, on the first attempt and the next; the lab ends what never ends."""
    answers = case.answers.sent(pace=0) if case.name == "long" else case.answers  # type: ignore[union-attr]
    running = lab(answers, plan=case.plan, limits=Limits(stall=0.05))
    path = {"chat": CHAT, "messages": MESSAGES, "responses": RESPONSES}[case.wire]
    for n in range(2):
        ask(running, request(path, b'{"stream":true,"temperature":1}'))
        assert running.wait_closed(n).ended_by == "server"
    struck = [fault.kind for fault in case.plan.at(0)]
    assert running.requests[0].fault == "+".join(struck)


def test_names_say_where_they_belong() -> None:
    """Every case has a unique name, a wire, and words for what happens and what is expected."""
    assert all(case.name == name and case.what and case.expect for name, case in cases.CASES.items())
    assert {case.wire for case in cases.CASES.values()} == {"responses", "chat", "messages"}
    assert len(cases.CASES) == len(cases._ROWS)
