"""Exceptions that the daemon survives: each is noted once while it lasts, with its traceback in the daemon's output."""

from __future__ import annotations

import traceback
from collections.abc import Callable

MOST_REMEMBERED = 1000


class Incidents:
    """`note`: into daemon.jsonl; `say`: to the daemon's output."""

    def __init__(self, note: Callable[[str], None], say: Callable[[str], None]) -> None:
        self._note, self._say = note, say
        self._lasting: dict[str, str] = {}  # what was tried, and how it failed last

    def tell(self, what: str, error: Exception) -> None:
        """Report an exception of `what`, once for as long as it fails in the same way."""
        words = f"{type(error).__name__}: {str(error)[:500]}"
        if isinstance(error, OSError) and error.strerror:
            words = f"{error.strerror}" + (f": {error.filename}" if error.filename else "")
        if self._lasting.get(what) == words:
            return
        if len(self._lasting) >= MOST_REMEMBERED:
            self._lasting.clear()
        self._lasting[what] = words
        trace = "".join(traceback.format_exception(error))
        self._say(f"{what} failed: {words}\n{trace}")
        self._note(f"{what} failed: {words}; the daemon continues")

    def over(self, what: str) -> None:
        """Report that `what` works again, if it had failed."""
        if self._lasting.pop(what, None) is not None:
            self._say(f"{what} works again")
            self._note(f"{what} works again")
