"""A long life, compressed: `python -m tests.bench.soak [--seconds 600] [--seed 1]`.

One tiny run after another under a real daemon, which is killed with SIGKILL at random moments (the trainer, the
supervisor, both) and commanded all the while, twice and three times over; a monitor in tmux watches, resized twenty times a
second; a second one watches a log that grows by thousands of records a second. At the end nothing may be missing:
every command has one last word, every finished run has the weights of one that was never disturbed, no line is torn. Memory
and descriptors of both monitors and of the daemon are printed at a third of the time and at the end.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import yaml

from eegpt_daemon.data.synthetic import make_corpus
from eegwatch.run.config import Synthetic
from tests.bench.open import make_log
from tests.e2e.processes import Daemon, whole_lines
from tests.e2e.trainers import assert_same, last_state, steps_that_count

EPOCHS, PACE, GROWTH = 12, 60, 2000
SIZES = [(80, 24), (200, 60), (120, 40), (60, 15), (160, 48)]
WEIGHTS = ("probe", "optimizer", "rng", "standardiser", "step")


def write_config(folder: Path) -> Path:
    corpus = folder / "corpus"
    make_corpus(corpus, Synthetic(train_recordings=16, eval_recordings=8, seconds=20.0, seed=5))
    tree = {
        "experiment": {"name": "soak", "seed": 1},
        "data": {
            "root_dir": str(corpus), "cache_dir": str(folder / "cache"), "batch_size": 8, "scaling": "zscore",
            "min_duration": 10.0, "val_fraction": 0.25,
        },
        "model": {"backbone": {"preset": "small"}, "probe": {"type": "linear", "dropout": 0.1}},
        "training": {
            "max_epochs": EPOCHS, "pace_steps_per_s": PACE, "checkpoint_minutes": 0.005,
            "scheduler": {"name": "one_cycle", "max_lr": 3e-3, "pct_start": 0.1},
        },
        "supervision": {"restarts": {"max": 1000, "backoff_seconds": 0.05}},
    }  # fmt: skip
    path = folder / "soak.yaml"
    path.write_text(yaml.safe_dump(tree))
    return path


class Monitor:
    """`eegwatch` in a tmux of its own, resized without end."""

    def __init__(self, socket: Path, path: Path, *, resized: bool) -> None:
        self.socket = socket
        self.tmux("new-session", "-d", "-x", "80", "-y", "24", sys.executable, "-m", "eegwatch.cli", str(path))
        self.process = psutil.Process(int(self.tmux("list-panes", "-F", "#{pane_pid}")))
        self.resizes = 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._resize, daemon=True)
        if resized:
            self._thread.start()

    def tmux(self, *words: str) -> str:
        env = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
        done = subprocess.run(["tmux", "-S", str(self.socket), *words], capture_output=True, text=True, env=env)
        return done.stdout

    def _resize(self) -> None:
        while not self._over.wait(0.05):
            width, height = SIZES[self.resizes % len(SIZES)]
            self.tmux("resize-window", "-x", str(width), "-y", str(height))
            self.resizes += 1

    def settle(self, width: int, height: int) -> None:
        """The last size."""
        self._over.set()
        self._thread.join()
        self.tmux("resize-window", "-x", str(width), "-y", str(height))

    def text(self) -> str:
        return self.tmux("capture-pane", "-p")

    def close(self) -> None:
        self._over.set()
        self.tmux("kill-server")


def figures(process: psutil.Process) -> tuple[float, int, float]:
    """(MB resident, open descriptors, CPU seconds)."""
    with process.oneshot():
        return process.memory_info().rss / 1e6, process.num_fds(), sum(process.cpu_times()[:2])


def growing(path: Path, first: int, over: threading.Event) -> int:
    """Append records at GROWTH a second until told to stop; returns how many."""
    count, began = 0, time.monotonic()
    with path.open("ab", buffering=0) as log:
        while not over.is_set():
            due = int((time.monotonic() - began) * GROWTH)
            lines = [
                json.dumps({"type": "step", "time": time.time(), "step": first + n, "lr": 1e-3, "loss": 0.4})
                for n in range(count, due)
            ]
            if lines:
                log.write(("\n".join(lines) + "\n").encode())
            count = due
            time.sleep(0.02)
    return count


class Soak:
    """Holds the daemon, harasses it, and keeps the accounts."""

    def __init__(self, scratch: Path, seed: int) -> None:
        self.draw = random.Random(seed)
        self.config = write_config(scratch)
        self.daemon = Daemon(scratch / "logs")
        self.sent: set[str] = set()
        self.kills: Counter[str] = Counter()
        self.undisturbed: dict[str, Any] = {}  # the last checkpoint of a run that nobody harassed

    def calm(self) -> None:
        """One run to its end that nobody disturbs: what the others are compared with."""
        calm = Daemon(self.daemon.logs.parent / "calm")
        try:
            calm.start(self.config)
            calm.wait(lambda: calm.records("end"))
            self.undisturbed = last_state(calm.run)
            calm.cli("stop")
        finally:
            calm.kill()

    def begin(self) -> None:
        """A daemon, going on with whatever was cut off; a new run where there is none."""
        self.daemon.begin("--config", str(self.config), "--continue")

    def say(self, **fields: Any) -> None:
        """One command, its line written once, twice or three times."""
        command_id = str(uuid.uuid4())
        self.sent.add(command_id)
        for _ in range(self.draw.choice((1, 1, 2, 3))):
            self.daemon.say(id=command_id, time=time.time(), **fields)

    def kill(self) -> None:
        """SIGKILL to the trainer, the supervisor, or both."""
        pid = self.daemon.pid
        if pid is None:
            return
        what = self.draw.choice(("trainer", "supervisor", "both"))
        try:
            trainers = psutil.Process(pid).children() if what != "supervisor" else []
            if what != "trainer":
                os.kill(pid, signal.SIGKILL)
            for trainer in trainers:
                trainer.kill()
        except (psutil.NoSuchProcess, ProcessLookupError):
            return  # it had just ended by itself
        if what != "trainer":
            self.daemon.wait(lambda: self.daemon.pid != pid)
        self.kills[what] += 1

    def harass(self, seconds: float, each: Callable[[], None]) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            time.sleep(self.draw.uniform(0.2, 3.0))
            if self.daemon.pid is None:
                self.begin()
            elif self.draw.random() < 0.35:
                self.kill()
            else:
                for _ in range(self.draw.randint(2, 12)):
                    self.say(command="checkpoint")
                if self.idle():
                    self.say(command=self.draw.choice(("restart", "resume")))
            each()

    def idle(self) -> bool:
        states = [r for r in whole_lines(self.daemon.logs / "daemon.jsonl") if r["type"] == "daemon"]
        return bool(states) and states[-1]["state"] == "idle"

    def settle(self) -> None:
        """Let the last run come to its end, undisturbed, and the daemon to its."""
        end = time.monotonic() + 240
        while time.monotonic() < end:
            if self.daemon.pid is None:
                self.begin()
            elif self.idle():
                ends = self.daemon.records("end")
                if ends and ends[-1]["reason"] == "completed":
                    break
                self.say(command="resume")
            time.sleep(1)
        self.daemon.cli("stop")

    def account(self) -> tuple[int, int]:
        """(finished runs, steps logged); raises AssertionError for whatever is missing, torn or done twice."""
        words: dict[str, list[str]] = {}
        for answer in self.daemon.answers():
            words.setdefault(answer["id"], []).append(answer["status"])
        for command_id in self.sent:
            told = words.get(command_id, [])
            last = [status for status in told if status != "accepted"]
            assert len(last) == 1 and len(told) <= 2, f"command {command_id} was answered {told}"
        finished = steps = 0
        for run in sorted(path.parent for path in self.daemon.logs.glob("*/run.jsonl")):
            counted = steps_that_count(run)
            steps += len(counted)
            ends = self.daemon.records("end", run)
            if not ends or ends[-1]["reason"] != "completed":
                continue
            finished += 1
            state = last_state(run)
            for key in WEIGHTS:
                assert_same(state[key], self.undisturbed[key], key)
        return finished, steps


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        run(Path(name), given.seconds, given.seed)


def run(scratch: Path, seconds: float, seed: int) -> None:
    """Soak for so long, print the figures. Raises AssertionError if anything was lost or done twice."""
    soak = Soak(scratch, seed)
    soak.calm()
    large = make_log(scratch / "large", 10_000, 10_000_000)
    over = threading.Event()
    grown: list[int] = []
    grower = threading.Thread(target=lambda: grown.append(growing(large / "run.jsonl", 10_001, over)))
    soak.begin()
    monitors = {
        "monitor, resized": Monitor(scratch / "tmux-1", soak.daemon.logs, resized=True),
        "monitor of the growing log": Monitor(scratch / "tmux-2", large, resized=False),
    }
    grower.start()
    began, sampled = time.monotonic(), dict[str, tuple[float, int, float]]()
    peak: dict[str, tuple[float, int]] = {"daemon": (0.0, 0)}

    def sample() -> None:
        pid = soak.daemon.pid
        if pid is not None:
            try:
                rss, fds, _ = figures(psutil.Process(pid))
                peak["daemon"] = max(peak["daemon"][0], rss), max(peak["daemon"][1], fds)
            except psutil.NoSuchProcess:
                return
        if not sampled and time.monotonic() - began > seconds / 3:
            sampled.update({name: figures(m.process) for name, m in monitors.items()})

    try:
        soak.harass(seconds, sample)
        spent = time.monotonic() - began
        soak.settle()
        print(f"{spent:.0f} s: {sum(soak.kills.values())} kills {dict(soak.kills)}, {len(soak.sent):,} commands")
        finished, steps = soak.account()
        print(
            f"every command answered once; {finished} runs finished with the weights of an undisturbed one, {steps:,} steps"
        )
        print(f"daemon: at most {peak['daemon'][0]:.0f} MB, {peak['daemon'][1]} descriptors")
        for name, monitor in monitors.items():
            rss, fds, cpu = figures(monitor.process)
            then = sampled[name]
            share = cpu / (time.monotonic() - began)
            print(f"{name}: {then[0]:.0f} MB and {then[1]} descriptors at a third, {rss:.0f} MB and {fds} at the end, "
                  f"{share:.0%} of a core, {monitor.resizes:,} resizes")  # fmt: skip
        resized = monitors["monitor, resized"]
        resized.settle(120, 40)
        soak.daemon.wait(lambda: "completed" in resized.text())
    finally:
        over.set()
        grower.join()
        for monitor in monitors.values():
            monitor.close()
        soak.daemon.kill()
    print(f"{grown[0]:,} records written to the growing log")


if __name__ == "__main__":
    main()
