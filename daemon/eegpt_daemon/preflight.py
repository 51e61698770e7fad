"""Preflight: the effect of a configuration and its problems, checked before any long work.

Builds the real optimizer and torch's real scheduler, steps through the whole schedule without data, and compares
initial, peak and final rate with `expected:`. Each problem comes with the line to write instead.
"""

from __future__ import annotations

import copy
import math
import warnings
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from eegwatch.charts.plot import sketch
from eegwatch.run import config as configuration
from eegwatch.run.config import Config, ConfigError
from eegwatch.run.seed_series import as_series
from eegwatch.schedule import Schedule, ScheduleError, final_rate, initial_rate, length_in_steps, peak_rate, rate_at
from eegwatch.wording import count, short_rate

NOMINAL_STEPS = 1_000  # an epoch, where neither the corpus nor the caller says how long one is
WALK_AT_MOST = 100_000  # scheduler steps taken one by one: some seconds; a longer one-cycle is compared at samples
AGREE, TORCH_AGREE = 1e-6, 1e-12
LONG_WITHOUT_CHECKPOINT = 30.0  # minutes of work that a crash may cost
ERROR, WARNING = "error", "warning"
WIDTHS = {"large": 512, "small": 64}


@dataclass(frozen=True)
class Problem:
    """One problem: `write` is the line to put into the file instead (empty if there is none)."""

    severity: str
    key: str
    message: str
    write: str = ""


@dataclass
class Preflight:
    """The outcome: rates over the whole schedule, and what is wrong."""

    config: str
    schedule: Schedule
    steps_per_epoch: int
    nominal: bool
    problems: list[Problem] = field(default_factory=list)
    expected: dict[str, float] = field(default_factory=dict)
    compared: int = 0
    script: list[str] = field(default_factory=list)  # what is run, for a terminal
    seeds: list[int] = field(default_factory=list)  # of a series, a run each
    split_seed: int | None = None  # draws the validation subjects of all of them

    @property
    def ok(self) -> bool:
        return all(p.severity != ERROR for p in self.problems)

    @property
    def total_steps(self) -> int:
        return length_in_steps(self.schedule, self.steps_per_epoch)

    @property
    def rates(self) -> dict[str, float]:
        s = self.schedule
        return {"initial_lr": initial_rate(s), "peak_lr": peak_rate(s), "final_lr": final_rate(s)}

    def as_dict(self) -> dict[str, Any]:
        return {
            "config": self.config,
            "ok": self.ok,
            "steps_per_epoch": self.steps_per_epoch,
            "steps_per_epoch_nominal": self.nominal,
            "total_steps": self.total_steps,
            "rates": self.rates,
            "expected": self.expected,
            "phases": [list(phase) for phase in self.schedule.phases()],
            "positions_compared_with_torch": self.compared,
            "seeds": self.seeds,
            "problems": [asdict(p) for p in self.problems],
        }

    def _series(self) -> list[str]:
        if not self.seeds:
            return []
        shown = ", ".join(map(str, self.seeds[:10])) + (", …" if len(self.seeds) > 10 else "")
        return [
            f"a series of {count(len(self.seeds), 'seed')} ({shown}), one run after another: "
            f"{len(self.seeds) * self.total_steps:,} steps in all; split_seed {self.split_seed} draws the validation "
            "subjects of all"
        ]

    def text(self) -> str:
        """For a terminal: the curve, the table, the problems."""
        total = self.total_steps
        steps = np.unique(np.linspace(1, total, 4096).round()).astype(np.int64)
        about = " (nominal: the corpus says how long an epoch is)" if self.nominal else ""
        lines = [
            *self.script,
            f"{self.config}: {type(self.schedule).__name__}, {total:,} steps, {self.steps_per_epoch:,} an epoch{about}",
            *self._series(),
            "",
            *sketch(steps, rate_at(self.schedule, steps, self.steps_per_epoch), 76, 9, log=True),
        ]
        bands = [f"{name} {a:,.0f}–{b:,.0f}" for name, a, b in self.schedule.phases()]
        lines += [" " * 9 + " · ".join(bands), ""] if bands else [""]
        lines.append(f"{'':9}{'declared':>12}{'expected':>12}")
        for key, value in self.rates.items():
            expected = self.expected.get(key)
            mark = "" if expected is None else "✔" if math.isclose(value, expected, rel_tol=AGREE) else "✖"
            shown = "–" if expected is None else short_rate(expected)
            lines.append(f"{key.removesuffix('_lr'):9}{short_rate(value):>12}{shown:>12} {mark}")
        if self.compared:
            lines.append(f"equal to torch's scheduler at all {self.compared:,} positions compared")
        for p in self.problems:
            lines += ["", f"{'✖' if p.severity == ERROR else '!'} {p.key}: {p.message}"]
            if p.write:
                lines.append(f"  write   {p.write}")
        lines += ["", "ready" if self.ok else "not ready: errors above"]
        return "\n".join(lines)


def preflight(path: Path, steps_per_epoch: int | None = None) -> Preflight:
    """Check a file. Raises ConfigError if it cannot be read as a configuration."""
    config = configuration.load(path)
    steps = steps_per_epoch or NOMINAL_STEPS
    schedule = configuration.schedule_of(config, steps, str(path))
    outcome = Preflight(
        str(path), schedule, steps, steps_per_epoch is None, expected=configuration.expected_rates(config)
    )
    if config.experiment.seeds is not None:
        of_series = copy.deepcopy(config)
        as_series(of_series)
        outcome.seeds, outcome.split_seed = list(of_series.experiment.seeds or []), of_series.data.split_seed  # type: ignore[arg-type]
    outcome.problems += [*_rates(config, schedule), *_length(config, schedule, outcome)]
    if config.script is not None:
        from eegpt_daemon.preflight_script import script_traps, shown
        from eegpt_daemon.script.template import resolved

        config.script = resolved(config.script, str(path))
        outcome.problems += script_traps(config)
        outcome.script = shown(config.script)
    else:
        outcome.problems += [*_loop(config), *_model(config)]
    try:
        outcome.compared = _compare_with_torch(config, schedule)
    except _Differs as error:
        outcome.problems.append(Problem(ERROR, "training.scheduler", str(error)))
    outcome.problems.sort(key=lambda p: p.severity)
    return outcome


def _rates(config: Config, schedule: Schedule) -> list[Problem]:
    problems: list[Problem] = []
    expected, s = config.expected, config.training.scheduler
    name = configuration.schedule_name(s.name)
    declared = {"initial_lr": initial_rate(schedule), "peak_lr": peak_rate(schedule), "final_lr": final_rate(schedule)}
    for key, value in declared.items():
        wanted = getattr(expected, key)
        if wanted is None or math.isclose(value, wanted, rel_tol=AGREE):
            continue
        which = key.removesuffix("_lr")
        difference = f"the schedule's {which} rate is {short_rate(value)}, expected.{key} is {short_rate(wanted)}"
        write, where = "", f"training.scheduler.{key}"
        if name == "one_cycle":
            initial = expected.initial_lr or declared["initial_lr"]
            peak = expected.peak_lr or declared["peak_lr"]
            where, write = {
                "initial_lr": ("div_factor", f"div_factor: {peak / wanted:g}"),
                "peak_lr": ("max_lr", f"max_lr: {short_rate(wanted)}"),
                "final_lr": ("final_div_factor", f"final_div_factor: {initial / wanted:g}"),
            }[key]
            where = f"training.scheduler.{where}"
            if key == "final_lr":
                difference += "; final_div_factor divides the initial rate, not the peak"
        elif hasattr(schedule, key):
            write = f"{key}: {short_rate(wanted)}"
        problems.append(Problem(ERROR, where, difference, write))
    if s.cycle_momentum:
        message = "would cycle Adam's beta1 between 0.85 and 0.95; the rate alone is scheduled here"
        problems.append(Problem(ERROR, "training.scheduler.cycle_momentum", message, "cycle_momentum: false"))
    lr = config.training.optimizer.lr
    if lr is not None and not math.isclose(lr, declared["peak_lr"], rel_tol=AGREE):
        message = f"{lr:g} is never used: the schedule sets the rate of every step"
        problems.append(Problem(WARNING, "training.optimizer.lr", message, "(remove the line)"))
    return problems


def _length(config: Config, schedule: Schedule, outcome: Preflight) -> list[Problem]:
    problems: list[Problem] = []
    training, s = config.training, config.training.scheduler
    if s.epochs is not None and s.epochs != training.max_epochs:
        message = f"{s.epochs}, but the run has max_epochs {training.max_epochs}: the rate would end early or late"
        problems.append(Problem(ERROR, "training.scheduler.epochs", message, f"epochs: {training.max_epochs}"))
    if s.total_steps is not None and s.total_steps != outcome.total_steps and not outcome.nominal:
        accumulate = training.gradient_accumulation_steps
        why = f"with {accumulate} micro-batches a step " if accumulate > 1 else ""
        message = f"{s.total_steps:,}, but {why}the run takes {outcome.total_steps:,} optimizer steps"
        problems.append(
            Problem(ERROR, "training.scheduler.total_steps", message, f"total_steps: {outcome.total_steps}")
        )
    total = schedule.total_steps
    warmup = getattr(schedule, "warmup_steps", 0)
    if warmup >= total:
        message = f"the warm-up of {warmup:,} is as long as the run ({total:,}): the peak is never left"
        problems.append(Problem(ERROR, "training.scheduler.warmup_steps", message, f"warmup_steps: {total // 10}"))
    pct = getattr(schedule, "pct_start", None)
    if pct is not None and pct * total <= 1:
        message = f"{pct:g} of {total:,} steps: there is no warm-up, and torch divides by its length"
        problems.append(Problem(ERROR, "training.scheduler.pct_start", message, "pct_start: 0.1"))
    elif pct is not None and pct >= 1:
        problems.append(Problem(ERROR, "training.scheduler.pct_start", "the run is all warm-up", "pct_start: 0.1"))
    if getattr(schedule, "warmup", 0) >= 1:
        problems.append(Problem(ERROR, "training.scheduler.warmup", "the run is all warm-up", "warmup: 0.1"))
    if s.unit == "epoch" and configuration.schedule_name(s.name) == "one_cycle":
        message = "a one-cycle rate that changes once an epoch is a common fault; keep it only if it is intended"
        problems.append(Problem(WARNING, "training.scheduler.unit", message, "unit: step"))
    return problems


def _loop(config: Config) -> list[Problem]:
    problems: list[Problem] = []
    training, stopping = config.training, config.training.early_stopping
    share = training.val_check_interval
    if stopping is not None:
        evaluations = training.max_epochs * (round(1 / share) if share <= 1 else 1)
        if stopping.patience >= evaluations:
            message = f"{stopping.patience} evaluations, and the run has {evaluations}: it can never stop early"
            write = f"patience: {max(1, evaluations // 5)}"
            problems.append(Problem(ERROR, "training.early_stopping.patience", message, write))
        right = "min" if stopping.monitor == "val_loss" else "max"
        if stopping.mode != right:
            message = f"{stopping.monitor} is better when it is {'lower' if right == 'min' else 'higher'}"
            problems.append(Problem(ERROR, "training.early_stopping.mode", message, f"mode: {right}"))
        if config.data.val_fraction == 0:
            message = "early stopping needs a validation split; the official evaluation set must not steer training"
            problems.append(Problem(ERROR, "data.val_fraction", message, "val_fraction: 0.15"))
    if training.checkpoint_minutes > LONG_WITHOUT_CHECKPOINT:
        message = f"a crash would cost up to {training.checkpoint_minutes:g} minutes of training"
        problems.append(Problem(ERROR, "training.checkpoint_minutes", message, "checkpoint_minutes: 10"))
    if config.inject:
        message = "this configuration injects a fault on purpose"
        problems.append(Problem(WARNING, "inject", message, "(remove the line for a real run)"))
    if not training.gradient_clip_val:
        problems.append(
            Problem(WARNING, "training.gradient_clip_val", "gradients are not clipped", "gradient_clip_val: 1.0")
        )
    return problems


def _model(config: Config) -> list[Problem]:
    problems: list[Problem] = []
    backbone, probe, data = config.model.backbone, config.model.probe, config.data
    width = 512 if backbone.checkpoint_path else WIDTHS[backbone.preset]
    through = [("model.backbone.freeze", "freeze: true")] if not backbone.freeze else []
    through += [("model.probe.use_channel_adapter", "use_channel_adapter: false")] if probe.use_channel_adapter else []
    for key, write in through:
        cost = "20 GFLOP a window, 7 windows/s on two cores" if width == 512 else "200 windows/s on two cores"
        message = f"every step runs the backbone ({cost}); frozen features are computed once"
        problems.append(Problem(WARNING, key, message, f"{write}, unless it is meant"))
    if backbone.entry is None:
        problems += _eegpt(config, width)
    if data.synthetic is None and not Path(data.root_dir).is_dir():
        message = f"{data.root_dir} is not a folder here"
        problems.append(Problem(WARNING, "data.root_dir", message, "(the corpus: edf/train/…, edf/eval/…)"))
    return problems


def _eegpt(config: Config, width: int) -> list[Problem]:
    """The requirements of EEGPT's encoder on data and probe; a user's encoder checks its own when it is built."""
    problems: list[Problem] = []
    backbone, probe, data = config.model.backbone, config.model.probe, config.data
    if data.sampling_rate != 256:
        message = f"{data.sampling_rate} Hz: EEGPT's patches are 64 samples at 256 Hz"
        problems.append(Problem(ERROR, "data.sampling_rate", message, "sampling_rate: 256"))
    patch = 64 / data.sampling_rate
    for key in ("window_duration", "window_stride"):
        seconds = getattr(data, key)
        if not math.isclose(seconds / patch, round(seconds / patch)) or seconds < patch:
            message = f"{seconds:g} s is not a whole number of patches of {patch:g} s"
            write = f"{key}: {max(1, round(seconds / patch)) * patch:g}"
            problems.append(Problem(ERROR, f"data.{key}", message, write))
    sizes = (width, 4 * width, 4 * width * round(data.window_duration / patch))
    if probe.input_dim is not None and probe.input_dim not in sizes:
        message = f"{probe.input_dim} is none of the sizes of this encoder: {', '.join(map(str, sizes))}"
        problems.append(Problem(ERROR, "model.probe.input_dim", message, f"input_dim: {4 * width}"))
    if backbone.checkpoint_path and not Path(backbone.checkpoint_path).exists():
        message = f"{backbone.checkpoint_path} is not here"
        problems.append(Problem(WARNING, "model.backbone.checkpoint_path", message, "(where the EEGPT .ckpt lies)"))
    if not backbone.checkpoint_path and data.scaling == "millivolt":
        message = "a randomly initialised encoder hardly reacts to millivolts"
        problems.append(Problem(WARNING, "data.scaling", message, "scaling: zscore"))
    if backbone.checkpoint_path and data.scaling != "millivolt":
        message = f"{data.scaling}: EEGPT was trained on millivolts"
        problems.append(Problem(WARNING, "data.scaling", message, "scaling: millivolt"))
    return problems


class _Differs(Exception):
    """The pure function and torch's scheduler disagree: where, and by how much."""


def _compare_with_torch(config: Config, schedule: Schedule) -> int:
    """Walk torch's own scheduler on a real AdamW; returns the number of positions that were equal."""
    import torch

    from eegpt_daemon.trainer.optimizer import AdamW
    from eegpt_daemon.trainer.scheduler import torch_scheduler

    weight = torch.nn.Parameter(torch.zeros(1))
    optimizer = AdamW([weight], lr=1.0, weight_decay=config.training.optimizer.weight_decay)
    try:
        scheduler = torch_scheduler(schedule, optimizer)
    except (ScheduleError, ZeroDivisionError):
        return 0  # torch has none of that shape; a warm-up without length is a problem of its own above
    total = schedule.total_steps
    if total <= WALK_AT_MOST or type(schedule).__name__ != "OneCycle":
        positions = np.arange(min(total, WALK_AT_MOST))
        theirs = np.empty(len(positions))
        for p in positions:
            theirs[p] = optimizer.param_groups[0]["lr"]
            if p < len(positions) - 1:
                optimizer.step()
                scheduler.step()
    else:  # one-cycle has no memory: its rate at any position can be asked for
        positions = np.unique(np.linspace(0, total - 1, WALK_AT_MOST // 4).round()).astype(np.int64)
        theirs = np.empty(len(positions))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # torch prefers get_last_lr, which cannot be asked
            for i, p in enumerate(positions):
                scheduler.last_epoch = int(p)
                theirs[i] = scheduler.get_lr()[0]
    error = np.abs(schedule.rate(positions) - theirs)
    worst = int(np.argmax(error))
    if error[worst] > TORCH_AGREE * theirs.max():
        raise _Differs(f"differs from torch's scheduler at position {positions[worst]:,}: {theirs[worst]!r}")
    return len(positions)


def refuse_if_wrong(path: Path) -> None:
    """For `start`: raises ConfigError with the first error of the preflight, and how many more there are."""
    errors = [p for p in preflight(path).problems if p.severity == ERROR]
    if errors:
        first, more = errors[0], len(errors) - 1
        also = f" (and {more} more)" if more else ""
        write = f"; write {first.write}" if first.write else ""
        raise ConfigError(
            f"{path}: {first.key}: {first.message}{write}{also}; eegpt-daemon check lists all, --no-check starts anyway"
        )
