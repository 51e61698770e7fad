"""The screen's data of one run: history, findings, state of the daemon, and answers to the screen's commands."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

from eegwatch.charts.deviation import Deviation
from eegwatch.charts.model import Overlay
from eegwatch.diagnosis.engine import Diagnosis
from eegwatch.diagnosis.events import Event, announcement
from eegwatch.diagnosis.findings import ERROR, Finding
from eegwatch.diagnosis.saved_state import KEPT_EVENTS, Judge, decoded
from eegwatch.run.config import ConfigError
from eegwatch.run.control import AnswerWatch, live_script, send
from eegwatch.run.declaration.apply import Declaration, Declared
from eegwatch.run.folder import RUN_LOG, newest_run
from eegwatch.run.follow import FollowedLog, ForeignLog, FormatError, OwnLog, RunFollower, side_of
from eegwatch.run.history import History, Item
from eegwatch.run.liveness import Liveness, Pulse
from eegwatch.run.opening import take
from eegwatch.run.records import TERMINAL, Answer
from eegwatch.wording import plain, rate

LABELS = "ABC"  # of the runs that are drawn over
PIECE = 1 << 19  # bytes read a tick: about 3,000 records, some milliseconds
DIAGNOSE_S = 0.02  # a tick, of what was read faster than it can be judged (a side file)
PULSE_EVERY_S = 1.0
ANSWER_SHOWN_S = 30.0
SAME_LR = 1e-3  # relative: a first step of an annealing lies a little below the rate that was asked for


@dataclass
class Sent:
    """A command that this screen sent, and the latest answer to it. `lr`: the requested learning rate."""

    id: str
    what: str
    at: float
    lr: float | None = None
    answer: Answer | None = None
    answered_at: float = math.inf

    def faded(self, now: float) -> bool:
        """Whether its final answer has been on the screen long enough; it stays in the list of events."""
        return self.answer is not None and self.answer.status in TERMINAL and now - self.answered_at > ANSWER_SHOWN_S

    @property
    def differs(self) -> bool:
        """Whether the rate that was read back differs from the requested one."""
        given = (self.answer.effect or {}).get("lr") if self.answer is not None else None
        return self.lr is not None and given is not None and not math.isclose(given, self.lr, rel_tol=SAME_LR)

    def text(self) -> str:
        """sent -> accepted -> done with the values read back, or why not."""
        if self.answer is None:
            return f"{self.what}: sent, waiting for the daemon"
        parts = effect_words(self.answer)
        if self.differs:
            parts[0] = f"NOT what was asked: {parts[0]}"
        return f"{self.what}: {self.answer.status}" + (f": {', '.join(parts)}" if parts else "")


def effect_words(answer: Answer) -> list[str]:
    """The result in an answer, with the values that were read back, or the reason of a failure."""
    effect, parts = answer.effect or {}, []
    if "lr" in effect:
        parts.append(f"LR {rate(float(effect['lr']))} at step {effect.get('step', 0):,} (read back)")
    elif effect.get("step") is not None:
        parts.append(f"at step {effect['step']:,}")
    if effect.get("checkpoint"):
        parts.append(plain(str(effect["checkpoint"])))
    if answer.reason:
        parts.append(plain(answer.reason))
    return parts


@dataclass
class OverlaidRun:
    """A run that is drawn behind the one on the screen."""

    folder: Path
    label: str
    follower: RunFollower
    history: History = field(default_factory=History)


class Session:
    """Follows one run of a log root, or always the newest (`follow_newest`)."""

    def __init__(
        self,
        logs: Path,
        folder: Path | None,
        on_alarm: Callable[[Finding], None],
        foreign: ForeignLog | None = None,
        declared: tuple[Declared | None, int | None] = (None, None),
    ) -> None:
        """`foreign`: someone else's log, watched but not commanded. `declared`: configuration, steps an epoch."""
        self.logs, self.foreign, self.declared = logs, foreign, declared
        self.problem: str | None = None
        self.overlaid: list[OverlaidRun] = []
        self.follow_newest = folder is None
        self.on_alarm = on_alarm
        self.pulse = Pulse(logs)
        self.answers = AnswerWatch(logs)
        self.sent: Sent | None = None
        self.life = self.pulse.take()
        self.steers_itself = False  # is the run a live script's that obeys commands by RunLog?
        self._pulse_at = time.monotonic()
        self.version = 0  # raised by everything that changes what is drawn
        self._open(folder or newest_run(logs))

    def _open(self, folder: Path | None) -> None:
        self.folder, self.problem = folder, None
        self.history, self.deviation = History(), Deviation()
        self.judge = self._new_judge()
        self.events: list[Event] = []
        self.follower: RunFollower | None = None
        self.steers_itself = self._obeys(folder)
        self._undiagnosed: Iterator[Item] = iter(())
        self._later: list[Item] = []  # read, and judged after those
        self._diagnosed, self._settled = True, False
        self._judged_before = 0  # offset of the log up to which the judge had been kept
        self.complete = self.loaded = folder is None  # read to the end; judged to the end too
        self.sketch: History | None = None
        if folder is not None:
            self._follow(folder)
        self.version += 1

    def _follow(self, folder: Path) -> None:
        """The log from its beginning, or from where the first frame or a side file left off."""
        named = Declaration(*self.declared, self.name_of(folder), self.foreign.path if self.foreign else None)
        known = None if self.foreign is not None or named.declares else take(folder)
        if known is None:
            log: FollowedLog = self.foreign.follow() if self.foreign else OwnLog(folder)
            self.follower = RunFollower(log, named)
            return
        self.follower, self.history, self.sketch = known.follower, known.history, known.sketch
        self.follower.declaration = named
        judge = None if known.state is None else decoded(known.state.data)
        self._judged_before = known.state.end if judge is not None and known.state is not None else 0
        if judge is not None:
            self.judge, self.events = judge, list(judge.events)
        self._undiagnosed = chain(self.follower.again(self._judged_before), known.read)
        self._diagnosed = False
        self.complete = known.complete

    def toggle_overlay(self, folder: Path) -> bool:
        """Another run of the log root behind the one on the screen, followed too; once more takes it away.

        False where there are three already.
        """
        before = len(self.overlaid)
        for one in [run for run in self.overlaid if run.folder == folder]:
            one.follower.close()
            self.overlaid.remove(one)
        if len(self.overlaid) == before:
            if before == len(LABELS):
                return False
            free = next(label for label in LABELS if label not in {one.label for one in self.overlaid})
            self.overlaid.append(OverlaidRun(folder, free, RunFollower(OwnLog(folder), side=side_of(folder))))
        self.version += 1
        return True

    def overlay_labels(self) -> dict[Path, str]:
        """The runs that are drawn over, and the letter of each."""
        return {one.folder: one.label for one in self.overlaid}

    @property
    def overlays(self) -> tuple[Overlay, ...]:
        return tuple(Overlay(one.label, one.folder.name, one.history) for one in self.overlaid)

    def _follow_overlaid(self, woken: bool) -> None:
        for one in self.overlaid:
            try:
                items = one.follower.poll(PIECE, woken)
            except OSError as error:
                items = []
                self._trouble(f"{one.folder.name}: {error}")
            if one.follower.began_anew:
                one.history.clear()
            for item in items:
                one.history.append(item)
                self.version += 1

    def switch(self, folder: Path) -> None:
        """Watch another run from now on."""
        if self.follower is not None:
            self.follower.close()
        self._open(folder)

    def name_of(self, folder: Path) -> str:
        return self.foreign.name if self.foreign else folder.name

    @property
    def drawn_history(self) -> History:
        """The history for the charts; until the log is read, its skeleton if that holds more."""
        return self.sketch if self.sketch is not None and self.sketch.length else self.history

    @property
    def diagnosis(self) -> Diagnosis:
        """The detectors over the run on the screen."""
        return self.judge.diagnosis

    def _new_judge(self) -> Judge:
        return Judge(Diagnosis.of_foreign(self.foreign.format) if self.foreign else None)

    @property
    def is_current(self) -> bool:
        """Whether the run on the screen is the daemon's current run."""
        return self.folder is not None and self.life.run_id == self.folder.name

    @property
    def busy(self) -> bool:
        """Whether more remains to read or judge than one tick allows."""
        return not self.loaded or any(one.follower.behind for one in self.overlaid)

    @property
    def waiting(self) -> bool:
        """Whether another process reads the log and has nothing new at this moment."""
        return self.follower is not None and self.follower.waiting

    @property
    def lively(self) -> bool:
        return self.follower is not None and self.follower.lively

    def poll(self, woken: bool = True) -> bool:
        """Take what is new; True if anything changed."""
        before = self.version
        self._read(woken)
        self._follow_overlaid(woken)
        self._listen()
        now = time.monotonic()
        if now - self._pulse_at >= PULSE_EVERY_S:
            self._pulse_at = now
            life, itself = self.pulse.take(), self._obeys(self.folder)
            if (life, itself) != (self.life, self.steers_itself):
                self.version += 1
            self.life, self.steers_itself = life, itself
            training = self.is_current and life.alive and life.word == "training"
            # what time shows is asked once all is judged: the judge that is kept has seen the log alone
            for finding in self.diagnosis.clock(time.time(), training=training) if self.loaded else ():
                self._announce(finding, self.history.last_time)
            if self.loaded and not self.lively and not self._settled:
                self._settled = True  # nothing more comes: what waited for more records is decided by those there are
                for finding in self.diagnosis.settle():
                    self._announce(finding, self.history.last_time)
                    self.version += 1
            self._look_for_a_newer_run(life)
        return self.version != before

    def _obeys(self, folder: Path | None) -> bool:
        return folder is not None and self.foreign is None and live_script(folder) is not None

    def _look_for_a_newer_run(self, life: Liveness) -> None:
        if not self.follow_newest:
            return
        newest = self.logs / life.run_id if life.alive and life.run_id else newest_run(self.logs)
        if newest is not None and newest != self.folder and newest.is_dir():
            self.switch(newest)

    def _read(self, woken: bool) -> None:
        if self.follower is None:
            return
        recalled = self.follower.recalling
        try:
            polled = self._diagnosed or not self.complete
            items = self.follower.poll(PIECE, woken) if polled else []
        except (ConfigError, FormatError, OSError) as error:
            items, polled, self.follower.behind = [], False, False
            why = f"the log cannot be read: {error.strerror or error}" if isinstance(error, OSError) else str(error)
            self._trouble(why)
        if polled and self.follower.reset:
            what = f"the log was {self.follower.reset}"
            if self.follower.began_anew:
                what += ", read anew"
                self.history.clear()
                self.deviation = Deviation()
                self.judge = self._new_judge()
                self.events = []
                self._undiagnosed, self._diagnosed = iter(()), True
                self._later.clear()
            self.events.append(Event(time.time(), what))
            self.version += 1
        elif polled and self.problem is not None:  # it can be read again
            self.problem = None
            self.version += 1
        for item in items:
            self.history.append(item)
            self._settled = False
            self.version += 1
        if not self.complete and not self.follower.behind and not recalled:
            self.complete, self.sketch = True, None
            self.version += 1
        if recalled:
            return  # judged once it is read: `again` gives it once more
        if not self.complete and not self._diagnosed:
            self._later += items
            return
        self._diagnose(items)
        if not self.loaded and not self.follower.behind and self._diagnosed:
            self._keep_judge()
            self.loaded = True
            self.version += 1
            for finding in self.diagnosis.findings:
                if finding.severity == ERROR:
                    self.on_alarm(finding)

    def _diagnose(self, items: list[Item]) -> None:
        """Judge new items; a side file's, which come faster than they can be judged, some milliseconds a tick."""
        end = time.monotonic() + DIAGNOSE_S
        while not self._diagnosed and time.monotonic() < end:
            item = next(self._undiagnosed, None)
            if item is None:
                self._diagnosed = True
            else:
                self._judge(item)
        self._later += items
        if self._diagnosed:  # what came meanwhile comes after
            later, self._later = self._later, []
            for item in later:
                self._judge(item)

    def _judge(self, item: Item) -> None:
        findings, events = self.judge.feed(item)
        self.events += events
        if len(self.events) > 2 * KEPT_EVENTS:
            del self.events[:-KEPT_EVENTS]
        for finding in findings:
            self._alarm(finding)
        self.version += 1

    def _keep_judge(self) -> None:
        """For the next that opens the log, where it is a long one of ours and nothing but its records was judged."""
        follower = self.follower
        if follower is None or follower.side is None or follower.offset == self._judged_before:
            return
        kept = self.judge.kept()
        if kept is not None:
            follower.keep_state(*kept)

    def _trouble(self, what: str) -> None:
        """The log cannot be read now: report it once, and try again."""
        if what != self.problem:
            self.problem = what
            self.events.append(Event(time.time(), what))
            self.version += 1

    def _announce(self, finding: Finding, when: float) -> None:
        self.events.append(Event(when, announcement(finding)))
        self._alarm(finding)

    def _alarm(self, finding: Finding) -> None:
        if self.loaded and finding.severity == ERROR:
            self.on_alarm(finding)

    def newest_events(self, most: int | None = None) -> list[Event]:
        """The events, the newest first by their time: a log that is read at once is judged a block at a time."""
        recent = self.events if most is None else self.events[-max(200, most) :]
        later = sorted(enumerate(recent), key=lambda pair: (-pair[1].time, -pair[0]))
        return [event for _, event in later[:most]]

    # ---- commands ----

    def send(self, what: str, name: str, *, lr: float | None = None, **fields: Any) -> Sent:
        """Append a command for the run on the screen. Raises OSError."""
        run_id = self.folder.name if self.folder else None
        self.sent = Sent(send(self.logs, name, run_id, lr=lr, **fields), what, time.time(), lr)
        self.version += 1
        return self.sent

    def _listen(self) -> None:
        for record in self.answers.poll():
            if not isinstance(record, Answer):
                continue
            self.version += 1
            ours = self.sent is not None and record.id == self.sent.id
            if ours and self.sent is not None:
                self.sent.answer, self.sent.answered_at = record, time.time()
            if ours or record.status != "accepted":
                words = ", ".join(effect_words(record))
                what = f"{record.command or 'command'} {record.status}"
                self.events.append(Event(record.time, f"{what}: {words}" if words else what, record.id))
            begun = (record.effect or {}).get("run_id")
            if ours and record.status == "done" and record.command in ("restart", "resume") and begun:
                fresh = self.logs / str(begun)  # another run: a restart, or one that branched off
                if fresh != self.folder and (fresh / RUN_LOG).exists():
                    self.switch(fresh)
