"""A live run that obeys its control file: judges each command, carries it out in the training process, answers it.

States of a command here: `rejected` or `expired` at once; `accepted`, then `done` once its effect was seen in a step, a
checkpoint, an evaluation or the end of the run, or `failed`. docs/control.md has the table.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eegwatch.run.control import Command
from eegwatch.run.records import Record, ScheduleChange
from eegwatch.schedule import Schedule, ScheduleError
from eegwatch.steering.answers import Answers
from eegwatch.steering.course import Course, Refused, course_for, course_of
from eegwatch.steering.inbox import Inbox, Refusal
from eegwatch.steering.rates import SetRates

LOOK_EVERY_S = 0.25
STEPS_WITHOUT_HOOK = 200  # mixed precision skips a few steps; after so many the optimizer's step is not ours to see
REQUESTS = {"stop": "stop_requested", "checkpoint": "checkpoint_requested", "evaluate": "evaluation_requested"}


@dataclass
class Waiting:
    """An accepted command that waits for its effect, in a step after `step`. `logged`: steps logged since."""

    command: Command
    step: int
    logged: int = 0


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
    ) -> None:
        """`rates()`: the rate of each group now; `setter`: None where no optimizer is known. Raises Locked, OSError."""
        self._laws, self._momenta, self._rates, self._write = laws, momenta, rates, write
        self._setter, self._hooks_last = setter, hooks_last
        self._steps_per_epoch, self._total, self._processes = steps_per_epoch, total, processes
        self._inbox = Inbox(logs, folder)
        self.answers = Answers(logs, folder.name)
        self.requested: dict[str, list[Waiting]] = {name: [] for name in REQUESTS}
        self.looked_at: set[str] = set()  # requests that the script asks for
        self._steer: Waiting | None = None
        self.course: Course | None = None

    # ---- what an earlier attempt left ----

    def go_on(self, changes: list[ScheduleChange], step: int, groups: int) -> None:
        """After a resume of this run: the newest course holds on, and what was accepted gets its last word.

        `changes`: the `schedule` records of the run so far, in order. Raises ScheduleError, OSError.
        """
        for command_id, name in list(self.answers.unfinished.items()):
            change = next((c for c in changes if c.command == command_id), None)
            if change is not None:
                effect = {"from_step": change.step + 1}
                self.answers.last_word(command_id, name, "done", step=change.step, effect=effect)
            else:
                self.answers.last_word(command_id, name, "failed", reason="the process ended before it was carried out")
        if changes and self._setter is not None:
            course = course_of(changes[-1], groups, self._steps_per_epoch, self._total)
            if course is not None:
                self._set(course)
                self._write(ScheduleChange(time=time.time(), **(course.record() | {"step": step})))

    # ---- the look at the control file ----

    def look(self, step: int) -> None:
        """Read the control file and begin what it asks for. `step`: the last step that was logged."""
        self.answers.look()
        for line in self._inbox.read(self.answers.status):
            if isinstance(line, Refusal):
                self.answers.last_word(line.id, line.command, line.status, reason=line.reason)
                continue
            try:
                self._begin(line, step)
            except (Refused, ScheduleError) as refusal:
                self.answers.last_word(str(line.id), line.command, "rejected", reason=str(refusal))

    @property
    def active(self) -> bool:
        """Does a command wait for its effect in a step?"""
        return self._steer is not None

    def _begin(self, command: Command, step: int) -> None:
        if command.command in REQUESTS:
            self._request(command, step)
        elif command.command in ("resume", "release"):
            self._resume(command, step)
        else:
            raise Refused(f"a running script cannot {command.command}: stop it and start it again from its shell")

    def _request(self, command: Command, step: int) -> None:
        name = REQUESTS[command.command]
        if command.command not in self.looked_at:
            raise Refused(f"this script does not look at log.{name}; add: if log.{name}: …")
        if self._processes() > 1:
            raise Refused(_ONE_OF_SEVERAL)
        if self.answers.accept(str(command.id), command.command, step=step):
            self.requested[command.command].append(Waiting(command, step))

    def _resume(self, command: Command, step: int) -> None:
        if command.checkpoint is not None:
            raise Refused("a live run does not go back to a checkpoint; stop the script and resume it from its shell")
        if self._setter is None:
            raise Refused("RunLog knows no optimizer here: give it the scheduler or the optimizer")
        if self._processes() > 1:
            raise Refused(_ONE_OF_SEVERAL)
        if self._total is not None and step >= self._total:
            raise Refused(f"step {step:,} is the end of the run ({self._total:,} steps): nothing is left")
        course = None
        if command.command == "resume":
            course = course_for(
                from_step=step,
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
        elif self.course is None:
            raise Refused("the script's own scheduler sets the rates already")
        if not self.answers.accept(str(command.id), command.command, step=step):
            return
        if self._steer is not None:
            earlier = self._steer.command
            self.answers.last_word(str(earlier.id), earlier.command, "failed", reason="replaced by a later command")
        self._steer = Waiting(command, step)
        if course is None:
            self._release(str(command.id), step)
        else:
            self._write(ScheduleChange(time=time.time(), by=command.by, **course.record()))
            self._set(course)

    def _set(self, course: Course) -> None:
        assert self._setter is not None
        self.course = course
        self._hooks_last()
        self._setter.begin(course)
        _say(f"from step {course.from_step + 1:,} eegwatch sets the learning rate: {course.words}")
        _say("what this script prints goes on showing its own scheduler's rate")

    def _release(self, command_id: str, step: int) -> None:
        assert self._setter is not None
        self._setter.end()
        self.course = None
        self._write(ScheduleChange(time=time.time(), step=step, schedule=None, groups=None, command=command_id))
        _say(f"from step {step + 1:,} the script's own scheduler sets the learning rate again")

    # ---- effects ----

    def stepped(self, step: int, rates: list[float]) -> None:
        """A step was logged: a command that waited for it is done, with the rates that it used."""
        waiting, setter = self._steer, self._setter
        if waiting is None or setter is None or step <= waiting.step:
            return
        waiting.logged += 1
        command_id, name = str(waiting.command.id), waiting.command.command
        released = self.course is None
        seen = rates if released else setter.taken.get(step)
        if seen is not None:
            effect = {"lr": seen[0], "lrs": seen, "step": step}
            self.answers.last_word(command_id, name, "done", step=step, effect=effect)
            self._steer = None
        elif setter.trouble is not None or waiting.logged >= STEPS_WITHOUT_HOOK:
            reason = setter.trouble or (
                f"the optimizer took no step that its hooks see in {waiting.logged} logged steps "
                "(a compiled step, a CUDA graph, another optimizer)"
            )
            self.answers.last_word(command_id, name, "failed", reason=reason)
            self._steer = None
            self._release(command_id, step)

    def wants(self, command: str) -> bool:
        """Has somebody asked for this? The script asks here, which is how it is known that it does."""
        self.looked_at.add(command)
        return bool(self.requested[command])

    def served(self, command: str, step: int, effect: dict[str, Any]) -> None:
        """The script did what was asked for."""
        for waiting in self.requested[command]:
            self.answers.last_word(str(waiting.command.id), command, "done", step=step, effect=effect)
        self.requested[command] = []

    def close(self, step: int, reason: str) -> None:
        """The run ends: a stop is done, and whatever waits for more has failed."""
        self.served("stop", step, {"reason": reason})
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
