"""The meaning of the resume form: the starting point, the command to send, or the reason why none can be sent."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, cast

from eegwatch.run.config import Script
from eegwatch.run.control import CONTROL
from eegwatch.run.folder import new_run_id
from eegwatch.run.unsaved_steps import script_of
from eegwatch.schedule import Schedule, ScheduleError, declared_base, peak_rate, resumed
from eegwatch.schedule.spec import parse_for_run
from eegwatch.shell import command as shell
from eegwatch.tui.session import Session
from eegwatch.wording import duration, exact, short_rate

Then = Literal["anneal", "hold", "scale"]
REJOIN = "rejoin"
CHOICES = {
    REJOIN: "continue on the planned LR curve; type no LR",
    "anneal": "begin at your LR, fall along a cosine to the planned final LR",
    "hold": "stay at your LR until the end of the run",
    "scale": "follow the planned curve, scaled to begin at your LR",
}
RELEASE = "release"
RELEASE_WORDS = "hand the LR back to the script's own scheduler; type no LR"
AT_NEXT_STEP = ("training", "evaluating", "checkpointing")
STAMP = len("20261124-141500-")  # of a run's folder, before its name


@dataclass(frozen=True)
class ResumeChoice:
    """The command to send: without `lr` back to the declared schedule; with the name of a `branch` as a new run."""

    lr: float | None
    then: Then | None
    force: bool = False
    branch: str = ""
    command: str = "resume"

    @property
    def words(self) -> str:
        if self.command == RELEASE:
            return "hand the LR back to the script's scheduler"
        what = f"resume as {self.branch}" if self.branch else "resume"
        return f"{what} on the planned curve" if self.lr is None else f"{what} at LR {exact(self.lr)}, then {self.then}"

    @property
    def fields(self) -> dict[str, object]:
        """Those of the control file's `resume` that are set, `lr` apart."""
        fields = {"then": self.then, "force": self.force or None, "as": self.branch or None}
        return {key: value for key, value in fields.items() if value is not None}


@dataclass(frozen=True)
class StartPoint:
    """The starting point of a resume: after `step`, with the reason as text."""

    step: int
    words: str


@dataclass(frozen=True)
class CheckedForm:
    """The present content of the form: the command to send, or the reason why none can be sent."""

    choice: ResumeChoice | None = None
    problem: str = ""
    schedule: Schedule | None = None
    above_peak: bool = False
    lr: float | None = None
    then: str = field(default=REJOIN)


@dataclass(frozen=True)
class Form:
    """The form as a person filled it in. `chosen`: what was picked to follow the LR, None where nothing was."""

    typed: str = ""
    chosen: str | None = None
    force: bool = False
    branch: str = ""


def start_point(session: Session, *, branch: bool = False) -> StartPoint:
    """After the current step where a trainer runs, else at the newest checkpoint, else at the very beginning.

    `branch`: where a new run would begin.
    """
    history = session.history
    if session.steers_itself and not branch:
        return StartPoint(history.step_done, f"after the current step ({history.step_done:,} now); the script runs on")
    if commanded(session, branch=branch) is not None:
        if not history.checkpoints:
            return StartPoint(0, "nowhere: the script has written no complete checkpoint yet")
        newest, lost = history.checkpoints[-1], max(0, history.step_done - history.checkpoints[-1].step)
        unsaved = f"the {lost:,} steps since are this run's alone" if branch else f"{lost:,} steps are lost"
        return StartPoint(newest.step, f"at the newest complete checkpoint, step {newest.step:,}; {unsaved}")
    if session.is_current and session.life.alive and session.life.word in AT_NEXT_STEP and history.length:
        step = history.step_done
        return StartPoint(step, f"after the current step ({step:,} now), where a checkpoint is written")
    if not history.checkpoints:
        return StartPoint(0, "at step 1: there is no checkpoint yet")
    newest = history.checkpoints[-1]
    return StartPoint(newest.step, f"at the newest checkpoint, step {newest.step:,} ({_ago(newest.time)})")


def _ago(when: float) -> str:
    return f"{duration(time.time() - when)} ago"


def choices(session: Session) -> dict[str, str]:
    """What can follow, and the line that explains each; a script that obeys by itself has a scheduler of its own."""
    return CHOICES | {RELEASE: RELEASE_WORDS} if session.steers_itself else CHOICES


def commanded(session: Session, *, branch: bool = False) -> Script | None:
    """The script of this run, where it is steered by its command line alone; a new run always begins by that."""
    if session.folder is None or (session.steers_itself and not branch):
        return None
    return script_of(session.folder)


def can_branch(session: Session) -> bool:
    """Can the daemon begin a new run from a checkpoint of this one? By the daemon's own rules."""
    if session.folder is None or not (session.is_current and session.life.alive) or not session.history.checkpoints:
        return False
    script = script_of(session.folder)
    inside = script is None or not (script.checkpoints or "").startswith(("/", "{cwd}"))
    return inside and (script is None or script.resume is not None)


def branch_words(session: Session, branch: str) -> str:
    """What will happen to this run, and which folder the new one gets."""
    name = new_run_id(branch)[STAMP:]
    runs = session.life.word in AT_NEXT_STEP
    ends = "this run is stopped and stays" if runs else "this run stays"
    return f"new run …-{name}: {ends} as it is, with its checkpoints"


def declared_schedule(session: Session) -> Schedule | None:
    """The run's own schedule, below any manual LR; None where it declares none that can be read."""
    run = session.history.run
    if run is None or run.schedule is None:
        return None
    try:
        return declared_base(parse_for_run(run.schedule, run.steps_per_epoch))
    except ScheduleError:
        return None


def judge(session: Session, form: Form) -> CheckedForm:
    """Decide what the form asks for, by the daemon's own rules."""
    text, branch = form.typed.strip(), form.branch.strip()
    script = commanded(session, branch=bool(branch))
    bare = script is None and session.steers_itself and declared_schedule(session) is None
    then = form.chosen or (("hold" if script is not None or bare else "anneal") if text else REJOIN)
    if then == RELEASE:
        if text or branch:
            return CheckedForm(problem="release hands the LR back: delete what was typed", then=then)
        return CheckedForm(ResumeChoice(None, None, command=RELEASE), then=then)
    if then == REJOIN:
        if text:
            return CheckedForm(problem="rejoin uses the planned LR: delete the typed one, or choose what follows it")
        return CheckedForm(ResumeChoice(None, None, branch=branch), schedule=declared_schedule(session))
    if not text:
        return CheckedForm(problem=f"{then} needs a learning rate", then=then)
    try:
        lr = float(text)
    except ValueError:
        return CheckedForm(problem=f"{text!r} is not a number; write it as 3e-4 or 0.0003", then=then)
    choice = ResumeChoice(lr, cast(Then, then), form.force, branch)
    return _judge_rate(session, choice, script)


def _judge_rate(session: Session, choice: ResumeChoice, script: Script | None) -> CheckedForm:
    """The same for a typed rate, which the schedule and the script may not take."""
    lr, then, declared = cast(float, choice.lr), cast(Then, choice.then), declared_schedule(session)
    if script is not None:
        if then != "hold":
            return CheckedForm(
                problem="by its command line a script can only hold a rate; RunLog in it can do more", then=then
            )
        if not any("{lr}" in str(word) for word in script.resume or []):
            return CheckedForm(
                problem="script.resume has no {lr}: this script takes no rate; delete the typed one", then=then
            )
        if declared is None and 0 < lr < float("inf"):
            return CheckedForm(replace(choice, force=False), lr=lr, then=then)
    if declared is None and session.steers_itself and not choice.branch:
        if then != "hold":
            return CheckedForm(problem="the run declares no schedule: an LR can only be held", lr=lr, then=then)
        if 0 < lr < float("inf"):
            return CheckedForm(replace(choice, force=False), lr=lr, then=then)
    if declared is None:
        return CheckedForm(problem="the run declares no schedule: only rejoin is possible", lr=lr, then=then)
    above, finite = lr > peak_rate(declared), lr != float("inf")
    begins, run = start_point(session, branch=bool(choice.branch)), session.history.run
    per_epoch = run.steps_per_epoch if run else None
    try:
        schedule = resumed(declared, begins.step, lr, then, steps_per_epoch=per_epoch, force=choice.force)
    except ScheduleError as error:
        peak = f"{exact(lr)} is above the planned maximum {short_rate(peak_rate(declared))}"
        problem = f"{peak}: tick the box to use it" if above and not choice.force and finite else str(error)
        return CheckedForm(problem=problem, above_peak=above and finite, lr=lr, then=then)
    choice = replace(choice, force=choice.force and above)
    return CheckedForm(choice, schedule=schedule, above_peak=above, lr=lr, then=then)


def shell_line(session: Session, choice: ResumeChoice) -> str:
    """The same as a command for a shell."""
    if session.steers_itself and session.folder is not None and not choice.branch:
        fields = {} if choice.lr is None else {"lr": choice.lr, **choice.fields}
        return control_line(session.folder, choice.command, **fields)
    words: list[object] = ["resume"]
    if choice.lr is not None:
        words += ["--lr", exact(choice.lr), "--then", choice.then]
        words += ["--force"] if choice.force else []
    if choice.branch:
        words += [f"--as={choice.branch}"] if choice.branch.startswith("-") else ["--as", choice.branch]
    return shell("eegpt-daemon", *words, "--logs", session.logs)


def control_line(folder: Path, command: str, **fields: object) -> str:
    """A command as a line of the control file, which is all that a script without a daemon needs."""
    line = json.dumps({"command": command, "run_id": folder.name, **fields})
    return f"echo '{line}' >> {folder.parent / CONTROL}"
