"""Two processes with DistributedDataParallel over gloo, steered while they train: all of them, at the same step."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from eegwatch.run.control import send
from eegwatch.run.log import read_all, run_decoder
from eegwatch.run.records import Run
from eegwatch.schedule import parse, rate_at
from tests.e2e.processes import PATIENCE, whole_lines

SPAWNED = """
import sys, torch.distributed as dist, torch.multiprocessing as mp
from tests.e2e.ddp_script import train
def one(rank, logs, out):
    dist.init_process_group("gloo", init_method=f"file://{out}/meeting", rank=rank, world_size=2)
    train(logs, out)
    dist.destroy_process_group()
if __name__ == "__main__":
    mp.spawn(one, sys.argv[1:3], nprocs=2)
"""


class Job:
    """A job of two processes under a launcher, and who asks something of it."""

    def __init__(self, folder: Path, command: list[str]) -> None:
        self.logs, self.out = folder / "logs", folder / "out"
        self.out.mkdir()
        self.printed = self.out / "printed"
        with self.printed.open("wb") as printed:
            self.process = subprocess.Popen([*command, str(self.logs), str(self.out)], stdout=printed, stderr=printed)

    @property
    def run(self) -> Path:
        (log,) = self.logs.glob("*/run.jsonl")
        return log.parent

    def wait(self, until: Callable[[], Any]) -> Any:
        end = time.monotonic() + PATIENCE
        while not (value := until()):
            assert time.monotonic() < end and self.process.poll() is None, self.printed.read_text()[-4000:]
            time.sleep(0.02)
        return value

    def meet(self) -> None:
        self.wait(lambda: list(self.logs.glob(".ranks-*/*/rank-1")))

    def words(self, command: str) -> list[dict[str, Any]]:
        lines = whole_lines(self.logs / "daemon.jsonl")
        return [a for a in lines if a["id"] == command and a["status"] != "accepted"]

    def ask(self, name: str, **fields: Any) -> dict[str, Any]:
        command = send(self.logs, name, self.run.name, **fields)
        word = self.wait(lambda: self.words(command))[0]
        assert word["status"] == "done", word
        return dict(word)

    def stop(self) -> list[dict[str, Any]]:
        """What each rank wrote at its end."""
        command = send(self.logs, "stop", self.run.name)
        assert self.process.wait(PATIENCE) == 0, self.printed.read_text()[-4000:]
        assert [word["status"] for word in self.words(command)] == ["done"]
        return [json.loads((self.out / f"rank-{rank}.json").read_text()) for rank in (0, 1)]


@pytest.fixture
def begin(tmp_path: Path) -> Iterator[Callable[..., Job]]:
    jobs: list[Job] = []

    def made(command: list[str]) -> Job:
        jobs.append(Job(tmp_path, command))
        return jobs[-1]

    yield made
    for job in jobs:
        for process in (
            [*psutil.Process(job.process.pid).children(recursive=True)] if job.process.poll() is None else []
        ):
            process.kill()
        job.process.kill()
        job.process.wait()


def torchrun(script: str, *words: str) -> list[str]:
    path = str(Path(__file__).with_name(script))
    return [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", path, *words]


@pytest.mark.parametrize("launcher", ["torchrun", "mp.spawn"])
def test_a_job_takes_rates_a_rejoin_requests_and_a_stop_in_both_replicas(
    begin: Callable[..., Job], tmp_path: Path, launcher: str
) -> None:
    (tmp_path / "spawned.py").write_text(SPAWNED)
    spawned = [sys.executable, str(tmp_path / "spawned.py")]
    job = begin(torchrun("ddp_script.py") if launcher == "torchrun" else spawned)
    job.meet()
    held = job.ask("resume", lr=3e-4, then="hold")
    rejoined = job.ask("resume")
    job.ask("checkpoint")
    job.ask("evaluate")
    released = job.ask("release")
    here, there = job.stop()
    assert here["weights"] == there["weights"]  # bit for bit
    for what in ("steps", "checkpoints", "evaluations", "folder"):
        assert here[what] == there[what]
    assert here["folder"] == str(job.run) and len(here["checkpoints"]) == len(here["evaluations"]) == 1
    (record,) = [r for r in read_all(job.run / "run.jsonl", run_decoder()) if isinstance(r, Run)]
    assert record.groups is not None
    laws = [parse(group["schedule"]) for group in record.groups]
    for seen in (here, there):
        # a float32 weight that moves by 1e-4 times its gradient tells the rate to some parts in a thousand
        used = {int(step): rates for step, rates in seen["rates"].items()}
        np.testing.assert_allclose(used[held["step"] - 1], [1e-3, 1e-4], rtol=1e-2)
        np.testing.assert_allclose(used[held["step"]], [3e-4, 3e-5], rtol=1e-2)
        expected = [float(rate_at(law, rejoined["step"])) for law in laws]
        np.testing.assert_allclose(used[rejoined["step"]], expected, rtol=1e-2)
        np.testing.assert_allclose(used[released["step"]], [1e-3, 1e-4], rtol=1e-2)


@pytest.mark.skipif(not os.environ.get("EEGWATCH_FULL"), reason="half a minute of imports, with EEGWATCH_FULL=1")
@pytest.mark.parametrize("kind", ["lightning", "transformers"])
def test_a_framework_passes_commands_on_by_its_own_switches_on_every_rank(begin: Callable[..., Job], kind: str) -> None:
    job = begin(torchrun("framework_script.py", kind))
    job.meet()
    assert job.ask("resume", lr=3e-4, then="hold")["effect"]["lr"] == pytest.approx(3e-4, rel=1e-6)
    saved = Path(job.ask("checkpoint")["effect"]["checkpoint"])
    assert saved.exists()
    if kind == "transformers":
        assert "loss" in job.ask("evaluate")["effect"]
    here, there = job.stop()
    assert here["step"] == there["step"] and here["weights"] == there["weights"]
