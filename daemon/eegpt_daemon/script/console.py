"""The terminal output of a script, converted for trainer.log: lines unchanged, progress bars by their last state.

A bar rewrites its line about ten times a second with a carriage return: all states would fill gigabytes a day.
"""

from __future__ import annotations

import codecs
import math
import re

LONGEST = 1 << 16  # characters of one line: more without a newline is cut into lines
MOST_STATES = 64  # of bars that are told apart
REDRAWS_S = 5.0  # after the cursor was moved up, lines that look like bars are drawn over
BAR_EVERY_S = 30.0  # the state of a bar that does not end is worth a line that often
_ESCAPE = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|\x1b[@-Z\\-_]")
# durations, times of arrival, paces, and the dots of a spinner: what changes on a bar while nothing is done
_CLOCKS = re.compile(
    r"[\d?]+(?::[\d?-]+)+|-:--:--|[\d.,?]+ ?\w*/s(?:ec)?\b|[\d.,?]+ ?s(?:ec)?(?:/\w+)?\b|[\u2800-\u28ff]"
)
_CURSOR_UP = re.compile(r"\x1b\[\d*[AF]")
_BAR = re.compile(r"[━█▏▎▍▌▋▊▉╸╺]|\d%\||it/s|s/it|\d+/\d+")


class Console:
    """Bytes of a terminal to finished lines. `line` is the state of the line that is not finished."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._pending = ""
        self._bar: str | None = None
        self._told_at = 0.0
        self._drawn_over: dict[str, float] = {}  # head of a line that is drawn over -> when it was last kept
        self._redraws_until = -math.inf
        self._states: dict[str, None] = {}  # of bars, without their clocks, the newest last
        self.moved = False  # did the last bytes show anything but a bar that stands still?

    def feed(self, data: bytes, now: float) -> list[tuple[str, bool]]:
        """(line, whether it is one for the file) of what is finished; `now`: seconds of a monotonic clock.

        A bar's states are lines for whoever reads numbers; for the file only its last one is, or one in half a minute.
        """
        self._pending += self._decoder.decode(data)
        *parts, self._pending = re.split(r"(\r\n|\n|\r)", self._pending)
        lines: list[tuple[str, bool]] = []
        self.moved = not parts and not _BAR.search(self._pending)
        for text, ending in zip(parts[::2], parts[1::2], strict=True):
            if _CURSOR_UP.search(text):
                self._redraws_until = now + REDRAWS_S
            if ending != "\r" and now < self._redraws_until and _BAR.search(text):
                lines += self._redrawn(plain(text), now)
                self._look_at_bar(text)
                continue
            if ending == "\r":
                lines += self._state(text, now)
                self._look_at_bar(text)
                continue
            lines += self._finish(text)
            self.moved = True
        if self._pending.endswith("\r"):  # perhaps the first half of \r\n
            pass
        while len(self._pending) > LONGEST:
            lines += self._finish(self._pending[:LONGEST])
            self._pending = self._pending[LONGEST:]
        return lines

    def _look_at_bar(self, text: str) -> None:
        """Whether a bar shows progress: a change of its clock alone, as rich's refresh thread makes it, is none."""
        state = _CLOCKS.sub("", plain(text)).strip()
        if state and state not in self._states:
            self.moved = True
            if len(self._states) >= MOST_STATES:
                del self._states[next(iter(self._states))]
            self._states[state] = None

    def _state(self, text: str, now: float) -> list[tuple[str, bool]]:
        text = plain(text)
        if not text.strip():
            return []
        self._bar = text
        keep = now - self._told_at >= BAR_EVERY_S
        if keep:
            self._told_at, self._bar = now, None
        return [(text, keep)]

    def _redrawn(self, text: str, now: float) -> list[tuple[str, bool]]:
        """One line of several bars that are drawn over together, with the cursor moved up: kept as seldom as a bar."""
        head = (re.match(r"[^\d]*", text) or [""])[0]
        keep = now - self._drawn_over.get(head, -math.inf) >= BAR_EVERY_S
        if keep:
            self._drawn_over[head] = now
        return [(text, keep)]

    def _finish(self, text: str) -> list[tuple[str, bool]]:
        bar, self._bar = self._bar, None
        text = plain(text)
        if bar is not None and not text.strip():
            return [(bar, True)]
        if bar is not None and not _same_bar(bar, text):
            return [(bar, True), (text, True)]
        return [(text, True)]

    def end(self) -> list[tuple[str, bool]]:
        """The remaining output when the terminal closes."""
        rest, self._pending = self._pending.rstrip("\r"), ""
        return self._finish(rest) if rest or self._bar else []


def plain(text: str) -> str:
    """Without escape sequences and other control characters."""
    return "".join(c for c in _ESCAPE.sub("", text) if c >= " " or c == "\t")


def _same_bar(bar: str, text: str) -> bool:
    """Whether the text is a later state of this bar: the text before the first digit is the same."""
    head = re.match(r"[^\d]*", bar)
    return bool(head and text.startswith(head[0][:8]) and ("|" in text or "%" in text))
