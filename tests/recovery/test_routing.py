"""Where a call stands among its routes: what is passed over, for how long, in which words, with which key."""

import itertools
import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidestream import Route, Secret, Timeouts
from sidestream.recovery.faults import Fault, FaultKind
from sidestream.recovery.origins import Origins
from sidestream.recovery.routing import Routing
from sidestream.route import RouteClocks
from sidestream.wire.prompt import Request

K = FaultKind
USER = ({"role": "user", "content": "hi"},)
A, B = "https://a.test/v1", "https://b.test/v1"


def at(url: str, model: str = "m", key: str = "", **fields: Any) -> Route:
    name = f"{url[8]}/{model}{'/' + key if key else ''}"
    return Route(
        url, model, **{"wire": "chat", "api_key": Secret(key) if key else None, "name": name} | fields
    )


def routing(
    *routes: Route,
    origins: Origins | None = None,
    now: float = 0.0,
    deadline: float = 100.0,
    verbatim: bool = False,
    **params: Any,
) -> Routing:
    known = origins or Origins(lambda: 0.0)
    return Routing(routes, Request(USER, params=params), known, now, deadline, verbatim=verbatim)


def sent(where: Routing) -> dict[str, Any]:
    return where.request().params


def asked(where: Routing, *kinds: FaultKind | Fault) -> list[str]:
    """The names of the routes that are asked while these things go wrong, one after the other."""
    names = [where.route.name]
    for kind in kinds:
        fault = kind if isinstance(kind, Fault) else Fault(kind)
        if not where.following(fault):
            break
        where.move(fault, 0.0)
        names.append(where.route.name)
    return names


# Which is next.

POOL = (at(A, key="key-1"), at(A, key="key-2"), at(A, "n", "key-1"), at(B, key="key-3"))


@pytest.mark.parametrize(
    ("fault", "following"),
    [
        (K.AUTH, ["a/m/key-2", "b/m/key-3"]),
        (K.QUOTA, ["a/m/key-2", "b/m/key-3"]),
        (K.THROTTLED, ["a/m/key-2", "a/n/key-1", "b/m/key-3"]),
        (K.SERVER, ["a/n/key-1", "b/m/key-3"]),
        (K.OVERLOADED, ["a/n/key-1", "b/m/key-3"]),
        (K.DROPPED, ["a/n/key-1", "b/m/key-3"]),
        (K.STALLED, ["a/n/key-1", "b/m/key-3"]),
        (K.EMPTY, ["a/n/key-1", "b/m/key-3"]),
        (K.NOT_FOUND, ["a/n/key-1", "b/m/key-3"]),
        (K.CONTEXT_LENGTH, ["a/n/key-1", "b/m/key-3"]),
        (K.PARAMETER, ["a/n/key-1", "b/m/key-3"]),
        (K.CONNECT, ["b/m/key-3"]),
        (K.BLOCKED, ["b/m/key-3"]),
        (Fault(K.STALLED, clock="connect"), ["b/m/key-3"]),
        (Fault(K.WITHHELD, about="endpoint"), ["b/m/key-3"]),
        (Fault(K.WITHHELD, about="route"), ["a/m/key-2", "a/n/key-1", "b/m/key-3"]),
    ],
    ids=str,
)
def test_what_shares_the_failure_is_passed_over(fault: FaultKind | Fault, following: list[str]) -> None:
    """Another key helps a key, another model a model, another endpoint an endpoint that cannot be reached."""
    where = routing(*POOL)
    fault = fault if isinstance(fault, Fault) else Fault(fault)
    assert [where.routes[number].name for number in where.following(fault)] == following


@pytest.mark.parametrize("kind", [K.AUTH, K.QUOTA, K.THROTTLED])
def test_the_next_key_of_the_same_endpoint_is_asked(kind: FaultKind) -> None:
    """401, 402 and 429 on a key: the next key, and the one after that."""
    pool = [at(A, key=f"key-{number}") for number in range(3)]
    assert asked(routing(*pool), kind, kind, kind) == ["a/m/key-0", "a/m/key-1", "a/m/key-2"]


def test_a_sibling_model_on_one_key_is_asked() -> None:
    """A model that fails says nothing of another one on the same key, and a dead key much of both."""
    where = routing(at(A, "m", "key-1"), at(A, "n", "key-1"))
    assert asked(where, K.SERVER) == ["a/m/key-1", "a/n/key-1"]
    where = routing(at(A, "m", "key-1"), at(A, "n", "key-1"))
    assert asked(where, K.AUTH) == ["a/m/key-1"]


def test_what_failed_once_stays_passed_over() -> None:
    """The key that was refused on the first model is not asked with a third one, two routes later."""
    where = routing(at(A, "m", "key-1"), at(A, "n", "key-2"), at(A, "o", "key-1"), at(B, "m", "key-3"))
    assert asked(where, K.AUTH, K.SERVER) == ["a/m/key-1", "a/n/key-2", "b/m/key-3"]


def test_the_same_key_at_another_endpoint_is_another_key() -> None:
    """A key belongs to its endpoint: that one refused it says nothing of the other."""
    assert asked(routing(at(A, key="key-1"), at(B, key="key-1")), K.AUTH) == ["a/m/key-1", "b/m/key-1"]


def test_keys_in_headers_are_keys() -> None:
    """Two accounts that differ in a header of their own are two credentials."""
    routes = [at(A, name=name, headers={"X-Api-Token": f"token-{name}"}) for name in ("one", "two")]
    assert asked(routing(*routes), K.QUOTA) == ["one", "two"]


@given(st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from("mno"), st.sampled_from("xyz")), min_size=1),
       st.lists(st.sampled_from([kind for kind in K if kind.elsewhere]), max_size=12))  # fmt: skip
def test_no_route_is_asked_that_shares_a_failure(
    routes: list[tuple[str, str, str]], kinds: list[FaultKind]
) -> None:
    """Whatever fails in whatever order: forward only, never what shares a failed part, never one left out."""
    where = routing(*(at(f"https://{host}.test/v1", model, f"key-{key}") for host, model, key in routes))
    failed: list[tuple[str, ...]] = []
    for kind in kinds:
        here, fault = where.at, Fault(kind)
        failed.append(where.route.part(kind.scope))
        open_ = [
            number
            for number in range(here + 1, len(where.routes))
            if not any(where.routes[number].part(part[0]) == part for part in failed)  # type: ignore[arg-type]
        ]
        assert list(where.following(fault)) == open_
        if not open_:
            return
        where.move(fault, 0.0)
        assert where.at == open_[0]


# What is parked.


def parked(origins: Origins, route: Route, fault: Fault) -> None:
    routing(route, origins=origins).remember(fault)


def test_what_is_parked_is_asked_last() -> None:
    """A key without quota waits behind the others, in the order they had; who is alone is asked."""
    origins = Origins(lambda: 0.0)
    one, two, three = (at(A, key=f"key-{n}") for n in (1, 2, 3))
    parked(origins, one, Fault(K.QUOTA, "no money"))
    assert [route.name for route in routing(one, two, three, origins=origins).routes] == [
        "a/m/key-2", "a/m/key-3", "a/m/key-1",
    ]  # fmt: skip
    assert [route.name for route in routing(one, origins=origins).routes] == ["a/m/key-1"]
    assert origins.parked(two) is None


@pytest.mark.parametrize(
    ("fault", "seconds"),
    [
        (Fault(K.AUTH), 600.0),
        (Fault(K.QUOTA), 600.0),
        (Fault(K.THROTTLED), 30.0),
        (Fault(K.THROTTLED, retry_after=7.0), 7.0),
        (Fault(K.QUOTA, retry_after=5 * 86400.0), 3600.0),
        (Fault(K.SERVER), None),
        (Fault(K.CONNECT), None),
        (Fault(K.PARAMETER), None),
    ],
    ids=str,
)
def test_for_how_long(fault: Fault, seconds: float | None) -> None:
    """As long as the provider says, an hour at most; ten minutes for a key, half of one for a rate."""
    origins = Origins(lambda: 0.0)
    parked(origins, at(A, key="key-1"), fault)
    found = origins.parked(at(A, key="key-1"))
    assert (found and found.retry_in) == seconds


def test_parking_books_the_exact_key() -> None:
    """The key that failed is parked with all its models; its neighbour is not; an answer ends it."""
    origins = Origins(lambda: 0.0)
    where = routing(*POOL, origins=origins)
    where.remember(Fault(K.QUOTA, "no money"))
    assert [route.name for route in POOL if origins.parked(route)] == ["a/m/key-1", "a/n/key-1"]
    routing(POOL[0], origins=origins).worked()
    assert not any(map(origins.parked, POOL))


def test_a_rate_is_the_models() -> None:
    """A rate that is exceeded parks this key with this model, not the key's other models."""
    origins = Origins(lambda: 0.0)
    routing(*POOL, origins=origins).remember(Fault(K.THROTTLED))
    assert [route.name for route in POOL if origins.parked(route)] == ["a/m/key-1"]


# How long.


def test_every_route_has_its_share_of_the_time() -> None:
    """Silence may use an even share of what is left, and the last route all of it."""
    where = routing(at(A), at(B), at("https://c.test/v1"), deadline=90.0)
    assert where.remaining(0.0) == 30.0
    where.move(Fault(K.STALLED), 30.0)
    assert where.remaining(30.0) == 30.0
    where.move(Fault(K.STALLED), 60.0)
    assert where.remaining(60.0) == 30.0
    assert where.clocks(Timeouts(total=90), 60.0, 0).until == math.inf


def test_keys_of_one_model_share_its_time() -> None:
    """Silence is the model's, so its further keys need no share: they would not be asked."""
    pool = [at(A, key=f"key-{number}") for number in range(5)]
    assert routing(*pool, at(B), deadline=90.0).remaining(0.0) == 45.0
    assert routing(*pool, deadline=90.0).remaining(0.0) == 90.0


def test_a_sign_of_life_measures_the_share_anew() -> None:
    """After output the route has its share of what is left by then."""
    where = routing(at(A), at(B), deadline=90.0)
    where.share(40.0)
    assert where.remaining(40.0) == 25.0


@given(st.integers(1, 8), st.lists(st.floats(0.0, 1.0), min_size=8, max_size=8))
def test_the_last_route_always_has_its_slice(count: int, used: list[float]) -> None:
    """However much of its share each route uses up in silence, the last one has as much as the first."""
    where = routing(*(at(f"https://{name}.test/v1") for name in "abcdefgh"[:count]), deadline=90.0)
    now = 0.0
    for part in used[: count - 1]:
        now += part * where.remaining(now)
        where.move(Fault(K.STALLED), now)
    assert where.remaining(now) >= 90.0 / count - 1e-9


def test_a_route_has_clocks_of_its_own() -> None:
    """They win over the call's, and stay inside the call and inside the share."""
    own = RouteClocks(total=20.0, first=7.0, idle=3.0, connect=1.0)
    where = routing(at(A, clocks=own), at(B), deadline=90.0)
    clocks = where.clocks(Timeouts(total=90.0, first=50.0, idle=40.0, connect=9.0), 0.0, 0)
    assert (clocks.connect, clocks.first, clocks.idle, clocks.deadline, clocks.until) == (1, 7, 3, 20, 45)
    assert where.remaining(5.0) == 15.0
    clocks = where.clocks(Timeouts(total=90.0), 43.0, 0)
    assert (clocks.connect, clocks.first) == (1.0, 2.0)


def test_a_routes_own_end_is_not_the_calls() -> None:
    """The deadline of a route that passes first is a stall of the route; the call goes on."""
    where = routing(at(A, clocks=RouteClocks(total=20.0)), at(B), deadline=90.0)
    late = Fault(K.DEADLINE, clock="total")
    assert where.is_own_end(late, 20.0)
    assert not where.is_own_end(late, 90.0)
    assert not where.is_own_end(Fault(K.STALLED), 20.0)
    where.move(Fault(K.STALLED), 20.0)
    assert not where.is_own_end(late, 30.0)
    assert where.remaining(20.0) == 70.0


# In which words.


def test_a_routes_fields_stand_behind_the_calls() -> None:
    """A route's own fields are sent unless the call says otherwise, by whichever name."""
    route = at(A, params={"temperature": 0.2, "max_tokens": 100, "top_p": 1})
    assert sent(routing(route)) == {"temperature": 0.2, "max_tokens": 100, "top_p": 1}
    assert sent(routing(route, temperature=1)) == {"temperature": 1, "max_tokens": 100, "top_p": 1}
    for name in ("max_tokens", "max_output_tokens", "max_completion_tokens"):
        assert sent(routing(route, **{name: 9})) == {"temperature": 0.2, "top_p": 1, name: 9}


def test_what_a_route_rejects_is_not_sent() -> None:
    """Under whichever name: what the wire would write into a rejected field stays out as well."""
    route = at(A, rejects=frozenset({"temperature", "max_tokens"}))
    where = routing(route, at(B), temperature=1, max_output_tokens=5, seed=3)
    assert sent(where) == {"seed": 3}
    where.move(Fault(K.SERVER), 0.0)
    assert sent(where) == {"temperature": 1, "max_output_tokens": 5, "seed": 3}


def test_a_routes_own_field_that_it_rejects_is_not_sent() -> None:
    """Rejecting is the last word."""
    assert sent(routing(at(A, params={"seed": 1}, rejects=frozenset({"seed"})))) == {}


RENAMING = {"max_tokens": "max_completion_tokens", "max_output_tokens": "max_completion_tokens"}


@pytest.mark.parametrize("name", ["max_tokens", "max_output_tokens", "max_completion_tokens"])
def test_fields_are_renamed(name: str) -> None:
    """A route's own name for a field."""
    assert sent(routing(at(A, renames=RENAMING), **{name: 7})) == {"max_completion_tokens": 7}


@pytest.mark.parametrize(
    ("rejected", "params"), [("max_completion_tokens", {}), ("max_tokens", {"max_completion_tokens": 7})]
)
def test_what_is_rejected_goes_by_its_name_there(rejected: str, params: dict[str, int]) -> None:
    """A route that renames a field may well reject the name it replaces."""
    route = at(A, renames=RENAMING, rejects=frozenset({rejected}))
    assert sent(routing(route, max_output_tokens=7)) == params


@pytest.mark.parametrize("name", ["max_tokens", "max_output_tokens", "max_completion_tokens"])
def test_a_rejected_field_is_known_by_every_name(name: str) -> None:
    """Codex takes no output limit, whatever the caller calls it."""
    route = at(A, wire="responses", rejects=frozenset({"max_output_tokens"}))
    assert sent(routing(route, **{name: 7})) == {}


def refusal(name: str, words: str = "Unsupported parameter") -> Fault:
    return Fault(K.PARAMETER, f"{words}: {name}", status=400, param=name)


def test_a_rejected_field_is_dropped_and_remembered() -> None:
    """Once in this call, and the next one leaves it out from the start; another model is told it."""
    origins = Origins(lambda: 0.0)
    where = routing(at(A), origins=origins, temperature=1, seed=2)
    assert where.drop(refusal("temperature"))
    assert sent(where) == {"seed": 2}
    assert not where.drop(refusal("temperature")), "it is not there any more"
    assert sent(routing(at(A), origins=origins, temperature=1, seed=2)) == {"seed": 2}
    assert sent(routing(at(A, "n"), origins=origins, temperature=1)) == {"temperature": 1}
    assert sent(routing(at(B), origins=origins, temperature=1)) == {"temperature": 1}


@pytest.mark.parametrize("renames", [{}, RENAMING], ids=["plain", "renamed"])
@pytest.mark.parametrize("wire", ["chat", "responses", "messages"])
@pytest.mark.parametrize("given_as", ["max_tokens", "max_output_tokens", "max_completion_tokens"])
@pytest.mark.parametrize("told", ["max_tokens", "max_output_tokens", "max_completion_tokens"])
def test_no_complaint_is_heard_without_end(
    renames: dict[str, str], wire: Any, given_as: str, told: str
) -> None:
    """Whatever a field is called by whom: a complaint is answered by a smaller request, or not at all."""
    where = routing(at(A, wire=wire, renames=renames), **{given_as: 7})
    before = dict(sent(where))
    for _ in range(3):
        if not where.drop(refusal(told)):
            break
        assert len(sent(where)) < len(before)
        before = dict(sent(where))
    else:
        pytest.fail("it never ends")


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
def test_a_complaint_about_a_renamed_field_is_heard(name: str) -> None:
    """The endpoint speaks of the field as it got it."""
    origins = Origins(lambda: 0.0)
    where = routing(at(A, renames=RENAMING), origins=origins, **{name: 7})
    assert where.drop(refusal("max_completion_tokens"))
    assert sent(where) == {}
    assert sent(routing(at(A, renames=RENAMING), origins=origins, max_output_tokens=7)) == {}


@pytest.mark.parametrize("param", ["text.format", "text.format.schema", "text[0]", "text"])
def test_a_complaint_about_a_part_of_a_field(param: str) -> None:
    """The whole field goes."""
    where = routing(at(A, wire="responses"), text={"format": {"type": "json_object"}})
    assert where.drop(refusal(param))
    assert sent(where) == {}


@pytest.mark.parametrize("param", ["", "messages", "input[3].content", "model", "seed", "tools[0].function"])
def test_what_was_not_sent_cannot_be_dropped(param: str) -> None:
    """The fault stands: asking the same again would help nobody."""
    assert not routing(at(A), temperature=1).drop(refusal(param))


@pytest.mark.parametrize("param", ["previous_response_id", "conversation", "prompt", "system"])
def test_the_conversation_itself_is_never_dropped(param: str) -> None:
    """Without it the answer would be one to another question."""
    assert not routing(at(A, wire="responses"), **{param: "it"}).drop(refusal(param))


@pytest.mark.parametrize("kind", [kind for kind in K if kind is not K.PARAMETER])
def test_only_a_rejected_parameter_drops_one(kind: FaultKind) -> None:
    """A field that another fault names stays."""
    assert not routing(at(A), temperature=1).drop(Fault(kind, "temperature", param="temperature"))


FIELDS = ("temperature", "top_p", "seed", "response_format", "reasoning_effort", "max_tokens", "stop")


@given(st.permutations(FIELDS), st.integers(0, len(FIELDS)))
def test_rejected_fields_go_in_any_order(order: list[str], count: int) -> None:
    """N rejected fields are N complaints, whatever their order, and the others stay."""
    where = routing(at(A), **dict.fromkeys(FIELDS, 1))
    for name in order[:count]:
        assert where.drop(refusal(name))
    assert sent(where) == dict.fromkeys(set(FIELDS) - set(order[:count]), 1)


def test_somebody_elses_request_is_not_touched() -> None:
    """Under an SDK the request is the caller's affair: no fields, no names, nothing dropped."""
    route = at(
        A, params={"seed": 1}, rejects=frozenset({"top_p"}), renames={"temperature": "heat"}, guessed=True
    )
    where = routing(route, verbatim=True, temperature=1, top_p=1)
    request = where.request()
    assert request.params == {"temperature": 1, "top_p": 1}
    assert not where.drop(refusal("temperature"))
    assert not where.drop(CANNOT_AFFORD)
    assert not where.rewire(NOTHING)
    assert not where.is_ours(refusal("temperature"))
    assert where.request() is request


def test_an_untouched_request_stays_the_same_object() -> None:
    """Nothing to change, nothing made."""
    where = routing(at(A), temperature=1)
    assert where.request() is where.request(0)
    assert where.request() is where._request


CANNOT_AFFORD = Fault(K.QUOTA, "You requested up to 64000 tokens, but can only afford 5000.", status=402)


def test_what_the_account_still_pays_for_is_asked() -> None:
    """A little less than the provider says, once."""
    where = routing(at(A), max_tokens=64000)
    assert where.drop(CANNOT_AFFORD)
    assert sent(where) == {"max_output_tokens": 4936}
    assert not where.drop(CANNOT_AFFORD)


@pytest.mark.parametrize(
    ("detail", "params"),
    [
        ("can only afford 500", {}),
        ("can only afford 575", {}),
        ("can only afford 5000", {"max_tokens": 4000}),
        ("no money", {}),
        ("can only afford 99999999999999999999", {}),
    ],
)
def test_what_is_not_worth_asking(detail: str, params: dict[str, int]) -> None:
    """Too little for an answer, no less than was asked for, or no number."""
    assert not routing(at(A), **params).drop(Fault(K.QUOTA, detail))


def test_without_a_limit_one_is_set() -> None:
    """The default of the model was too much; 512 tokens are an answer."""
    where = routing(at(A))
    assert where.drop(Fault(K.QUOTA, "This request can only afford 576 tokens"))
    assert sent(where) == {"max_output_tokens": 512}


def test_the_limit_goes_by_the_routes_name_for_it() -> None:
    """A route that renames output limits gets this one renamed as well, one that rejects them gets none."""
    where = routing(at(A, renames=RENAMING), max_tokens=64000)
    assert where.drop(CANNOT_AFFORD)
    assert sent(where) == {"max_completion_tokens": 4936}
    where = routing(at(A, wire="responses", rejects=frozenset({"max_output_tokens"})))
    assert where.drop(CANNOT_AFFORD)
    assert sent(where) == {}


def test_a_cap_is_this_calls_alone() -> None:
    """Tomorrow the account may have money again."""
    origins = Origins(lambda: 0.0)
    assert routing(at(A), origins=origins, max_tokens=64000).drop(CANNOT_AFFORD)
    assert sent(routing(at(A), origins=origins, max_tokens=64000)) == {"max_tokens": 64000}


# On which wire.

NOTHING = Fault(K.NOT_FOUND, "404 page not found", status=404)


def test_a_guessed_wire_is_corrected_and_remembered() -> None:
    """404 at the guess: the next wire; what answered is asked first next time, with every key."""
    origins = Origins(lambda: 0.0)
    where = routing(at(A, guessed=True), origins=origins)
    assert where.rewire(NOTHING)
    assert where.route.wire == "messages"
    where.worked()
    assert routing(at(A, guessed=True, key="key-2"), origins=origins).route.wire == "messages"
    assert routing(at(A, guessed=False), origins=origins).route.wire == "chat"
    assert routing(at(B, guessed=True), origins=origins).route.wire == "chat"


def test_a_remembered_wire_can_be_wrong_by_now() -> None:
    """Then the others are tried, and the one that answers is remembered in its place."""
    origins = Origins(lambda: 0.0)
    origins.learn(at(A), "wire", "messages")
    where = routing(at(A, guessed=True), origins=origins)
    assert (where.route.wire, where.rewire(NOTHING), where.route.wire) == ("messages", True, "chat")
    where.worked()
    assert routing(at(A, guessed=True), origins=origins).route.wire == "chat"


def test_each_wire_is_tried_once() -> None:
    """After the third 404 the fault stands, for this model with every key."""
    where = routing(at(A, key="key-1", guessed=True), at(A, key="key-2", guessed=True), at(B, guessed=True))
    assert [where.rewire(NOTHING) for _ in range(3)] == [True, True, False]
    assert [where.routes[number].name for number in where.following(NOTHING)] == ["b/m"]


@pytest.mark.parametrize(
    "fault",
    [
        Fault(K.NOT_FOUND, "gone", status=404, code="model_not_found"),
        Fault(K.NOT_FOUND, "The model `m` does not exist", status=404),
        Fault(K.NOT_FOUND, "no such model", status=400),
        Fault(K.BAD_REQUEST, "bad", status=400),
        Fault(K.AUTH, "who are you", status=401),
        Fault(K.SERVER, "oh no", status=500),
    ],
    ids=str,
)
def test_other_faults_change_no_wire(fault: Fault) -> None:
    """A model that is not there is not there on another wire either."""
    assert not routing(at(A, guessed=True)).rewire(fault)


def test_a_configured_wire_is_not_doubted() -> None:
    """Who says it means it."""
    assert not routing(at(A)).rewire(NOTHING)


def test_a_405_is_a_path_that_is_not_there() -> None:
    """Some servers answer so."""
    assert routing(at(A, guessed=True)).rewire(Fault(K.NOT_FOUND, "no POST here", status=405))


# With which key.


class Keys:
    """A credential that is never asked here: what comes of it is told by the test."""

    label = "keys of the test"

    def apply(self, route: Route) -> Route:
        return route

    def renew(self, route: Route, seconds: float) -> Route | None:  # noqa: ARG002
        raise AssertionError("a pure room renews nothing")


def signed(key: str = "key-1", **fields: Any) -> Route:
    return at(A, key=key, credential=Keys(), **fields)


@pytest.mark.parametrize(
    ("expires", "now", "must"), [(None, 5.0, False), (10.0, 9.9, False), (10.0, 10.0, True), (0.0, 1.0, True)]
)
def test_a_key_that_ran_out_is_renewed_first(expires: float | None, now: float, *, must: bool) -> None:
    """From the instant it says, and only if there is somebody to renew it."""
    assert routing(signed(expires=expires)).must_renew(now) is must
    assert not routing(at(A, key="key-1", expires=expires)).must_renew(now)


def test_a_key_is_renewed_once_in_a_call() -> None:
    """With another key or without: nobody is asked twice for one route; the next route may ask."""
    for found in (signed("key-2"), None):
        where = routing(signed(expires=1.0), at(B, credential=Keys()))
        assert where.may_renew()
        where.renewed(found, "")
        assert not where.may_renew()
        assert not where.must_renew(5.0)
        where.move(Fault(K.AUTH), 0.0)
        assert where.may_renew()


def test_a_renewed_key_replaces_its_route() -> None:
    """From then on; and why there is none is told in one line."""
    where = routing(signed())
    where.renewed(signed("key-2"), "")
    assert where.route.api_key == Secret("key-2")
    assert where.not_renewed() == ""
    where = routing(signed())
    where.renewed(None, "the sign-in\nis over " + "x" * 1000)
    assert where.not_renewed().startswith("the sign-in is over xxx")
    assert len(where.not_renewed()) == 500
    where = routing(signed())
    where.renewed(None, "")
    assert where.not_renewed() == "there is no other key"


def test_a_key_that_was_renewed_in_vain_is_not_asked_again() -> None:
    """Neither the new key nor the one before it goes out with another model."""
    where = routing(signed(), at(A, "n", "key-1", credential=Keys()), at(A, "o", "key-2"), at(B))
    where.renewed(signed("key-2"), "")
    assert [where.routes[number].name for number in where.following(Fault(K.AUTH))] == ["b/m"]
    assert asked(where, K.AUTH)[1:] == ["b/m"]


def test_a_model_that_fails_under_a_renewed_key_says_nothing_of_keys() -> None:
    """The old key's routes stay open: they renew it for themselves."""
    where = routing(signed(), at(A, "n", "key-1", credential=Keys()))
    where.renewed(signed("key-2"), "")
    assert asked(where, K.SERVER)[1:] == ["a/n/key-1"]


def test_the_key_before_and_the_key_now_are_parked_each_for_itself() -> None:
    """A rejected key is parked; its successor that works is not."""
    origins = Origins(lambda: 0.0)
    where = routing(signed(), origins=origins)
    where.remember(Fault(K.AUTH))
    where.renewed(signed("key-2"), "")
    where.worked()
    assert origins.parked(signed()) is not None
    assert origins.parked(signed("key-2")) is None


# All of it at random.

FAULTS: tuple[Fault, ...] = (
    *(Fault(kind) for kind in K if kind.elsewhere),
    NOTHING,
    CANNOT_AFFORD,
    refusal("temperature"),
    refusal("max_tokens"),
    refusal("max_completion_tokens"),
)


@given(
    st.lists(st.sampled_from(FAULTS), max_size=40),
    st.lists(
        st.tuples(st.sampled_from([A, B]), st.sampled_from("mn"), st.booleans()), min_size=1, max_size=5
    ),
)
def test_a_call_comes_to_an_end(faults: list[Fault], routes: list[tuple[str, str, bool]]) -> None:
    """However it is answered: what changes a request runs out, and then the routes do."""
    params = {"temperature": 1, "max_tokens": 64000}
    where = routing(
        *(
            at(url, model, guessed=guessed, renames=RENAMING if guessed else {})
            for url, model, guessed in routes
        ),
        **params,
    )
    most = len(routes) * (1 + len(params) + 1 + 2)  # fields dropped, one cap, two other wires
    for number, fault in enumerate(itertools.cycle(faults or [NOTHING])):
        assert number <= most + len(routes)
        if where.drop(fault) or where.rewire(fault):
            continue
        if not where.following(fault):
            break
        where.move(fault, 0.0)


def test_a_route_keeps_its_place_whatever_changes() -> None:
    """Renewing, rewiring and dropping touch the route that is asked, and no other."""
    routes = [at(A, guessed=True, key="key-1"), at(B, guessed=True, key="key-2")]
    where = routing(*routes, temperature=1)
    assert where.rewire(NOTHING)
    assert where.drop(refusal("temperature"))
    where.renewed(replace(where.route, api_key=Secret("key-9")), "")
    assert where.routes[1] is routes[1]
    assert (where.route.wire, where.route.api_key) == ("messages", Secret("key-9"))
    assert where.request(1).params == {"temperature": 1}
