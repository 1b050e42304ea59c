"""A cold start: what a process pays before its first answer, over a bare interpreter of the same environment.

    python bench/cold.py [--size smoke|short|full] [--json FILE]
    python bench/cold.py --modules          # what `sidestream.Client(...)` imports, dearest first

Three stages of one fresh process: the import, a client made (ready to send; nothing is sent), the first
answer, which a local sender (`source`) gives in one write. The process says at each what its clocks show, so
that its end does not count. Starts are interleaved in rounds; one before them, which writes bytecode, is not
counted. No time is ever asserted.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import peers
from check import interpreter
from ratios import markdown, spread
from sizes import Size, Target, parser, write
from source import Source

NAME = "cold"
STAGES = ("import", "ready", "answer")
LIMIT = 120.0  # seconds of a process; one that needs more hangs
SHOWN = 20  # modules
_SAY = "print(_t.monotonic(), _t.process_time(), flush=True)"
_BARE = f"import time as _t\n{_SAY}"


@dataclass(frozen=True)
class Start:
    """How a program begins with a library, in three statements. `URL` is where its model is.

    Attributes:
        name: as it stands in the table.
        imports, ready, answer: the stages.
        environment: the lock file it is installed from; "" is `.venv` itself.
    """

    name: str
    imports: str
    ready: str
    answer: str
    environment: str = ""

    @property
    def python(self) -> Path:
        return interpreter(self.environment) if self.environment else Path(sys.executable)

    def program(self, url: str) -> str:
        stages = (self.imports, self.ready, self.answer)
        said = "".join(f"{stage}\n{_SAY}\n" for stage in stages)
        return f"import time as _t\nURL = {url!r}\n{said}"


_ASKED = "model='lab-1', input='hi', stream=True"
_TURNS = "model='lab-1', messages=[{'role': 'user', 'content': 'hi'}], stream=True"
_ROUTE = "URL, api_key='k-0001', model='lab-1', wire='responses'"
STARTS = (
    Start(
        "sidestream",
        "import sidestream",
        f"client = sidestream.Client({_ROUTE})",
        "client.complete('hi')",
    ),
    Start(
        "sidestream async",
        "import asyncio, sidestream",
        f"client = sidestream.AsyncClient({_ROUTE})",
        "asyncio.run(client.complete('hi'))",
    ),
    Start(
        "sidestream under openai",
        "import openai, sidestream",
        "client = sidestream.wrap(openai.OpenAI(base_url=URL, api_key='k-0001'))",
        f"for _ in client.responses.create({_ASKED}): pass",
    ),
    Start(
        "raw httpx2",
        "import json, httpx2",
        "client = httpx2.Client()",
        "with client.stream('POST', URL + '/responses', json={'stream': True}) as response:\n"
        "    for line in response.iter_lines():\n"
        "        if line.startswith('data: '): json.loads(line[6:])",
    ),
    Start(
        "openai",
        "import openai",
        "client = openai.OpenAI(base_url=URL, api_key='k-0001')",
        f"for _ in client.responses.create({_ASKED}): pass",
    ),
    Start(
        "anthropic",
        "import anthropic",
        "client = anthropic.Anthropic(base_url=URL.removesuffix('/v1'), api_key='k-0001')",
        f"for _ in client.messages.create(max_tokens=64, {_TURNS}): pass",
    ),
    Start(
        "langchain-openai",
        "from langchain_openai import ChatOpenAI",
        "llm = ChatOpenAI(model='lab-1', base_url=URL, api_key='k-0001')",
        "for _ in llm.stream('hi'): pass",
        "frameworks",
    ),
    Start(
        "pydantic-ai",
        "from pydantic_ai import Agent\n"
        "from pydantic_ai.models.openai import OpenAIChatModel\n"
        "from pydantic_ai.providers.openai import OpenAIProvider",
        "model = OpenAIChatModel('lab-1', provider=OpenAIProvider(base_url=URL, api_key='k-0001'))\n"
        "agent = Agent(model)",
        "with agent.run_stream_sync('hi') as result:\n    for _ in result.stream_text(): pass",
        "frameworks",
    ),
    Start(
        "litellm",
        "import litellm",
        "",
        "for _ in litellm.completion(\n"
        f"    api_base=URL, api_key='k-0001', {_TURNS.replace('lab-1', 'openai/lab-1')}\n"
        "): pass",
        "litellm",
    ),
)
SMOKED = ("sidestream", "openai")
ROUNDS: dict[Size, int] = {"smoke": 1, "short": 5, "full": 10}


def measure(size: Size) -> dict[str, Any]:
    """Wall and CPU seconds of each start's stages, and of a bare interpreter of each environment."""
    wanted = [start for start in STARTS if size != "smoke" or start.name in SMOKED]
    with Source(events=20) as source:
        failed = {start.name: words for start in wanted if (words := wrong(start, source.url))}
        starts = [start for start in wanted if start.name not in failed]
        bare = {start.environment: start.python for start in starts}
        record: dict[str, Any] = {
            "rounds": ROUNDS[size],
            "starts": {start.name: _words(start) for start in starts},
            "failed": failed,
            "bare": {environment: [] for environment in bare},
            "stages": {start.name: {stage: [] for stage in STAGES} for start in starts},
        }
        for number in range(ROUNDS[size]):
            print(f"{NAME}: round {number + 1} of {ROUNDS[size]}", file=sys.stderr, flush=True)
            for environment, python in bare.items():
                record["bare"][environment] += begun(python, _BARE)
            for start in starts:
                for stage, told in zip(STAGES, begun(start.python, start.program(source.url)), strict=True):
                    record["stages"][start.name][stage].append(told)
    return record


def wrong(start: Start, url: str) -> str:
    """Why it cannot be measured, or "". Writes its bytecode."""
    if not start.python.exists():
        return "its environment is missing"
    try:
        list(begun(start.python, start.program(url)))
    except subprocess.SubprocessError as error:
        if "sidestream" in start.imports:
            raise
        return str(error).rpartition("' ")[2]
    return ""


def _words(start: Start) -> dict[str, str]:
    return {
        "environment": start.environment,
        "import": start.imports,
        "ready": start.ready,
        "answer": start.answer,
    }


def begun(python: Path, program: str) -> Iterator[dict[str, float]]:
    """Run a program; the seconds that had passed at each line it says, and the CPU it had used."""
    at = time.monotonic()
    command = [str(python), "-c", program]
    done = subprocess.run(
        command, check=True, stdout=subprocess.PIPE, text=True, env=peers.surroundings(), timeout=LIMIT
    )
    for line in done.stdout.splitlines():
        wall, cpu = map(float, line.split())
        yield {"wall": wall - at, "cpu": cpu}


# What is made of a record.


def net(record: dict[str, Any], name: str, stage: str, clock: str = "wall") -> list[float]:
    """Milliseconds of each round above the bare interpreter's median."""
    bare = median(told[clock] for told in record["bare"][record["starts"][name]["environment"]])
    return [1000 * (told[clock] - bare) for told in record["stages"][name][stage]]


def targets(record: dict[str, Any]) -> list[Target]:
    return [
        Target("`import sidestream`, ms net", 25, median(net(record, "sidestream", "import"))),
        Target(
            "first call ready, ms net: `sidestream.Client(…)`",
            150,
            median(net(record, "sidestream", "ready")),
        ),
    ]


def tables(record: dict[str, Any]) -> str:
    """A row for each library."""
    heads = ["", *(cell for stage in STAGES for cell in (f"{stage}: ms", "CPU"))]
    rows = (
        [name, *(cell for stage in STAGES for cell in _cells(record, name, stage))]
        for name in record["starts"]
    )
    bare = (
        f"{1000 * median(told['wall'] for told in figures):.0f} ms in `{environment or '.venv'}`"
        for environment, figures in record["bare"].items()
    )
    told = [_WORDS.format_map(record) + ", ".join(bare) + ".", markdown(heads, rows)]
    told += [f"Not measured: {name}, {words}." for name, words in record["failed"].items()]
    return "\n\n".join([*told, "\n".join(_used(record))])


_WORDS = """\
Milliseconds from the start of a process until a library is imported, its client made (ready to send), its
first answer read: what is added to a bare interpreter of the same environment, by the clock (quartiles) and
in CPU. Medians of {rounds} interleaved rounds; bytecode is there. Bare: """


def _cells(record: dict[str, Any], name: str, stage: str) -> tuple[str, str]:
    return spread(net(record, name, stage), ".0f"), f"{median(net(record, name, stage, 'cpu')):.0f}"


def _used(record: dict[str, Any]) -> Iterator[str]:
    yield "The statements:\n"
    for name, words in record["starts"].items():
        stages = (" ⏎ ".join(words[stage].splitlines()) for stage in STAGES)
        yield f"- {name}: {'; '.join(f'`{stage}`' for stage in stages if stage)}"


# What costs most.


def modules(start: Start) -> list[tuple[float, str]]:
    """Milliseconds each module's own import takes, dearest first."""
    program = f"URL = 'http://127.0.0.1:9/v1'\n{start.imports}\n{start.ready}"
    command = [str(start.python), "-X", "importtime", "-c", program]
    done = subprocess.run(
        command, check=True, capture_output=True, text=True, env=peers.surroundings(), timeout=LIMIT
    )
    lines = (line.removeprefix("import time:").split("|") for line in done.stderr.splitlines()[1:])
    return sorted(((int(line[0]) / 1000, line[2].strip()) for line in lines if len(line) == 3), reverse=True)


def listed(found: Iterable[tuple[float, str]]) -> str:
    return "\n".join(f"{own:8.2f} ms  {name}" for own, name in found)


def main() -> int:
    options = parser(__doc__)
    options.add_argument("--modules", action="store_true", help="only what sidestream's client imports")
    given = options.parse_args()
    if given.modules:
        print(listed(modules(STARTS[0])[:SHOWN]))
        return 0
    record = measure(given.size)
    if given.json:
        write(record, given.json)
    print(tables(record))
    return 0


if __name__ == "__main__":
    sys.exit(main())
