"""`sidestream compress`: a shorter conversation in its own format, whole or not at all."""

from __future__ import annotations

import itertools
import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest
from commands import CANARY, SAMPLE, Done, sidestream

from sidestream.lab import Fault, Lab, Plan, script
from sidestream.tasks.compression import load

REPORT = {
    "method", "notice", "met_budget", "budget_chars", "chars_before", "chars_after", "digest_chars",
    "tokens_before", "tokens_after", "messages_before", "messages_after",
}  # fmt: skip
SUMMARY = "Goal: fix the invoice service. It ran out of memory. Next: deploy."


def with_model(lab: Lab, *options: object) -> Done:
    env = {"SIDESTREAM_BASE_URL": lab.url, "SIDESTREAM_MODEL": "m", "SIDESTREAM_API_KEY": CANARY}
    return sidestream("compress", SAMPLE, *options, env=env)


def test_the_result_is_on_stdout_in_the_same_format() -> None:
    """stdout is a conversation that loads again and meets the target; stderr says what was done."""
    done = sidestream("compress", SAMPLE, "--ratio", "0.3")
    assert done.code == 0
    before, after = load(SAMPLE.read_bytes()), load(done.out.encode())
    assert type(after.format) is type(before.format)
    assert after.chars <= 0.3 * before.chars
    note, summary = done.err.splitlines()
    assert note == "no model is chosen: quoting only (extractive)"
    assert summary.startswith("extractive: 34 → ")


def test_stdin_is_a_file_like_any_other() -> None:
    """`-` reads stdin, with the same result."""
    data = SAMPLE.read_bytes()
    assert sidestream("compress", "-", stdin=data).out == sidestream("compress", SAMPLE).out


def test_a_token_target_counts_tokens() -> None:
    """--tokens is met in estimated tokens."""
    report = json.loads(sidestream("compress", SAMPLE, "--tokens", "900", "--json").out)
    assert report["met_budget"]
    assert report["tokens_after"] <= 900


def test_output_goes_to_the_file(tmp_path: Path) -> None:
    """-o writes the file and leaves stdout empty; nothing else is left in the folder."""
    target = tmp_path / "shorter.json"
    done = sidestream("compress", SAMPLE, "-o", target)
    assert (done.code, done.out) == (0, "")
    assert list(tmp_path.iterdir()) == [target]
    assert target.read_text() == sidestream("compress", SAMPLE).out


@pytest.mark.skipif(os.name != "posix", reason="POSIX permissions")
def test_a_new_file_is_its_owners_alone(tmp_path: Path) -> None:
    """A new file can be read by its owner only; an existing one keeps its permissions."""
    new, old = tmp_path / "new", tmp_path / "old"
    old.write_text("before")
    old.chmod(0o644)
    for target in (new, old):
        assert sidestream("compress", SAMPLE, "-o", target).code == 0
    assert [stat.S_IMODE(path.stat().st_mode) for path in (new, old)] == [0o600, 0o644]


@pytest.mark.skipif(os.name != "posix", reason="symbolic links")
def test_a_link_stays_a_link(tmp_path: Path) -> None:
    """Writing through a symbolic link changes the file it leads to."""
    real, link = tmp_path / "real", tmp_path / "link"
    real.write_text("before")
    link.symlink_to(real)
    assert sidestream("compress", SAMPLE, "-o", link).code == 0
    assert link.is_symlink()
    load(real.read_bytes())


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_device_stays_a_device() -> None:
    """A device is written to, never replaced by a file."""
    assert sidestream("compress", SAMPLE, "-o", "/dev/full").code == 2
    assert stat.S_ISCHR(Path("/dev/full").stat().st_mode)
    assert sidestream("compress", SAMPLE, "-o", "/dev/null").code == 0
    assert stat.S_ISCHR(Path("/dev/null").stat().st_mode)


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the disk fills up while writing, the file is the old one and no other is left."""
    target = tmp_path / "kept"
    target.write_text("before")

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    done = sidestream("compress", SAMPLE, "-o", target)
    assert (done.code, target.read_text(), list(tmp_path.iterdir())) == (2, "before", [target])
    assert "No space left" in done.err


def test_json_has_a_stable_schema(tmp_path: Path) -> None:
    """--json prints one line with exactly the documented names, and the output too unless a file got it."""
    whole = sidestream("compress", SAMPLE, "--json")
    short = sidestream("compress", SAMPLE, "--json", "-o", tmp_path / "out")
    assert (whole.err, short.err) == ("", "")
    assert set(json.loads(whole.out)) == REPORT | {"output"}
    assert set(json.loads(short.out)) == REPORT
    assert json.loads(whole.out)["output"] == (tmp_path / "out").read_text()


def test_quiet_is_silent() -> None:
    """--quiet leaves stderr empty."""
    assert sidestream("compress", SAMPLE, "--quiet").err == ""


def test_a_model_writes_the_summary() -> None:
    """With a model configured the middle becomes its summary, recoveries and ledger told on stderr."""
    with Lab(script.chat_text(SUMMARY), plan=Plan([Fault.cut(after_event=4)])) as lab:
        done = with_model(lab)
    assert done.code == 0
    assert "Next: deploy." in done.out
    assert "↻ anchor: asking to go on" in done.err
    assert done.err.splitlines()[-1].startswith("summary: 34 → ")
    assert "attempt  route" in done.err


def test_extractive_asks_no_model() -> None:
    """--extractive sends nothing, whatever is configured."""
    with Lab(script.chat_text(SUMMARY)) as lab:
        done = with_model(lab, "--extractive")
        assert not lab.requests
    assert done.code == 0
    assert done.err.startswith("extractive: ")


def test_prune_only_shortens_tool_output_and_asks_nobody() -> None:
    """As many messages as before, each user's word, no model, no digest."""
    with Lab(script.chat_text(SUMMARY)) as lab:
        done = with_model(lab, "--prune-only", "--ratio", "0.1")
        assert not lab.requests
    before, after = load(SAMPLE.read_bytes()), load(done.out.encode())
    assert done.code == 0
    assert len(after.messages) == len(before.messages)
    assert after.chars < 0.6 * before.chars
    assert done.err.startswith("pruned: 34 → 34 messages")


def test_a_window_lets_the_policy_decide() -> None:
    """Below its threshold nothing is done; above it the policy's shape applies, by quoting or pruning."""
    large = sidestream("compress", SAMPLE, "--window", "200000")
    assert (large.code, large.out.encode()) == (0, SAMPLE.read_bytes())
    assert "tokens are below the threshold of 150,000" in large.err
    small = sidestream("compress", SAMPLE, "--window", "2000", "--extractive")
    assert small.code == 0
    assert load(small.out.encode()).chars < 0.8 * load(SAMPLE.read_bytes()).chars
    assert sidestream("compress", SAMPLE, "--window", "2000", "--ratio", "0.2").code == 2


def test_a_focus_is_told_to_the_model() -> None:
    """--focus names what deserves most of the room."""
    with Lab(script.chat_text(SUMMARY)) as lab:
        assert with_model(lab, "--focus", "the font cache").code == 0
        assert (
            "this topic, as far as the material speaks of it: the font cache" in lab.requests[0].body.decode()
        )


def test_roles_alternate_on_request() -> None:
    """--alternate merges neighbours of one role; without it messages stay as they are."""
    done = json.loads(sidestream("compress", SAMPLE, "--alternate").out)
    roles = [each["role"] for each in done["messages"] if each["role"] != "system"]
    assert not any(one == two != "tool" for one, two in itertools.pairwise(roles))


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (script.error(401, "no"), "did not accept the credential"),
        (script.error(402, "no"), "quota"),
        (script.error(429, "no", headers={"Retry-After": "999"}), "throttling"),
        (script.error(503, "no"), "provider failed"),
    ],
)
def test_every_message_is_kept_when_no_model_answers(answer: Any, reason: str) -> None:
    """Without an answer the conversation comes out untouched, with the reason, the ledger and exit code 6."""
    with Lab(answer) as lab:
        done = with_model(lab)
    assert (done.code, done.out.encode()) == (6, SAMPLE.read_bytes())
    assert "attempt  route" in done.err
    assert reason in done.err.splitlines()[-2]
    assert done.err.splitlines()[-1] == "hint: --extractive needs no model"
    assert CANARY not in done.out + done.err


def configured(folder: Path, *lines: str) -> dict[str, str | None]:
    file = folder / "c.toml"
    file.write_text("\n".join(lines))
    return {"SIDESTREAM_CONFIG": str(file)}


def test_the_clocks_of_the_command_line_win(tmp_path: Path) -> None:
    """--timeout and --first bound the summary whatever the configuration says of the task."""
    with Lab(plan=Plan.always(Fault.hang())) as lab:
        route = ['main = "r"', "[routes.r]", 'model = "m"', 'wire = "chat"', f'base_url = "{lab.url}"']
        env = configured(tmp_path, *route, "[tasks.compression]", "timeout = 0.3")
        assert "timeout.total = 0.3 s" in sidestream("compress", SAMPLE, env=env).err
        assert "timeout.total = 0.1 s" in sidestream("compress", SAMPLE, "--timeout", "0.1", env=env).err
        env = configured(tmp_path, *route, "[tasks.compression]", "first = 0.3", "tries = 1")
        assert "timeout.first = 0.1 s" in sidestream("compress", SAMPLE, "--first", "0.1", env=env).err


def test_a_task_may_have_the_only_route(tmp_path: Path) -> None:
    """A configuration without a main route serves the task that has a route of its own."""
    with Lab(script.say(SUMMARY)) as lab:
        env = configured(
            tmp_path,
            "[routes.r]",
            'model = "m"',
            f'base_url = "{lab.url}"',
            "[tasks.compression]",
            'route = "r"',
        )
        done = sidestream("compress", SAMPLE, env=env)
    assert done.code == 0
    assert "Goal: fix the invoice service" in done.out


def test_a_configuration_without_a_route_quotes_and_says_why(tmp_path: Path) -> None:
    """No route for the task is a reason to quote, and the reason is told."""
    done = sidestream("compress", SAMPLE, env=configured(tmp_path, "[defaults]", "timeout = 20"))
    assert done.code == 0
    assert done.err.splitlines()[0] == "no model is chosen: quoting only (extractive)"
    keyless = ("[routes.r]", 'provider = "openai"', 'model = "m"', 'api_key_env = "NO_SUCH_KEY"')
    done = sidestream("compress", SAMPLE, env=configured(tmp_path, 'main = "r"', *keyless))
    assert done.code == 0
    assert "NO_SUCH_KEY is not set: quoting only (extractive)" in done.err


def test_a_named_model_must_exist() -> None:
    """A model on the command line without a way to reach it is an error, not a reason to quote."""
    done = sidestream("compress", SAMPLE, "--model", "m")
    assert (done.code, done.out) == (2, "")
    assert "OPENAI_API_KEY" in done.err
