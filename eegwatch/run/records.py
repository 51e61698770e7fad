"""The records of run.jsonl and daemon.jsonl: one frozen msgspec Struct a type, tagged by `type`.

Numbers are written at full float64 precision. NaN and the infinities are not JSON: they are written as the
strings "nan", "inf", "-inf" and read back with `number`. A field may be added; none changes its meaning.
docs/files.md defines the format, version 2; version 1 differs only in what it lacks.
"""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

import msgspec

RUN_LOG_VERSION = 2  # written into each `run` record; a reader takes what it knows of any version

# A step is a position of a float64 axis too, where whole numbers are exact up to 2**53; skipped steps are an int32. A
# record with a number beyond them is counted as one that does not parse.
Int64 = Annotated[int, msgspec.Meta(ge=-(1 << 53), le=1 << 53)]
Int32 = Annotated[int, msgspec.Meta(ge=-(1 << 31), le=(1 << 31) - 1)]

NonFinite = Literal["nan", "inf", "-inf"]
# None is read (msgspec and orjson write NaN as null), never written for a number that is known to be non-finite.
Number = float | NonFinite | None


class Record(msgspec.Struct, frozen=True, kw_only=True, tag_field="type"):
    """What every line has: its `type` and the `time` it was written (seconds since the epoch)."""

    time: float = 0.0


class Run(Record, frozen=True, kw_only=True, tag="run"):
    """First line of every attempt. `step` is how many optimizer steps were already done when it began.

    `lr_precision`: the floating-point type that the logged rates had, None where only the digits tell. `groups`: one
    entry for each parameter group of the optimizer, {"name", "schedule"}, group 0 first; `schedule` is group 0's.
    `parent`: the run that this one restarted, or, with `parent_step`, from whose step it branched off.
    `metric_goals`: for a named metric, whether "min" or "max" is better. `unit_assumed`: nobody has said whether the
    scheduler, which the schedule was read off, is to be stepped once a step or once an epoch.
    """

    v: int = RUN_LOG_VERSION
    run_id: str = ""
    attempt: Int64 = 1
    name: str = ""
    step: Int64 = 0
    total_steps: Int64 | None = None
    steps_per_epoch: Int64 | None = None
    epochs: Int64 | None = None
    batch_size: Int64 | None = None
    accumulate: Int64 = 1
    world_size: Int64 = 1
    schedule: dict[str, Any] | None = None
    target: dict[str, float] | None = None
    expected: dict[str, float] | None = None
    parent: str | None = None
    parent_step: Int64 | None = None
    checkpoint: str | None = None
    restored: dict[str, Any] | None = None
    overrides: list[dict[str, Any]] = []
    command: str | None = None
    inject: str | None = None
    detectors: dict[str, Any] = {}
    notes: list[str] = []
    seed: int | None = None
    pid: int | None = None
    host: str | None = None
    versions: dict[str, str] = {}
    git: dict[str, Any] | None = None
    argv: list[str] = []
    config: dict[str, Any] | None = None
    lr_precision: str | None = None  # "float64", "float32", "bfloat16", "printed"; a later version may know others
    groups: list[dict[str, Any]] | None = None
    metric_goals: dict[str, str] = {}
    unit_assumed: bool | msgspec.UnsetType = msgspec.UNSET


class Step(Record, frozen=True, kw_only=True, tag="step", gc=False):
    """One optimizer step. `lr` is the rate that this step used; step n uses schedule position n - 1.

    `lrs`: the rates of all parameter groups, group 0 first; left out where each group has the rate `lr`. `metrics`:
    any other numbers of this step, by name.
    """

    step: Int64
    epoch: Int64 | None = None
    batch: Int64 | None = None
    lr: Number = None
    position: float | None = None
    loss: Number | msgspec.UnsetType = msgspec.UNSET  # left out where it is not known; null is another writer's NaN
    grad_norm: Number = None
    samples_per_s: Number = None
    skipped: Int32 | msgspec.UnsetType = msgspec.UNSET
    lrs: list[Number] | msgspec.UnsetType = msgspec.UNSET
    metrics: dict[str, Number] | msgspec.UnsetType = msgspec.UNSET


class Eval(Record, frozen=True, kw_only=True, tag="eval"):
    """An evaluation: `split` is `val` (steers training) or `eval` (the official test set, reported once).

    `metrics`: further results by name; `ci95`: a metric's 95 % interval, [low, high]. The daemon's trainer adds:
    `model` ("best" or "final", of the test set), `looks` (reports of this run on the test set, this one included),
    `recordings`, `subjects` (how many), `confusion` ("window", "recording": rows true, columns predicted class).
    """

    step: Int64
    epoch: Int64 | None = None
    split: str = "val"
    loss: Number = None
    auroc: Number = None
    balanced_accuracy: Number = None
    n: int = 0
    recording_auroc: Number = None
    metrics: dict[str, Number] | msgspec.UnsetType = msgspec.UNSET
    ci95: dict[str, list[Number]] | msgspec.UnsetType = msgspec.UNSET
    model: str | msgspec.UnsetType = msgspec.UNSET
    looks: int | msgspec.UnsetType = msgspec.UNSET
    recordings: int | msgspec.UnsetType = msgspec.UNSET
    subjects: int | msgspec.UnsetType = msgspec.UNSET
    confusion: dict[str, list[list[int]]] | msgspec.UnsetType = msgspec.UNSET

    def values(self) -> dict[str, float]:
        """Each result that was logged, under its name: the fields first, then `metrics`."""
        fields = {name: getattr(self, name) for name in EVAL_FIELDS}
        named = {} if isinstance(self.metrics, msgspec.UnsetType) else self.metrics
        return {name: number(value) for name, value in (fields | named).items() if value is not None}


class ScheduleChange(Record, frozen=True, kw_only=True, tag="schedule"):
    """A new schedule from step `step` + 1 on, within the same attempt; `command` is the id of the command for it.

    `schedule`: group 0's, or None where none is known from here on; `groups`: as in the `run` record.
    """

    step: Int64
    schedule: dict[str, Any] | None = None
    groups: list[dict[str, Any]] | None = None
    command: str | None = None
    by: str | None = None


class Watch(Record, frozen=True, kw_only=True, tag="watch"):
    """An observation of the watcher at a step: `look` names the quantity, `values` holds its numbers."""

    step: Int64
    look: str
    group: int | None = None
    values: dict[str, Any] = {}


class Intent(Record, frozen=True, kw_only=True, tag="intent"):
    """A person declared that a finding (its rule, and the step since which it holds) is intended."""

    step: Int64
    rule: str
    since_step: Int64
    by: str = ""
    reason: str = ""


class Checkpoint(Record, frozen=True, kw_only=True, tag="checkpoint"):
    """A checkpoint that is durable on disk. `path` is relative to the run; `sha256` lets a reader verify it."""

    step: Int64
    epoch: int | None = None
    path: str = ""
    best: bool = False
    sha256: str | None = None
    command: str | None = None


class System(Record, frozen=True, kw_only=True, tag="system"):
    """Load of the machine, every few seconds. Percent of one core is 100; memory in bytes."""

    step: Int64
    cpu_percent: float | None = None
    rss_bytes: int | None = None
    gpu: list[dict[str, float]] = []


class Finding(Record, frozen=True, kw_only=True, tag="finding"):
    """A detector changed its mind. `cause` is an object (docs/detection.md), or null."""

    rule: str
    severity: str
    step: Int64
    since_step: Int64
    message: str
    cause: dict[str, Any] | None = None


class Progress(Record, frozen=True, kw_only=True, tag="progress"):
    """Long work outside the optimizer steps: `done` of `total`."""

    what: str
    done: int
    total: int


class End(Record, frozen=True, kw_only=True, tag="end"):
    """Last line of an attempt: completed, early_stopped, stopped, restarted or failed."""

    step: Int64
    reason: str
    error: str | None = None


class DaemonState(Record, frozen=True, kw_only=True, tag="daemon"):
    """A change of the daemon's state, or a heartbeat.

    `alive` is counted by the supervisor, `progress` by the training loop: one counter alone hides a hung loop. `since`:
    when this state was entered (training, evaluating and checkpointing count as one); `moved`: when `progress` last
    moved (seconds since the epoch, both).
    """

    state: str
    since: float | None = None
    moved: float | None = None
    pid: int = 0
    run_id: str | None = None
    step: int | None = None
    reason: str | None = None
    alive: int | None = None
    progress: int | None = None
    deadline: float | None = None


class Answer(Record, frozen=True, kw_only=True, tag="command"):
    """The daemon's answer to one command: accepted, then done or failed; or rejected; or expired."""

    id: str
    command: str | None
    status: str
    reason: str | None = None
    run_id: str | None = None
    attempt: int | None = None
    step: int | None = None
    effect: dict[str, Any] | None = None


RunRecord = Run | Step | Eval | ScheduleChange | Watch | Intent | Checkpoint | System | Finding | Progress | End
DaemonRecord = DaemonState | Answer

# an evaluation's own fields, by the name of the metric
EVAL_FIELDS = ("loss", "auroc", "balanced_accuracy", "recording_auroc")

TERMINAL = frozenset({"done", "failed", "rejected", "expired"})

_encoder = msgspec.json.Encoder()


def number(value: Number | msgspec.UnsetType) -> float:
    """A logged number as a float; a missing one is nan."""
    return math.nan if value is None or isinstance(value, msgspec.UnsetType) else float(value)


def finite(value: float | None) -> Number:
    """A float as it is written: non-finite values become the strings of the contract."""
    if value is None or math.isfinite(value):
        return None if value is None else float(value)  # numpy's float64 is a float to Python, but not to msgspec
    return "nan" if math.isnan(value) else "inf" if value > 0 else "-inf"


def _json_safe(value: Any) -> Any:
    if isinstance(value, float):
        return finite(value)
    if isinstance(value, dict):
        return {key: _json_safe(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_json_safe(item) for item in value]
    return value


def encode(record: Record) -> bytes:
    """One line, newline included. Any non-finite float, nested ones too, becomes a string.

    A Step's numbers are checked by name, since it is written thousands of times a second.
    """
    if isinstance(record, Step):
        for name in ("lr", "loss", "grad_norm", "samples_per_s"):
            value = getattr(record, name)
            if isinstance(value, float) and not math.isfinite(value):
                record = msgspec.structs.replace(record, **{name: finite(value)})
        if record.lrs is not msgspec.UNSET or record.metrics is not msgspec.UNSET:
            record = msgspec.structs.replace(record, lrs=_json_safe(record.lrs), metrics=_json_safe(record.metrics))
        try:
            return _encoder.encode(record) + b"\n"
        except TypeError:
            pass  # a numpy scalar among the fields: the general way below converts it
    plain = {name: _json_safe(getattr(record, name)) for name in record.__struct_fields__}
    return _encoder.encode(type(record)(**plain)) + b"\n"
