"""Keys that are renewed within a call, by a credential that is slow, fails or raises; calls that leave."""

from __future__ import annotations

import asyncio
import threading
import time
from concurrent.futures import Future
from typing import Any

import pytest
from callers import WAYS
from roads import AT_ONCE, TEXT, Labs, Renewing, asked, bearer, by_key, keys_at, once, to
from verdicts import Outcome

from sidestream import AsyncClient, AuthFailed, Cancel, Cancelled, ConfigError, Secret, Timeouts
from sidestream.lab import Lab, script
from sidestream.net.common import Errand

by_way = pytest.mark.parametrize("way", WAYS)
by_loop = pytest.mark.parametrize("way", ["sync-held", "async-held"])
PATIENCE = 10.0
# A stop ends a call within 50 ms; the rest is for a busy machine.
BOUND = 0.05 + 0.15


def rejecting(lab: Labs, *keys: str) -> Lab:
    """A lab that does not accept these keys."""
    return lab(by_key(**{key.replace("-", "_"): script.problem(401, "who?") for key in keys}))


@by_way
def test_a_rejected_key_is_renewed_and_the_next_call_knows(lab: Labs, way: str) -> None:
    """One renewal, the same request with the new key; a call's plan begins with today's key."""
    here, credential = rejecting(lab, "key-old"), Renewing("key-old", "key-new")
    route = to(here, "key-old", credential=credential)
    first, second = asked(way, [route], calls=2)
    assert first.reply is not None
    assert second.reply is not None
    assert first.reply.text == second.reply.text == TEXT
    assert keys_at(here) == bearer("key-old", "key-new", "key-new")
    assert here.requests[0].body == here.requests[1].body
    assert credential.renewals == 1
    assert first.reply.attempts[1].why == ("the key was renewed",)


@by_way
def test_a_key_that_ran_out_is_renewed_before_the_first_request(lab: Labs, way: str) -> None:
    """The endpoint never sees the old one."""
    here, credential = lab(script.say(TEXT)), Renewing("key-old", "key-new")
    outcome = once(way, [to(here, "key-old", credential=credential, expires=time.time() - 1)])
    assert outcome.error is None
    assert keys_at(here) == bearer("key-new")


@by_way
def test_a_key_that_runs_out_later_is_used(lab: Labs, way: str) -> None:
    """Nothing is renewed without need."""
    here, credential = lab(script.say(TEXT)), Renewing("key-old", "key-new")
    outcome = once(way, [to(here, "key-old", credential=credential, expires=time.time() + 3600)])
    assert outcome.error is None
    assert credential.renewals == 0


@by_way
def test_two_rejections_are_the_end(lab: Labs, way: str) -> None:
    """The new key is refused as well: one renewal, two requests, the next route."""
    here, other = rejecting(lab, "key-old", "key-new"), lab(script.say(TEXT))
    credential = Renewing("key-old", "key-new", "key-newest")
    outcome = once(way, [to(here, "key-old", credential=credential), to(other, "key-other")])
    assert outcome.error is None
    assert keys_at(here) == bearer("key-old", "key-new")
    assert keys_at(other) == bearer("key-other")
    assert credential.renewals == 1


@by_way
def test_models_of_one_dead_credential_are_not_asked_one_by_one(lab: Labs, way: str) -> None:
    """Neither with the old key nor with the new one."""
    here = rejecting(lab, "key-old", "key-new")
    credential = Renewing("key-old", "key-new")
    routes = [to(here, "key-old", f"m{n}", model=f"lab-{n}", credential=credential) for n in range(3)]
    outcome = once(way, routes)
    assert isinstance(outcome.error, AuthFailed)
    assert keys_at(here) == bearer("key-old", "key-new")


FAILING: dict[str, tuple[Renewing, str]] = {
    "no other": (Renewing("key-old"), "there is no other key"),
    "a reason": (
        Renewing("key-old", fails=ConfigError("the sign-in is over", hint="sign in again")),
        "the sign-in is over: sign in again",
    ),
    "a bug": (
        Renewing("key-old", fails=ZeroDivisionError("secret-1234567")),
        "failed with ZeroDivisionError",
    ),
    "an exit": (Renewing("key-old", fails=SystemExit("secret-1234567")), "failed with SystemExit"),
    "a stop": (Renewing("key-old", fails=Cancelled("not ours")), "failed with Cancelled"),
}


@by_way
@pytest.mark.parametrize("how", FAILING)
def test_why_there_is_no_other_key_is_in_the_error(lab: Labs, way: str, how: str) -> None:
    """Whatever the credential does, the call ends with what the provider said and why it was left at that."""
    credential, why = FAILING[how]
    here = rejecting(lab, "key-old")
    outcome = once(way, [to(here, "key-old", credential=credential)])
    assert isinstance(outcome.error, AuthFailed)
    assert "who?; " in str(outcome.error)
    assert why in str(outcome.error)
    assert "secret-1234567" not in f"{outcome.error!r} {outcome.error.attempts!r}"


@by_way
def test_a_renewal_that_takes_too_long_is_not_waited_for(lab: Labs, way: str) -> None:
    """Its share of the time is over: the next route is asked, and the renewal ends all the same."""
    here, other = rejecting(lab, "key-old"), lab(script.say(TEXT))
    slow = threading.Event()
    credential = Renewing("key-old", "key-new", slow=slow)
    routes = [to(here, "key-old", credential=credential), to(other, "key-other")]
    outcome = once(way, routes, timeout=Timeouts(total=1.0))
    assert outcome.error is None
    assert keys_at(other) == bearer("key-other")
    slow.set()
    assert credential.done.wait(PATIENCE)
    assert credential.apply(routes[0]).api_key == Secret("key-new")


def in_thread(way: str, *args: Any, **ask: Any) -> Future[tuple[Outcome, float]]:
    future: Future[tuple[Outcome, float]] = Future()

    def work() -> None:
        outcome = once(way, *args, **ask)
        future.set_result((outcome, time.monotonic()))

    threading.Thread(target=work).start()
    return future


@by_way
def test_a_cancel_does_not_wait_for_a_renewal(lab: Labs, way: str) -> None:
    """The call returns at once; the renewal goes on to its end, and the next call uses what it found."""
    here, slow, cancel = rejecting(lab, "key-old"), threading.Event(), Cancel()
    credential = Renewing("key-old", "key-new", slow=slow)
    route = to(here, "key-old", credential=credential)
    future = in_thread(way, [route], cancel=cancel)
    assert credential.began.wait(PATIENCE)
    stopped = time.monotonic()
    cancel.cancel()
    outcome, returned = future.result(PATIENCE)
    assert isinstance(outcome.error, Cancelled)
    assert returned - stopped < BOUND
    assert not credential.done.is_set()
    slow.set()
    assert credential.done.wait(PATIENCE)
    assert once(way, [route]).error is None
    assert keys_at(here) == bearer("key-old", "key-new")


def test_a_task_that_is_cancelled_does_not_wait_for_a_renewal(lab: Labs) -> None:
    """asyncio's own cancel does the same, and arrives as what it is."""
    here, slow = rejecting(lab, "key-old"), threading.Event()
    credential = Renewing("key-old", "key-new", slow=slow)

    async def run() -> float:
        async with AsyncClient(routes=[to(here, "key-old", credential=credential)], policy=AT_ONCE) as client:
            task = asyncio.ensure_future(client.complete("hi"))
            await asyncio.to_thread(credential.began.wait, PATIENCE)
            stopped = time.monotonic()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            return time.monotonic() - stopped

    assert asyncio.run(run()) < BOUND
    slow.set()
    assert credential.done.wait(PATIENCE)
    assert credential.apply(to(here)).api_key == Secret("key-new")


@by_loop
def test_a_loop_that_is_gone_is_no_harm_to_a_renewal(lab: Labs, way: str) -> None:
    """The program's loop ends while a renewal is under way: its thread ends quietly, its key is there."""
    here, slow = rejecting(lab, "key-old"), threading.Event()
    credential = Renewing("key-old", "key-new", slow=slow)
    outcome = once(way, [to(here, "key-old", credential=credential)], timeout=Timeouts(total=0.3))
    assert outcome.error is not None
    slow.set()
    assert credential.done.wait(PATIENCE)
    for thread in threading.enumerate():
        if thread.name == "sidestream-errand":
            thread.join(PATIENCE)
            assert not thread.is_alive()


@by_loop
def test_many_calls_with_one_credential(lab: Labs, way: str) -> None:
    """Each has the key renewed for itself; none is lost and nobody waits for ever."""
    here, credential = rejecting(lab, "key-old"), Renewing("key-old", "key-new")
    renew = credential.renew

    def found(route: Any, seconds: float) -> Any:
        fresh = credential.apply(route)
        return fresh if fresh.api_key != route.api_key else renew(route, seconds)

    credential.renew = found  # type: ignore[method-assign]  # as every credential does: look first
    futures = [in_thread(way, [to(here, "key-old", credential=credential)]) for _ in range(8)]
    outcomes = [future.result(PATIENCE)[0] for future in futures]
    assert [outcome.error for outcome in outcomes] == [None] * 8


# The errand itself.


def test_an_errand_tells_when_it_is_over() -> None:
    """Its value or its error, and whoever asks too late is called at once."""
    go, rung = threading.Event(), threading.Event()
    errand = Errand(lambda: go.wait(PATIENCE) and "done")
    errand.when_ready(rung.set)
    assert not errand.ready
    go.set()
    assert rung.wait(PATIENCE)
    assert (errand.ready, errand.value, errand.error) == (True, "done", None)
    late = threading.Event()
    errand.when_ready(late.set)
    assert late.is_set()


@pytest.mark.parametrize("error", [ValueError("no"), SystemExit(), KeyboardInterrupt(), Cancelled("stop")])
def test_an_errand_that_fails_is_over_too(error: BaseException) -> None:
    """Whatever it raises: nobody waits for it in vain, and no thread dies with a traceback."""

    def work() -> None:
        raise error

    rung = threading.Event()
    errand = Errand(work)
    errand.when_ready(rung.set)
    assert rung.wait(PATIENCE)
    assert errand.error is error
