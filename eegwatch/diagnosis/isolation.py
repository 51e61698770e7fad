"""A detector that raises is switched off, with a notice; it never ends the program that asks it.

No detector is meant to raise. This keeps a mistake of ours from ending a training run or a monitor.
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
        """What the detector finds; a notice where it raises, and nothing ever after."""
        if detector in self.failures:
            return []
        try:
            return ask()
        except Exception as error:
            self.failures[detector] = traceback.format_exc()
            self.reasons[detector] = f"an error inside eegwatch switched it off: {type(error).__name__}: {error}"
            message = f"{detector}: {self.reasons[detector]} (please report it)"
            return [Finding(f"{detector}_failed", INFO, step, step, message, headline=message)]
