"""The writing of a RunLog: complete lines, kept in memory while a disk is full; numbers; warnings, once each."""

from __future__ import annotations

import sys
import warnings
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from eegwatch.run.indexer import DetectorsKept, WriterIndex
from eegwatch.run.log import AppendLog
from eegwatch.run.records import Run

KEPT_UNWRITTEN = 100_000  # lines kept for a disk that is full: some 20 MB
PACKAGE = str(Path(__file__).parents[1])


def _judge_of(data: bytes | None) -> DetectorsKept | None:
    from eegwatch.diagnosis.saved_state import judge_of  # 0.05 s, that a short run does not pay

    return judge_of(data)


class Writing:
    """The part of a RunLog that writes lines. Nothing here raises into the training."""

    _warned: set[str]  # the kinds of warnings that were given

    def _open_log(self, path: Path | None) -> None:
        """None: nothing is written, another process writes the run. Raises OSError if the file cannot be opened."""
        self._log = None if path is None else AppendLog(path)
        self._index = None if path is None else WriterIndex(path.parent, _judge_of)
        self._unwritten: deque[bytes] = deque(maxlen=KEPT_UNWRITTEN)
        self._ended = False

    def _put_first(self, run: Run) -> None:
        """Write the `run` record. Raises OSError."""
        if self._log is not None:
            self._log.append(run)

    def _put(self, line: bytes) -> None:
        """Write a line; what a full disk does not take is kept and written first as soon as it does."""
        if self._log is None:
            return
        if self._ended:
            self._say("a record after end() is not logged")
            return
        try:
            while self._unwritten:
                self._log.write(self._unwritten[0])
                self._unwritten.popleft()
            self._log.write(line)
            if self._index is not None:
                self._index.wrote()
        except OSError as error:
            self._unwritten.append(line)
            self._say(f"the log cannot be written ({error}): the records are kept, and written once it can")

    def _sync(self) -> None:
        if self._log is None:
            return
        try:
            self._log.sync()
        except OSError as error:
            self._say(f"the log cannot be made durable ({error})")

    def _close_log(self) -> None:
        if self._index is not None:
            self._index.close()
        if self._log is not None:
            self._log.close()

    def _number(self, value: Any, what: str) -> Any:
        """A value as a float, None if it is not a number; a tensor is detached first, to avoid torch's warning."""
        if value is None or type(value) is float:
            return value
        try:
            return float(value.detach() if hasattr(value, "detach") else value)
        except (TypeError, ValueError, RuntimeError) as error:
            self._say(f"{what} is not a number and not logged: {' '.join(str(error).split())[:120]}")
            return None

    def _named(self, metrics: Mapping[str, Any]) -> dict[str, Any]:
        numbers = {str(name): self._number(value, str(name)) for name, value in metrics.items()}
        return {name: value for name, value in numbers.items() if value is not None}

    def _say(self, words: str) -> None:
        """A warning, once for each thing that can be wrong."""
        kind = words[:40]
        if kind not in self._warned:
            self._warned.add(kind)
            warnings.warn(words if words.startswith("eegwatch") else f"eegwatch: {words}", stacklevel=_script_level())


def _script_level() -> int:
    """`stacklevel` of the nearest frame outside this package: the line of the script that a warning is about."""
    frame, level = sys._getframe(1), 1  # level 1 is the caller of this function, which calls warnings.warn
    while frame.f_back is not None and frame.f_code.co_filename.startswith(PACKAGE):
        frame, level = frame.f_back, level + 1
    return level
