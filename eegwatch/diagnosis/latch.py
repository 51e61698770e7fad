"""A latch: one finding that is raised once, may be raised with another severity, and resolves once."""

from __future__ import annotations

from eegwatch.diagnosis.findings import Finding


class Latch:
    """The finding of one rule in `present`, the engine's table of findings that are up."""

    def __init__(self, rule: str, present: dict[str, Finding]) -> None:
        self.rule, self._present = rule, present

    @property
    def up(self) -> bool:
        return self.rule in self._present

    def say(self, severity: str, step: int, since: int, message: str, remedy: str = "") -> list[Finding]:
        """Raise it, unless it is up already with that severity."""
        if self.up and self._present[self.rule].severity == severity:
            return []
        finding = Finding(self.rule, severity, step, since, message, headline=message, remedy=remedy)
        self._present[self.rule] = finding
        return [finding]

    def over(self, step: int, message: str) -> list[Finding]:
        old = self._present.pop(self.rule, None)
        return [old.resolved(step, message)] if old is not None else []
