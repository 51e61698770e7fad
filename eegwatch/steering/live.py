"""A live run that obeys its control file: judges each command, carries it out in the training process, answers it.

States of a command here: `rejected` or `expired` at once; `accepted`, then `done` once its effect was seen in a step, a
checkpoint, an evaluation or the end of the run, or `failed`. docs/control.md has the table.
"""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from eegwatch.run import crash_points
from eegwatch.run.control import Command
from eegwatch.run.records import Record, ScheduleChange
from eegwatch.schedule import Schedule, ScheduleError
from eegwatch.steering.agreement import Agreement, Pending
from eegwatch.steering.answers import Answers
from eegwatch.steering.inbox import Inbox, Refusal
from eegwatch.steering.ranks import Job, Leader
from eegwatch.steering.rates import SetRates
from eegwatch.steering.requests import REQUESTS, SharedRequest
from eegwatch.steering.steered_schedule import Refused, SteeredSchedule, course_for, course_of

LOOK_EVERY_S = 0.25
STEPS_WITHOUT_HOOK = 200  # mixed precision skips a few steps; after so many the optimizer's step is not ours to see


@dataclass
class Waiting:
    """An accepted command that waits for its effect, in a step after `step`. `logged`: steps logged since."""

    command: Command
    step: int
    logged: int = 0
    of_all: SharedRequest | None = None  # where every rank of a job does it


class LiveControl:
    """The control side of a RunLog. Every method returns quickly; none raises into the training."""

    def __init__(
        self,
        logs: Path,
        folder: Path,
        *,
        laws: Callable[[], list[Schedule | None]],
        momenta: Callable[[], list[Schedule | None]],
        rates: Callable[[], list[float]],
        setter: SetRates | None,
        write: Callable[[Record], None],
        steps_per_epoch: int | None,
        total: int | None,
        hooks_last: Callable[[], None] = lambda: None,
        processes: Callable[[], int] = lambda: 1,
        job: Job = Job(),  # noqa: B008 (a constant)
    ) -> None:
        """`rates()`: the rate of each group now; `setter`: None where no optimizer is known.

        `job`: the processes that train together; this is rank 0 of them. Raises Locked, OSError.
        """
        self._laws, self._momenta, self._rates, self._write = laws, momenta, rates, write
        self._setter, self._hooks_last = setter, hooks_last
        self._steps_per_epoch, self._total, self._processes = steps_per_epoch, total, processes
        self._inbox = Inbox(logs, folder)
        try:
            self.answers = Answers(logs, folder.name)
            # with the run's lock: by that the other ranks know that this one lives
            self._agreement = Agreement(Leader(logs, folder.name, job)) if job.world > 1 else None
        except OSError:
            self._inbox.close()  # who holds the lock says that it obeys
            raise
        self._todo: deque[Command] = deque()
        self._steered_until = 0  # the last step under a course that another one, or the script's scheduler, followed
        self.requested: dict[str, list[Waiting]] = {name: [] for name in REQUESTS}
        self.looked_at: set[str] = set()  # requests that the script asks for
        self._steer: Waiting | None = None
        self.course: SteeredSchedule | None = None

    # ---- what an earlier attempt left ----

    def settle_the_past(self, changes: list[ScheduleChange]) -> None:
        """In a later attempt: what the one before accepted, or was sent and did not read, gets its last word.

        `changes`: the `schedule` records of the run so far. Raises OSError.
        """
        for command_id, name in list(self.answers.unfinished.items()):
            change = next((c for c in changes if c.command == command_id), None)
            if change is not None:
                effect = {"from_step": change.step + 1}
                self.answers.last_word(command_id, name, "done", step=change.step, effect=effect)
            else:
                self.answers.last_word(command_id, name, "failed", reason="the process ended before it was carried out")
        for line in self._inbox.unread(self.answers.status):
            self.answers.last_word(line.id, line.command, line.status, reason=line.reason)

    def go_on(self, change: ScheduleChange | None, step: int, groups: int) -> None:
        """After a resume of this run: the newest course holds on. Raises ScheduleError."""
        if change is not None and self._setter is not None:
            course = course_of(change, groups, self._steps_per_epoch, self._total)
            if course is not None:
                course.from_step = min(course.from_step, step)
                self._set(course)
                self._write(ScheduleChange(time=time.time(), **(course.record() | {"step": step})))

    # ---- the look at the control file ----

    @property
    def every(self) -> float:
        """Seconds until the next look: none while the ranks of a job agree on a command."""
        return LOOK_EVERY_S if self._agreement is None or self._agreement.pending is None else 0.0

    def look(self, step: int) -> None:
        """Read the control file and begin what it asks for. `step`: the last step that was logged."""
        self.answers.look()
        if self._agreement is not None:
            self._agreement.measure(step)
        unsafe = self._inbox.unsafe
        for line in self._inbox.read(self.answers.status):
            if isinstance(line, Refusal):
                self.answers.last_word(line.id, line.command, line.status, reason=line.reason)
            else:
                crash_points.point("live.after_read")
                self._todo.append(line)
        if self._inbox.unsafe not in (None, unsafe):
            _say(f"the control file is not obeyed: {self._inbox.unsafe}")
        while self._carried_on(step):
            pass

    @property
    def active(self) -> bool:
        """Whether a command waits for its effect in a step."""
        return self._steer is not None

    def _carried_on(self, step: int) -> bool:
        """One thing of what is to be done; False where nothing is, or where the other ranks are waited for."""
        pending = None if self._agreement is None else self._agreement.pending
        command = pending.command if pending is not None else self._todo.popleft() if self._todo else None
        if command is None:
            return False
        if pending is None and str(command.id) in self.answers.status:
            return True  # a second line with the same id
        try:
            if pending is not None:
                return self._decided(pending, step)
            if self._processes() > 1:
                self._announce(command, step)
                return False
            self._do(command, step, self._judged(command, step, step))
        except (Refused, ScheduleError) as refusal:
            if self._agreement is not None and self._agreement.pending is not None:
                self._agreement.decide(str(refusal))
            self.answers.last_word(str(command.id), command.command, "rejected", reason=str(refusal))
        return self._agreement is None or self._agreement.pending is None

    def _judged(self, command: Command, step: int, from_step: int) -> SteeredSchedule | None:
        """The course that this command leads to from the step after `from_step` on. Raises Refused, ScheduleError."""
        if command.command in REQUESTS:
            name = REQUESTS[command.command]
            if command.command not in self.looked_at:
                raise Refused(f"this script does not look at log.{name}; add: if log.{name}: …")
            return None
        if command.command not in ("resume", "release"):
            raise Refused(f"a running script cannot {command.command}: stop it and start it again from its shell")
        if command.branch is not None:
            raise Refused("a live run cannot branch off: use a daemon, or RunLog(…, parent=FOLDER, step=K)")
        if command.checkpoint is not None:
            raise Refused("a live run does not go back to a checkpoint; stop the script and resume it from its shell")
        if self._setter is None:
            raise Refused("RunLog knows no optimizer here: give it the scheduler or the optimizer")
        if self._total is not None and from_step >= self._total:
            raise Refused(f"step {step:,} is the end of the run ({self._total:,} steps): nothing is left")
        if command.command == "release":
            if self.course is None:
                raise Refused("the script's own scheduler sets the rates already")
            return None
        return course_for(
            from_step=from_step,
            lr=command.lr,
            then=command.then or "anneal",
            force=command.force,
            laws=self._laws(),
            now=self._rates(),
            steps_per_epoch=self._steps_per_epoch,
            total=self._total,
            momenta=self._momenta(),
            command=str(command.id),
        )

    def _do(self, command: Command, step: int, course: SteeredSchedule | None) -> None:
        """Accept a command, and do it from the next step on."""
        if not self._accepted(command, step):
            return
        if command.command in REQUESTS:
            self.requested[command.command].append(Waiting(command, step))
        elif course is None:
            self._release(str(command.id), step)
        else:
            self._record(command, course, step)
            self._set(course)

    def _accepted(self, command: Command, step: int) -> bool:
        """True once that is durable. A change of the rates takes the place of one that waits for its first step."""
        if not self.answers.accept(str(command.id), command.command, step=step):
            return False
        crash_points.point("live.after_accept")
        if command.command in REQUESTS:
            return True
        if self._steer is not None:
            earlier = self._steer.command
            self.answers.last_word(str(earlier.id), earlier.command, "failed", reason="replaced by a later command")
        self._steer = Waiting(command, step)
        return True

    def _record(self, command: Command, course: SteeredSchedule, step: int) -> None:
        record = ScheduleChange(time=time.time(), by=command.by, **course.record())
        self._write(msgspec.structs.replace(record, step=step))
        crash_points.point("live.after_record")

    def _set(self, course: SteeredSchedule) -> None:
        assert self._setter is not None
        self._leave_course(course.from_step)
        self.course = course
        self._hooks_last()
        self._setter.begin(course)
        _say(f"from step {course.from_step + 1:,} eegwatch sets the learning rate: {course.words}")
        _say("the script still prints the rate of its own scheduler")

    def _leave_course(self, step: int) -> None:
        if self.course is not None:
            self._steered_until = step

    def _release(self, command_id: str, step: int) -> None:
        assert self._setter is not None
        self._setter.release(step)
        self._leave_course(step)
        self.course = None
        self._write(ScheduleChange(time=time.time(), step=step, schedule=None, groups=None, command=command_id))
        crash_points.point("live.after_record")
        _say(f"from step {step + 1:,} the script's own scheduler sets the learning rate again")

    # ---- with the other ranks of a job ----

    def _announce(self, command: Command, step: int, tries: int = 1) -> None:
        """Tell the other ranks of a command for a step that is ahead. Raises Refused, ScheduleError, OSError."""
        self._judged(command, step, step)
        if self._agreement is None:
            raise Refused(_ONE_OF_SEVERAL)
        first = self._agreement.first_step(step, tries)
        course = self._judged(command, step, first - 1)
        self._agreement.announce(Pending(command, first, course, tries), step)

    def _decided(self, pending: Pending, step: int) -> bool:
        """Carry out what all ranks agree to, announce again what they heard too late. False while it is open."""
        agreement, command = self._agreement, pending.command
        assert agreement is not None
        if agreement.ready(step) is None:
            if not agreement.overdue(step):
                return False
            agreement.decide("not every rank has heard of it in time")
            self._announce(command, step, pending.tries + 1)
            return False
        if pending.alone:
            agreement.decide("rank 0 does it alone")
            self._do(command, step, pending.course)
        elif not self._accepted(command, step):
            agreement.decide("the disk is full")
            self._announce(command, step, pending.tries + 1)
            return False
        elif command.command in REQUESTS:
            if agreement.decide():
                self.requested[command.command].append(Waiting(command, step, of_all=SharedRequest(pending.step)))
            else:
                self._overruled(command)
        else:
            self._steer_all(agreement, pending, step)
        return True

    def _steer_all(self, agreement: Agreement, pending: Pending, step: int) -> None:
        """The `schedule` record comes before the decision: of a process that dies between them the next attempt goes on
        with the course in every rank, and none had it before."""
        command, before = pending.command, self.course
        if pending.course is None:
            self._release(str(command.id), step)
        else:
            self._record(command, pending.course, step)
        if agreement.decide():
            if pending.course is not None:
                self._set(pending.course)
            return
        self._overruled(command)
        if before is None:
            self._release(str(command.id), step)
        else:
            self._record(command, before, step)
            self._set(before)

    def _overruled(self, command: Command) -> None:
        reason = "another rank had waited too long for the decision; nothing was changed"
        self.answers.last_word(str(command.id), command.command, "failed", reason=reason)
        self._steer = None

    # ---- effects ----

    def stepped(self, step: int, rates: list[float]) -> None:
        """A step was logged: a command that waited for it is done, with the rates that it used."""
        waiting, setter = self._steer, self._setter
        if waiting is None or setter is None or step <= waiting.step:
            return
        waiting.logged += 1
        command_id, name = str(waiting.command.id), waiting.command.command
        released = self.course is None
        # a script that logs a step before it takes it: the newest step that was taken is the one before
        taken = next(((n, used) for n, used in setter.taken.items() if n > waiting.step), None)
        step, seen = (step, rates) if released else taken or (step, None)
        if seen is not None:
            effect = {"lr": seen[0], "lrs": seen, "step": step}
            crash_points.point("live.before_answer")
            self.answers.last_word(command_id, name, "done", step=step, effect=effect)
            crash_points.point("live.after_answer")
            self._steer = None
        elif setter.trouble is not None or waiting.logged >= STEPS_WITHOUT_HOOK:
            reason = setter.trouble or (
                f"the optimizer took no step that its hooks see in {waiting.logged} logged steps "
                "(a compiled step, a CUDA graph, another optimizer)"
            )
            self.answers.last_word(command_id, name, "failed", reason=reason)
            self._steer = None
            self._release(command_id, step)

    def steers(self, step: int) -> bool:
        """Was this step taken at a rate that a command had set?"""
        return step <= self._steered_until or (self.course is not None and step > self.course.from_step)

    def wants(self, command: str, step: int) -> bool:
        """Whether this was requested. The call also shows that the script reads this request."""
        self.looked_at.add(command)
        hold = [w.of_all is None or w.of_all.at(command, step) for w in self.requested[command]]
        return any(hold)

    def served(self, command: str, step: int, effect: dict[str, Any]) -> None:
        """The script did what was asked for."""
        for waiting in self.requested[command]:
            crash_points.point("live.before_answer")
            self.answers.last_word(str(waiting.command.id), command, "done", step=step, effect=effect)
            crash_points.point("live.after_answer")
        self.requested[command] = []

    def close(self, step: int, reason: str) -> None:
        """End the run: a stop is done, and all other open commands fail."""
        self.served("stop", step, {"reason": reason})
        unheard = list(self._todo)
        if self._agreement is not None:
            pending = self._agreement.pending
            unheard = unheard if pending is None else [pending.command, *unheard]
            self._agreement.close()
        for left in unheard:
            if str(left.id) not in self.answers.status:
                self.answers.last_word(str(left.id), left.command, "rejected", reason=f"the run ended ({reason})")
        for command in REQUESTS:
            for waiting in self.requested[command]:
                self.answers.last_word(str(waiting.command.id), command, "failed", reason=f"the run ended ({reason})")
        if self._steer is not None:
            command_id, name = str(self._steer.command.id), self._steer.command.command
            self.answers.last_word(command_id, name, "failed", reason=f"the run ended ({reason}) before another step")
            self._steer = None
        if self._setter is not None:
            self._setter.end()
        self.answers.close()
        self._inbox.close()


_ONE_OF_SEVERAL = "this is one of several processes, and the others would not follow: stop the job instead"


def _say(words: str) -> None:
    print(f"eegwatch: {words}", file=sys.stderr, flush=True)
