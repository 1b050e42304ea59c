"""The SDKs' own streaming tests, bare and with sidestream under every client.

    python tests/transport/sdk_suites.py                    both SDKs, as a table
    python tests/transport/sdk_suites.py --sdk anthropic    one of them
    python tests/transport/sdk_suites.py --check            fails if a test passes bare only, unlisted
    python tests/transport/sdk_suites.py --json FILE        all results

Strategy: the tests come from the SDKs' source distributions, the SDKs and what their tests need from
`requirements/suites.txt`, all hash-checked, into `.cache/`. Each chosen file is run twice; the plugin
`sdk_underneath` makes the difference. Tests whose results differ are run again, one after the other, so
that a busy machine is no difference. Which files are chosen, and which tests cannot apply and why, is
written in `sdk_suites.toml`. Only the standard library is used here.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tarfile
import tomllib
import venv
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
CACHE = ROOT / ".cache" / "sdk-suites"
PYTHON = CACHE / "venv" / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
LOCK = ROOT / "requirements" / "suites.txt"
SDISTS = ROOT / "requirements" / "sdists.txt"
SUITES = HERE / "sdk_suites.toml"

Results = dict[str, dict[str, Any]]  # test -> outcome, why, calls


@dataclass(frozen=True)
class Difference:
    """A test that passes bare and does not pass wrapped, or is listed and does."""

    test: str
    reason: str  # why it cannot apply; "" if nobody has said so
    failure: str


@dataclass(frozen=True)
class Verdict:
    """One SDK's figures.

    Attributes:
        watched: tests in which at least one call ran through our flow.
        kept: tests that pass bare and wrapped.
        stale: listed tests that pass wrapped: they apply after all.
        bare_failures: tests that fail without us as well.
    """

    sdk: str
    tests: int
    skipped: int
    bare: int
    wrapped: int
    watched: int
    kept: int
    differences: tuple[Difference, ...]
    stale: tuple[str, ...]
    bare_failures: tuple[str, ...]

    @property
    def holds(self) -> bool:
        return not self.stale and all(difference.reason for difference in self.differences)


def main() -> int:
    parser = argparse.ArgumentParser(description="The SDKs' own streaming tests, with sidestream underneath.")
    parser.add_argument("--sdk", choices=("openai", "anthropic"), help="one of them; default: both")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all results there")
    parser.add_argument("--check", action="store_true", help="fail on a difference that is not listed")
    options = parser.parse_args()
    suites = tomllib.loads(SUITES.read_text())
    names = [options.sdk] if options.sdk else list(suites)
    prepare()
    verdicts = [verdict_of(name, suites[name]) for name in names]
    if options.json:
        options.json.write_text(json.dumps([asdict(verdict) for verdict in verdicts], indent=1))
    sys.stdout.write(f"{table(verdicts)}\n")
    return int(options.check and not all(verdict.holds for verdict in verdicts))


# What is run.


def prepare() -> None:
    """The environment and the source distributions, if they are not there as the locks say."""
    stamp = CACHE / "stamp"
    digest = hashlib.sha256(LOCK.read_bytes() + SDISTS.read_bytes() + str(ROOT).encode()).hexdigest()
    if stamp.exists() and stamp.read_text() == digest:
        return
    stamp.unlink(missing_ok=True)
    say("installing what the SDKs' tests need")
    venv.EnvBuilder(clear=True, with_pip=True, symlinks=os.name == "posix").create(CACHE / "venv")
    pip("install", "--require-hashes", "--only-binary", ":all:", "-r", LOCK)
    pip("install", "--no-deps", "--no-build-isolation", "--editable", ROOT)
    say("fetching the SDKs' source distributions")
    build = ("--no-binary", ":all:", "--no-deps", "--no-build-isolation")
    pip("download", "--require-hashes", *build, "-d", CACHE, "-r", SDISTS)
    for name, version in pinned():
        with tarfile.open(CACHE / f"{name}-{version}.tar.gz") as archive:
            archive.extractall(CACHE, filter="data")
    stamp.write_text(digest)


def pinned() -> list[tuple[str, str]]:
    lines = [line.removesuffix(" \\").split("==") for line in SDISTS.read_text().splitlines() if "==" in line]
    return [(name, version) for name, version in lines]


def pip(*arguments: str | Path) -> None:
    command = [PYTHON, "-m", "pip", "--quiet", "--disable-pip-version-check", *arguments]
    subprocess.run(command, check=True, stdout=sys.stderr)


def run(sdk: str, files: Iterable[str], *, under: bool, workers: int = 2) -> Results:
    """Results of some files or tests, `under` with sidestream."""
    out = CACHE / f"{sdk}-{'under' if under else 'bare'}.json"
    out.unlink(missing_ok=True)
    command: list[str | Path] = [
        PYTHON,
        "-m",
        "pytest",
        *files,
        "-q",
        "-p",
        "sdk_underneath",
        "-p",
        "no:cacheprovider",
    ]
    command += ["-n", str(workers), "--sidestream-sdk", sdk, "--sidestream-results", out]
    command += ["--sidestream-under"] if under else []
    # No settings of this machine, and no proxy between a test and its server.
    clean = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("OPENAI_", "AZURE_", "ANTHROPIC_", "AWS_", "PYTEST_", "SIDESTREAM_"))
        and not name.lower().endswith("_proxy")
    }
    source = CACHE / f"{sdk}-{dict(pinned())[sdk]}"
    clean["PYTHONPATH"] = str(HERE)
    done = subprocess.run(command, cwd=source, env=clean, check=False, capture_output=True, text=True)
    if not out.exists() or done.returncode not in (0, 1):
        sys.exit(f"error: pytest ended with {done.returncode}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}")
    results: Results = json.loads(out.read_text())
    return results


# What came of it.


def verdict_of(sdk: str, suite: Mapping[str, Any]) -> Verdict:
    say(f"{sdk}: bare")
    bare = run(sdk, suite["files"], under=False)
    say(f"{sdk}: with sidestream underneath")
    wrapped = run(sdk, suite["files"], under=True)
    if differing := sorted(set(worse(bare, wrapped)) | set(worse(wrapped, bare))):
        say(f"{sdk}: {len(differing)} tests differ; once more, one after the other")
        bare |= run(sdk, differing, under=False, workers=0)
        wrapped |= run(sdk, differing, under=True, workers=0)
    return judged(sdk, bare, wrapped, suite.get("cannot_apply", {}))


def worse(before: Results, after: Results) -> list[str]:
    """The tests that pass before and do not pass after."""
    return [test for test in passed(before) if after.get(test, {}).get("outcome") != "passed"]


def passed(results: Results) -> list[str]:
    return [test for test, result in results.items() if result["outcome"] == "passed"]


def judged(sdk: str, bare: Results, wrapped: Results, listed: Mapping[str, str]) -> Verdict:
    lost = worse(bare, wrapped)
    return Verdict(
        sdk=sdk,
        tests=len(bare),
        skipped=sum(result["outcome"] == "skipped" for result in bare.values()),
        bare=len(passed(bare)),
        wrapped=len(passed(wrapped)),
        watched=sum(result["calls"] > 0 for result in wrapped.values()),
        kept=len(passed(bare)) - len(lost),
        differences=tuple(
            Difference(test, why_not(test, listed), wrapped.get(test, {}).get("why", "not run"))
            for test in lost
        ),
        stale=tuple(name for name in listed if not any(matches(test, name) for test in lost)),
        bare_failures=tuple(test for test, result in bare.items() if result["outcome"] == "failed"),
    )


def matches(test: str, name: str) -> bool:
    """Whether a listed name means this test: as it is, or without its parameters."""
    return name in (test, test.partition("[")[0])


def why_not(test: str, listed: Mapping[str, str]) -> str:
    return next((reason for name, reason in listed.items() if matches(test, name)), "")


def table(verdicts: Sequence[Verdict]) -> str:
    lines = [
        "| SDK | tests | skip themselves | pass bare | pass wrapped | with watched calls | cannot apply |",
        "| --- | --: | --: | --: | --: | --: | --: |",
    ]
    versions = dict(pinned())
    for one in verdicts:
        known = sum(bool(difference.reason) for difference in one.differences)
        lines.append(
            f"| {one.sdk} {versions[one.sdk]} | {one.tests} | {one.skipped} | {one.bare} | {one.wrapped} "
            f"| {one.watched} | {known} |"
        )
    for one in verdicts:
        lines += ["", *(f"{one.sdk}: fails bare as well: {test}" for test in one.bare_failures)]
        lines += [f"{one.sdk}: {d.test}: {d.reason or 'NOT LISTED'}" for d in one.differences]
        lines += [f"{one.sdk}: {test}: listed, and passes" for test in one.stale]
        for difference in one.differences:
            if not difference.reason:
                lines += ["", difference.test, difference.failure]
    return "\n".join(lines)


def say(text: str) -> None:
    sys.stderr.write(f"{text}\n")


if __name__ == "__main__":
    sys.exit(main())
