"""Beside losslint on the same logs: what each finds, and how long it takes. `python -m tests.bench.beside_losslint [LONG]`.

losslint is installed from PyPI into a throw-away environment; it reads the loss, and has no learning-rate check.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
import venv
from pathlib import Path

import numpy as np

from eegwatch.schedule import parse

SHORT, LONG = 58_285, 3_000_000


def write_log(folder: Path, total: int, *, frozen_from: int | None) -> Path:
    """A one-cycle run of `total` steps, healthy or frozen from a step on, in our format (losslint reads JSONL too)."""
    declared = {"name": "one_cycle", "total_steps": total, "max_lr": 3e-3, "pct_start": 0.2, "final_div_factor": 1000.0}
    n = np.arange(1, total + 1)
    position = n - 1 if frozen_from is None else np.minimum(n - 1, frozen_from - 1)
    lr = parse(declared).rate(position)
    loss = 0.35 + 0.4 * np.exp(-n / 15_000) + np.random.default_rng(0).normal(0, 0.08, total) * np.exp(-n / 90_000)
    folder.mkdir(parents=True)
    per_epoch = total // 5
    run = {"type": "run", "time": 0.0, "run_id": folder.name, "total_steps": total, "steps_per_epoch": per_epoch,
           "epochs": 5, "schedule": declared}  # fmt: skip
    with (folder / "run.jsonl").open("w") as file:
        file.write(json.dumps(run) + "\n")
        for begin in range(0, total, 10_000):
            rows = zip(*(column[begin : begin + 10_000].tolist() for column in (n, lr, loss, position)))
            file.writelines(
                f'{{"type":"step","time":{s * 0.1},"step":{s},"epoch":{(s - 1) // per_epoch},"batch":{(s - 1) % per_epoch + 1},'
                f'"lr":{r!r},"position":{p}.0,"loss":{v!r},"grad_norm":1.0,"samples_per_s":170.0}}\n'
                for s, r, v, p in rows
            )
    return folder / "run.jsonl"


def timed(command: list[str]) -> tuple[float, str]:
    best, out = float("inf"), ""
    for _ in range(3):
        began = time.perf_counter()
        done = subprocess.run(command, capture_output=True, text=True)
        best, out = min(best, time.perf_counter() - began), done.stdout + done.stderr
    return best, out


def main() -> None:
    long = int(sys.argv[1]) if len(sys.argv) > 1 else LONG
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        venv.create(folder / "env", with_pip=True)
        python = folder / "env" / "bin" / "python"
        subprocess.run([str(python), "-m", "pip", "install", "-q", "losslint"], check=True, capture_output=True)
        losslint = str(folder / "env" / "bin" / "losslint")
        for total in (SHORT, long):
            logs = {"healthy": write_log(folder / f"healthy-{total}", total, frozen_from=None),
                    "frozen": write_log(folder / f"frozen-{total}", total, frozen_from=total // 3)}  # fmt: skip
            print(f"{total:,} steps, {logs['healthy'].stat().st_size / 1e6:.0f} MB")
            times = {}
            for tool in ("eegwatch", "losslint"):
                said = {}
                for kind, path in logs.items():
                    command = (
                        [sys.executable, "-m", "eegwatch.cli", "check", str(path)]
                        if tool == "eegwatch"
                        else [losslint, "check", str(path)]
                    )
                    times[tool, kind], said[kind] = timed(command)
                    first = " | ".join(line.strip() for line in said[kind].splitlines() if line.strip())[:150]
                    print(f"  {tool:9} {kind:8} {times[tool, kind]:6.2f} s   {first}")
                words = [
                    "\n".join(t.split("/")[-1] for t in text.replace("frozen", "X").replace("healthy", "X").split())
                    for text in said.values()
                ]
                print(f"  {tool:9} tells the two apart: {'yes' if words[0] != words[1] else 'no'}")
            print(
                f"  ratio losslint / eegwatch, healthy: {times['losslint', 'healthy'] / times['eegwatch', 'healthy']:.1f}"
            )


if __name__ == "__main__":
    main()
