"""The configuration of a run: the users' YAML keys, checked, with every default in one place.

Shared by both programs: the daemon runs it, the monitor reads the declared schedule and `expected:` from it.
A key that nobody knows is an error with the nearest known name. `${NAME}` and `${NAME:-default}` are expanded.
"""

from __future__ import annotations

import difflib
import hashlib
import math
import types
import typing
from pathlib import Path
from typing import Any, Literal

import msgspec
import yaml

from eegwatch.run.yaml_file import ConfigError as ConfigError
from eegwatch.run.yaml_file import check_values, expanded, short_name, text_of, tree_of
from eegwatch.schedule import FAMILIES, Schedule, ScheduleError, parse

# rules of evidence, which a person may silence or scale; facts (learning rate, non-finite numbers) are not tuned
TUNABLE = (
    "loss_spike",
    "loss_diverging",
    "loss_plateau",
    "loss_unstable",
    "grad_zero",
    "grad_exploding",
    "throughput_drop",
    "metric_stuck",
    "overfitting",
    "stalled",
)


MOST_EPOCHS = 1_000_000_000


class Part(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """A mapping of the YAML file."""


class Experiment(Part):
    name: str = "eegpt"
    description: str = ""
    seed: int = 42


class Synthetic(Part):
    """A corpus to generate at `data.root_dir` if nothing is there: real EDF files, synthetic signals."""

    train_recordings: int = 60
    eval_recordings: int = 30
    seconds: float = 62.0
    contrast: float = 1.9
    seed: int = 3


class Data(Part):
    root_dir: str = "${BGB_DATA_ROOT}"
    cache_dir: str = "${EEGWATCH_CACHE:-~/.cache/eegwatch}/features"
    batch_size: int = 32
    num_workers: int = 0
    pin_memory: bool = False
    persistent_workers: bool = False
    prefetch_factor: int | None = None
    window_duration: float = 4.0
    window_stride: float = 2.0
    sampling_rate: int = 256
    n_channels: int | None = None
    channels: list[str] | None = None
    missing: Literal["interpolate", "drop", "zero"] = "interpolate"
    reference: Literal["average", "none"] = "average"
    scaling: Literal["millivolt", "uv100", "zscore"] = "millivolt"
    labels: list[str] = msgspec.field(default_factory=lambda: ["normal", "abnormal"])
    val_fraction: float = 0.15
    min_duration: float = 60.0
    max_rejected: float = 0.05
    log_file_names: bool = False  # TUAB's file names are patient ids
    synthetic: Synthetic | None = None


class Backbone(Part):
    name: str = "eegpt"
    checkpoint_path: str | None = None
    freeze: bool = True
    preset: Literal["large", "small"] = "large"
    precision: Literal["float32", "bfloat16"] = "float32"
    compile: bool = False


class Probe(Part):
    type: Literal["linear", "two_layer"] = "linear"
    input_dim: int | None = None
    hidden_dim: int = 128
    n_classes: int = 2
    dropout: float = 0.1
    pooling: Literal["patches", "patches_and_tokens", "none"] | None = None
    use_channel_adapter: bool = False


class Model(Part):
    backbone: Backbone = msgspec.field(default_factory=Backbone)
    probe: Probe = msgspec.field(default_factory=Probe)


class EarlyStopping(Part):
    patience: int = 10
    min_delta: float = 0.0
    mode: Literal["max", "min"] = "max"
    monitor: Literal["val_auroc", "val_loss", "val_balanced_accuracy"] = "val_auroc"


class Optimizer(Part):
    name: Literal["AdamW", "adamw"] = "AdamW"
    lr: float | None = None
    weight_decay: float = 0.01


class Scheduler(Part):
    """The declared schedule: our names or torch's class names; docs/schedules.md says which keys a name takes."""

    name: str = "one_cycle"
    unit: Literal["step", "epoch"] = "step"
    max_lr: float | None = None
    epochs: int | None = None
    pct_start: float | None = None
    anneal_strategy: Literal["cos", "linear"] | None = None
    div_factor: float | None = None
    final_div_factor: float | None = None
    three_phase: bool | None = None
    lr: float | None = None
    initial_lr: float | None = None
    final_lr: float | None = None
    warmup: float | None = None
    hold_until: float | None = None
    warmup_steps: int | None = None
    T_0: int | None = None
    T_mult: int | None = None
    power: float | None = None
    gamma: float | None = None
    step_size: int | None = None
    milestones: list[int] | None = None
    warmup_mode: str | None = None
    warmup_type: str | None = None
    decay_steps: float | None = None
    decay_type: str | None = None
    stable_steps: float | None = None
    cycles: float | None = None
    restarts: int | None = None
    past_end: str | None = None
    timescale: float | None = None
    base_lr: float | None = None
    step_size_up: int | None = None
    step_size_down: int | None = None
    mode: str | None = None
    cycle_decay: float | None = None
    cycle_limit: int | None = None
    lower: float | None = None
    upper: float | None = None
    total_steps: int | None = None  # checked by the preflight, not used: the run knows its own length
    cycle_momentum: bool | None = None  # checked by the preflight: Adam's betas are never cycled here


class Training(Part):
    max_epochs: int = 50
    early_stopping: EarlyStopping | None = None
    optimizer: Optimizer = msgspec.field(default_factory=Optimizer)
    scheduler: Scheduler = msgspec.field(default_factory=Scheduler)
    gradient_clip_val: float | None = 1.0
    gradient_accumulation_steps: int = 1
    val_check_interval: float = 1.0
    weighted_loss: bool = False
    checkpoint_minutes: float = 10.0
    stop_at_target: bool = False
    pace_steps_per_s: float | None = None


class Logging(Part):
    log_every_n_steps: int = 50
    save_top_k: int = 3


class TargetMetrics(Part):
    auroc: float | None = None
    tolerance: float = 0.0


class Expected(Part):
    """What the author means: the declared schedule is held against the rates, the corpus against the windows."""

    initial_lr: float | None = None
    peak_lr: float | None = None
    final_lr: float | None = None
    train_windows: int | None = None  # of the official training set, the validation share included
    eval_windows: int | None = None


class Distributed(Part):
    """Processes that train together, started by torch's own launcher: one a GPU, or a few on a CPU."""

    nproc_per_node: int = 1
    nnodes: int = 1
    rdzv_endpoint: str | None = None  # host:port of the daemon's node, where nnodes is above 1


class Guard(Part):
    """What the daemon does when a detector finds a fault (severity error) in the run that it trains."""

    on_error: Literal["warn", "stop", "checkpoint"] = "warn"


class Restarts(Part):
    """How often a trainer that died is started again by itself; `max: 0` leaves it to you."""

    max: int = 5
    window_minutes: float = 60.0
    backoff_seconds: float = 2.0  # before the first; twice as long before each further one


class Hung(Part):
    """What is done about a trainer that lives and does nothing. Its stack is written to trainer.log first."""

    after_minutes: float | None = None  # without progress; null: five, or 100 times the longest step, if that is more
    action: Literal["restart", "stop", "warn"] = "restart"


class Supervision(Part):
    restarts: Restarts = msgspec.field(default_factory=Restarts)
    hung: Hung = msgspec.field(default_factory=Hung)


class Notify(Part):
    """Where findings, ends and deaths are told beside the screen; each once, `most_per_hour` in all."""

    command: str | list[str] | None = None  # called with one JSON object on standard input
    urls: list[str] = []  # apprise's: mailto://, slack://, ntfy://, …
    severity: Literal["warning", "error"] = "warning"  # the least that a finding must have
    most_per_hour: int = 20


class Script(Part):
    """A training script of the user's that the daemon runs in place of its own trainer (docs/scripts.md)."""

    command: list[str] = []
    resume: list[str] | None = None  # how it goes on from {checkpoint}, at {lr} where one is given
    checkpoints: str | None = None  # a pattern below the run's folder; the newest whole file is {checkpoint}
    cwd: str = "."
    env: dict[str, str] = {}
    stop: Literal["SIGINT", "SIGTERM", "SIGUSR1"] = "SIGINT"
    pattern: list[str] = []  # as `eegwatch --pattern`, for lines that are read wrongly


class Config(Part):
    script: Script | None = None
    experiment: Experiment = msgspec.field(default_factory=Experiment)
    data: Data = msgspec.field(default_factory=Data)
    model: Model = msgspec.field(default_factory=Model)
    training: Training = msgspec.field(default_factory=Training)
    logging: Logging = msgspec.field(default_factory=Logging)
    target_metrics: TargetMetrics = msgspec.field(default_factory=TargetMetrics)
    expected: Expected = msgspec.field(default_factory=Expected)
    guard: Guard = msgspec.field(default_factory=Guard)
    supervision: Supervision = msgspec.field(default_factory=Supervision)
    notify: Notify = msgspec.field(default_factory=Notify)
    distributed: Distributed = msgspec.field(default_factory=Distributed)
    detectors: dict[str, bool | float] = {}  # rule -> false to silence it, or a factor on its threshold
    inject: Literal["scheduler_stepped_per_epoch"] | None = None


TORCH_NAMES = {
    "onecycle": "one_cycle",
    "onecyclelr": "one_cycle",
    "cosineannealinglr": "cosine",
    "cosineannealing": "cosine",
    "cosineannealingwarmrestarts": "cosine_restarts",
    "linearlr": "linear",
    "polynomiallr": "polynomial",
    "exponentiallr": "exponential",
    "steplr": "step",
    "multisteplr": "multistep",
    "constantlr": "constant",
    "cycliclr": "cyclic",
    "inversesqrt": "inverse_sqrt",
    "wsd": "warmup_stable_decay",
    "none": "constant",
}
SCHEDULE_NAMES = tuple(
    name for name in FAMILIES if name not in ("manual", "sequence", "product", "paced", "epoch_mean")
)


def load(path: Path, *, expand: bool = True) -> Config:
    """Read and check a YAML file. Raises ConfigError with file, key and remedy in one line, whatever the file holds."""
    where = short_name(path)
    return parse_text(text_of(path, where), where, expand=expand)


def parse_text(text: str, where: str, *, expand: bool = True) -> Config:
    """As `load`, from the text itself; `where` names it in errors."""
    tree = tree_of(text, where)
    if not isinstance(tree, dict):
        raise ConfigError(f"{where}: the file must be a mapping of keys, not a {type(tree).__name__}")
    tree = {key: value for key, value in tree.items() if value is not None}  # `data:` with nothing under it
    _reject_unknown(tree, Config, where, "")
    try:
        config = msgspec.convert(tree, Config, strict=False)
    except msgspec.ValidationError as error:
        what, _, key = str(error).partition(" - at `$.")
        raise ConfigError(f"{where}: {key.rstrip('`')}: {what[0].lower()}{what[1:]}") from None
    except RecursionError:
        raise ConfigError(f"{where}: a value holds itself") from None
    if config.script is not None:
        config.data.root_dir = ""  # a script has data of its own
    if expand:
        try:
            tree = msgspec.to_builtins(config)
            unexpanded = tree.pop("notify")  # a password stays in the environment: expanded when it is used
            expanded(unexpanded, "notify")  # what is not set is said now
            config = msgspec.convert(expanded(tree, "") | {"notify": unexpanded}, Config)
        except ConfigError as error:
            raise ConfigError(f"{where}: {error}") from None
    check_values(msgspec.to_builtins(config), where, "")
    _check(config, where)
    return config


def dump(config: Config) -> str:
    """The configuration as run, every default filled in, as YAML."""
    return yaml.safe_dump(msgspec.to_builtins(config), sort_keys=False, allow_unicode=True)


def expanded_notify(notify: Notify) -> Notify:
    """Addresses and command with their environment variables expanded. Raises ConfigError for one that is not set."""
    return msgspec.convert(expanded(msgspec.to_builtins(notify), "notify"), Notify)


def public(config: Config) -> dict[str, Any]:
    """The configuration as a log may hold it: without `notify`, whose addresses and arguments may hold passwords."""
    tree: dict[str, Any] = msgspec.to_builtins(config)
    del tree["notify"]
    return tree


def schedule_of(config: Config, steps_per_epoch: int, where: str = "configuration") -> Schedule:
    """The declared schedule over the whole run. Raises ConfigError for parameters that the name does not take."""
    scheduler = config.training.scheduler
    declared = {key: value for key, value in msgspec.to_builtins(scheduler).items() if value is not None}
    for checked in ("epochs", "total_steps", "cycle_momentum"):  # by the preflight
        declared.pop(checked, None)
    name = schedule_name(scheduler.name)
    if name not in SCHEDULE_NAMES:
        near = difflib.get_close_matches(name, [*SCHEDULE_NAMES, *TORCH_NAMES], 1)
        hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(SCHEDULE_NAMES)}"
        raise ConfigError(f"{where}: training.scheduler.name: {scheduler.name} is not a schedule; {hint}")
    rate_key = "lr" if name == "constant" else "max_lr"
    if rate_key not in declared and config.training.optimizer.lr is not None:
        declared[rate_key] = config.training.optimizer.lr
    epochs = config.training.max_epochs
    declared |= {"name": name, "total_steps": epochs if scheduler.unit == "epoch" else epochs * steps_per_epoch}
    try:
        schedule = parse(declared)
    except ScheduleError as error:
        raise ConfigError(f"{where}: training.scheduler: {str(error).removeprefix('schedule: ')}") from None
    unused = sorted(set(declared) - {"name"} - set(schedule.__struct_fields__))
    if unused:
        raise ConfigError(
            f"{where}: training.scheduler.{unused[0]}: a {name} schedule does not take it; remove the line"
        )
    return schedule


def schedule_name(name: str) -> str:
    """Our name for a schedule, from ours or torch's class name in any spelling."""
    key = name.strip().lower()
    return TORCH_NAMES.get(key.replace("_", "").replace("-", ""), key)


def expected_rates(config: Config) -> dict[str, float]:
    """The rates of the `expected:` block without its empty keys."""
    rates: dict[str, float] = msgspec.to_builtins(config.expected)
    return {key: value for key, value in rates.items() if value is not None and key.endswith("_lr")}


TRAINS_THE_SAME = (
    "script",
    "logging", "guard", "supervision", "notify", "detectors", "expected", "target_metrics", "inject", "experiment",
    "distributed",
)  # fmt: skip


def training_hash(config: Config) -> str:
    """Hash of what training depends on: not of workers, paces, log intervals or the guard."""
    tree = msgspec.to_builtins(config)
    for name in ("num_workers", "pin_memory", "persistent_workers", "prefetch_factor", "cache_dir", "log_file_names"):
        del tree["data"][name]
    for name in ("checkpoint_minutes", "pace_steps_per_s"):
        del tree["training"][name]
    del tree["model"]["backbone"]["compile"]
    for name in TRAINS_THE_SAME:
        del tree[name]
    tree["seed"] = config.experiment.seed
    return hashlib.sha256(msgspec.json.encode(tree, order="sorted")).hexdigest()[:16]


def _reject_unknown(tree: dict[str, Any], part: type[Part], where: str, prefix: str) -> None:
    hints = typing.get_type_hints(part)
    for key, value in tree.items():
        name = f"{prefix}{key}"
        if key not in hints:
            near = difflib.get_close_matches(str(key), hints, 1, cutoff=0.5)
            hint = f"did you mean {near[0]}?" if near else f"known here: {', '.join(hints)}"
            raise ConfigError(f"{where}: {name} is not a key; {hint}")
        inner = _part_of(hints[key])
        if inner is not None and isinstance(value, dict):
            _reject_unknown(value, inner, where, f"{name}.")


def _part_of(hint: Any) -> type[Part] | None:
    options = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    for option in options:
        if isinstance(option, type) and issubclass(option, Part):
            return option
    return None


def _check(config: Config, where: str) -> None:
    """Values that no run can have. What a run should not have is the preflight's business."""
    data, training = config.data, config.training
    at_least_one = {
        "data.batch_size": data.batch_size,
        "data.sampling_rate": data.sampling_rate,
        "training.max_epochs": training.max_epochs,
        "training.gradient_accumulation_steps": training.gradient_accumulation_steps,
        "logging.log_every_n_steps": config.logging.log_every_n_steps,
        "logging.save_top_k": config.logging.save_top_k,
        "distributed.nproc_per_node": config.distributed.nproc_per_node,
        "distributed.nnodes": config.distributed.nnodes,
    }
    for key, value in at_least_one.items():
        if value < 1:
            raise ConfigError(f"{where}: {key}: must be at least 1, not {value}")
    if training.max_epochs > MOST_EPOCHS:
        raise ConfigError(f"{where}: training.max_epochs: at most {MOST_EPOCHS:,}, not {training.max_epochs:,}")
    above_zero = {
        "data.window_duration": data.window_duration,
        "data.window_stride": data.window_stride,
        "training.val_check_interval": training.val_check_interval,
        "training.checkpoint_minutes": training.checkpoint_minutes,
    }
    for key, number in above_zero.items():
        if not math.isfinite(number) or number <= 0:
            raise ConfigError(f"{where}: {key}: must be above 0, not {number}")
    for key, number in {"data.val_fraction": data.val_fraction, "data.max_rejected": data.max_rejected}.items():
        if not 0 <= number < 1:
            raise ConfigError(f"{where}: {key}: is a fraction, 0 or more and below 1, not {number}")
    if data.num_workers < 0:
        raise ConfigError(f"{where}: data.num_workers: must be 0 (no worker processes) or more, not {data.num_workers}")
    if config.distributed.nnodes > 1 and not config.distributed.rdzv_endpoint:
        raise ConfigError(f"{where}: distributed.rdzv_endpoint: {config.distributed.nnodes} nodes meet at host:port")
    if training.pace_steps_per_s is not None and training.pace_steps_per_s <= 0:
        raise ConfigError(f"{where}: training.pace_steps_per_s: must be above 0, or null for no pace")
    if len(set(data.labels)) != 2:
        raise ConfigError(f"{where}: data.labels: two different folder names, not {data.labels}")
    if not 0 <= config.model.probe.dropout < 1:
        raise ConfigError(f"{where}: model.probe.dropout: must be 0 or more and below 1")
    if config.model.probe.n_classes != 2:
        raise ConfigError(f"{where}: model.probe.n_classes: TUAB has 2 classes, not {config.model.probe.n_classes}")
    unknown = sorted(set(config.detectors) - set(TUNABLE))
    if unknown:
        near = difflib.get_close_matches(unknown[0], TUNABLE, 1)
        hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(TUNABLE)}"
        raise ConfigError(f"{where}: detectors.{unknown[0]} is not a rule that can be tuned; {hint}")
    if config.inject and schedule_name(training.scheduler.name) != "one_cycle":
        raise ConfigError(f"{where}: inject: {config.inject} needs training.scheduler.name: one_cycle")
