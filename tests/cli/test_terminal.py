"""What a person sees: on a real terminal of any width, without colour, after Ctrl-C, and in the ledger."""

from __future__ import annotations

import os
import re
import signal
import sys
from dataclasses import replace
from typing import Any

import pytest
from commands import CANARY, Done, on_terminal, process, wait_for

from sidestream.cli.ledger import ledger
from sidestream.cli.terminal import printable
from sidestream.lab import Fault, Lab, Plan, Script, script
from sidestream.reply import Attempt

terminal = pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo terminal")
TEXT = "The quick brown fox jumps over the lazy dog."
COLOUR = re.compile(r"\x1b\[[0-9;]*3[0-9][0-9;]*m")
OTHER = script.chat_text("Ein schneller brauner Fuchs springt.")


def ask(answers: Script | list[Script], *options: str, plan: Plan | None = None, **others: Any) -> Done:
    with Lab(answers, plan=plan) as lab:
        arguments = ("ask", "hi", "--model", "m", "--base-url", lab.url, *options)
        return on_terminal(*arguments, **others)


def plain(screen: str) -> str:
    """The screen's text without what only moves or colours."""
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", screen)


@terminal
def test_the_answer_is_live_and_survives_a_cut() -> None:
    """On a terminal text comes at once; a cut is told between two lines and the text goes on where it was."""
    done = ask(script.chat_text(TEXT, pace=0.02), plan=Plan([Fault.cut(after_event=5)]))
    screen = plain(done.out)
    assert done.code == 0
    assert "The quick brown fox\n✂ " in screen
    assert re.search(r"\n↻ [^\n]*\n jumps over the lazy dog.\nattempt  route", screen)


@terminal
@pytest.mark.parametrize("options", [(), ("--quiet",)])
def test_a_restart_is_unmistakable(options: tuple[str, ...]) -> None:
    """If the answer begins anew, a line of its own says that what stands above is void, even when quiet."""
    answers = [script.chat_text(TEXT), OTHER]
    done = ask(answers, *options, plan=Plan([Fault.cut(after_event=5)]), env={"NO_COLOR": "1"})
    lines = plain(done.out).splitlines()
    void = next(
        number for number, line in enumerate(lines) if line.startswith("━━━━ what stands above is void")
    )
    assert done.code == 0
    assert lines[void + 1] == "━━━━ the answer begins anew:"
    assert lines[void + 2] == "Ein schneller brauner Fuchs springt."


@terminal
def test_no_colour_where_none_is_wanted() -> None:
    """NO_COLOR leaves no colour on the screen; without it there is some."""
    plan = Plan([Fault.cut(after_event=5)])
    assert COLOUR.search(ask(script.chat_text(TEXT), plan=plan).out)
    assert not COLOUR.search(ask(script.chat_text(TEXT), plan=plan, env={"NO_COLOR": "1"}).out)


@terminal
def test_a_dumb_terminal_gets_no_animation() -> None:
    """TERM=dumb gets words only."""
    done = ask(script.chat_text(TEXT), env={"TERM": "dumb"})
    assert (done.code, "\x1b" in done.out) == (0, False)


@terminal
def test_a_provider_cannot_steer_the_terminal() -> None:
    """Escapes, control characters and direction overrides from a provider do not reach the screen."""
    evil = "\x1b]0;title\x07\x1b[2J\x9b31mred\u202egnp.exe \u2066x\x08\x7f"
    done = ask(script.chat_text(evil), "--quiet", env={"TERM": "dumb"})
    assert plain(done.out) == "]0;title[2J31mredgnp.exe x\n"
    refused = ask(script.error(400, {"error": {"message": f"no {evil}"}}), env={"TERM": "dumb"})
    assert not set("\x1b\x07\x9b\u202e\u2066\x08\x7f") & set(refused.out)


@terminal
@pytest.mark.parametrize("columns", [40, 60, 200])
def test_the_ledger_fits_the_terminal(columns: int) -> None:
    """However narrow the terminal, no line of the ledger is longer, from 60 columns on."""
    done = ask(script.chat_text(TEXT), "--held", plan=Plan([Fault.cut(after_event=5)]), columns=columns)
    lines = plain(done.out).splitlines()
    table = lines[next(n for n, line in enumerate(lines) if line.startswith("attempt")) : -1]
    assert done.code == 0
    assert len(table) >= 4
    assert columns < 60 or max(map(len, table)) <= columns


@terminal
def test_ctrl_c_while_waiting() -> None:
    """Ctrl-C before the first word ends in one word and exit code 130."""
    done = ask(OTHER, plan=Plan.always(Fault.hang()), type_when={"waiting for m": b"\x03"})
    assert done.code == 130
    assert plain(done.out).splitlines()[-1] == "stopped"
    assert "Traceback" not in done.out


@terminal
def test_ctrl_c_in_mid_answer() -> None:
    """Ctrl-C in the middle of an answer leaves what was shown and ends with exit code 130."""
    done = ask(
        script.chat_text(TEXT), plan=Plan.always(Fault.stall(after_event=4)), type_when={"brown": b"\x03"}
    )
    assert done.code == 130
    assert "The quick brown" in plain(done.out)
    assert plain(done.out).splitlines()[-1] == "stopped"


@terminal
def test_ctrl_c_during_a_backoff() -> None:
    """Ctrl-C while waiting to ask again ends the wait."""
    later = script.error(429, "later", headers={"Retry-After": "60"})
    done = ask(later, type_when={"↻ restart": b"\x03"}, timeout=20)
    assert done.code == 130
    assert plain(done.out).splitlines()[-1] == "stopped"


@terminal
def test_nothing_to_ask_on_a_terminal() -> None:
    """Without a question a terminal is not read: the error shows one."""
    done = on_terminal("ask", env={"SIDESTREAM_API_KEY": CANARY})
    assert done.code == 2
    assert "there is nothing to ask" in done.out
    assert 'sidestream ask "Why is the sky blue?"' in done.out


@pytest.mark.skipif(os.name != "posix", reason="POSIX signals")
def test_sigterm_closes_the_connection() -> None:
    """SIGTERM ends a call as Ctrl-C does, with exit code 143."""
    with Lab(OTHER, plan=Plan.always(Fault.hang())) as lab:
        with process("ask", "hi", "--model", "m", "--base-url", lab.url) as child:
            wait_for(lambda: bool(lab.requests))
            child.send_signal(signal.SIGTERM)
            out, err = child.communicate(timeout=20)
        lab.wait_closed(0)
    assert (child.returncode, out, err.split()) == (143, "", ["stopped"])


def test_printable_keeps_text() -> None:
    """Text of every script, emoji with joiners, line ends and tabs stay as they are."""
    text = "naïve 数据 עברית العربية 👩\u200d💻 ~\n\t|"
    assert printable(text) == text


def test_printable_takes_what_a_terminal_obeys() -> None:
    """No control character of either block, no direction override and no lone surrogate is left."""
    evil = [*range(32), *range(0x7F, 0xA0), 0x061C, 0x200E, 0x202E, 0x2066, 0x2069, 0xD800]
    assert printable("".join(map(chr, evil))) == "\t\n"


# The ledger.

DROPPED = Attempt("127.0.0.1:8080/some-model", "send", "dropped", tokens=5, seconds=0.123)
WHOLE = Attempt(
    "127.0.0.1:8080/some-model", "restart", "complete", tokens=9, kept=9, confidence="reported", seconds=1
)
UNKNOWN = replace(DROPPED, tokens=None, confidence="unknown")


def test_ledger_rows() -> None:
    """One row per attempt and one for all; what is estimated is marked, zero never is."""
    assert ledger([DROPPED, WHOLE]) == [
        "attempt  route                      rung     ended     tokens  kept  wasted  seconds",
        "1        127.0.0.1:8080/some-model  send     dropped       ~5     0      ~5     0.12",
        "2        127.0.0.1:8080/some-model  restart  complete       9     9       0     1.00",
        "all                                                       ~14     9      ~5     1.12",
        "~ estimated from the text, four characters to a token",
    ]


def test_ledger_of_one_attempt_needs_no_sum() -> None:
    """A single attempt is one row."""
    assert len(ledger([WHOLE])) == 2
    assert ledger([]) == []


def test_ledger_shortens_the_route_first() -> None:
    """In a narrow place the route is cut, and everything else stays."""
    lines = ledger([DROPPED, WHOLE], 72)
    assert max(map(len, lines)) == 72
    assert "127.0.0.1:80…  send" in lines[1]


def test_ledger_in_words() -> None:
    """Where no table fits, each attempt is a line of words."""
    assert ledger([DROPPED, WHOLE], 40) == [
        "attempts:",
        "1 send → dropped, 0 of ~5 tokens kept, 0.12 s",
        "2 restart → complete, 9 of 9 tokens kept, 1.00 s",
        "all, 9 of ~14 tokens kept, 1.12 s",
        "~ estimated from the text, four characters to a token",
    ]


def test_ledger_says_what_nobody_knows() -> None:
    """Unknown tokens are no zero: the row says "?", the sum that it is the least there was."""
    lines = ledger([UNKNOWN, WHOLE])
    assert lines[1].split()[4:] == ["?", "0", "?", "0.12"]
    assert lines[3].split() == ["all", "≥9", "9", "≥0", "1.12"]
    assert lines[4:] == ["? nobody knows", "≥ without what nobody knows"]
    assert ledger([UNKNOWN, WHOLE], 40)[1] == "1 send → dropped, 0 of ? tokens kept, 0.12 s"


def test_ledger_shows_rereading_and_cost_where_there_is_some() -> None:
    """Prompt tokens read again and money have a column as soon as one exchange has a figure."""
    again = replace(WHOLE, reread=80, cost=0.00123)
    head, first, second, both, *notes = ledger([DROPPED, again])
    assert head.split()[4:] == ["tokens", "kept", "wasted", "reread", "cost", "seconds"]
    assert first.split()[-3:] == ["0", "?", "0.12"]
    assert second.split()[-3:] == ["80", "0.0012", "1.00"]
    assert both.split()[-3:] == ["80", "≥0.0012", "1.12"]
    assert [note[0] for note in notes] == ["~", "?", "≥"]
    assert ", 9 of 9 tokens kept, reread 80, cost 0.0012, 1.00 s" in ledger([DROPPED, again], 40)[2]
