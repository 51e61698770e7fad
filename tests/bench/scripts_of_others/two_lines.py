"""The scripts of others with two lines (RunLog, or a callback), steered while they run, with no daemon.

Each is stuck on purpose (its own scheduler is kept from moving), then rejoins its declared schedule, is held at a rate,
is handed back, and is asked to stop: by lines of control.jsonl, and the answers say what was read back.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from eegwatch.run.control import send
from eegwatch.run.folder import newest_run
from tests.bench.scripts_of_others.trial import Case
from tests.e2e.processes import whole_lines

PATIENCE_S = 120.0
COLUMNS = ("start", "rejoin live", "hold a rate", "hand back", "stop", "resume, restart")


class Live:
    """One script that runs with its two lines; `run()` gives the words of each column."""

    def __init__(self, case: Case, folder: Path) -> None:
        self.case, self.work, self.logs = case, folder / "work", folder / "logs"
        case.lay_out(self.work, self.logs)
        words = [word.replace("{run}", str(folder)) for word in case.script["command"]]
        with (folder / "printed.txt").open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, *words[1:]], cwd=self.work, env=os.environ | case.script.get("env", {}),
                stdin=subprocess.DEVNULL, stdout=output, stderr=output,
            )  # fmt: skip
        self.output = folder / "printed.txt"

    def run(self) -> dict[str, str]:
        said: dict[str, str] = {}
        for name in COLUMNS:
            try:
                said[name] = getattr(self, "try_" + "".join(c if c.isalnum() else "_" for c in name))()
            except AssertionError as error:
                said[name] = "FAILED: " + " ".join(str(error).split())[:300]
            print(f"  {self.case.name}, two lines: {name}: {said[name]}", flush=True)
            if name == "start" and said[name].startswith("FAILED"):
                break
        if self.process.poll() is None:
            os.kill(self.process.pid, signal.SIGKILL)
            self.process.wait()
        return said

    def try_start(self) -> str:
        self.wait(lambda: len(self.of("step")) > 20)
        rates = {step["lr"] for step in self.of("step")[-10:]}
        assert len(rates) == 1, f"it is not stuck: {rates}"
        return f"works, stuck at {rates.pop():g}"

    def try_rejoin_live(self) -> str:
        answer = self.ask("resume")
        first = answer["effect"]["step"]
        self.wait(lambda: self.of("step")[-1]["step"] > first + 5)
        steps = {step["step"]: step["lr"] for step in self.of("step")}
        return f"works, {steps[first]:.6g} at step {first}, then {steps[first + 4]:.6g}"

    def try_hold_a_rate(self) -> str:
        answer = self.ask("resume", lr=1e-4, then="hold", force=True)
        return f"works, {answer['effect']['lr']:g} read back"

    def try_hand_back(self) -> str:
        return f"works, {self.ask('release')['effect']['lr']:g}"

    def try_stop(self) -> str:
        answer = self.ask("stop", may_fail=True)
        if answer["status"] != "done":
            return f"not by two lines: {answer['reason']}"
        self.process.wait(PATIENCE_S)
        return "works"

    def try_resume__restart(self) -> str:
        answer = self.ask("restart", may_fail=True) if self.process.poll() is None else None
        return "from its shell, or under the daemon" if answer is None else f"{answer['status']}: {answer['reason']}"

    def ask(self, name: str, *, may_fail: bool = False, **fields: Any) -> dict[str, Any]:
        run = newest_run(self.logs)
        command_id = send(self.logs, name, run.name if run else None, **fields)
        last: list[dict[str, Any]] = []

        def answered() -> bool:
            last[:] = [r for r in whole_lines(self.logs / "daemon.jsonl") if r.get("id") == command_id]
            return bool(last) and last[-1]["status"] != "accepted"

        self.wait(answered)
        assert may_fail or last[-1]["status"] == "done", json.dumps(last[-1])
        return last[-1]

    def of(self, kind: str) -> list[dict[str, Any]]:
        run = newest_run(self.logs) if self.logs.exists() else None
        return [r for r in whole_lines(run / "run.jsonl") if r["type"] == kind] if run else []

    def wait(self, until: Callable[[], bool]) -> None:
        end = time.monotonic() + PATIENCE_S
        while not until():
            alive = self.process.poll() is None
            assert alive and time.monotonic() < end, self.output.read_text(errors="replace")[-500:]
            time.sleep(0.1)
