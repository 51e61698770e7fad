"""The process that runs one attempt of a script: its terminal, its output, its run log, its end.

The script runs in a session of its own behind a pseudo-terminal, with standard input from /dev/null. Its output
goes to trainer.log and is read as a text log into run.jsonl. A script that uses RunLog writes run.jsonl itself; one
that writes a log of a known kind below its run folder is read from that. A daemon that dies leaves this process
running, and the next one adopts it by the named pipe `script.orders`.
"""

from __future__ import annotations

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
from eegpt_daemon.script import processes
from eegpt_daemon.script.console import Console
from eegpt_daemon.script.ending import EndDescription, describe_end
from eegpt_daemon.script.link import ScriptLink
from eegpt_daemon.script.runlog import ScriptLog
from eegpt_daemon.script.saving import CheckpointFiles
from eegpt_daemon.script.template import filled
from eegwatch.run.config import Config
from eegwatch.run.folder import TRAINER_LOG, open_output
from eegwatch.run.records import Checkpoint

LOOK_EVERY_S = 2.0  # at checkpoints and other logs
TERM_AFTER_S, KILL_AFTER_S = 20.0, 35.0  # after the stop signal; the supervisor insists at 30 and 45 s
WRITING_AT_MOST_S = 10.0  # so long the stop signal waits for a checkpoint that is being written
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
        self._training = False
        self._sent: set[int] = set()
        self._looked_at = 0.0
        self.saving = CheckpointFiles(folder, self.script, resumed=attempt.checkpoint is not None)
        self.master = -1

    # ---- life ----

    def run(self) -> int:
        command = self._command()
        processes.adopt_orphans()
        self._end_the_left(processes.of_run(self.folder), "an earlier attempt")
        self._say(f"$ {' '.join(command)}   (in {self.script.cwd})")
        try:
            process = self._spawn(command)
        except OSError as error:
            self._say(f"eegpt-daemon: {command[0]} cannot be started: {error.strerror}")
            self.log.end("failed", f"{command[0]} cannot be started: {error.strerror}")
            return 78
        self.link.phase("preparing")
        while process.poll() is None or self._goes_on(process.returncode):
            self._read(0.1)
            self._obey(process)
            self._insist(process)
            self._look()
        end = time.monotonic() + DRAIN_S
        while time.monotonic() < end and self._read(0.1):
            pass
        for text, keep in self.console.end():
            self._line(text, keep)
        self.log.drain()  # a step that waited for its other values comes before its checkpoint
        self._look(at_once=True)
        return self._conclude(process.returncode)

    def _goes_on(self, code: int) -> bool:
        """Whether the command left the training in the background: it ended with exit code 0 and its children live."""
        return code == 0 and self.stop_reason is None and not self.log.read and bool(processes.descendants())

    def _end_the_left(self, left: list[psutil.Process], whose: str) -> None:
        """Workers that outlive a script which died or was stopped hold its memory, on a GPU too."""
        if left:
            self._say(f"eegpt-daemon: ends what {whose} left behind: pid {', '.join(str(p.pid) for p in left)}")
            processes.end_all(left)

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
        # a bar of rich draws nothing on a dumb terminal; Console takes colours and movements of the cursor out
        env = os.environ | self.script.env | {
            "EEGWATCH_RUN": str(self.folder), "EEGWATCH_ATTEMPT": msgspec.json.encode(self.attempt).decode(),
            "PYTHONUNBUFFERED": "1", "COLUMNS": str(COLUMNS), "TERM": "xterm",

        }  # fmt: skip
        try:
            process = subprocess.Popen(
                command, cwd=self.script.cwd, env=env, stdin=subprocess.DEVNULL, stdout=slave, stderr=slave,
                start_new_session=True, close_fds=True,
                preexec_fn=_as_from_a_shell, umask=-1 if self.script.umask is None else int(self.script.umask, 8),
            )  # fmt: skip
        finally:
            os.close(slave)
        os.set_blocking(self.master, False)
        return process

    def _conclude(self, code: int) -> int:
        words = f"exit code {code}" if code >= 0 else f"killed by {signal.Signals(-code).name}"
        self._say(f"eegpt-daemon: the script ended: {words}")
        self.log.drain()
        self.log.read_last_lines()
        if self.stop_reason is not None:
            ending, reason = EndDescription(False, None), self.stop_reason
        else:
            ending = describe_end(
                code,
                self.log.last,
                self.log.step,
                self.log.total,
                self.log.per_epoch,
                read=self.log.read,
                first=self.attempt.attempt == 1,
            )
            reason = "failed" if ending.failed else "completed"
        if ending.failed or self.stop_reason is not None:
            self._end_the_left(processes.descendants(), "the script")
        self.log.end(reason, ending.words)
        code = 0 if self.stop_reason is not None else code or int(ending.failed)
        self.link.phase("ended", step=self.log.step, code=code)
        return code

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
        if self.console.moved:
            self._moved()
        return bool(data)

    def _moved(self) -> None:
        """The script counts as training from the first step that is read."""
        if self.log.read and not self._training:
            self._training = True
            self.link.phase("training", self.log.step)
        self.link.tick(self.log.step)

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
                    self._stop(process)
                else:
                    self._signal(process, signal.SIGKILL if signal.SIGTERM in self._sent else signal.SIGTERM)

    def _stop(self, process: subprocess.Popen[bytes]) -> None:
        """The stop signal, after a checkpoint that is being written: torn, it would be lost with what it replaces."""
        end = time.monotonic() + WRITING_AT_MOST_S
        while time.monotonic() < end and process.poll() is None and (name := self.saving.being_written()):
            self._say(f"eegpt-daemon: waits for {name}, which is being written")
            self._read(0.5)
        number: signal.Signals = getattr(signal, self.script.stop)
        deaf = processes.deaf(number)
        self._signal(process, number)
        if deaf and number != signal.SIGTERM:
            self._say(f"eegpt-daemon: the script ignores {number.name} (a shell started it with &?): SIGTERM")
            self._signal(process, signal.SIGTERM)

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
        processes.send(process, number)

    # ---- checkpoints and other logs ----

    def _look(self, at_once: bool = False) -> None:
        now = time.monotonic()
        if now - self._looked_at < LOOK_EVERY_S and not at_once:
            return
        self._looked_at = now
        step = self.log.step
        self.log.look()
        if self.log.step > step:  # read from a file: its output may be empty
            self._moved()
        for checkpoint in self.saving.new(ended=at_once):
            record = Checkpoint(
                time=time.time(),
                step=self.log.steps.at(checkpoint.written, checkpoint.path),
                path=checkpoint.path,
                best="best" in Path(checkpoint.path).stem.lower(),
            )
            self.log.announce()
            self.log.append(record)


def _as_from_a_shell() -> None:
    """In the script before its program begins: its terminal, and the signals that this process ignores."""
    # the terminal is the script's own: if this process dies, the kernel hangs up, and the script ends
    fcntl.ioctl(1, termios.TIOCSCTTY, 0)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, signal.SIG_DFL)  # ignored, it stays so through exec: Ctrl-C would not be heard


def decoded(attempt: str) -> Attempt:
    return msgspec.json.decode(attempt, type=Attempt)
