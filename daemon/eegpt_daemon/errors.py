"""Errors of the command line with their exit codes, and the check for packages of the whole installation."""

from __future__ import annotations

import importlib.util

from eegwatch.wording import plain

OK, FAILED, USAGE, NOT_RUNNING, TRY_AGAIN, WRONG_CONFIG = 0, 1, 2, 3, 75, 78
HEAVY = ("torch", "mne", "edfio")


class Refused(Exception):
    """A command line that cannot be carried out: the words, and the exit code."""

    def __init__(self, message: str, code: int = FAILED) -> None:
        super().__init__(message)
        self.code = code


def os_error_text(error: OSError) -> str:
    where = "" if error.filename is None else f"{error.filename}: "
    return plain(f"{where}{error.strerror or error}")


def require_heavy() -> None:
    """Raises Refused, with the one line to type, where only the monitor is installed."""
    missing = [name for name in HEAVY if importlib.util.find_spec(name) is None]
    if missing:
        raise Refused(f"training needs {', '.join(missing)}: pip install 'eegwatch[daemon]'")
