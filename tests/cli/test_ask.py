"""`sidestream ask`: the answer on stdout and nothing else, the story and the ledger on stderr."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from commands import CANARY, Done, sidestream

from sidestream.lab import Fault, Lab, Plan, script

TEXT = "The quick brown fox jumps over the lazy dog."
REPLY = {
    "status", "text", "commentary", "reasoning", "refusal", "tool_calls", "finish_reason", "settled", "id",
    "model", "usage", "attempts",
}  # fmt: skip
ATTEMPT = {
    "route", "rung", "ended", "detail", "status", "request_id", "first", "events", "tokens", "kept", "wasted",
    "input_tokens", "cached_tokens", "reread", "confidence", "cost", "why", "dropped_calls", "seconds",
}  # fmt: skip
USAGE = {
    "input_tokens", "output_tokens", "total_tokens", "cached_tokens", "reasoning_tokens", "kept_tokens",
    "wasted_tokens", "reread_tokens", "cost", "confidence",
}  # fmt: skip
ERROR = {"type", "message", "hint", "status", "code", "retry_at"}


def ask(lab: Lab, *options: object, **others: Any) -> Done:
    env = {"SIDESTREAM_BASE_URL": lab.url, "SIDESTREAM_MODEL": "lab-1", "SIDESTREAM_API_KEY": CANARY}
    return sidestream("ask", *options, env=env, **others)


@pytest.mark.parametrize("wire", ["chat", "responses"])
def test_only_the_answer_is_on_stdout(wire: str) -> None:
    """The answer is on stdout with one line end, and the ledger is on stderr."""
    with Lab(script.say(TEXT)) as lab:
        done = ask(lab, "hi", "--wire", wire)
    assert (done.code, done.out) == (0, TEXT + "\n")
    head, row = done.err.splitlines()
    assert head.split() == ["attempt", "route", "rung", "ended", "tokens", "kept", "wasted", "seconds"]
    assert row.split()[:7] == ["1", f"127.0.0.1:{lab.port}/lab-1", "send", "complete", "9", "9", "0"]


def test_a_line_end_of_the_answer_is_not_doubled() -> None:
    """An answer that ends its last line gets no second line end."""
    with Lab(script.say("done\n")) as lab:
        assert ask(lab, "hi").out == "done\n"


def test_the_prompt_comes_from_stdin() -> None:
    """Without an argument the question is stdin, a byte order mark apart, to the last character."""
    with Lab(script.say(TEXT)) as lab:
        done = ask(lab, stdin="\ufeffWhy — and how?\n".encode())
        sent = lab.requests[0].json()
    assert done.code == 0
    assert sent["messages"][-1]["content"] == "Why — and how?\n"


def test_options_reach_the_request() -> None:
    """System message, temperature and token limit are in the request."""
    with Lab(script.say(TEXT)) as lab:
        ask(lab, "hi", "-s", "Be calm.", "--temperature", "0", "--max-tokens", "7", "--model", "other")
        sent = lab.requests[0].json()
    assert sent["messages"][0] == {"role": "system", "content": "Be calm."}
    assert (sent["model"], sent["temperature"]) == ("other", 0)
    assert 7 in (sent.get("max_tokens"), sent.get("max_completion_tokens"))


def test_a_cut_is_told_and_mended() -> None:
    """stderr says what broke and how it comes back, then the ledger; stdout has the whole answer once."""
    with Lab(script.say(TEXT), plan=Plan([Fault.cut(after_event=5), Fault.end(after_event=7)])) as lab:
        done = ask(lab, "hi")
    assert (done.code, done.out) == (0, TEXT + "\n")
    lines = done.err.splitlines()
    assert lines[0].startswith(f"✂ 127.0.0.1:{lab.port}/lab-1: the stream ended before the answer did")
    assert lines[1].startswith("↻ ")
    assert [line.split()[0] for line in lines[4:]] == ["attempt", "1", "2", "3", "all", "~"]
    assert "without the end of the answer" in lines[2]


def test_the_fallback_is_named() -> None:
    """When the next route takes over, the story names it."""
    with Lab(script.say(TEXT)) as good, Lab(script.error(401, "no")) as bad:
        env = {
            "SIDESTREAM_BASE_URL": bad.url,
            "SIDESTREAM_MODEL": "first",
            "SIDESTREAM_FALLBACK_BASE_URL": good.url,
            "SIDESTREAM_FALLBACK_MODEL": "second",
        }
        done = sidestream("ask", "hi", env=env)
    assert (done.code, done.out) == (0, TEXT + "\n")
    assert f"↻ reroute: asking the next route, 127.0.0.1:{good.port}/second" in done.err


def test_a_lost_answer_hands_over_what_arrived() -> None:
    """When nothing helps, stdout stays empty; stderr has the partial, the ledger, the reasons, the error."""
    with Lab(script.say(TEXT), plan=Plan.always(Fault.cut(after_event=5))) as lab:
        done = ask(lab, "hi")
    assert (done.code, done.out) == (1, "")
    order = [
        "✂",
        "what arrived, which is not the whole answer:\nThe quick brown fox",
        "attempt  route",
        "✗ no way back: settle: ",
        "error: ",
        "hint: ",
    ]
    places = [done.err.index(words) for words in order]
    assert places == sorted(places)


def test_live_into_a_pipe_says_the_text_once() -> None:
    """--live into a pipe writes text as it comes; a cut does not show on stdout."""
    with Lab(script.say(TEXT), plan=Plan([Fault.cut(after_event=5)])) as lab:
        done = ask(lab, "hi", "--live")
    assert (done.code, done.out) == (0, TEXT + "\n")
    assert "\n↻ " in done.err


def test_live_into_a_pipe_never_mixes_two_answers() -> None:
    """If the answer begins anew, a pipe gets no second text: the command fails and says how to wait."""
    answers = [script.chat_text("one two three four five"), script.chat_text("un deux trois")]
    with Lab(answers, plan=Plan([Fault.cut(after_event=4)])) as lab:
        done = ask(lab, "hi", "--live")
    assert (done.code, done.out) == (1, "one two three\n")
    assert "cannot be taken back" in done.err
    assert "leave out --live" in done.err


def test_quiet_is_silent() -> None:
    """--quiet says nothing on stderr while the answer arrives, recoveries included."""
    with Lab(script.say(TEXT), plan=Plan([Fault.cut(after_event=5)])) as lab:
        assert ask(lab, "hi", "--quiet") == Done(0, TEXT + "\n", "")


def test_quiet_still_says_errors() -> None:
    """--quiet leaves the error and its hint."""
    with Lab(script.error(404, "no such model")) as lab:
        done = ask(lab, "hi", "--quiet")
    assert (done.code, done.out) == (1, "")
    assert [line.split(":")[0] for line in done.err.splitlines()] == ["error", "hint"]


def test_json_has_a_stable_schema() -> None:
    """--json prints one line with exactly the documented names, and nothing on stderr."""
    with Lab(script.say(TEXT), plan=Plan([Fault.cut(after_event=5)])) as lab:
        done = ask(lab, "hi", "--json")
    assert (done.code, done.err, done.out.count("\n")) == (0, "", 1)
    reply = json.loads(done.out)
    assert set(reply) == REPLY
    assert [set(row) for row in reply["attempts"]] == [ATTEMPT, ATTEMPT]
    assert (reply["status"], reply["text"]) == ("complete", TEXT)
    assert [row["ended"] for row in reply["attempts"]] == ["dropped", "complete"]


def test_json_usage_is_the_sum_of_the_attempts() -> None:
    """The usage in --json has exactly the documented names, and what was kept and wasted adds up."""
    with Lab(script.say(TEXT), plan=Plan([Fault.cut(after_event=5)])) as lab:
        reply = json.loads(ask(lab, "hi", "--json").out)
    usage, rows = reply["usage"], reply["attempts"]
    assert set(usage) == USAGE
    assert usage["output_tokens"] == sum(row["tokens"] for row in rows)
    assert usage["output_tokens"] == usage["kept_tokens"] + usage["wasted_tokens"]
    assert usage["confidence"] == "estimated"


def test_json_of_a_failure_has_what_arrived() -> None:
    """--json of a failed call has the error, the partial reply and every attempt."""
    with Lab(script.say(TEXT), plan=Plan.always(Fault.cut(after_event=5))) as lab:
        done = ask(lab, "hi", "--json")
    assert done.code == 1
    said = json.loads(done.out)
    assert set(said) == {"error", "reply", "attempts"}
    assert set(said["error"]) == ERROR
    assert said["error"]["type"] == "StreamDropped"
    assert said["error"]["hint"]
    assert set(said["reply"]) == REPLY
    assert said["reply"]["text"].strip() == "The quick brown fox"
    assert len(said["attempts"]) == 2


def test_json_of_a_refusal_to_serve_says_when_to_come_back() -> None:
    """--json of a throttled call has status, code and the Unix time to come back at."""
    limited = script.error(
        429, {"error": {"code": "slow_down", "message": "no"}}, headers={"Retry-After": "300"}
    )
    with Lab(limited) as lab:
        error = json.loads(ask(lab, "hi", "--json").out)["error"]
    assert (error["type"], error["status"], error["code"]) == ("RateLimited", 429, "slow_down")
    assert error["retry_at"] > 1_700_000_000


def test_tool_calls_and_refusals_are_in_json() -> None:
    """Finished tool calls have their three names."""
    with Lab(script.chat_call("look", '{"at": "x"}')) as lab:
        reply = json.loads(ask(lab, "hi", "--json").out)
    assert reply["tool_calls"] == [{"call_id": "call_lab_0", "name": "look", "arguments": '{"at": "x"}'}]


def test_an_answer_without_text_is_said() -> None:
    """An answer without text is not left unexplained."""
    with Lab(script.chat_call("look", "{}")) as lab:
        done = ask(lab, "hi")
    assert (done.code, done.out) == (0, "\n")
    assert "the answer has no text" in done.err


def test_a_token_limit_is_no_success() -> None:
    """An answer that a token limit ended is printed, said to be incomplete, and exits with 3."""
    with Lab(script.chat_text(TEXT, finish="length")) as lab:
        done = ask(lab, "hi")
    assert (done.code, done.out) == (3, TEXT + "\n")
    assert done.err.splitlines()[-1] == "the answer is incomplete: a token limit ended it"


def test_a_settled_answer_is_marked() -> None:
    """An answer whose end marker never came is printed and said to be settled."""
    with Lab(script.responses_text(TEXT), plan=Plan.always(Fault.drop_terminal())) as lab:
        done = ask(lab, "hi", "--wire", "responses")
    assert (done.code, done.out) == (0, TEXT + "\n")
    assert "settled: the answer was all there" in done.err


@pytest.mark.parametrize(
    ("option", "fault"),
    [("--timeout", Fault.hang()), ("--first", Fault.hang()), ("--idle", Fault.stall(after_event=5))],
)
def test_a_clock_names_its_option(option: str, fault: Fault) -> None:
    """When a clock runs out, the exit code is 4 and the hint names the option that allows more."""
    with Lab(script.say(TEXT), plan=Plan.always(fault)) as lab:
        done = ask(lab, "hi", option, "0.2")
    assert (done.code, done.out) == (4, "")
    assert done.err.splitlines()[-1] == f"hint: allow more with {option} SECONDS"


@pytest.mark.parametrize("options", [(), ("--json",), ("--live",), ("--quiet",)])
@pytest.mark.parametrize("status", [200, 401, 429, 500])
def test_the_key_never_shows(options: tuple[str, ...], status: int) -> None:
    """A server that quotes the credential back cannot make any output show it."""
    message = {"error": {"message": f"your key {CANARY} and Bearer {CANARY}"}}
    answer = script.error(status, message, headers={"Retry-After": "999", "X-Request-Id": "r"})
    with Lab(answer) as lab:
        done = ask(lab, "hi", *options)
        assert lab.requests[0].header("authorization") is not None
    assert done.code in (1, 5)
    assert CANARY not in done.out + done.err
    assert CANARY[:12] not in done.out + done.err


def test_the_configured_clocks_count(tmp_path: Path) -> None:
    """[defaults] holds where the command line says nothing; what it says is above them, one by one."""
    config = tmp_path / "c.toml"
    with Lab(plan=Plan.always(Fault.hang())) as lab:
        lines = ['main = "r"', "[defaults]", "first = 0.1", "tries = 1", "[routes.r]", 'model = "m"']
        config.write_text("\n".join([*lines, f'base_url = "{lab.url}"\n']))
        env = {"SIDESTREAM_CONFIG": str(config)}
        assert "timeout.first = 0.1 s" in sidestream("ask", "hi", env=env).err
        assert "timeout.first = 0.1 s" in sidestream("ask", "hi", "--timeout", "20", env=env).err
        assert "timeout.first = 0.2 s" in sidestream("ask", "hi", "--first", "0.2", env=env).err


@pytest.mark.parametrize("options", [(), ("--live",), ("--json",)])
def test_a_configuration_without_a_main_route_is_an_error(tmp_path: Path, options: tuple[str, ...]) -> None:
    """There is nothing to ask: exit code 2, and words instead of a crash."""
    config = tmp_path / "c.toml"
    config.write_text("[defaults]\ntimeout = 20\n")
    done = sidestream("ask", "hi", *options, env={"SIDESTREAM_CONFIG": str(config)})
    assert done.code == 2
    assert "error: no model is chosen" in done.err
