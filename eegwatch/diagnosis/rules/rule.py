"""The base of the rules of evidence: the facts about an attempt, and the methods that take its records."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from eegwatch.diagnosis.alarm import Alarm
from eegwatch.diagnosis.findings import Finding
from eegwatch.diagnosis.rules.objective import Objective
from eegwatch.diagnosis.rules.trend import Trend
from eegwatch.run.history import StepBlock
from eegwatch.run.records import Eval, Run

Settings = Mapping[str, Any]  # rule -> False (silenced) or a factor on its threshold (2.0: half as sensitive)


@dataclass
class Attempt:
    """Shared by all rules of one attempt: its `run` record, the kind of its loss, the trend of the loss.

    `grew`: the newest block of steps completed a block of the course.
    """

    run: Run | None
    objective: Objective
    course: Trend
    grew: bool = False


class Rule:
    """One rule over one attempt. Each method returns the findings that were raised, changed or resolved.

    `look` is shown every step as it comes, in parts that never reach across the boundary of a block; `learn` every
    block once it is whole; `evaluation` every evaluation; `clock` the time; `ended` the end. What is usual is learnt in
    `learn` alone, so that the findings are the same whether a log is read at once or as it grows.
    """

    name: ClassVar[str]

    def __init__(self, attempt: Attempt, alarm: Alarm, factor: float) -> None:
        """`factor`: a person's factor on the rule's threshold; 2.0 is half as sensitive."""
        self.attempt, self.alarm, self.factor = attempt, alarm, factor

    def look(self, part: StepBlock) -> list[Finding]:
        return []

    def learn(self, whole: StepBlock) -> list[Finding]:
        return []

    def evaluation(self, record: Eval) -> list[Finding]:
        return []

    def pause(self) -> None:
        """An evaluation on any split took time between two steps."""

    def ended(self, step: int) -> list[Finding]:
        """The attempt has ended at this step."""
        return []

    def clock(self, now: float, *, training: bool) -> list[Finding]:
        return []
