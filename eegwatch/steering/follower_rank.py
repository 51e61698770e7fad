"""The control of a RunLog on a rank above 0: it writes nothing, and obeys rank 0's decisions at each step.

It looks for an announcement every quarter of a second. Having agreed to one, it does not take the announced step before
the decision is there: it waits for rank 0, which never waits for it. If rank 0 is dead, or does not decide for
PATIENCE_S, this rank decides itself that the command does not hold; no rank can have done it then.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from eegwatch.run import crash_points
from eegwatch.run.records import ScheduleChange
from eegwatch.steering.live import LOOK_EVERY_S, STEPS_WITHOUT_HOOK
from eegwatch.steering.ranks import Decision, Job, JobFolder, LeaderRecord, Proposal, RankReport, find, lives
from eegwatch.steering.rates import SetRates
from eegwatch.steering.requests import REQUESTS, SharedRequest
from eegwatch.steering.steered_schedule import SteeredSchedule, course_from, course_of

PATIENCE_S = 5.0
POLL_S, ASK_EVERY_S = 0.0005, 0.05


class FollowerControl:
    """Every method returns quickly but `gate`, and none raises into the training."""

    active = False  # no command waits here for its answer: rank 0 answers

    def __init__(
        self,
        logs: Path,
        job: Job,
        setter: SetRates | None,
        hooks_last: Callable[[], None],
        groups: Callable[[], int],
        patience: float = PATIENCE_S,
    ) -> None:
        self._logs, self._job, self._setter, self._hooks_last, self._groups = logs, job, setter, hooks_last, groups
        self._patience = patience
        self._met: tuple[JobFolder, LeaderRecord] | None = None
        self._known = 0  # the newest proposal that was looked at
        self._pending: Proposal | None = None  # the one that this rank agreed to, until it is decided
        self._unheard: Proposal | None = None  # one that it has not answered yet
        self.looked_at: set[str] = set()
        self._requests: dict[str, list[SharedRequest]] = {name: [] for name in REQUESTS}
        self._logged_without = 0
        self.course: SteeredSchedule | None = None

    @property
    def every(self) -> float:
        """Seconds until the next look."""
        return 0.0 if self._pending is not None or self._unheard is not None else LOOK_EVERY_S

    @property
    def folder(self) -> Path | None:
        """The folder of rank 0's run, once it was found."""
        self._find()
        return None if self._met is None else self._logs / self._met[1].run

    def _find(self) -> None:
        if self._met is None:
            self._met = find(self._logs, self._job)
            if self._met is not None:
                self._met[0].say(RankReport(self._job.rank))

    def go_on(self, change: ScheduleChange | None, step: int, steps_per_epoch: int | None, total: int | None) -> None:
        """After a resume: the newest course holds on, as on rank 0. Raises ScheduleError."""
        if change is not None and self._setter is not None:
            course = course_of(change, self._groups(), steps_per_epoch, total)
            if course is not None:
                course.from_step = min(course.from_step, step)
                self._hooks_last()
                self._begin(course)

    # ---- what rank 0 announces ----

    def look(self, step: int) -> None:
        """`step`: the last step that was logged."""
        self._find()
        if self._met is None:
            return
        if self._pending is not None:
            self._settle(wait=False)
        proposal = self._met[0].proposal()
        if proposal is not None and proposal.seq > self._known:
            self._known = proposal.seq
            if self._pending is not None:
                self._settle(wait=True)  # decided, or rank 0 would not announce another
            self._unheard = proposal
        if self._unheard is not None:
            self._answer(self._unheard, step)

    def _answer(self, proposal: Proposal, step: int) -> None:
        assert self._met is not None
        name = proposal.command
        looks = name not in REQUESTS or name in self.looked_at
        if not looks and step <= proposal.at:
            return  # rank 0 has asked at that step: this rank is about to, or it never does
        refusal = None if name in REQUESTS else self._refusal(proposal)
        late = step >= proposal.step
        self._unheard = None
        if not late and refusal is None and looks:
            self._pending = proposal
            if self._setter is not None and name not in REQUESTS:
                self._hooks_last()
                self._setter.gate = self.gate
        self._met[0].say(RankReport(self._job.rank, proposal.seq, step, late, refusal, looks))
        crash_points.point("ranks.after_voice")

    def _refusal(self, proposal: Proposal) -> str | None:
        if self._setter is None:
            return "RunLog knows no optimizer here: give it the scheduler or the optimizer"
        if proposal.course is not None and len(proposal.course["laws"]) != self._groups():
            return f"its optimizer has {self._groups()} parameter groups, and rank 0's {len(proposal.course['laws'])}"
        return None

    def gate(self, step: int) -> None:
        """The optimizer is about to take this step: what was announced for it is decided first."""
        if self._pending is not None and step >= self._pending.step:
            self._settle(wait=True)

    def _settle(self, *, wait: bool) -> None:
        assert self._pending is not None and self._met is not None
        proposal, (meeting, leads) = self._pending, self._met
        crash_points.point("ranks.before_step" if wait else "ranks.after_look")
        decision = meeting.decision(proposal.seq)
        began = asked = time.monotonic()
        while decision is None and wait:
            now = time.monotonic()
            if now - asked > ASK_EVERY_S:
                asked = now
                if now - began > self._patience or not lives(self._logs, leads):
                    decision = self._given_up(meeting, proposal, now - began)
                    break
            time.sleep(POLL_S)
            decision = meeting.decision(proposal.seq)
        if decision is None:
            return
        self._pending = None
        if self._setter is not None:
            self._setter.gate = None
        if decision.holds:
            self._do(proposal)

    def _given_up(self, meeting: JobFolder, proposal: Proposal, waited: float) -> Decision:
        """The valid decision after this rank's timeout: its own, unless rank 0 decided first."""
        words = f"rank {self._job.rank} waited {waited:.1f} s for the decision of rank 0"
        try:
            return meeting.decide(proposal.seq, Decision(False, words))
        except OSError:  # rank 0 has ended its run, and taken the folder away
            return Decision(False, words)

    def _do(self, proposal: Proposal) -> None:
        if proposal.command in REQUESTS:
            self._requests[proposal.command].append(SharedRequest(proposal.step))
        elif proposal.course is None:
            self.course = None
            assert self._setter is not None
            self._setter.release(proposal.step - 1)
        else:
            self._begin(course_from(proposal.course))

    def _begin(self, course: SteeredSchedule) -> None:
        assert self._setter is not None
        self.course, self._logged_without = course, 0
        self._setter.begin(course)

    # ---- what the script does ----

    def stepped(self, step: int, rates: list[float]) -> None:
        """A step was logged. Where the optimizer's step is not ours to see, rank 0 gives up, and so does this rank."""
        setter = self._setter
        if setter is None or self.course is None or setter.taken:
            return
        self._logged_without += 1
        if setter.trouble is not None or self._logged_without >= STEPS_WITHOUT_HOOK:
            self.course = None
            setter.end()

    def steers(self, step: int) -> bool:
        """Its step records are not written, whatever set the rates."""
        return False

    def wants(self, command: str, step: int) -> bool:
        """Whether rank 0 decided on a request of this kind. True on every rank after the same step."""
        self.looked_at.add(command)
        pending = self._pending
        if pending is not None and pending.command == command and step >= pending.step:
            self._settle(wait=True)
        hold = [request.at(command, step) for request in self._requests[command]]  # each has to hear of this look
        return any(hold)

    def served(self, command: str, step: int, effect: dict[str, object]) -> None:
        """Rank 0 answers."""

    def close(self, step: int, reason: str) -> None:
        self._pending = self._unheard = None
        if self._setter is not None:
            self._setter.gate = None
            self._setter.end()
