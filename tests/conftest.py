"""What the tests share: a tiny corpus of real EDF files, tiny configurations, run logs written by the real writer."""

from __future__ import annotations

import contextlib
import gc
import importlib
import math
import os
import random
import signal
import socket
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import settings

from eegwatch.diagnosis.findings import Finding
from eegwatch.diagnosis.isolation import Isolation
from eegwatch.run.folder import CHECKPOINTS, RUN_LOG
from eegwatch.run.log import AppendLog
from eegwatch.run.records import Eval, Record, Run, Step
from eegwatch.schedule import parse

# as in an activated shell: commands are printed by their names, wherever `make test` was called from
os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
os.environ.setdefault("COLORTERM", "truecolor")
# trainers beside each other on two cores would wait for each other's threads
os.environ.setdefault("OMP_NUM_THREADS", "1")
# hundreds of processes begin here, and each would compile our sources anew: 40 s of a whole run
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# who runs the tests in the background may ignore these, and so would every process that a test starts
for number, handler in (
    (signal.SIGINT, signal.default_int_handler), (signal.SIGTERM, signal.SIG_DFL), (signal.SIGQUIT, signal.SIG_DFL),
):  # fmt: skip
    if signal.getsignal(number) == signal.SIG_IGN:
        signal.signal(number, handler)

# what draws without a seed, and sets of strings, which hashing orders, are the same every time as well
if not os.environ.get("EEGWATCH_FULL"):
    os.environ.setdefault("PYTHONHASHSEED", "0")  # of the workers and of all that tests start
UNSEEDED = 67280421310721  # the seed of torch's generator in a new process
# `make test` tries the same examples every time, so that a red run is about the change; `make test-full` draws them anew
# no example has a time limit: a machine that is shared takes its time
settings.register_profile("same", derandomize=True, deadline=None)
settings.register_profile("anew", deadline=None)
settings.load_profile("anew" if os.environ.get("EEGWATCH_FULL") else "same")
if not os.environ.get("EEGWATCH_FULL"):
    # hypothesis draws numbers that stand in the modules loaded so far: other tests before it, and it draws others
    with contextlib.suppress(ImportError):  # a version that does not
        from hypothesis.internal.conjecture import providers

        if hasattr(providers, "_get_local_constants"):
            providers._get_local_constants = lambda none=providers._local_constants: none

pytest_plugins = ["tests.cpu"]
RESTORED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGXFSZ)  # after each test
ONE_WORKER = ("test_wheel.py", "test_first_frame.py")  # one thing made for all tests of the file
FRAMEWORKS = ("accelerate", "lightning", "transformers")
ONE_CYCLE = {
    "name": "one_cycle",
    "total_steps": 2000,
    "max_lr": 3e-3,
    "pct_start": 0.1,
    "div_factor": 25.0,
    "final_div_factor": 40.0,
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Each worker begins with its share of the end-to-end tests: they wait, and half a minute alone at the end is lost.

    `--dist worksteal` gives each worker an equal piece of the list, and what is left of it to those that are done.
    """
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    dealt = [item for item in items if item.path.parent.name == "e2e" and item.path.name not in ONE_WORKER]
    chosen = set(dealt)
    others = deque(item for item in items if item not in chosen)
    left, items[:] = len(items), []
    for worker in range(workers):
        piece = left // (workers - worker)  # as xdist divides
        share = dealt[worker::workers]
        items += share + [others.popleft() for _ in range(min(piece - len(share), len(others)))]
        left -= piece
    items += others


def pytest_collection_finish() -> None:
    """What torch and its like have brought stays: a collection of garbage need not look at it again."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def own_temporary_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What a killed process leaves behind lies among pytest's folders, of which pytest keeps those of three sessions."""
    folder = str(tmp_path_factory.mktemp("t", numbered=False))
    before = os.environ.get("TMPDIR")
    os.environ["TMPDIR"], tempfile.tempdir = folder, folder
    yield
    tempfile.tempdir = None
    if before is None:
        del os.environ["TMPDIR"]
    else:
        os.environ["TMPDIR"] = before


class lazily:
    """A module that is loaded at its first use, by the workers alone that run a test of it."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # pytest asks each global of a test's file for `__test__` and `__bases__`
            raise AttributeError(name)
        return getattr(importlib.import_module(self._name), name)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol() -> Iterator[Any]:
    """Signals are handled as before the test and its fixtures.

    A trainer that ran in this process ignores SIGINT and SIGTERM, and so would all processes of the tests that follow.
    """
    handlers = {number: signal.getsignal(number) for number in RESTORED}
    result = yield
    for number, handler in handlers.items():
        if signal.getsignal(number) is not handler:
            signal.signal(number, handler)
    return result


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """A test that draws without a seed draws the same, whichever tests ran before it in its process."""
    if os.environ.get("EEGWATCH_FULL"):
        return
    random.seed(0)
    np.random.seed(0)
    if (torch := sys.modules.get("torch")) is not None:
        torch.manual_seed(UNSEEDED)


# tracebacks of detectors that raised in this process: a test that looks at other findings would pass with one missing
detector_failures: list[str] = []


def _call_recorded(
    self: Isolation, detector: str, step: int, ask: Callable[[], list[Finding]], call: Any = Isolation.call
) -> list[Finding]:
    before = len(self.failures)
    findings: list[Finding] = call(self, detector, step, ask)
    if len(self.failures) > before:
        detector_failures.append(self.failures[detector])
    return findings


Isolation.call = _call_recorded  # type: ignore[method-assign]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    """A detector that raised fails the test, unless it is marked `detector_raises`.

    Tests of a framework that is not installed are skipped: `make test-minimum` installs none.
    """
    detector_failures.clear()
    try:
        result = yield
    except ModuleNotFoundError as missing:
        if missing.name in FRAMEWORKS:
            pytest.skip(f"needs {missing.name}")
        raise
    if detector_failures and item.get_closest_marker("detector_raises") is None:
        pytest.fail(f"a detector raised and was switched off: {detector_failures[0]}")
    return result


@pytest.fixture(scope="session")
def tiny_corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 real EDF files with synthetic signals, 20 s each, in TUAB layout."""
    from eegpt_daemon.data.synthetic import make_corpus
    from eegwatch.run.config import Synthetic

    root = tmp_path_factory.mktemp("corpus") / "tiny"
    make_corpus(root, Synthetic(train_recordings=16, eval_recordings=8, seconds=20.0, seed=5))
    return root


@pytest.fixture(scope="session")
def feature_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("features")


@pytest.fixture
def config_file(tiny_corpus: Path, feature_cache: Path, tmp_path: Path) -> Callable[..., Path]:
    """A function that writes a tiny configuration; keyword arguments replace `training` keys, `top` top-level ones."""

    def write(top: dict[str, Any] | None = None, data: dict[str, Any] | None = None, **training: Any) -> Path:
        tree = {
            "experiment": {"name": "tiny", "seed": 1},
            "data": {
                "root_dir": str(tiny_corpus),
                "cache_dir": str(feature_cache),
                "batch_size": 8,
                "scaling": "zscore",
                "min_duration": 10.0,
                "val_fraction": 0.25,
                **(data or {}),
            },
            "supervision": {"restarts": {"max": 0}},  # dead stays dead, where a test does not say otherwise
            "model": {"backbone": {"preset": "small"}, "probe": {"type": "linear", "dropout": 0.1}},
            "training": {
                "max_epochs": 4,
                "scheduler": {
                    "name": "one_cycle",
                    "max_lr": 3e-3,
                    "pct_start": 0.1,
                    "div_factor": 25,
                    "final_div_factor": 40,
                },
                **training,
            },
            **(top or {}),
        }
        path = tmp_path / f"config-{len(list(tmp_path.glob('config-*')))}.yaml"
        path.write_text(yaml.safe_dump(tree))
        return path

    return write


def unwrapped(text: str) -> str:
    """What a screen or a message says, whatever the width at which it wraps: borders and line breaks become spaces.

    A temporary path is as long as pytest's counter makes it, so nothing may depend on where its line wraps.
    """
    return " ".join(text.translate({ord(c): " " for c in "│▌▐┃╭╮╰╯─"}).split())


def free_port() -> int:
    """A TCP port of this machine that nobody listens to."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


class LogWriter:
    """Writes a run log with the real writer: a `run` record, then steps that follow (or leave) a schedule."""

    def __init__(self, folder: Path) -> None:
        (folder / CHECKPOINTS).mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.log = AppendLog(folder / RUN_LOG)
        self.time = time.time() - 3600

    def add(self, *records: Record) -> None:
        for record in records:
            self.log.append(record)

    def run(self, schedule: dict[str, Any] | None = None, **fields: Any) -> dict[str, Any] | None:
        declared = ONE_CYCLE if schedule is None else schedule
        fields = {
            "run_id": self.folder.name,
            "total_steps": declared["total_steps"],
            "steps_per_epoch": 200,
            "epochs": declared["total_steps"] // 200,
            "batch_size": 16,
            "name": "test",
            "target": {"auroc": 0.85},
            **fields,
        }
        self.add(Run(time=self.time, schedule=declared, **fields))
        return declared

    def steps(self, lrs: Any, first: int = 1, positions: Any = None, losses: Any = None) -> None:
        """Consecutive step records from step `first` on, one every 0.1 s."""
        rng = np.random.default_rng(first)
        for i, lr in enumerate(lrs):
            n = first + i
            self.time += 0.1
            loss = float(losses[i]) if losses is not None else 0.35 + 0.3 * math.exp(-n / 400) + rng.normal(0, 0.05)
            position = float(positions[i]) if positions is not None else float(n - 1)
            self.add(
                Step(
                    time=self.time,
                    step=n,
                    epoch=(n - 1) // 200,
                    batch=(n - 1) % 200 + 1,
                    lr=float(lr),
                    position=position,
                    loss=loss,
                    grad_norm=1.5,
                    samples_per_s=160.0,
                )
            )

    def healthy(self, first: int, last: int, schedule: dict[str, Any] | None = None) -> None:
        n = np.arange(first, last + 1)
        self.steps(parse(schedule or ONE_CYCLE).rate(n - 1), first)

    def eval(self, step: int, auroc: float) -> None:
        self.add(Eval(time=self.time, step=step, epoch=(step - 1) // 200, split="val", loss=0.5, auroc=auroc, n=690))


@pytest.fixture
def log_writer(tmp_path: Path) -> Iterator[LogWriter]:
    writer = LogWriter(tmp_path / "logs" / "20261124-120000-test")
    yield writer
    writer.log.close()


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Any]:
    from tests.e2e.processes import Daemon

    it = Daemon(tmp_path / "logs")
    yield it
    it.kill()


@pytest.fixture
def zygote() -> Any:
    from tests.e2e.trainers import Zygote

    return Zygote()
