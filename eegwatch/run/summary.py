"""A run at a glance, read from its log: for `status`, for lists of runs, for scripts."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from eegwatch.run.folder import RUN_LOG
from eegwatch.run.log import Tail, run_decoder
from eegwatch.run.records import End, Eval, Finding, Progress, Run, Step, number
from eegwatch.wording import plain, rate

TAIL_BYTES = 1 << 16  # the last 64 kB hold the newest step, whatever the log's length


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
    verdict: str | None = None  # the newest finding near the log's end that was not resolved there
    severity: str | None = None

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    def text(self) -> str:
        of = f" of {self.total_steps:,}" if self.total_steps else ""
        epochs = f", epoch {self.epoch + 1} of {self.epochs}" if self.epoch is not None and self.epochs else ""
        lines = [
            f"run      {self.run_id} (attempt {self.attempt})",
            f"step     {self.step:,}{of}{epochs}" + (f"  LR {rate(self.lr)}" if self.lr is not None else ""),
        ]
        if self.progress:
            lines.append(f"now      {self.progress}")
        if self.auroc is not None:
            lines.append(f"AUROC    {self.auroc:.4f} (validation)")
        if self.end:
            lines.append(f"ended    {self.end}" + (f": {plain(self.error)}" if self.error else ""))
        return "\n".join(lines)


def summarise(folder: Path) -> Summary:
    """Read the log's head for the run and its end for the newest figures: the same time for any length."""
    path = folder / RUN_LOG
    decoder = run_decoder()
    size = path.stat().st_size
    head = Tail(path).read(TAIL_BYTES).data
    records = decoder.decode(head)
    if size > len(head):
        begin = max(len(head), size - TAIL_BYTES)
        tail = Tail(path, begin)
        data = tail.read(TAIL_BYTES).data
        records += decoder.decode(data[data.find(b"\n") + 1 :] if begin > len(head) else data)
    run, step, end, progress = None, None, None, None
    evaluations: list[Eval] = []
    open_findings: dict[str, Finding] = {}
    for record in records:
        if isinstance(record, Run):
            run, end, step = record, None, None
            open_findings.clear()
            evaluations = [e for e in evaluations if e.step <= record.step]  # the rest is superseded
        elif isinstance(record, Step):
            step, progress = record, None
        elif isinstance(record, Eval) and record.split == "val":
            evaluations.append(record)
        elif isinstance(record, End):
            end = record
        elif isinstance(record, Finding):
            open_findings.pop(record.rule, None)
            if record.severity in ("warning", "error"):
                open_findings[record.rule] = record
        elif isinstance(record, Progress):
            progress = record if record.done < record.total else None
    last = records[-1] if records else None
    worst = min(open_findings.values(), key=lambda f: (f.severity != "error", -f.step), default=None)
    return Summary(
        run_id=folder.name,
        name=run.name if run else "",
        attempt=run.attempt if run else 0,
        step=step.step if step else end.step if end else run.step if run else 0,
        total_steps=run.total_steps if run else None,
        epoch=step.epoch if step else None,
        epochs=run.epochs if run else None,
        lr=number(step.lr) if step else None,
        loss=number(step.loss) if step else None,
        auroc=number(evaluations[-1].auroc) if evaluations else None,
        end=end.reason if end else None,
        error=end.error if end else None,
        progress=f"{progress.what} {progress.done} of {progress.total}" if progress else None,
        time=last.time if last else 0.0,
        verdict=worst.message if worst else None,
        severity=worst.severity if worst else None,
    )
