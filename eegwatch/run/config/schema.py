"""The keys of a configuration and their defaults: one Struct per mapping of the YAML file, `Config` for the file."""

from __future__ import annotations

from typing import Literal

import msgspec


class Part(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """A mapping of the YAML file."""


class Experiment(Part):
    name: str = "eegpt"
    description: str = ""
    seed: int = 42
    seeds: int | list[int] | None = None  # a run each, in sequence over one split: so many from `seed` on, or these
    series: str | None = None  # written by the daemon: the run_id of the first of them


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
    split_seed: int | None = None  # draws the validation subjects; null: experiment.seed does
    min_duration: float = 60.0
    max_rejected: float = 0.05
    log_file_names: bool = False  # TUAB's file names are patient ids
    synthetic: Synthetic | None = None


class Backbone(Part):
    name: str = "eegpt"
    checkpoint_path: str | None = None
    freeze: bool = True
    preset: Literal["large", "small"] = "large"
    entry: str | None = None  # "package.module:function", an encoder of one's own (docs/encoders.md)
    precision: Literal["float32", "bfloat16"] = "float32"
    compile: bool = False


class Probe(Part):
    type: Literal["linear", "two_layer"] = "linear"
    input_dim: int | None = None
    hidden_dim: int = 128
    n_classes: int | None = None  # of data.labels, where it is not given
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
    """The author's intention: the declared schedule is compared with the rates, the corpus with the windows."""

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
    """The daemon's reaction to a finding of severity error in the run that it trains."""

    on_error: Literal["warn", "stop", "checkpoint"] = "warn"
    twin: bool = False  # when the run has ended, compute in the background what a fault of its rate has cost


class Restarts(Part):
    """The limit of automatic restarts of a trainer that died; `max: 0`: none."""

    max: int = 5
    window_minutes: float = 60.0
    backoff_seconds: float = 2.0  # before the first; twice as long before each further one


class Hung(Part):
    """The reaction to a trainer without progress. Its stack is first written to trainer.log."""

    after_minutes: float | None = None  # without progress; null: five, or 100 times the longest step, if that is more
    action: Literal["restart", "stop", "warn"] = "restart"


class Supervision(Part):
    restarts: Restarts = msgspec.field(default_factory=Restarts)
    hung: Hung = msgspec.field(default_factory=Hung)


class Notify(Part):
    """Addresses for messages about findings, ends and deaths; each is sent once, at most `most_per_hour` in all."""

    command: str | list[str] | None = None  # called with one JSON object on standard input
    urls: list[str] = []  # apprise's: mailto://, slack://, ntfy://, …
    severity: Literal["warning", "error"] = "warning"  # the least that a finding must have
    most_per_hour: int = 20


class Script(Part):
    """A user's training script that the daemon runs in place of its own trainer (docs/scripts.md)."""

    command: list[str] = []
    # how it goes on from {checkpoint}, at {lr} if one is given; words in a list of their own are left out without one
    resume: list[str | list[str]] | None = None
    checkpoints: str | None = None  # a pattern below the run's folder, or {cwd}/…; the newest whole is {checkpoint}
    log: str | None = None  # a pattern of the file that it logs into, where it prints nothing
    cwd: str = "."
    env: dict[str, str] = {}
    umask: str | None = None  # octal, "022"; by default that of the shell that ran `start`
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
