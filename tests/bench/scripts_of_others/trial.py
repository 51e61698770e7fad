"""One script under a real daemon, through every command: what worked, and the words for what did not."""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import yaml

from tests.e2e.processes import Daemon, whole_lines

PATIENCE_S = 240.0
COLUMNS = ("start", "adopted", "killed, revived", "resume", "resume --lr", "stop", "restart")


@dataclass
class Case:
    """A script: `files` are copied into a folder of its own; `script` and `training` go into the configuration."""

    name: str
    files: tuple[Path, ...]
    script: dict[str, Any]
    training: dict[str, Any] = field(default_factory=dict)
    prepare: Callable[[Path], None] = lambda _: None
    enough: int = 20  # steps after which it counts as training
    edits: tuple[tuple[str, str, str], ...] = ()  # (file, text, text in its place): the two lines, a path

    def lay_out(self, work: Path, logs: Path) -> None:
        """Copy the files into a folder of the case's own, make its data, edit it."""
        work.mkdir(parents=True)
        for path in self.files:
            shutil.copytree(path, work / path.name) if path.is_dir() else shutil.copy(path, work / path.name)
        self.prepare(work)
        for name, text, instead in self.edits:
            source = (work / name).read_text()
            assert source.count(text) == 1, f"{name} holds {source.count(text)} times: {text}"
            (work / name).write_text(source.replace(text, instead.replace("LOGS", repr(str(logs)))))


class Trial:
    def __init__(self, case: Case, folder: Path) -> None:
        self.case, self.folder = case, folder
        shutil.rmtree(folder, ignore_errors=True)
        case.lay_out(folder / "work", folder / "logs")
        self.daemon = Daemon(folder / "logs")
        self.daemon.logs.mkdir(mode=0o700)
        tree = {
            "experiment": {"name": "trial"},
            "script": {"cwd": str(folder / "work")} | case.script,
            "training": case.training,
            "supervision": {"restarts": {"backoff_seconds": 0.5}},
        }
        (folder / "mine.yaml").write_text(yaml.safe_dump(tree))

    def run(self) -> dict[str, str]:
        said: dict[str, str] = {}
        for name in COLUMNS:
            begun = time.monotonic()
            try:
                words = getattr(self, "try_" + "".join(c if c.isalnum() else "_" for c in name))()
            except AssertionError as error:
                words = "FAILED: " + " ".join(str(error).split())[:400]
            said[name] = words
            print(f"  {self.case.name}: {name}: {words} ({time.monotonic() - begun:.0f} s)", flush=True)
            if name == "start" and words.startswith(("FAILED", "completes")):
                break
        self.daemon.kill()
        for process in self.processes():
            process.kill()
        return said

    # ---- each column ----

    def try_start(self) -> str:
        self.daemon.cli("start", "--config", str(self.folder / "mine.yaml"))
        self.wait(lambda: len(self.of("step")) >= self.case.enough or self.ended())
        if not self.of("step") and self.of("eval") and self.of("end")[-1]["reason"] == "completed":
            return f"completes; {len(self.of('eval'))} evaluations"
        self.must(len(self.of("step")) >= self.case.enough, f"ended early: {self.of('end')}")
        run, step = self.of("run")[-1], self.of("step")[-1]
        known = [f"{run['total_steps']} steps" if run.get("total_steps") else "no length"]
        known += [] if run.get("schedule") else ["no schedule"]
        known += [
            name for name in ("loss", "lr") if step.get(name) is None and not any(s.get(name) for s in self.of("step"))
        ]
        return "works; " + ", ".join(known)

    def try_adopted(self) -> str:
        os.kill(self.daemon.pid or 0, signal.SIGKILL)
        before = len(self.of("step"))
        self.wait(lambda: len(self.of("step")) > before + 2)
        self.daemon.cli("start", "--continue")
        before = len(self.of("step"))
        self.wait(lambda: len(self.of("step")) > before + 2)
        self.must(len({r["attempt"] for r in self.of("run")}) == 1, "another attempt was begun")
        return "works"

    def try_killed__revived(self) -> str:
        if "resume" not in self.case.script:
            return "no resume"
        self.wait(lambda: self.of("checkpoint"))
        attempts = self.attempts()
        if self.ended():
            return f"FAILED: it ended before: {self.of('end')[-1]}"
        self.script().kill()
        self.wait(lambda: self.of("end"))
        self.wait(lambda: self.attempts() > attempts or "not restarted" in self.state())
        self.must(self.attempts() > attempts, self.state())
        self.wait(self.stepped)
        run = self.of("run")[-1]
        return f"works, from {run['checkpoint']} (step {run['step']})"

    def try_resume(self) -> str:
        if "resume" not in self.case.script:
            return "no resume"
        attempts = self.attempts()
        self.daemon.cli("resume")
        self.must(self.attempts() > attempts, "no new attempt")
        return f"works, step {self.of('run')[-1]['step']}"

    def try_resume___lr(self) -> str:
        if "{lr}" not in str(self.case.script.get("resume")):
            return "takes no rate"
        self.daemon.cli("resume", "--lr", "3e-4", "--then", "hold")
        self.wait(self.stepped)
        rates = {s["lr"] for s in self.newest_steps() if s.get("lr") is not None}
        self.must(not rates or rates == {3e-4}, f"rates {rates}")
        return "works" + ("" if rates else ", its rate is not read")

    def try_stop(self) -> str:
        self.daemon.cli("stop")
        self.must(self.of("end")[-1]["reason"] == "stopped", f"{self.of('end')[-1]}")
        left = [p.cmdline() for p in self.processes()]
        self.must(not left, f"left behind: {left}")
        return "works"

    def try_restart(self) -> str:
        run = self.daemon.run
        if "resume" in self.case.script:
            self.daemon.cli("resume")  # starts a daemon
        else:
            self.daemon.cli("start", "--config", str(self.folder / "mine.yaml"))
            run = self.daemon.run
        self.daemon.cli("restart")
        self.must(self.daemon.run != run, "the same run")
        self.wait(self.stepped)
        self.must(self.of("step")[0]["step"] <= 100, f"begins at step {self.of('step')[0]['step']}")
        self.daemon.cli("stop")
        left = [p.cmdline() for p in self.processes()]
        self.must(not left, f"left behind: {left}")
        return "works"

    # ---- what is there ----

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [r for r in whole_lines(self.daemon.run / "run.jsonl") if r["type"] == kind]

    def attempts(self) -> int:
        return max((r["attempt"] for r in self.of("run")), default=0)

    def newest_steps(self) -> list[dict[str, Any]]:
        records = whole_lines(self.daemon.run / "run.jsonl")
        last = max(i for i, r in enumerate(records) if r["type"] == "run")
        return [r for r in records[last:] if r["type"] == "step"]

    def stepped(self) -> bool:
        return bool(self.newest_steps())

    def ended(self) -> bool:
        return bool(self.of("end"))

    def state(self) -> str:
        lines = [r for r in whole_lines(self.daemon.logs / "daemon.jsonl") if r["type"] == "daemon"]
        return f"{lines[-1]['state']}: {lines[-1].get('reason')}"

    def script(self) -> psutil.Process:
        """The process that trains: the first of Python's below the runner, whatever launcher stands between."""
        runner = next(p for p in self.processes() if "eegpt_daemon.script" in p.cmdline())
        below = runner.children(recursive=True)
        return next((p for p in below if "python" in p.name()), below[0])

    def processes(self) -> list[psutil.Process]:
        """All that this trial has started and that live: told by its folder, in their words or as where they run."""
        mine, found = str(self.folder), []
        for process in psutil.process_iter():
            try:
                if (
                    process.pid != os.getpid()
                    and process.status() != psutil.STATUS_ZOMBIE
                    and (mine in " ".join(process.cmdline()) or process.cwd().startswith(mine))
                ):
                    found.append(process)
            except (psutil.NoSuchProcess, psutil.AccessDenied):
                continue
        return found

    def wait(self, until: Callable[[], Any]) -> None:
        end = time.monotonic() + PATIENCE_S
        while not until():
            self.must(time.monotonic() < end, f"waited in vain; {self.state()}; {self.tail()}")
            time.sleep(0.2)

    def tail(self) -> str:
        path = self.daemon.run / "trainer.log"
        return path.read_text()[-600:] if path.exists() else "no output"

    def must(self, true: bool, words: str) -> None:
        if not true:
            raise AssertionError(words)
