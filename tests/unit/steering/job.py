"""Jobs of several processes for tests: each rank a process of its own, which takes a step when it is told to.

The processes are forked by a server that has imported torch once, 30 ms each. A rank is plain SGD on two groups whose
gradients are 1: what its parameters move by is the rate of each group. Its scheduler is never stepped, which is the fault.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

from eegwatch import RunLog
from eegwatch.run import crash_points
from tests.patience import PATIENCE_S

TOTAL = 100_000
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["torch", "eegwatch.runlog", __name__])


class Loop:
    """One rank's training."""

    def __init__(self, logs: Path, before: bool = False, **given: Any) -> None:
        self.weights = [torch.nn.Parameter(torch.zeros(1, dtype=torch.float64)) for _ in range(2)]
        groups = [{"params": [self.weights[0]], "lr": 1e-3}, {"params": [self.weights[1]], "lr": 1e-4}]
        self.optimizer = torch.optim.SGD(groups)
        self.scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(self.optimizer, TOTAL, eta_min=1e-5)
        self.before = before
        self.log = RunLog(
            logs, "job", schedule=self.scheduler, optimizer=self.optimizer, total_steps=TOTAL, **given
        )  # fmt: skip
        self.taken = self.log.step_done

    def step(self) -> list[float]:
        """One step; the rate that each group really used."""
        then = [w.item() for w in self.weights]
        for w in self.weights:
            w.grad = torch.ones_like(w)
        if self.before:
            self.log.step(loss=0.5)
        self.optimizer.step()
        if not self.before:
            self.log.step(loss=0.5)
        self.taken += 1
        return [round(b - w.item(), 15) for b, w in zip(then, self.weights, strict=True)]

    def look(self, name: str) -> bool:
        return bool(getattr(self.log, f"{name}_requested"))

    def folder(self) -> str:
        return str(self.log.folder)

    def log_call(self, name: str, *given: Any) -> None:
        getattr(self.log, name)(*given)


def rank_main(pipe: Connection, env: dict[str, str], logs: Path, given: dict[str, Any], makes_log: bool) -> None:
    os.environ.update(env)
    if "EEGPT_CRASH_FILE" in env:
        crash_points._file = Path(env["EEGPT_CRASH_FILE"])  # the server imported it before there was a variable
    loop = Loop(logs, **given) if makes_log else None
    pipe.send("ready")
    while True:
        name, *arguments = pipe.recv()
        if name == "leave":
            return
        pipe.send(getattr(loop, name)(*arguments) if loop is not None else [1e-3, 1e-4])


class Rank:
    """A rank as the test holds it. `used`: by step, the rates that it used."""

    def __init__(self, number: int, job: Job, makes_log: bool, **given: Any) -> None:
        self.number, self.used = number, dict[int, list[float]]()
        self.done = int(given.get("step", 0))
        env = job.env | {"RANK": str(number)}
        self.pipe, theirs = CONTEXT.Pipe()
        self.process = CONTEXT.Process(target=rank_main, args=(theirs, env, job.logs, given, makes_log), daemon=True)
        self.process.start()
        theirs.close()

    def begin(self, name: str, *arguments: Any) -> None:
        with contextlib.suppress(BrokenPipeError):
            self.pipe.send((name, *arguments))

    def result(self) -> Any:
        """What it answers; None if it died instead."""
        assert self.pipe.poll(PATIENCE_S), f"rank {self.number} does not answer"
        try:
            return self.pipe.recv()
        except (EOFError, ConnectionResetError):
            self.process.join()
            return None

    def answers_within(self, seconds: float) -> bool:
        return self.pipe.poll(seconds)

    def call(self, name: str, *arguments: Any) -> Any:
        self.begin(name, *arguments)
        return self.result()

    def stepped(self) -> bool:
        """Take the answer to a step that was begun; False if it died in it."""
        used = self.result()
        if used is None:
            return False
        self.done += 1
        self.used[self.done] = used
        return True

    def kill(self) -> None:
        if self.process.pid is not None and self.process.is_alive():
            os.kill(self.process.pid, signal.SIGKILL)
        self.process.join()


class Job:
    """`world` processes. `step()` takes a step on all, as a job does whose gradients are averaged."""

    def __init__(
        self, logs: Path, world: int = 2, logging: range | None = None, env: dict[str, str] | None = None, **given: Any
    ) -> None:
        self.logs = logs
        port = 20_000 + time.time_ns() % 40_000
        self.env = {"WORLD_SIZE": str(world), "MASTER_ADDR": "localhost", "MASTER_PORT": str(port)} | (env or {})
        logging = range(world) if logging is None else logging
        self.ranks = [Rank(number, self, number in logging, **given) for number in range(world)]
        for rank in self.ranks:
            assert rank.result() == "ready"

    @property
    def run(self) -> Path:
        """The run's folder."""
        (log,) = self.logs.glob("*/run.jsonl")
        return log.parent

    def step(self) -> bool:
        """False once a rank is dead."""
        for rank in self.ranks:
            rank.begin("step")
        alive = [rank.stepped() for rank in self.ranks]
        time.sleep(0.002)
        return all(alive)

    def meet(self) -> None:
        """Go on until every rank has found rank 0."""
        end = time.monotonic() + PATIENCE_S
        world = len(self.ranks)
        while not all(list(self.logs.glob(f".ranks-*/*/rank-{n}")) for n in range(1, world)):
            assert self.step() and time.monotonic() < end

    def close(self) -> None:
        for rank in self.ranks:
            rank.kill()
