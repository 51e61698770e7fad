"""Messages between supervisor and trainer: one JSON value at the start, then JSON lines in both directions.

Down the trainer's standard input: commands. Up a named pipe: its phase, and `progress`, counted by the training loop
itself, so that a hung loop is seen although its process lives. Both reach rank 0 through torch's launcher as well,
which passes standard input on, and no other descriptor.
"""

from __future__ import annotations

import os
import queue
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any, Literal

import msgspec

from eegwatch.run.control import Locked, take_lock

SUPERVISOR_GONE = "the supervisor is gone"
BOTH_DIED = "the daemon and its trainer died"
SHELL_UMASK = "EEGPT_DAEMON_SHELL_UMASK"  # set by the command line, which makes its own files private
ORDERS = "script.orders"  # the named pipe by which the runner of a script gets its orders, in the run folder
RUN_LOCK = "trainer.lock"  # held by the one trainer that may write a run
AT_ONCE_AFTER_S = 3.0  # a scheduler and a launcher may both send the first SIGTERM, a moment apart
ORPHAN_PATIENCE_S = 30.0  # a trainer whose supervisor died needs that long at most to checkpoint and leave


def hold_run(folder: Path) -> bool:
    """Hold the run's lock, waiting ORPHAN_PATIENCE_S for another process to let go; else a message, and False."""
    end = time.monotonic() + ORPHAN_PATIENCE_S
    while True:  # two trainers must never write one run
        try:
            take_lock(folder / RUN_LOCK)
            return True
        except Locked as held:
            if time.monotonic() > end:
                print(f"eegpt-daemon: another trainer (pid {held.args[0]}) still holds {folder}", file=sys.stderr)
                return False
            time.sleep(0.1)


class Attempt(msgspec.Struct, kw_only=True):
    """One attempt: its number, what it resumes from, and the manual changes of the rate so far."""

    attempt: int = 1
    parent: str | None = None
    parent_step: int | None = None  # where it branched off
    checkpoint: str | None = None
    overrides: list[dict[str, Any]] = []
    command: str | None = None
    notes: list[str] = []
    argv: list[str] = []
    keep: list[str] = []  # checkpoints that a person ordered: not pruned
    ended: str | None = None  # the reason for which the attempt before ended


class Order(msgspec.Struct, kw_only=True):
    """From the supervisor to the trainer."""

    order: Literal["stop", "checkpoint"]
    reason: str = "stopped"
    command: str | None = None


class Phase(msgspec.Struct, kw_only=True):
    """From the trainer to the supervisor."""

    state: str
    progress: int
    step: int = 0
    reason: str | None = None
    code: int | None = None  # the exit code that the trainer means: torch's launcher has one of its own


class NullLink:
    """The link of a process that does not lead: it gets no orders and reports nothing."""

    def __init__(self) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # rank 0 stops everyone, at the same step
        signal.signal(signal.SIGINT, signal.SIG_IGN)

    def order(self) -> Order | None:
        return None

    def put_back(self, order: Order) -> None: ...

    def phase(self, state: str, step: int = 0, reason: str | None = None, code: int | None = None) -> None: ...

    def tick(self, step: int, reason: str | None = None) -> None: ...


class Link:
    """The trainer's end: orders arrive in a thread, phases go out without ever blocking the loop."""

    def __init__(self, status: str) -> None:
        """`status`: the named pipe that the supervisor reads; without a reader the supervisor is gone."""
        self._orders: queue.SimpleQueue[Order] = queue.SimpleQueue()
        self._state, self._progress, self._step = "starting", 0, 0
        self._reason: str | None = None
        self._sent = 0.0
        self._code: int | None = None
        self._fd: int | None = None
        try:
            self._fd = os.open(status, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            self._orders.put(Order(order="stop", reason=SUPERVISOR_GONE))
        self._told_at: float | None = None  # SIGTERM
        signal.signal(signal.SIGTERM, self._terminated)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C in --foreground is the supervisor's to handle
        threading.Thread(target=self._listen, name="orders", daemon=True).start()

    def _terminated(self, number: int, frame: object) -> None:
        """The first SIGTERM asks for a checkpoint and the end; one some seconds later, to leave at once without."""
        now = time.monotonic()
        if self._told_at is None:
            self._told_at = now
            self._orders.put(Order(order="stop"))
        elif now - self._told_at > AT_ONCE_AFTER_S:
            os._exit(75)

    def _listen(self) -> None:
        decoder, buffer = msgspec.json.Decoder(Order), b""
        while data := os.read(0, 1 << 16):  # not sys.stdin: its buffer's lock cannot be had when the process exits
            *lines, buffer = (buffer + data).split(b"\n")
            for line in lines:
                try:
                    self._orders.put(decoder.decode(line))
                except msgspec.DecodeError as error:  # this thread must live: without it no order is heard
                    print(f"eegpt-daemon: a line that is not an order: {error}", flush=True)
        self._orders.put(Order(order="stop", reason=SUPERVISOR_GONE))

    def order(self) -> Order | None:
        """The next order, if any."""
        if self._orders.empty():
            return None
        try:
            return self._orders.get_nowait()
        except queue.Empty:
            return None

    def put_back(self, order: Order) -> None:
        self._orders.put(order)

    def phase(self, state: str, step: int = 0, reason: str | None = None, code: int | None = None) -> None:
        """Enter a phase; sent at once."""
        self._state, self._step, self._reason, self._code = state, step, reason, code
        self._progress += 1
        self._send()

    def tick(self, step: int, reason: str | None = None) -> None:
        """Count one unit of work; sent at most once a second."""
        self._progress += 1
        self._step = step
        self._reason = reason or self._reason
        if time.monotonic() - self._sent > 1.0:
            self._send()

    def _send(self) -> None:
        self._sent = time.monotonic()
        phase = Phase(state=self._state, progress=self._progress, step=self._step, reason=self._reason, code=self._code)
        if self._fd is None:
            return
        try:
            os.write(self._fd, msgspec.json.encode(phase) + b"\n")
        except BlockingIOError:
            pass  # the pipe is full: the supervisor is slow, and the next phase says more than this one
        except BrokenPipeError:
            self._orders.put(Order(order="stop", reason=SUPERVISOR_GONE))
