"""Switches off a detector that raises, with a notice, so that it never ends the program that runs it.

No detector should raise. This keeps a defect of a detector from ending a training run or a monitor.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable

from eegwatch.diagnosis.findings import INFO, Finding


class Isolation:
    """Calls detectors by name. `failures`: detector -> traceback, of those that raised and are off since."""

    def __init__(self) -> None:
        self.failures: dict[str, str] = {}
        self.reasons: dict[str, str] = {}

    def call(self, detector: str, step: int, ask: Callable[[], list[Finding]]) -> list[Finding]:
        """The detector's findings; a notice if it raises, and nothing from then on."""
        if detector in self.failures:
            return []
        try:
            return ask()
        except Exception as error:
            self.failures[detector] = traceback.format_exc()
            self.reasons[detector] = f"an error inside eegwatch switched it off: {type(error).__name__}: {error}"
            message = f"{detector}: {self.reasons[detector]} (please report it)"
            return [Finding(f"{detector}_failed", INFO, step, step, message, headline=message)]
