"""The process that runs one attempt of a script: its terminal, its output, its run log, its end.

The script runs in a session of its own behind a pseudo-terminal, with standard input from /dev/null. What it prints
goes to trainer.log and is read as a text log into run.jsonl. A script that uses RunLog writes run.jsonl itself; one
that writes a log of a known kind below its run folder is read from that. A daemon that dies leaves this process
running, and the next one adopts it by the named pipe `script.orders`.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import select
import signal
import struct
import subprocess
import termios
import time
from pathlib import Path
from typing import Any

import msgspec
import psutil

from eegpt_daemon.link import Attempt
from eegpt_daemon.script import checkpoints as saved
from eegpt_daemon.script.console import Console
from eegpt_daemon.script.link import ScriptLink
from eegpt_daemon.script.runlog import ScriptLog
from eegpt_daemon.script.template import filled
from eegwatch.run.config import Config
from eegwatch.run.folder import TRAINER_LOG, open_output
from eegwatch.run.records import Checkpoint

LOOK_EVERY_S = 2.0  # at checkpoints and other logs
TERM_AFTER_S, KILL_AFTER_S = 20.0, 35.0  # after the stop signal; the supervisor insists at 30 and 45 s
DRAIN_S = 2.0  # for what is left in the terminal of a script that has ended
COLUMNS = 200


class Runner:
    """`run()` returns the script's exit code, negative for a signal."""

    def __init__(self, folder: Path, attempt: Attempt, config: Config, link: ScriptLink) -> None:
        assert config.script is not None
        self.folder, self.attempt, self.script, self.link = folder, attempt, config.script, link
        self.console = Console()
        self.log = ScriptLog(folder, attempt, config)
        self.out = open_output(folder / TRAINER_LOG)
        self.stop_reason: str | None = None
        self._stop_asked = 0.0
        self._sent: set[int] = set()
        self._looked_at = 0.0
        self._known: set[tuple[str, float]] = set()
        self.master = -1

    # ---- life ----

    def run(self) -> int:
        command = self._command()
        self._say(f"$ {' '.join(command)}   (in {self.script.cwd})")
        try:
            process = self._spawn(command)
        except OSError as error:
            self._say(f"eegpt-daemon: {command[0]} cannot be started: {error.strerror}")
            self.log.end("failed", f"{command[0]} cannot be started: {error.strerror}")
            return 78
        self.link.phase("training")
        if self.attempt.checkpoint:
            self._known = {self._key(written, path) for written, path in self._candidates()}
        while process.poll() is None:
            self._read(0.1)
            self._obey(process)
            self._insist(process)
            self._look()
        end = time.monotonic() + DRAIN_S
        while time.monotonic() < end and self._read(0.1):
            pass
        for text, keep in self.console.end():
            self._line(text, keep)
        self._look(at_once=True)
        return self._conclude(process.returncode)

    def _command(self) -> list[str]:
        name, lr = self.attempt.checkpoint, self._manual_rate()
        if name is None or self.script.resume is None:
            return filled(self.script.command, run=self.folder)
        return filled(self.script.resume, run=self.folder, checkpoint=self.folder / name, lr=lr)

    def _manual_rate(self) -> float | None:
        """The rate that holds from here on, where the newest change named one."""
        newest: dict[str, Any] = self.attempt.overrides[-1] if self.attempt.overrides else {}
        return newest.get("lr")

    def _spawn(self, command: list[str]) -> subprocess.Popen[bytes]:
        self.master, slave = os.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 50, COLUMNS, 0, 0))
        attributes = termios.tcgetattr(slave)
        attributes[1] &= ~termios.OPOST  # \n stays \n
        termios.tcsetattr(slave, termios.TCSANOW, attributes)
        env = os.environ | self.script.env | {
            "EEGWATCH_RUN": str(self.folder), "EEGWATCH_ATTEMPT": msgspec.json.encode(self.attempt).decode(),
            "PYTHONUNBUFFERED": "1", "COLUMNS": str(COLUMNS), "TERM": "dumb",
        }  # fmt: skip
        try:
            process = subprocess.Popen(
                command, cwd=self.script.cwd, env=env, stdin=subprocess.DEVNULL, stdout=slave, stderr=slave,
                start_new_session=True, close_fds=True,
                # the terminal is the script's own: if this process dies, the kernel hangs up, and the script ends
                preexec_fn=lambda: fcntl.ioctl(1, termios.TIOCSCTTY, 0),
            )  # fmt: skip
        finally:
            os.close(slave)
        os.set_blocking(self.master, False)
        return process

    def _conclude(self, code: int) -> int:
        words = f"exit code {code}" if code >= 0 else f"killed by {signal.Signals(-code).name}"
        if self.stop_reason is not None:
            self.log.end(self.stop_reason, None)
        elif code == 0:
            self.log.end("completed", None)
        else:
            self.log.end("failed", f"the script ended with {words}")
        self._say(f"eegpt-daemon: the script ended: {words}")
        self.link.phase("ended", step=self.log.step, code=0 if self.stop_reason is not None else code)
        return 0 if self.stop_reason is not None else code

    # ---- output ----

    def _read(self, wait: float) -> bool:
        """Take what the script printed; False where nothing came."""
        ready, _, _ = select.select([self.master], [], [], wait)
        if not ready:
            return False
        try:
            data = os.read(self.master, 1 << 16)
        except OSError as error:
            if error.errno != errno.EIO:  # EIO: nobody holds the other end any more
                raise
            time.sleep(wait)
            return False
        for text, keep in self.console.feed(data, time.monotonic()):
            self._line(text, keep)
        self.link.tick(self.log.step)
        return bool(data)

    def _line(self, text: str, keep: bool) -> None:
        if keep:
            self._say(text)
        self.log.line(text)

    def _say(self, text: str) -> None:
        try:
            self.out.write(text.encode("utf-8", "replace") + b"\n")
            self.out.flush()
        except OSError:
            pass  # a full disk: the script goes on, and so does what is read from it

    # ---- orders ----

    def _obey(self, process: subprocess.Popen[bytes]) -> None:
        while (order := self.link.order()) is not None:
            if order.order == "stop":
                if self.stop_reason is None:
                    self.stop_reason, self._stop_asked = order.reason, time.monotonic()
                    self._signal(process, getattr(signal, self.script.stop))
                else:
                    self._signal(process, signal.SIGKILL if signal.SIGTERM in self._sent else signal.SIGTERM)

    def _insist(self, process: subprocess.Popen[bytes]) -> None:
        """A script that does not end: SIGTERM, then SIGKILL, to its process group."""
        if self.stop_reason is None:
            return
        waited = time.monotonic() - self._stop_asked
        for after, number in ((TERM_AFTER_S, signal.SIGTERM), (KILL_AFTER_S, signal.SIGKILL)):
            if waited > after and number not in self._sent:
                self._say(f"eegpt-daemon: the script does not end: {number.name}")
                self._signal(process, number)

    def _signal(self, process: subprocess.Popen[bytes], number: signal.Signals) -> None:
        self._sent.add(number)
        workers = []
        if number == signal.SIGKILL:  # in groups of their own too; asked before they lose their parent
            with contextlib.suppress(psutil.NoSuchProcess):
                workers = psutil.Process(process.pid).children(recursive=True)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)  # it leads its own session: the group has its pid
        for worker in workers:
            with contextlib.suppress(psutil.NoSuchProcess):
                worker.kill()

    # ---- checkpoints and other logs ----

    def _look(self, at_once: bool = False) -> None:
        now = time.monotonic()
        if now - self._looked_at < LOOK_EVERY_S and not at_once:
            return
        self._looked_at = now
        self.log.look()
        for found in self._new_checkpoints(ended=at_once):
            record = Checkpoint(
                time=time.time(),
                step=self.log.step,
                path=found.path,
                best="best" in Path(found.path).stem.lower(),
            )
            self.log.append(record)

    def _new_checkpoints(self, *, ended: bool) -> list[saved.Found]:
        """Files that were written since the last look and are whole now, oldest first. `ended`: nobody writes now."""
        new: list[saved.Found] = []
        for written, path in self._candidates():
            key = self._key(written, path)
            now = written + saved.SETTLED_S if ended else time.time()
            if key in self._known or now - written < saved.SETTLED_S:
                continue
            how = saved.whole(path, written, now)
            if how is not None:
                self._known.add(key)
                new.append(saved.Found(key[0], written, how))
        return new[::-1]

    def _candidates(self) -> list[tuple[float, Path]]:
        return saved.candidates(self.folder, self.script.checkpoints) if self.script.checkpoints else []

    def _key(self, written: float, path: Path) -> tuple[str, float]:
        """A file as it was written at a time: written again, it is another checkpoint."""
        return str(path.relative_to(self.folder)), written


def decoded(attempt: str) -> Attempt:
    return msgspec.json.decode(attempt, type=Attempt)
