"""How soon a run is on the screen, in a real tmux, each figure against its goal: the first curve, and every record.

    python -m tests.bench.open [--records 58285 1000000 3000000 10000000] [--rounds 3] [--leet] [--docs]

Beside an empty Textual app, msgspec's own decoding of the same file (DECODE, a process of its own) and, with `--leet`,
W&B LEET on runs of the same length (installed on first use, see beside_leet). Each log is opened as one that was never
indexed, then as one whose writer left its columns beside it. All times are from the moment that tmux starts the program.

"first": the first frame with a curve of at least 200 points (dots); it counts where each column of the learning rate's
curve, the last one too, is within a row of the final frame's. "complete": the first frame drawn from every record, not
from a skeleton: its status names the last step and does not say that the log is still being read; with the columns
beside it, it holds the verdict too. Resident size, children included, is the
largest until then. `--docs` writes the table into docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import compileall
import contextlib
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil

from eegwatch.diagnosis.saved_state import judge_of
from eegwatch.run import statefile
from eegwatch.run.folder import RUN_LOG
from eegwatch.run.indexer import WriterIndex
from eegwatch.run.records import Run, encode
from eegwatch.run.sidefile import beside
from eegwatch.runlog import RunLog
from eegwatch.schedule import parse

SESSION = "eegwatch-bench"
BEGIN, END = "<!-- tests.bench.open -->", "<!-- end of tests.bench.open -->"
EMPTY = "from textual.app import App\nfrom textual.widgets import Static\nclass A(App):\n    def compose(self): yield Static('EMPTY')\nA().run()"  # fmt: skip
DECODE = """
import os, sys, time, msgspec
from eegwatch.run.records import RunRecord
decoder, fd, at, began = msgspec.json.Decoder(RunRecord), os.open(sys.argv[1], os.O_RDONLY), 0, time.perf_counter()
while data := os.pread(fd, 1 << 18, at):
    end = data.rfind(b"\\n") + 1
    decoder.decode_lines(data[:end])
    at += end
print(time.perf_counter() - began)
"""


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


def a_curve(screen: str) -> bool:
    """Is there a chart with an axis, and at least 200 points on the screen?"""
    dots = sum((ord(c) - 0x2800).bit_count() for c in screen if "\u2801" <= c <= "\u28ff")
    return dots >= 200 and bool(curve_rows(screen))


def complete_at(n: int) -> Callable[[str], bool]:
    """Is every record in the picture? While a skeleton is drawn, our status says that the log is being read."""
    return lambda screen: a_curve(screen) and f"step {n:,} / {n:,}" in screen and "reading the log" not in screen


def with_verdict_at(n: int) -> Callable[[str], bool]:
    complete = complete_at(n)
    return lambda screen: complete(screen) and "checking" not in screen


def timed(command: list[str], marks: dict[str, Callable[[str], bool]]) -> tuple[dict[str, float], float]:
    """(seconds until each mark is on the screen, MB resident at most until then)."""
    found, size, _ = watched(command, marks)
    return found, size


def watched(
    command: list[str], marks: dict[str, Callable[[str], bool]], settle_s: float = 0.0
) -> tuple[dict[str, float], float, dict[str, str]]:
    """(seconds until each mark is on the screen, MB resident at most until then, the screen at each and at the end)."""
    tmux("kill-server")
    began = time.perf_counter()
    tmux("new-session", "-d", "-x", "200", "-y", "50", *command)
    root = psutil.Process(int(tmux("list-panes", "-F", "#{pane_pid}") or 0))
    found: dict[str, float] = {}
    screens: dict[str, str] = {}
    size, sized = 0.0, 0.0
    while len(found) < len(marks) and time.perf_counter() - began < 300:
        screen = tmux("capture-pane", "-p")
        now = time.perf_counter() - began
        for name, seen in marks.items():
            if name not in found and seen(screen):
                found[name], screens[name] = now, screen
        if now - sized > 0.1 or len(found) == len(marks):
            sized, size = now, max(size, resident(root))
        time.sleep(0.005)
    if settle_s:
        time.sleep(settle_s)
        screens["final"] = tmux("capture-pane", "-p")
    tmux("kill-server")
    return found, size, screens


def resident(root: psutil.Process) -> float:
    """MB of a process and its children."""
    size = 0.0
    with contextlib.suppress(psutil.NoSuchProcess):
        for process in [root, *root.children(recursive=True)]:
            with contextlib.suppress(psutil.NoSuchProcess):
                size += process.memory_info().rss / 1e6
    return size


def curve_rows(screen: str) -> dict[int, tuple[int, int]]:
    """The first and last row of the left chart's curve, by column."""
    lines = screen.splitlines()
    axes = [i for i, line in enumerate(lines) if "└0" in line[:12]]
    rows: dict[int, tuple[int, int]] = {}
    for i, line in enumerate(lines[: axes[0] if axes else 0]):
        for column, character in enumerate(line[:78]):
            if "\u2801" <= character <= "\u28ff":
                rows[column] = (rows.get(column, (i, i))[0], i)
    return rows


def within_a_row(first: str, final: str) -> tuple[int, int]:
    """(columns of the first curve, how many of them are within a row of the final one); none for one that ends early."""
    early, late = curve_rows(first), curve_rows(final)
    near = [
        c for c, (top, low) in early.items() if c in late and abs(top - late[c][0]) <= 1 and abs(low - late[c][1]) <= 1
    ]
    return len(early), len(near) if max(early, default=0) == max(late, default=0) else 0


def decoded(log: Path) -> float:
    """Seconds that msgspec needs to decode the file, in a process of its own: the median of three."""
    return statistics.median(
        float(
            subprocess.run([sys.executable, "-c", DECODE, str(log)], capture_output=True, text=True, check=True).stdout
        )
        for _ in range(3)
    )


def writer_cost(folder: Path, n: int = 100_000) -> tuple[float, float]:
    """(seconds, share of the time) that leaving the columns beside a log takes a RunLog with a step of some 0.2 ms."""
    log = RunLog(folder, name="cost", total_steps=n)
    assert log._index is not None
    wrote, spent = log._index.wrote, 0.0

    def measured() -> None:
        nonlocal spent
        began = time.perf_counter()
        wrote()
        spent += time.perf_counter() - began

    log._index.wrote = measured  # type: ignore[method-assign]
    work = np.random.default_rng(0).normal(size=(120, 120))
    began = time.perf_counter()
    for i in range(n):
        (work @ work).sum()
        log.step(loss=0.5 + i / n, lr=1e-3, grad_norm=1.5)
    took = time.perf_counter() - began
    log.end()
    return spent, spent / took


class Table:
    """Figures, each against its goal."""

    def __init__(self) -> None:
        self.lines = ["| what | measured | goal | |", "|---|---|---|---|"]

    def say(self, what: str, measured: str, goal: str = "", met: bool | None = None) -> None:
        verdict = "" if met is None else "✔" if met else "missed"
        self.lines.append(f"| {what} | {measured} | {goal} | {verdict} |")
        print(f"{what:58} {measured:34} {goal:34} {verdict}", flush=True)

    def into(self, page: Path) -> None:
        """Between the two comments of the page."""
        text = page.read_text()
        before, _, rest = text.partition(BEGIN)
        _, _, after = rest.partition(END)
        page.write_text("\n".join([before + BEGIN, *self.lines, END]) + after)


def measure(table: Table, run: Path, n: int, empty: float, rounds: int, leet: tuple[float, float] | None) -> None:
    """One log: never indexed, then with the columns that its writer leaves."""
    log, cache = run / RUN_LOG, Path(os.environ["EEGWATCH_CACHE"])
    last = f"step {n:,} / {n:,}"
    marks = {"first": a_curve, "complete": complete_at(n), "verdict": with_verdict_at(n)}
    marks["application"] = lambda s: "╭" in s and last in s
    command = [sys.executable, "-m", "eegwatch.cli", str(run)]
    decode = decoded(log)
    table.say(f"{n:,} steps: msgspec decodes the file", f"{decode:.2f} s")
    for how in ("never indexed", "columns beside it"):
        if how == "columns beside it":
            index = WriterIndex(run, judge_of)
            index._began -= 1e6  # as at the end of a run that took long
            index.close()
            left_by_its_writer = log.with_suffix(statefile.SUFFIX).read_bytes()
        results = []
        for _ in range(rounds):
            shutil.rmtree(cache, ignore_errors=True)
            if how == "columns beside it":  # not what the round before has left
                log.with_suffix(statefile.SUFFIX).write_bytes(left_by_its_writer)
            results.append(watched(command, marks, settle_s=3.0))
        first, complete, judged = (
            min(found[name] for found, _, _ in results) for name in ("first", "complete", "verdict")
        )
        name = f"{n:,} steps, {how}"
        goal = empty if leet is None else min(empty, 0.6 * leet[0])
        table.say(f"{name}: first curve", f"{first:.2f} s", f"below {goal:.2f} s", first < goal)
        columns, near = min(within_a_row(screens["first"], screens["final"]) for _, _, screens in results)
        table.say(f"{name}: columns of it within a row", f"{near} of {columns}", "all", near == columns > 50)
        if how == "never indexed":
            most, why = 1.5 * decode, f"1.5 × decoding = {1.5 * decode:.2f} s"
        else:
            most = 1.5 * first + 0.1 * max(0, n - 1_000_000) / 1e6
            why = f"1.5 × first + 0.1 s a million = {most:.2f} s"
        if how == "never indexed":
            table.say(f"{name}: every record", f"{complete:.2f} s", why, complete <= most)
            table.say(f"{name}: the verdict", f"{judged:.2f} s")
        else:
            table.say(f"{name}: every record and the verdict", f"{judged:.2f} s", why, judged <= most)
        if leet is not None:
            times = 10 if n < 100_000 else 30
            table.say(
                f"{name}: sooner than LEET", f"{leet[1] / complete:.0f} ×", f"{times} ×", leet[1] / complete >= times
            )
        table.say(f"{name}: resident, at most", f"{max(size for _, size, _ in results):.0f} MB")
    for left in (beside(log), log.with_suffix(statefile.SUFFIX)):
        left.unlink(missing_ok=True)


def of_leet(scratch: Path, n: int, rounds: int) -> tuple[float, float]:
    """(first curve, all of it) of LEET, in seconds."""
    from tests.bench.beside_leet import ENVIRONMENT, SIX, leet, wandb_run

    os.environ.update(ENVIRONMENT)
    theirs = scratch / f"wandb-{n}"
    wandb_run(theirs, n, SIX if n < 100_000 else "lr,loss").wait()
    marks = {"first": braille, "complete": lambda s: "State: Finished" in s}
    results = [timed(leet(theirs), marks)[0] for _ in range(rounds)]
    shutil.rmtree(theirs)
    return min(r["first"] for r in results), min(r["complete"] for r in results)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--records", type=int, nargs="+", default=[58_285, 1_000_000, 3_000_000, 10_000_000])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--leet", action="store_true", help="W&B LEET beside it, up to a million steps")
    parser.add_argument("--docs", action="store_true", help="write the table into docs/benchmarks.md")
    arguments = parser.parse_args()
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # an installed program has its bytecode, as Textual has
    compileall.compile_dir(str(Path(__file__).parents[2] / "eegwatch"), quiet=1)
    table = Table()
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        os.environ["EEGWATCH_CACHE"] = f"{scratch}/cache"
        words = [sys.executable, "-c", EMPTY]
        empty = min(timed(words, {"first": lambda s: "EMPTY" in s})[0]["first"] for _ in range(arguments.rounds))
        table.say("empty Textual app", f"{empty:.2f} s")
        for n in arguments.records:
            theirs = of_leet(scratch, n, arguments.rounds) if arguments.leet and n <= 1_000_000 else None
            if theirs is not None:
                table.say(f"{n:,} steps: W&B LEET, first curve and everything", f"{theirs[0]:.2f} s, {theirs[1]:.2f} s")
            run = make_log(scratch / str(n), n)
            measure(table, run, n, empty, arguments.rounds, theirs)
            shutil.rmtree(run)
        spent, share = writer_cost(scratch)
        table.say(
            "columns left by a RunLog, 100,000 steps of 0.2 ms", f"{spent:.2f} s, {share:.1%}", "1 %", share <= 0.01
        )
    if arguments.docs:
        table.into(Path(__file__).parents[2] / "docs/benchmarks.md")


if __name__ == "__main__":
    main()
