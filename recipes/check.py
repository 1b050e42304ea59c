#!/usr/bin/env python3
"""Run every recipe against a lab that breaks its stream, with sidestream and without: what came of it?

    python recipes/check.py [--install] [--write] [RECIPE ...]

A recipe runs as it stands, as a process of its own in the environment of its framework; only the address and
a key are given to it. Its first answer is cut within a text or a tool call, or ends there as if it were
whole, or every connection is closed; each with sidestream and without. With it the output must be exact and
the lab must have seen the request that brought it back. What the frameworks do by themselves is in the tables
of docs/recipes.md, which are compared too, as are the recipes printed there; `--write` writes them anew.
`--install` makes the two environments in `.cache` from the lock files.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from sidestream.lab import Continuing, Fault, Lab, Plan, Request, Script, script

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
PAGE = ROOT / "docs" / "recipes.md"
BIN = "Scripts" if os.name == "nt" else "bin"
SECONDS = 300.0  # after this a recipe hangs

TEXT = (
    "Glomma runs through Norway. The Amazon carries more water than any other river. The Nile is long, and "
    "its delta has fed people for five thousand years. Each of them reaches the sea."
)
ARGUMENTS = json.dumps({"city": "Oslo", "unit": "celsius"})
TOOL = "tool: Oslo, celsius\n"
OBJECT = "city='Oslo' unit='celsius'"


@dataclass(frozen=True)
class Recipe:
    """What a recipe prints, and how it asks.

    Attributes:
        output: what it prints when all is well.
        steps: requests without a fault.
        at: the event after which its first answer breaks: within the text, or the call's arguments.
        whole: without sidestream it asks for no stream.
        alone: its layers ask again by themselves, at the full price.
        environment: under `.cache`, and the lock file under `requirements`.
    """

    output: str
    steps: int = 1
    at: int = 14
    whole: bool = False
    alone: bool = False
    environment: str = "frameworks"


OLDER = "frameworks-older"
RECIPES = {
    "langchain_chat": Recipe(TEXT),
    "langchain_messages": Recipe("7 degrees celsius in Oslo", at=6),
    "pydantic_ai_chat": Recipe(TEXT),
    "pydantic_ai_responses": Recipe(TOOL + TEXT, steps=2, at=6, whole=True),
    "pydantic_ai_messages": Recipe(TEXT),
    "openai_agents_chat": Recipe(TEXT),
    "openai_agents_responses": Recipe(TOOL + TEXT, steps=2, at=6),
    "instructor_chat": Recipe(OBJECT, at=6, environment=OLDER),
    "instructor_messages": Recipe(OBJECT, at=6, whole=True, alone=True, environment=OLDER),
    "litellm_chat": Recipe(f"get_weather {json.loads(ARGUMENTS)}", at=6, environment=OLDER),
    "litellm_messages": Recipe(TEXT, environment=OLDER),
}


@dataclass(frozen=True)
class Outcome:
    """What came of a run.

    Attributes:
        output: what it printed.
        raised: the type of the exception that ended it, if one did.
        kept: the attempts that `last_call` finds on that exception; None if it finds no call.
        requests: how many the lab saw.
        stderr: the rest of what it said.
    """

    output: str
    raised: str
    kept: int | None
    requests: int
    stderr: str


def answer(request: Request) -> Script:
    """The model: calls the tool it is offered; once the tool has answered, or without one, it talks."""
    fields = request.fields()
    turns = json.dumps(fields.get("messages") or fields.get("input"))
    if not fields.get("tools") or "degrees" in turns:
        return Continuing(TEXT)(request)
    tool = fields["tools"][0]
    name = tool.get("name") or tool["function"]["name"]
    if request.wire == "chat":
        stream = script.chat_call(name, ARGUMENTS, tokens=8)
    else:
        make = script.responses if request.wire == "responses" else script.messages
        stream = make(script.call(name, ARGUMENTS, tokens=8))
    return script.as_asked(stream, request)


def run(name: str, plan: Plan, *, wrapped: bool) -> Outcome:
    """Run a recipe against a lab of its own."""
    python = interpreter(RECIPES[name].environment)
    with tempfile.TemporaryDirectory() as folder, Lab(answer, plan=plan) as lab:
        told = Path(folder) / "note.json"
        done = subprocess.run(
            [python, HERE / f"{name}.py"],
            env=surroundings(lab, told, wrapped=wrapped),
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
        error = json.loads(told.read_text()) if told.exists() else {}
        requests = len(lab.requests)
    raised = error.get("type", "" if done.returncode == 0 else f"exit code {done.returncode}")
    return Outcome(done.stdout.strip(), raised, error.get("kept"), requests, done.stderr)


def surroundings(lab: Lab, told: Path, *, wrapped: bool) -> dict[str, str]:
    """Where the provider is, as every framework reads it; and nothing from the network."""
    secret = "no-key"  # noqa: S105  (the lab wants none)
    passed = {key: os.environ[key] for key in ("PATH", "HOME", "SYSTEMROOT", "TEMP") if key in os.environ}
    return {
        **passed,
        "OPENAI_BASE_URL": lab.url,
        "OPENAI_API_KEY": secret,
        "ANTHROPIC_BASE_URL": lab.url.removesuffix("/v1"),
        "ANTHROPIC_API_KEY": secret,
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",  # it would fetch its price list
        "LANGSMITH_TRACING": "false",
        "PYTHONPATH": str(HERE / "shim"),
        "PYTHONDONTWRITEBYTECODE": "",
        "SIDESTREAM_NOTE": str(told),
        **({} if wrapped else {"SIDESTREAM_OFF": "1"}),
    }


@dataclass(frozen=True)
class Case:
    """One run of a recipe."""

    recipe: str
    column: str
    wrapped: bool

    @property
    def plan(self) -> Plan:
        recipe = RECIPES[self.recipe]
        if self.column == "never":
            return Plan.always(Fault.close())
        if recipe.whole and not self.wrapped:  # a JSON body is one piece
            return Plan([Fault.cut(at_byte=150) if self.column == "cut" else Fault.end(at_byte=150)])
        kind = Fault.cut if self.column == "cut" else Fault.end
        return Plan([kind(after_event=recipe.at)])

    def run(self) -> Outcome:
        return run(self.recipe, self.plan, wrapped=self.wrapped)


COLUMNS = ("cut", "end", "never")


def cases(names: list[str]) -> list[Case]:
    return [Case(n, column, wrapped) for n in names for column in COLUMNS for wrapped in (True, False)]


def wrongs(case: Case, outcome: Outcome) -> list[str]:
    """What a run with sidestream did not keep of its promise."""
    recipe = RECIPES[case.recipe]
    if case.column == "never":
        wrong = [] if outcome.raised and outcome.kept else ["it gave up, and last_call does not know of it"]
        shown = [word for word in ("Glomma", "Oslo") if word in outcome.output]
        return wrong + [f"it printed {word!r} of an answer that never came" for word in shown]
    wrong = [] if outcome.output == recipe.output else [f"it printed {outcome.output!r}"]
    if outcome.requests != recipe.steps + 1:
        wrong.append(f"the lab saw {outcome.requests} requests, not {recipe.steps + 1}")
    return wrong


def words(case: Case, outcome: Outcome) -> str:
    """A run in the table."""
    recipe = RECIPES[case.recipe]
    asked = f"{outcome.requests} request{'s' * (outcome.requests != 1)}"
    if case.column == "never":
        return asked
    if outcome.output == recipe.output and not outcome.raised:
        return f"whole, {asked}" + (f" ({recipe.steps} without the fault)" if recipe.steps > 1 else "")
    if not outcome.raised:
        return f"**{len(outcome.output)} of {len(recipe.output)} characters, no error**"
    return f"`{outcome.raised}`" + (f", {asked}" if outcome.requests > 1 else "")


def table(outcomes: dict[Case, Outcome]) -> str:
    """Each recipe after one break."""
    rows = ["| recipe | the first answer is | with sidestream | without |", "|---|---|---|---|"]
    for name in RECIPES:
        for column, said in (("cut", "cut"), ("end", "ended early, as if it were whole")):
            on, off = (Case(name, column, wrapped) for wrapped in (True, False))
            rows.append(f"| `{name}` | {said} | {words(on, outcomes[on])} | {words(off, outcomes[off])} |")
    return "\n".join(rows) + "\n"


def failures(outcomes: dict[Case, Outcome]) -> str:
    """Each recipe where nothing helps."""
    rows = [
        "| recipe | requests | exception | requests without | exception without |",
        "|---|---|---|---|---|",
    ]
    for name in RECIPES:
        on, off = (outcomes[Case(name, "never", wrapped)] for wrapped in (True, False))
        rows.append(f"| `{name}` | {on.requests} | `{on.raised}` | {off.requests} | `{off.raised}` |")
    return "\n".join(rows) + "\n"


# The page.


def page(text: str, tables: dict[str, str]) -> str:
    """docs/recipes.md with the recipes and these tables, as they are now."""
    for name in RECIPES:
        code = (HERE / f"{name}.py").read_text(encoding="utf-8")
        text = between(text, name, f"```py\n{code}```\n")
    for name, made in tables.items():
        text = between(text, name, made)
    return text


def between(text: str, name: str, content: str) -> str:
    start, end = f"<!-- {name} -->\n", f"<!-- /{name} -->"
    if text.count(start) != 1 or text.count(end) != 1:
        raise SystemExit(f"error: docs/recipes.md has no place for {name}")
    return text.partition(start)[0] + start + content + end + text.partition(end)[2]


# The environments.


def interpreter(environment: str) -> Path:
    return ROOT / ".cache" / environment / BIN / ("python.exe" if os.name == "nt" else "python")


def install(environment: str) -> None:
    """Make an environment from its lock file, unless it is there and unchanged."""
    folder = ROOT / ".cache" / environment
    lock = ROOT / "requirements" / f"{environment}.txt"
    state = lock.read_bytes() + sys.version.encode()
    stamp, digest = folder / "sidestream-stamp", hashlib.sha256(state).hexdigest()
    if stamp.exists() and stamp.read_text() == digest:
        return
    print(f"installing {lock.relative_to(ROOT)}", file=sys.stderr)
    subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
    pip = [
        interpreter(environment),
        "-m",
        "pip",
        "--disable-pip-version-check",
        "--no-input",
        "install",
        "-q",
    ]
    # Lock files are complete: nothing is left for pip to look for, or to argue with.
    subprocess.run([*pip, "--no-deps", "--require-hashes", "--only-binary", ":all:", "-r", lock], check=True)
    subprocess.run([*pip, "--no-deps", "--no-build-isolation", "-e", ROOT], check=True)
    stamp.write_text(digest)


def main() -> int:
    parser = argparse.ArgumentParser(description="Run the recipes against a lab that breaks their streams.")
    parser.add_argument(
        "recipes", nargs="*", metavar="RECIPE", help="only these; the tables are not compared"
    )
    parser.add_argument("--install", action="store_true", help="make the environments first")
    parser.add_argument("--write", action="store_true", help="write docs/recipes.md anew")
    options = parser.parse_args()
    if unknown := set(options.recipes) - set(RECIPES):
        parser.error(f"no recipe named {min(unknown)}; one of {', '.join(RECIPES)}")
    if options.install:
        for environment in sorted({recipe.environment for recipe in RECIPES.values()}):
            install(environment)
    return check(options.recipes or list(RECIPES), write=options.write)


def check(names: list[str], *, write: bool) -> int:
    failed = 0
    wanted = cases(names)
    outcomes: dict[Case, Outcome] = {}
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        for case, outcome in zip(wanted, pool.map(Case.run, wanted), strict=True):
            outcomes[case] = outcome
            wrong = wrongs(case, outcome) if case.wrapped else []
            side = "sidestream" if case.wrapped else "bare"
            print(f"{case.recipe:24} {case.column:6} {side:11} {words(case, outcome)}", flush=True)
            for text in wrong:
                failed += 1
                print(f"  WRONG: {text}\n{outcome.stderr[-2000:]}", flush=True)
    for name in names:
        bare = [outcomes[Case(name, column, wrapped=False)].output for column in ("cut", "end")]
        if all(output == RECIPES[name].output for output in bare) != RECIPES[name].alone:
            failed += 1
            print(f"WRONG: without sidestream, {name} does not do what is said of it")
    now = PAGE.read_text(encoding="utf-8")
    every = len(names) == len(RECIPES)
    fresh = page(now, {"table": table(outcomes), "failures": failures(outcomes)} if every else {})
    if write:
        PAGE.write_text(fresh, encoding="utf-8")
    elif fresh != now:
        failed += 1
        print("WRONG: docs/recipes.md is not what was seen; recipes/check.py --write")
    print(f"{len(wanted) - failed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
