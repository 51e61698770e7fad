"""An alarm: one finding that is raised once, may be raised with another severity, and resolves once."""

from __future__ import annotations

from eegwatch.diagnosis.findings import Finding


class Alarm:
    """The finding of one rule in `present`, the engine's table of findings that hold now."""

    def __init__(self, rule: str, present: dict[str, Finding]) -> None:
        self.rule, self._present = rule, present

    @property
    def raised(self) -> bool:
        return self.rule in self._present

    def raise_(self, severity: str, step: int, since: int, message: str, remedy: str = "") -> list[Finding]:
        """The new finding; nothing where the rule has one of that severity already."""
        if self.raised and self._present[self.rule].severity == severity:
            return []
        finding = Finding(self.rule, severity, step, since, message, headline=message, remedy=remedy)
        self._present[self.rule] = finding
        return [finding]

    def clear(self, step: int, message: str) -> list[Finding]:
        """The finding, resolved at `step`; nothing where none holds."""
        old = self._present.pop(self.rule, None)
        return [old.resolved(step, message)] if old is not None else []
