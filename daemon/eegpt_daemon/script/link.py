"""The runner's end of what supervisor and runner say to each other: orders come by a pipe that any daemon can open."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import msgspec

from eegpt_daemon.link import AT_ONCE_AFTER_S, ORDERS, Order, Phase

_decoder = msgspec.json.Decoder(dict[str, str | None])


class ScriptLink:
    """Receives orders and sends phases. Never blocks; without a daemon it sends and receives nothing."""

    def __init__(self, folder: Path, status: str) -> None:
        """Makes the pipe of orders. Raises OSError."""
        path = folder / ORDERS
        if not path.exists():
            os.mkfifo(path, 0o600)
        # read and write: the pipe has a writer at all times, so that it never ends when a daemon does
        self._orders = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW)
        self._buffer = b""
        self._terms: list[float] = []
        self._state, self._progress, self._step = "starting", 0, 0
        self._code: int | None = None
        self._sent = 0.0
        self._status: int | None = None
        self._attach(status)
        signal.signal(signal.SIGTERM, lambda *_: self._terms.append(time.monotonic()))
        signal.signal(signal.SIGINT, signal.SIG_IGN)

    def _attach(self, status: str) -> None:
        """Say phases to this named pipe from now on."""
        if self._status is not None:
            os.close(self._status)
        try:
            self._status = os.open(status, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            self._status = None  # that daemon is gone again
        self._send()

    def order(self) -> Order | None:
        """The next order, if any; SIGTERM is one to stop."""
        if self._terms:
            last = self._terms[-1]
            self._terms = [] if len(self._terms) == 1 or last - self._terms[0] > AT_ONCE_AFTER_S else self._terms[-1:]
            return Order(order="stop")
        try:
            self._buffer += os.read(self._orders, 1 << 16)
        except BlockingIOError:
            pass
        while b"\n" in self._buffer:
            line, _, self._buffer = self._buffer.partition(b"\n")
            try:
                message = _decoder.decode(line)
            except msgspec.DecodeError:
                continue  # a line torn by a daemon that died while it wrote
            if message.get("order") == "attach":
                self._attach(str(message.get("status")))
            elif message.get("order") in ("stop", "checkpoint"):
                return msgspec.convert({k: v for k, v in message.items() if v is not None}, Order)
        return None

    def phase(self, state: str, step: int = 0, reason: str | None = None, code: int | None = None) -> None:
        self._state, self._step, self._code = state, step, code
        self._progress += 1
        self._send()

    def tick(self, step: int) -> None:
        """Count one piece of output; sent at most once a second."""
        self._progress, self._step = self._progress + 1, step
        if time.monotonic() - self._sent > 1.0:
            self._send()

    def _send(self) -> None:
        self._sent = time.monotonic()
        if self._status is None:
            return
        phase = Phase(state=self._state, progress=self._progress, step=self._step, code=self._code)
        try:
            os.write(self._status, msgspec.json.encode(phase) + b"\n")
        except BlockingIOError:
            pass
        except BrokenPipeError:  # the daemon died: the script goes on, and the next daemon attaches itself
            os.close(self._status)
            self._status = None
