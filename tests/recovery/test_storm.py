"""A thousand concurrent calls and a provider that dies: few attempts, quick recovery, nobody else hurt.

The flows and the `Origins` are the product's, the clock is not (see `storm`). Each test prints what came of
the calls; failures name the seed. What is promised, with the default rules and the default policy unless a
test says otherwise: attempts stay within a fifth more than calls, output comes within five seconds of the
provider's return, and from then on every new call succeeds at once.
"""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from storm import NO_CONTROL, TEXT, Provider, Result, Storm, told

from sidestream.recovery.policy import Policy

CALLS = 1000
FLOOR = 20  # attempts that a dead provider gets in 30 s whatever the number of calls: probes and the bucket's
WITHIN = 5.0
SEED = 20261122
EVERY = 0.2  # seconds between the calls of the steady traffic


def traffic(since: float, until: float) -> Iterable[float]:
    """Moments at which calls start one by one."""
    return [since + EVERY * number for number in range(int((until - since) / EVERY))]


def came(storm: Storm, provider: Provider) -> str:
    """What came of a provider's calls, for people."""
    results = storm.results[provider.host]
    at_dead = sum(map(provider.is_dead, provider.sent))
    said = f"{len(provider.sent)} attempts, {at_dead} of them while it was dead: {told(results)}"
    print(f"seed {storm.seed}: {len(results)} calls, {said}")  # noqa: T201  for `pytest -rP`
    return f"seed {storm.seed}: {said}"


def is_back(storm: Storm, provider: Provider) -> None:
    """Output came within seconds of the provider's return, and every call since then succeeded at once."""
    back, said = provider.dead[1], came(storm, provider)
    first = min(sent for sent in provider.sent if sent >= back) + provider.first
    assert first - back <= WITHIN, f"first output {first - back:.1f} s after its return; {said}"
    since = [result for result in storm.results[provider.host] if result.started >= back + WITHIN]
    assert set(told(since)) <= {"at once"}, f"{told(since)} since then; {said}"


def at_dead(provider: Provider) -> int:
    return sum(map(provider.is_dead, provider.sent))


def test_calls_that_start_while_it_is_dead_cost_little_and_end_early() -> None:
    """A thousand calls at once at a dead provider, and one every 0.2 s for a minute: attempts stay within
    1.2 per call and the floor, and five seconds after its return every new call succeeds at once."""
    storm, provider = Storm(SEED), Provider("a", dead=(0.0, 30.0))
    storm.call(provider, [0.0] * CALLS)
    storm.call(provider, traffic(0.0, 60.0))
    storm.run()
    results = storm.results["a"]
    assert len(provider.sent) <= 1.2 * len(results) + FLOOR, came(storm, provider)
    is_back(storm, provider)
    crowd = [result for result in results[:CALLS] if result.error]
    assert all(result.ended <= 30.0 + WITHIN for result in crowd), "the queue is 20 s, and no call waits on"
    assert all(result.error is None or result.error.attempts for result in results[:CALLS])


def test_calls_spread_over_the_outage_are_spared_their_attempts() -> None:
    """A thousand calls one by one while the provider is dead: the breaker fails them at once and says when
    to come back; fewer than one in twenty makes an attempt."""
    storm, provider = Storm(SEED), Provider("a", dead=(0.0, 30.0))
    storm.call(provider, [0.03 * number for number in range(CALLS)])
    storm.call(provider, traffic(30.0, 60.0))
    storm.run()
    is_back(storm, provider)
    refused = [r for r in storm.results["a"] if r.how == "BudgetExhausted (breaker)" and not r.attempts]
    assert at_dead(provider) <= CALLS / 20, came(storm, provider)
    assert len(refused) > 0.9 * CALLS, came(storm, provider)
    assert all(result.error is not None and result.error.retry_at for result in refused)
    assert all(result.ended == result.started for result in refused)


def test_who_was_in_mid_answer_keeps_the_partial() -> None:
    """A thousand answers break in the middle and the provider is gone for 30 s: with the default queue of
    20 s no call outlasts that but the few that were probes; each ends typed, with every word it had."""
    storm, provider = Storm(SEED), Provider("a", dead=(30.0, 60.0), lasts=40.0)
    storm.call(provider, [0.01 * number for number in range(CALLS)])
    storm.call(provider, traffic(30.0, 90.0))
    storm.run()
    is_back(storm, provider)
    assert at_dead(provider) <= FLOOR, came(storm, provider)
    ended = [result for result in storm.results["a"][:CALLS] if result.error]
    assert len(ended) >= CALLS - FLOOR, came(storm, provider)
    assert set(told(ended)) <= {"BudgetExhausted (breaker)", "BudgetExhausted (origin)", "StreamDropped"}
    for result in ended:
        heard = int((30.0 - result.started - provider.first) / provider.pace()) - 1  # the role is no word
        assert TEXT.startswith(result.partial)
        assert len(result.partial.split()) == heard, f"seed {storm.seed}: {result}"
        latest = 30.0 + result.attempts * (Policy().queue + 0.5)  # a probe that failed queues again
        assert 30.0 < result.ended <= latest, f"seed {storm.seed}: {result}"


def test_who_may_wait_longer_than_the_outage_gets_the_whole_answer() -> None:
    """The same with a queue of 60 s: all thousand answers come back whole, with one further attempt each
    and the floor, and the first of them go on within five seconds of the provider's return."""
    storm, provider = Storm(SEED), Provider("a", dead=(30.0, 60.0), lasts=40.0)
    storm.call(provider, [0.01 * number for number in range(CALLS)], Policy(queue=60.0))
    storm.run()
    said = came(storm, provider)
    lost = [result for result in storm.results["a"] if result.error]
    assert len(lost) <= 2, f"a probe may fail twice, and then its call is over; {said}"
    assert len(provider.sent) <= 2 * CALLS + FLOOR, said
    assert at_dead(provider) <= FLOOR, said
    is_back(storm, provider)


@pytest.mark.parametrize(("calls", "seed"), [(100, 1), (100, 2), (100, 3), (CALLS, 1), (CALLS, 2)])
@pytest.mark.parametrize("steady", [False, True], ids=["alone", "with-traffic"])
def test_a_blip_loses_no_answer(calls: int, seed: int, steady: bool) -> None:
    """A provider that is gone for 0.2 s and breaks every answer it was giving: all of them come back whole,
    whether or not new calls bring good news in the meantime."""
    storm, provider = Storm(seed), Provider("a", dead=(30.0, 30.2), lasts=40.0)
    storm.call(provider, [10.0 * number / calls for number in range(calls)])
    if steady:
        storm.call(provider, traffic(30.2, 60.0))
    storm.run()
    assert set(told(storm.results["a"][:calls])) == {"recovered"}, came(storm, provider)
    is_back(storm, provider)


def test_the_storm_next_door_changes_nothing() -> None:
    """A second provider that drops three streams in ten serves its calls as if the first were not there:
    the same results at the same instants, and none refused. (A few are dropped twice before any output.)"""

    def alone(results: list[Result]) -> list[tuple[float, str, int]]:
        return [(result.ended, result.how, result.attempts) for result in results]

    outcomes = []
    for stormy in (True, False):
        storm, provider = Storm(SEED), Provider("b", drops=0.3)
        if stormy:
            storm.call(Provider("a", dead=(0.0, 30.0)), [0.0] * CALLS)
        storm.call(provider, [0.06 * number for number in range(CALLS)])
        storm.run()
        came(storm, provider)
        outcomes.append(alone(storm.results["b"]))
    assert outcomes[0] == outcomes[1], f"seed {SEED}"
    hows = [how for _, how, _ in outcomes[0]]
    assert set(hows) <= {"at once", "recovered", "StreamDropped"}
    assert hows.count("StreamDropped") <= CALLS / 100


def test_without_storm_control_it_is_a_storm() -> None:
    """The same outages with rules that never say no: the dead provider gets two thousand attempts and more,
    which is what the rules are for. A blip loses few answers: who finds nobody mostly outwaits it."""
    storm, provider = Storm(SEED, NO_CONTROL), Provider("a", dead=(30.0, 60.0), lasts=40.0)
    storm.call(provider, [0.01 * number for number in range(CALLS)])
    storm.run()
    assert at_dead(provider) == 2 * CALLS, came(storm, provider)

    storm, provider = Storm(SEED, NO_CONTROL), Provider("a", dead=(30.0, 30.2), lasts=40.0)
    storm.call(provider, [0.01 * number for number in range(CALLS)])
    storm.run()
    said = came(storm, provider)
    assert at_dead(provider) > 300, said
    assert told(storm.results["a"]).get("StreamDropped", 0) < CALLS / 100, said
