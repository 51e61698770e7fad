"""TrainCheck's commands, each in a process of its own: collect a trace, infer invariants, check traces; with its time."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LIMIT = 900.0  # seconds of wall time for one command; a case takes some 10 s of processor time for each
LAST_LINES = 4


@dataclass(frozen=True)
class Ran:
    """`cpu`: seconds of processor time of the command and its children, user and system; `wall`: of the clock."""

    code: int
    cpu: float
    wall: float
    output: str


class Failed(Exception):
    """A command did not end well; the message has its name and the last lines of its output."""


@dataclass(frozen=True)
class Violation:
    """One invariant that a trace violates. `key`: the invariant itself; `step`: of the first record, -1 if it has none."""

    key: str
    relation: str
    text: str
    step: int


class TrainCheck:
    """`python`: the interpreter of the environment that TrainCheck is installed in."""

    def __init__(self, python: Path, limit: float = LIMIT) -> None:
        self.python, self.limit = python, limit

    def version(self) -> str:
        code = "import importlib.metadata as m; print(m.version('traincheck'), m.version('torch'), m.version('pandas'))"
        return run([str(self.python), "-c", code], Path("/"), self.limit).output.strip()

    def collect(self, script: Path, models: tuple[str, ...], trace: Path) -> Ran:
        """With its defaults: everything in torch is traced at each step, for what is learnt from and what is checked.

        A target can be traced selectively (`--invariants`). With torch 2.13 that leaves out functions, with a warning, and
        invariants on what they do are then violated by every training: 21 of 1088 in place of 7 by a reference of
        `zero_grad_missing`. Its tutorial and the evaluation of its false positives trace the targets fully too.
        """
        track = ["--models-to-track", *models] if models else []
        arguments = ["--pyscript", str(script), *track, "--output-dir", str(trace)]
        return self._run("collect_trace", arguments, script.parent)

    def infer(self, traces: list[Path], invariants: Path) -> Ran:
        arguments = ["-f", *map(str, traces), "-o", str(invariants)]
        return self._run("infer_engine", arguments, invariants.parent)

    def check(self, traces: list[Path], invariants: Path, results: Path) -> Ran:
        """Several traces in one call. The page for browsers is left out, it is no part of the check."""
        arguments = ["-f", *map(str, traces), "-i", str(invariants), "-o", str(results), "--no-html-report"]
        return self._run("checker", arguments, invariants.parent)

    def _run(self, module: str, arguments: list[str], folder: Path) -> Ran:
        ran = run([str(self.python), "-m", f"traincheck.{module}", *arguments], folder, self.limit)
        if ran.code:
            why = f"ended after {self.limit:.0f} s" if ran.code == -signal.SIGKILL else f"exit code {ran.code}"
            last = [line for line in ran.output.splitlines() if line.strip()][-LAST_LINES:]
            raise Failed(f"{module}: {why}: {' | '.join(last)}")
        return ran


def run(command: list[str], folder: Path, limit: float) -> Ran:
    """A command in a process group that is killed after `limit` seconds; its code is then -9."""
    began = time.monotonic()
    quiet = {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    output = folder / f"output-{os.getpid()}-{time.monotonic_ns()}.txt" if os.access(folder, os.W_OK) else None
    with (output or Path(os.devnull)).open("w+", encoding="utf-8") as sink:
        process = subprocess.Popen(
            command, cwd=folder, stdout=sink, stderr=subprocess.STDOUT, start_new_session=True, env=os.environ | quiet
        )
        code, usage = None, None
        while code is None:
            ended, status, usage = os.wait4(process.pid, os.WNOHANG)
            if ended:
                code = os.waitstatus_to_exitcode(status)
            elif time.monotonic() - began > limit:
                os.killpg(process.pid, signal.SIGKILL)
                _, status, usage = os.wait4(process.pid, 0)
                code = -signal.SIGKILL
            else:
                time.sleep(0.05)
        process.returncode = code
        sink.seek(0)
        text = sink.read()
    if output:
        output.unlink()
    assert usage is not None
    return Ran(code, usage.ru_utime + usage.ru_stime, time.monotonic() - began, text)


def violations(results: Path, trace: Path) -> list[Violation]:
    """What `check` wrote of one trace: JSON objects one after another, each begun by a line `{`."""
    objects: list[list[str]] = []
    for line in (results / trace.name / "failed.log").read_text(encoding="utf-8").splitlines():
        if line.startswith("{"):
            objects.append([])
        objects[-1].append(line)
    return [_violation(json.loads("\n".join(lines))) for lines in objects]


def _violation(told: dict[str, Any]) -> Violation:
    invariant = told["invariant"]
    steps = [record.get("meta_vars.step") for record in told.get("trace") or [] if isinstance(record, dict)]
    known = [int(step) for step in steps if isinstance(step, int | float) and step == step]
    parts = {name: invariant.get(name) for name in ("relation", "params", "precondition")}
    text = invariant.get("text_description") or _text(invariant)
    return Violation(json.dumps(parts, sort_keys=True), invariant["relation"], text, min(known, default=-1))


def _text(invariant: dict[str, Any]) -> str:
    names = [next((str(v) for k, v in param.items() if k.endswith("name") and v), "?") for param in invariant["params"]]
    return f"{invariant['relation']}: {', '.join(names)}"


def size_of(trace: Path) -> int:
    """Bytes of a trace: the files that the inference and the check read."""
    files = [*trace.glob("trace_*"), *trace.glob("proxy_log.json")]
    return sum(file.stat().st_size for file in files)


def outcome_of(text: str) -> str:
    """The hash that a script prints of the trained weights, empty where it prints none."""
    lines = [line for line in text.splitlines() if "outcome " in line]
    return lines[-1].split("outcome ")[1][:64] if lines else ""
