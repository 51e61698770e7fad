"""How soon a run is on the screen, in a real tmux: the first curve, and everything; beside an empty Textual app.

    python -m tests.bench.open [--records 58285 1000000 3000000] [--rounds 3]

"first" is the first frame with the LR curve on it, "complete" the first whose status line names the last step; both from
the moment that tmux starts the program. Resident size is read when complete.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil

from eegwatch.run.records import Run, encode
from eegwatch.schedule import parse

SESSION = "eegwatch-bench"
EMPTY = "import numpy, msgspec, yaml, psutil, watchdog.observers\nfrom textual.app import App\nfrom textual.widgets import Static\nclass A(App):\n    def compose(self): yield Static('EMPTY')\nA().run()"  # fmt: skip


def make_log(folder: Path, n: int, total: int | None = None) -> Path:
    """A run's log of n steps, of `total` (default: all of them)."""
    total = total or n
    run = folder / "20261124-120000-bench"
    run.mkdir(parents=True)
    schedule = {"name": "one_cycle", "total_steps": total, "max_lr": 3e-3, "pct_start": 0.1}
    lr = parse(schedule).rate(np.arange(n)).tolist()
    loss = (0.4 + np.random.default_rng(0).normal(0, 0.05, n)).tolist()
    head = Run(
        time=1.7e9, run_id=run.name, total_steps=total, steps_per_epoch=1000, epochs=total // 1000, schedule=schedule
    )
    with (run / "run.jsonl").open("wb") as file:
        file.write(encode(head))
        for begin in range(0, n, 50_000):
            file.write(
                "".join(
                    f'{{"type":"step","time":{1.7e9 + i / 100},"step":{i + 1},"epoch":{i // 1000},"batch":{i % 1000 + 1},'
                    f'"lr":{lr[i]!r},"position":{float(i)},"loss":{loss[i]!r},"grad_norm":1.5,"samples_per_s":3200.0}}\n'
                    for i in range(begin, min(begin + 50_000, n))
                ).encode()
            )
    return run


def tmux(*words: str) -> str:
    return subprocess.run(["tmux", "-L", SESSION, *words], capture_output=True, text=True).stdout


def braille(screen: str) -> bool:
    """Is there a curve on it?"""
    return any("\u2801" <= c <= "\u28ff" for c in screen)


def timed(command: list[str], marks: dict[str, Callable[[str], bool]]) -> tuple[dict[str, float], float]:
    """(seconds until each mark is on the screen, MB resident then)."""
    tmux("kill-server")
    began = time.perf_counter()
    tmux("new-session", "-d", "-x", "200", "-y", "50", *command)
    pid = int(tmux("list-panes", "-F", "#{pane_pid}") or 0)
    found: dict[str, float] = {}
    while len(found) < len(marks) and time.perf_counter() - began < 300:
        screen = tmux("capture-pane", "-p")
        for name, seen in marks.items():
            if name not in found and seen(screen):
                found[name] = time.perf_counter() - began
        time.sleep(0.005)
    root = psutil.Process(pid)
    size = sum(p.memory_info().rss for p in [root, *root.children(recursive=True)]) / 1e6
    tmux("kill-server")
    return found, size


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--records", type=int, nargs="+", default=[58_285, 1_000_000, 3_000_000])
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    empty = min(
        timed([sys.executable, "-c", EMPTY], {"first": lambda s: "EMPTY" in s})[0]["first"]
        for _ in range(arguments.rounds)
    )
    print(f"{'empty Textual app, same imports':32} first {empty:6.2f} s")
    with tempfile.TemporaryDirectory() as scratch:
        os.environ["EEGWATCH_CACHE"] = f"{scratch}/cache"
        for n in arguments.records:
            run = make_log(Path(scratch) / str(n), n)
            marks = {
                "first": braille,
                "complete": lambda s, n=n: f"step {n:,} / {n:,}" in s,
            }
            command = [sys.executable, "-m", "eegwatch.cli", str(run)]
            size = (run / "run.jsonl").stat().st_size / 1e6
            for how in ("", "again"):  # again: from the side file that the first time left
                results = []
                for _ in range(arguments.rounds):
                    if not how:
                        shutil.rmtree(Path(os.environ["EEGWATCH_CACHE"]), ignore_errors=True)
                    results.append(timed(command, marks))
                first, complete = (min(found[name] for found, _ in results) for name in ("first", "complete"))
                print(
                    f"{n:>11,} records {size:7.0f} MB {how:5} first {first:6.2f} s ({first / empty:.1f} x)   "
                    f"complete {complete:6.2f} s   resident {max(rss for _, rss in results):5.0f} MB"
                )


if __name__ == "__main__":
    main()
