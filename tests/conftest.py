"""What all tests share: one seed for a whole run, printed wherever something fails.

The seed is `SEED`, so that a run says the same today and tomorrow. `--hypothesis-seed=N` takes another, for
hypothesis and the `rng` fixture alike, and `--hypothesis-seed=new` one that nobody has tried yet. Profiles:
"default" for people, "ci" (HYPOTHESIS_PROFILE=ci) for more examples.
"""

import os
import random
import threading
import time
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from sidestream import drivers
from sidestream.recovery.origins import Origins
from sidestream.recovery.queues import Queues

SEED = 20_261_122
_COMMON = {
    "deadline": None,
    "derandomize": False,
    "print_blob": True,
    "suppress_health_check": [HealthCheck.too_slow],
}
settings.register_profile("default", max_examples=60, database=None, **_COMMON)
settings.register_profile("ci", max_examples=300, database=None, **_COMMON)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    given = config.getoption("hypothesis_seed", None)
    new = random.SystemRandom().randrange(1, 2**32)
    config.option.hypothesis_seed = str(new if given == "new" else given or SEED)


def pytest_report_header(config: pytest.Config) -> str:
    return f"seed: --hypothesis-seed={config.option.hypothesis_seed}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    report = yield
    if report.failed:
        report.sections.append(
            ("seed", f"repeat with --hypothesis-seed={item.config.option.hypothesis_seed}")
        )
    return report


@pytest.fixture(autouse=True)
def fresh_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a process knows of its endpoints does not travel from test to test, nor does a person's own
    configuration get into one."""
    monkeypatch.setattr(drivers, "PROCESS", Origins(time.monotonic, lock=threading.RLock()))
    monkeypatch.setattr(drivers, "TURNS", Queues(lock=threading.RLock()))
    monkeypatch.setenv("SIDESTREAM_CONFIG", "")


@pytest.fixture
def rng(request: pytest.FixtureRequest) -> random.Random:
    """Random numbers that a run's seed and the test's own name decide."""
    return random.Random(f"{request.config.option.hypothesis_seed} {request.node.nodeid}")
