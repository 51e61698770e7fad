"""How a script ended: its exit code, and its last lines where a shell hides the exit code.

`python train.py | tee log` returns tee's exit code, even if the training failed.
"""

from __future__ import annotations

import re
import signal
from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

LAST_LINES = 60
_TRACEBACK = re.compile(r"^(?:\[\w+\]:)?\s*Traceback \(most recent call last\)")
_ERROR = re.compile(r"^(?:\[\w+\]:)?\s*([A-Za-z_][\w.]*(?:Error|Exception|Interrupt|Exit|Warning)\b.*)$")
_REPORTS = ("torch.distributed.elastic.multiprocessing.errors.ChildFailedError", "subprocess.CalledProcessError")
_KILLED = re.compile(r": line \d+:\s+\d+ ((?:Killed|Segmentation fault|Aborted|Bus error|Floating point exception)\b)")


class EndDescription(NamedTuple):
    """`failed`: the script ended with an error; `words`: the reason, None if there is none."""

    failed: bool
    words: str | None


class LastLines:
    """The last lines that a script printed, and whether steps were read after them."""

    def __init__(self) -> None:
        self._lines: deque[str] = deque(maxlen=LAST_LINES)
        self.last_was_step = False
        self._head_of_step: str | None = None

    def add(self, line: str, *, stepped: bool) -> None:
        """Add a line. If a step was read from it, earlier error lines did not end the training."""
        if not line.strip() or (self._lines and line == self._lines[-1]):
            return  # the last state of a bar is printed once more when it ends
        head = _head(line)
        if stepped:
            self._lines.clear()
            self._head_of_step = head
        self._lines.append(line)
        self.last_was_step = stepped or head == self._head_of_step  # a bar has several states a step

    def error(self) -> str | None:
        """The error that these lines end with, if they do; of a launcher that reports a worker's, the worker's."""
        lines = list(self._lines)
        reported: str | None = None  # by a launcher: the errors above it are the workers'
        for number in range(len(lines) - 1, -1, -1):
            if (match := _KILLED.search(lines[number])) is not None:
                return match[1]
            if _TRACEBACK.match(lines[number]):
                error = _error_below(lines[number + 1 :])
                if reported is None and not error.startswith(_REPORTS):
                    return error
                if reported is None or not error.startswith(_REPORTS):
                    reported = error  # of several workers the first that failed: the others lost their connection to it
        return reported

    def last_line(self) -> str | None:
        """The last printed line, unless it is a step: `Loss is nan, stopping training`."""
        return None if self.last_was_step or not self._lines else self._lines[-1].strip()[:200]


def _head(line: str) -> str:
    """The words before the first digit, which the lines of all steps have in common."""
    return (re.match(r"\D*", line) or [""])[0].strip()


def _error_below(lines: Sequence[str]) -> str:
    for line in lines:
        if (match := _ERROR.match(line)) is not None:
            return match[1][:200]
    return "a Python error"


def describe_end(
    code: int, last: LastLines, step: int, total: int | None, per_epoch: int | None, *, read: bool, first: bool = True
) -> EndDescription:
    """How a script ended by itself. `read`: any step was read; `step`, `total`: the last one, and the run's length.

    `first`: it is the first attempt of its run.
    """
    if code < 0:
        return EndDescription(True, f"the script ended with killed by {signal.Signals(-code).name}")
    if code > 0:
        error = last.error() or last.last_line()
        return EndDescription(True, f"the script ended with exit code {code}" + (f": {error}" if error else ""))
    short = total is not None and step < total
    at = f"at step {step:,} of {total:,}" if short else f"at step {step:,}"
    if (total is None or short) and (error := last.error()) is not None:
        return EndDescription(True, f"exit code 0 {at}, but its last words are an error: {error}")
    if not read and not first:
        return EndDescription(False, "exit code 0, without a further step")
    if not read:
        words = "exit code 0, but no step was read; if it starts the training in the background, name that command"
        return EndDescription(False, words)
    if short and per_epoch and step % per_epoch > 1 and last.last_was_step:  # a bar at 60/60 may count as step 61
        return EndDescription(
            True, f"exit code 0 in the middle of an epoch, {at}: a shell hid how it ended (tee without pipefail)"
        )
    return EndDescription(False, f"exit code 0 {at}" if short else None)
