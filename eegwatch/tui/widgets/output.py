"""The trainer's output: the end of trainer.log in a pane."""

from __future__ import annotations

from collections import deque
from pathlib import Path

from rich.text import Text

from eegwatch.run.folder import TRAINER_LOG
from eegwatch.run.log import Tail
from eegwatch.tui.session import Session
from eegwatch.tui.widgets.lines import TextLines
from eegwatch.wording import plain

KEPT_LINES, MOST_BYTES = 200, 1 << 16


class Output(TextLines):
    """The newest lines that fit. Escape sequences and markup in them mean nothing."""

    DEFAULT_CSS = "Output { height: 8; border: round $panel; border-title-color: $text; padding: 0 1; }"
    BORDER_TITLE = "trainer output"

    def __init__(self) -> None:
        super().__init__()
        self._folder: Path | None = None
        self._tail: Tail | None = None
        self._lines: deque[str] = deque(maxlen=KEPT_LINES)

    def show(self, session: Session) -> None:
        if session.folder != self._folder:
            self.close()
            self._lines.clear()
            self._folder = session.folder
            if session.folder is not None and session.foreign is None:
                self._tail = _near_the_end(session.folder / TRAINER_LOG)
        if self._tail is not None:
            self._read(self._tail)
        room = max(1, self.content_size.height)
        width = max(20, self.content_size.width)
        lines = [Text(line[:width], no_wrap=True) for line in [*self._lines][-room:]]
        self.put(lines or [Text("nothing printed yet", "dim")])

    def _read(self, tail: Tail) -> None:
        try:
            chunk = tail.read(MOST_BYTES)
        except OSError as error:
            self._lines.append(f"{tail.path}: {error.strerror}")
            self._tail = None
            return
        if chunk.reset:
            self._lines.append(f"(the file was {chunk.reset})")
        for line in chunk.data.decode("utf-8", "replace").splitlines():
            self._lines.append(plain(line.rpartition("\r")[2]))  # of a progress bar, its last state

    def close(self) -> None:
        if self._tail is not None:
            self._tail.close()
            self._tail = None


def _near_the_end(path: Path) -> Tail | None:
    """A tail that begins with the last lines, however long the file is."""
    try:
        size = path.stat().st_size
        if size <= MOST_BYTES:
            return Tail(path)
        with path.open("rb") as file:
            file.seek(size - MOST_BYTES)
            return Tail(path, size - MOST_BYTES + len(file.readline()))
    except OSError:
        return Tail(path)  # it may come yet
