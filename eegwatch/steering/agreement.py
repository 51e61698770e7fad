"""Rank 0's side of an agreement: a command is announced for a step ahead, and holds once every rank has agreed to it.

    announced for step N ─┬─ all ranks have agreed when rank 0 has done step N − 1 ── decided: it holds from step N on
                          ├─ some have not ── decided: it does not hold; announced again, further ahead
                          ├─ a rank cannot ── decided: it does not hold; the command is rejected with that rank's reason
                          └─ none hears it for 10 s and three announcements ── the command is rejected

Rank 0 never waits. A rank that agreed waits before step N for the decision (eegwatch.steering.follower_rank).
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

from eegwatch.run import crash_points
from eegwatch.run.control import Command
from eegwatch.steering.ranks import Decision, Leader, Proposal, RankReport
from eegwatch.steering.steered_schedule import Refused, SteeredSchedule

PATIENCE_S, LEAST_TRIES = 10.0, 3
# A rank hears of an announcement within its quarter of a second and one step; in a job whose gradients are averaged the
# ranks are one step apart at most, and rank 0 reads what they said one step later.
LEAST_AHEAD, HEARD_WITHIN_S = 3, 0.35
MOST_AHEAD_S = 5.0


@dataclass
class Pending:
    """A command that was announced. `step`: the first step for which it holds. `alone`: no other rank has to follow."""

    command: Command
    step: int
    course: SteeredSchedule | None
    tries: int = 1
    alone: bool = False


class Agreement:
    """At most one command is pending. Methods raise OSError where the folder of the ranks is gone."""

    def __init__(self, leader: Leader) -> None:
        self._leader = leader
        self.pending: Pending | None = None
        self._seq = 0
        self._since = 0.0
        self._pace = 0.0  # steps a second
        self._clock: tuple[float, int] = (math.nan, 0)  # when that was last measured, and at which step

    def measure(self, step: int) -> None:
        """See how fast the steps come. Called at every look."""
        now, (then, before) = time.monotonic(), self._clock
        if not now - then < HEARD_WITHIN_S / 2:  # also the first time, when `then` is not a number
            self._pace = (step - before) / (now - then) if now > then else 0.0
            self._clock = (now, step)

    def first_step(self, step: int, tries: int = 1) -> int:
        """The step for which a command is announced after step `step`; further ahead the more often it was."""
        seconds = min(HEARD_WITHIN_S * float(2 ** (tries - 1)), MOST_AHEAD_S)
        return step + LEAST_AHEAD + math.ceil(self._pace * seconds)

    def announce(self, pending: Pending, step: int) -> None:
        """Tell the other ranks. Raises Refused where some are not there."""
        if absent := self._leader.absent():
            raise Refused(
                f"{_ranks(absent)} of {self._leader.job.world} would not follow: every rank has to make a RunLog in "
                "this log root, on one file system, and call log.step()"
            )
        if pending.tries == 1:
            self._since = time.monotonic()
        self._seq += 1
        self.pending = pending
        course = None if pending.course is None else pending.course.as_dict()
        command = pending.command
        self._leader.propose(Proposal(self._seq, str(command.id), command.command, pending.step, course, at=step))
        crash_points.point("ranks.after_proposal")

    def ready(self, step: int) -> Pending | None:
        """The pending command once it may be decided: every rank agrees, and step N − 1 is done.

        None while that is not so; then it may have to be announced again (`overdue`). Raises Refused.
        """
        pending = self.pending
        if pending is None or step < pending.step - 1:
            return None
        voices = self._voices()
        for voice in voices:
            if voice.refusal is not None:
                raise Refused(f"rank {voice.rank}: {voice.refusal}")
        if len(voices) < self._leader.job.world - 1 or any(voice.late for voice in voices):
            if time.monotonic() - self._since > PATIENCE_S and pending.tries >= LEAST_TRIES:
                silent = set(range(1, self._leader.job.world)) - {voice.rank for voice in voices if not voice.late}
                raise Refused(f"{_ranks(sorted(silent))} did not answer in time: does every rank call log.step()?")
            return None
        deaf = [voice.rank for voice in voices if not voice.looks]
        name = pending.command.command
        pending.alone = len(deaf) == len(voices) and name in ("checkpoint", "evaluate")
        if deaf and not pending.alone:
            raise Refused(f"the script does not check for this request on {_ranks(deaf)}: every rank has to")
        return pending

    def _voices(self) -> list[RankReport]:
        """The ranks' replies to the newest announcement."""
        voices = (self._leader.voice(rank) for rank in range(1, self._leader.job.world))
        return [voice for voice in voices if voice is not None and voice.seq == self._seq]

    def overdue(self, step: int) -> bool:
        """Whether the announced step is too near for ranks that have not agreed yet."""
        return self.pending is not None and step >= self.pending.step - 1

    def decide(self, why_not: str | None = None) -> bool:
        """Decide about the newest announcement; does it hold? A rank that lost its patience may have been first."""
        self.pending = None
        crash_points.point("ranks.before_decision")
        stands = self._leader.decide(self._seq, Decision(why_not is None, why_not))
        crash_points.point("ranks.after_decision")
        return stands.holds

    def close(self) -> None:
        if self.pending is not None:
            self.decide("the run ended")
        self._leader.close()


def _ranks(numbers: list[int]) -> str:
    shown = ", ".join(map(str, numbers[:8])) + (", …" if len(numbers) > 8 else "")
    return f"rank{'s' if len(numbers) > 1 else ''} {shown}"
