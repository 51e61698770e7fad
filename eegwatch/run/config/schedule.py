"""The schedule that a configuration declares, under our names or torch's."""

from __future__ import annotations

import difflib

import msgspec

from eegwatch.run.config.schema import Config
from eegwatch.run.yaml_file import ConfigError
from eegwatch.schedule import FAMILIES, Schedule, ScheduleError, parse

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
