"""The same run in W&B LEET and in eegwatch, one after the other in the same tmux pane.

    python -m tests.bench.beside_leet [--steps 58285 1000000] [--rounds 3]

Installs wandb from PyPI into ~/.cache/eegwatch/bench on first use, and writes the run with `wandb.log`, offline: six
metrics for the first length, two for longer ones (a million calls take minutes). "first" is the first frame with a
curve on it, "complete" the first with every record in the picture, by each program's own word: LEET's state turns to
Finished once it has read the log, ours names the last step and no longer says that the log is being read. CPU is of the whole process tree over ten seconds, of one core: idle on the finished run, and while a writer
appends 500 records a second.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
import venv
from pathlib import Path

import psutil

from tests.bench.open import braille, complete_at, make_log, timed, tmux

WANDB = "wandb==0.31.0"
HOME = Path("~/.cache/eegwatch/bench/wandb").expanduser()
WRITER = """
import sys, time, wandb
n, metrics, pace = int(sys.argv[1]), sys.argv[2].split(","), float(sys.argv[4])
run = wandb.init(project="bench", dir=sys.argv[3], settings=wandb.Settings(x_disable_stats=True))
begin = time.time()
for i in range(n):
    run.log({m: 0.4 + (i % 97) / 500 for m in metrics})
    if pace and i >= 2000:
        time.sleep(max(0.0, begin + (i - 2000) / pace - time.time()))
run.finish()
"""
OURS_WRITER = """
import json, sys, time
from pathlib import Path
import numpy as np
from eegwatch.run.log import AppendLog
from eegwatch.run.records import Step
from eegwatch.schedule import parse
path, first, pace = Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
with path.open() as file:
    rates = parse(json.loads(file.readline())["schedule"]).rate(np.arange(first - 1, first + 99_999)).tolist()
log = AppendLog(path)
begin = time.time()
for i in range(100_000):
    n = first + i
    log.append(Step(time=time.time(), step=n, epoch=n // 1000, batch=n % 1000 + 1, lr=rates[i], position=n - 1.0,
                    loss=0.4 + n % 97 / 500, grad_norm=1.5, samples_per_s=3200.0))
    time.sleep(max(0.0, begin + i / pace - time.time()))
"""
SIX = "lr,loss,grad_norm,samples_per_s,epoch,batch"
ENVIRONMENT = {"WANDB_MODE": "offline", "WANDB_SILENT": "true", "WANDB_ERROR_REPORTING": "false"}


def wandb_python() -> Path:
    python = HOME / "bin/python"
    if not python.exists():
        print(f"installing {WANDB} into {HOME} …", flush=True)
        venv.create(HOME, with_pip=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", WANDB], check=True)
    return python


def wandb_run(folder: Path, steps: int, metrics: str, pace: float = 0) -> subprocess.Popen[bytes]:
    folder.mkdir(parents=True)
    return subprocess.Popen(
        [wandb_python(), "-c", WRITER, str(steps), metrics, str(folder), str(pace)],
        env=os.environ | ENVIRONMENT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def leet(folder: Path) -> list[str]:
    run = next((folder / "wandb").glob("offline-run-*"))
    return [str(HOME / "bin/wandb"), "leet", "run", str(run)]


def cpu_share(command: list[str], seconds: float = 10.0) -> float:
    """Percent of one core that the program takes, its children included, once its screen has settled."""
    tmux("kill-server")
    tmux("new-session", "-d", "-x", "200", "-y", "50", *command)
    root = psutil.Process(int(tmux("list-panes", "-F", "#{pane_pid}")))
    time.sleep(8)
    family = [root, *root.children(recursive=True)]

    def spent() -> float:
        return sum(sum(p.cpu_times()[:2]) for p in family if p.is_running())

    before, began = spent(), time.perf_counter()
    time.sleep(seconds)
    share = (spent() - before) / (time.perf_counter() - began) * 100
    tmux("kill-server")
    return share


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, nargs="+", default=[58_285, 1_000_000])
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    os.environ.update(ENVIRONMENT)
    with tempfile.TemporaryDirectory() as scratch:
        for i, n in enumerate(arguments.steps):
            theirs = Path(scratch) / f"wandb-{n}"
            wandb_run(theirs, n, SIX if i == 0 else "lr,loss").wait()
            run = make_log(Path(scratch) / str(n), n)
            figures: dict[str, tuple[float, float, float]] = {}
            for who, command, complete in (
                ("LEET", leet(theirs), lambda s: "State: Finished" in s),
                (
                    "eegwatch",
                    [sys.executable, "-m", "eegwatch.cli", str(run)],
                    complete_at(n),
                ),
            ):
                results = []
                for round_ in range(arguments.rounds):
                    os.environ["EEGWATCH_CACHE"] = f"{scratch}/cache-{n}-{round_}"  # never opened before
                    results.append(timed(command, {"first": braille, "complete": complete}))
                first, last = (min(found[name] for found, _ in results) for name in ("first", "complete"))
                figures[who] = first, last, max(rss for _, rss in results)
                print(
                    f"{n:>10,} steps  {who:9} first {first:5.2f} s   complete {last:6.2f} s   "
                    f"resident {figures[who][2]:4.0f} MB",
                    flush=True,
                )
            times = figures["LEET"][1] / figures["eegwatch"][1]
            print(f"{n:>10,} steps  complete {times:.1f} times sooner than LEET", flush=True)
            if i == 0:
                idle = cpu_share(leet(theirs)), cpu_share([sys.executable, "-m", "eegwatch.cli", str(run)])
                print(f"idle: LEET {idle[0]:.1f} % of a core, eegwatch {idle[1]:.1f} %", flush=True)
                live = Path(scratch) / "live"
                writer = wandb_run(live, 100_000, SIX, 500)
                time.sleep(5)
                busy = cpu_share(leet(live))
                writer.kill()
                writer.wait()
                half = make_log(Path(scratch) / "half", n, 2 * n)
                mine = subprocess.Popen([sys.executable, "-c", OURS_WRITER, str(half / "run.jsonl"), str(n + 1), "500"])
                ours = cpu_share([sys.executable, "-m", "eegwatch.cli", str(half)])
                mine.kill()
                mine.wait()
                print(f"live, 500 records/s: LEET {busy:.1f} % of a core, eegwatch {ours:.1f} %", flush=True)


if __name__ == "__main__":
    main()
