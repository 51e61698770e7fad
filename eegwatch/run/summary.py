"""A run at a glance, read from its log: for `status`, for lists of runs, for scripts."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import msgspec

from eegwatch.run.folder import RUN_LOG
from eegwatch.run.log import open_regular, run_decoder
from eegwatch.run.records import End, Eval, Finding, Number, Progress, Run, RunRecord, Step, number
from eegwatch.wording import duration, plain, rate

HEAD_BYTES = TAIL_BYTES = 1 << 16  # the last 64 kB hold the newest step, whatever the log's length
SEARCH_BYTES, SEARCHED_BYTES = 4 << 20, 256 << 20
PACE_STEPS = 200
RARE = (b'"run"', b'"eval"', b'"finding"')


@dataclass(frozen=True)
class Summary:
    """The newest attempt's counts and last figures; None where the log does not say."""

    run_id: str
    name: str
    attempt: int
    step: int
    total_steps: int | None
    epoch: int | None
    epochs: int | None
    lr: float | None
    loss: float | None
    auroc: float | None
    end: str | None
    error: str | None
    progress: str | None
    time: float
    verdict: str | None = None  # the worst finding of the newest attempt that was not resolved
    severity: str | None = None
    steps_per_s: float | None = None  # over the last steps of the log
    left_s: float | None = None  # at that pace, of an attempt that has not ended
    target: float | None = None  # AUROC that the configuration aims at
    test_auroc: float | None = None  # of the official evaluation, at the end
    parent: str | None = None  # the run that it restarted or branched off from
    parent_step: int | None = None  # where it branched off

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    @property
    def state(self) -> str:
        """How the newest attempt ended; what it prepares; "unfinished"; "no data" for a log without a record."""
        if self.end or self.progress:
            return self.end or self.progress or ""
        return "unfinished" if self.time or self.step else "no data"

    def text(self, *, running: bool = False) -> str:
        """Lines for a terminal. `running`: it is being trained now, so pace and time left mean something."""
        of = f" of {self.total_steps:,}" if self.total_steps else ""
        epochs = f", epoch {self.epoch + 1} of {self.epochs}" if self.epoch is not None and self.epochs else ""
        lines = [
            f"run      {self.run_id}"
            + (f" (attempt {self.attempt})" if self.attempt else "")
            + ("" if self.parent_step is None else f", branched off {self.parent} at step {self.parent_step:,}"),
            f"step     {self.step:,}{of}{epochs}" + (f"  LR {rate(self.lr)}" if self.lr is not None else ""),
        ]
        if self.progress:
            lines.append(f"now      {self.progress}")
        if self.loss is not None:
            lines.append(f"loss     {self.loss:.4f}")
        if running and self.steps_per_s is not None:
            left = f", {duration(self.left_s)} left" if self.left_s is not None else ""
            lines.append(f"pace     {self.steps_per_s:,.1f} steps/s{left}")
        if self.auroc is not None:
            target = f", target {self.target:g}" if self.target is not None else ""
            lines.append(f"AUROC    {self.auroc:.4f} (validation{target})")
        if self.test_auroc is not None:
            lines.append(f"test     AUROC {self.test_auroc:.4f} (official evaluation set)")
        if self.end:
            lines.append(f"ended    {self.end}" + (f": {plain(self.error)}" if self.error else ""))
        return "\n".join(lines)


class Summaries:
    """Summaries of many runs, each read again only when its log has changed."""

    def __init__(self) -> None:
        self._known: dict[Path, tuple[tuple[int, int, int], Summary]] = {}

    def of(self, folder: Path) -> Summary:
        """Raises OSError."""
        status = os.stat(folder / RUN_LOG)
        stamp = status.st_mtime_ns, status.st_size, status.st_ino
        known = self._known.get(folder)
        if known is None or known[0] != stamp:
            known = self._known[folder] = (stamp, summarise(folder))
        return known[1]


def summarise(folder: Path) -> Summary:
    """The newest attempt of a run, from the head and the end of its log and the rare records between them.

    Step records between are passed over unparsed, 2 GB a second. Raises OSError (also for what is not a file).
    """
    fd = open_regular(folder / RUN_LOG)
    try:
        records = list(_telling_records(fd))
    finally:
        os.close(fd)
    return _summary_of(folder.name, records)


def _telling_records(fd: int) -> Iterator[RunRecord]:
    """Whole records in the order of the file: all of its head and its end, runs, evaluations and findings between."""
    size, decoder = os.fstat(fd).st_size, run_decoder()
    head = os.pread(fd, HEAD_BYTES, 0)
    head = head[: head.rfind(b"\n") + 1]
    yield from decoder.decode(head)
    begin = max(len(head), size - TAIL_BYTES)
    tail = os.pread(fd, TAIL_BYTES, begin)
    first = tail.find(b"\n") + 1 if begin > len(head) else 0
    for line in _rare_lines(fd, len(head), begin + first):
        yield from decoder.decode(line)
    yield from decoder.decode(tail[first : tail.rfind(b"\n") + 1])


def _rare_lines(fd: int, begin: int, end: int) -> list[bytes]:
    """Lines of a log between two offsets that hold the newest run record, and what was told after it.

    Searched from the end backwards as far as that record; evaluations and findings within SEARCHED_BYTES of the end.
    """
    lines: dict[int, bytes] = {}
    stop = end
    while stop > begin:
        start = max(begin, stop - SEARCH_BYTES)
        chunk = os.pread(fd, stop - start, start)
        first = chunk.find(b"\n") + 1 if start > begin else 0
        if start > begin and not first:  # one line fills the whole chunk: it is not a record of ours
            stop = start
            continue
        newest_run = False
        for word in RARE if end - stop < SEARCHED_BYTES else RARE[:1]:
            at = len(chunk)
            while (at := chunk.rfind(word, first, at)) >= 0:
                line_begin = chunk.rfind(b"\n", 0, at) + 1
                line_end = chunk.find(b"\n", at)
                line = chunk[line_begin : line_end if line_end >= 0 else None]
                if line[:1] == b"{":
                    lines[start + line_begin] = line
                    newest_run |= word == RARE[0] and bool(_is_run(line))
                at = line_begin
                if newest_run and word == RARE[0]:
                    break
        if newest_run:
            break
        stop = start + first
    return [lines[at] for at in sorted(lines)]


def _is_run(line: bytes) -> bool:
    return any(isinstance(record, Run) for record in run_decoder().decode(line))


def _summary_of(run_id: str, records: list[RunRecord]) -> Summary:
    newest = _NewestAttempt()
    for record in records:
        newest.take(record)
    return newest.summary(run_id, time=records[-1].time if records else 0.0)


class _NewestAttempt:
    """What the records so far say of the newest attempt."""

    def __init__(self) -> None:
        self.run: Run | None = None
        self.step: Step | None = None
        self.end: End | None = None
        self.progress: Progress | None = None
        self.test: Eval | None = None
        self.steps: list[Step] = []
        self.evaluations: list[Eval] = []
        self.open_findings: dict[str, Finding] = {}

    def take(self, record: RunRecord) -> None:
        if isinstance(record, Run):
            self._begin(record)
        elif isinstance(record, Step):
            self.step, self.progress = record, None
            self.steps.append(record)
        elif isinstance(record, Eval) and record.split == "val":
            self.evaluations.append(record)
        elif isinstance(record, Eval) and record.split == "eval":
            self.test = record
        elif isinstance(record, End):
            self.end = record
        elif isinstance(record, Finding):
            self.open_findings.pop(record.rule, None)
            if record.severity in ("warning", "error"):
                self.open_findings[record.rule] = record
        elif isinstance(record, Progress):
            self.progress = record if record.done < record.total else None

    def _begin(self, run: Run) -> None:
        """An attempt supersedes what came after its first step."""
        self.run, self.end, self.step, self.steps = run, None, None, []
        self.open_findings.clear()
        self.evaluations = [one for one in self.evaluations if one.step <= run.step]
        if self.test is not None and self.test.step > run.step:
            self.test = None

    def summary(self, run_id: str, time: float) -> Summary:
        """`time`: of the newest record, in seconds since the epoch."""
        run, step, end, progress, test = self.run, self.step, self.end, self.progress, self.test
        worst = min(self.open_findings.values(), key=lambda f: (f.severity != "error", -f.step), default=None)
        pace = _pace(self.steps[-PACE_STEPS:])
        return Summary(
            run_id=run_id,
            name=run.name if run else "",
            attempt=run.attempt if run else 0,
            step=_step_done(run, step, end),
            total_steps=run.total_steps if run else None,
            epoch=step.epoch if step else None,
            epochs=run.epochs if run else None,
            lr=_known(step.lr) if step else None,
            loss=_known(step.loss) if step else None,
            auroc=next((_known(e.auroc) for e in reversed(self.evaluations) if e.auroc is not None), None),
            end=end.reason if end else None,
            error=end.error if end else None,
            progress=f"{progress.what} {progress.done} of {progress.total}" if progress else None,
            time=time,
            verdict=worst.message if worst else None,
            severity=worst.severity if worst else None,
            steps_per_s=pace,
            left_s=None if end else _time_left(run, step, pace),
            target=run.target.get("auroc") if run and run.target else None,
            test_auroc=_known(test.auroc) if test else None,
            parent=run.parent if run else None,
            parent_step=run.parent_step if run else None,
        )


def _pace(steps: list[Step]) -> float | None:
    """Steps a second over these records; None where there is nothing to measure."""
    if len(steps) < 2:
        return None
    seconds = steps[-1].time - steps[0].time
    return (steps[-1].step - steps[0].step) / seconds if seconds > 0 else None


def _time_left(run: Run | None, step: Step | None, pace: float | None) -> float | None:
    """Seconds until the last step at this pace; None where one of them is unknown."""
    if run is None or not run.total_steps or step is None or not pace:
        return None
    return (run.total_steps - step.step) / pace


def first_run(folder: Path) -> Run | None:
    """The first `run` record of a log: its schedule is the declared one, also where later attempts changed the rate."""
    try:
        fd = open_regular(folder / RUN_LOG)
    except FileNotFoundError:
        return None
    try:
        head = os.pread(fd, HEAD_BYTES, 0)
    finally:
        os.close(fd)
    records = run_decoder().decode(head[: head.rfind(b"\n") + 1])
    return next((record for record in records if isinstance(record, Run)), None)


def _step_done(run: Run | None, step: Step | None, end: End | None) -> int:
    """Optimizer steps completed, by the newest record that says so."""
    newest = step or end or run
    return newest.step if newest else 0


def _known(value: Number | msgspec.UnsetType) -> float | None:
    """A logged number, NaN included; None where the record has none."""
    return None if value is None or isinstance(value, msgspec.UnsetType) else number(value)
