"""A schedule in one line, as `--schedule` takes it: `cosine max_lr=3e-4 warmup=500 total=10000`."""

from __future__ import annotations

import difflib
import math
from dataclasses import dataclass
from typing import Any

from eegwatch.run.config import ConfigError, schedule_name
from eegwatch.run.records import Run
from eegwatch.schedule import FAMILIES, ScheduleError, as_dict, parse

SYNONYMS = {
    "peak": "max_lr", "max": "max_lr", "base": "max_lr", "warmup": "warmup_steps", "warmup_ratio": "warmup_steps",
    "total": "total_steps", "steps": "total_steps", "max_steps": "total_steps", "min_lr": "final_lr",
    "end_lr": "final_lr", "lr_end": "final_lr", "eta_min": "final_lr", "floor": "final_lr", "initial": "initial_lr",
    "start_lr": "initial_lr", "t_0": "T_0", "t_mult": "T_mult",
}  # fmt: skip
EXAMPLE = '"cosine max_lr=3e-4 warmup=500 total=10000"'


@dataclass(frozen=True)
class ScheduleLine:
    """A schedule as the user typed it, checked as far as possible without the log."""

    text: str
    name: str
    given: dict[str, Any]

    @classmethod
    def read(cls, text: str) -> ScheduleLine:
        """Raises ConfigError, in one line, for what is not a schedule."""
        words = text.replace(":", " ", 1).split() if ":" in text.split("=")[0] else text.split()
        if not words or "=" in words[0]:
            raise ConfigError(f"--schedule {text!r}: begin with the schedule's name, for example {EXAMPLE}")
        name = schedule_name(words[0])
        if name not in FAMILIES:
            near = difflib.get_close_matches(name, FAMILIES, 1)
            hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(FAMILIES)}"
            raise ConfigError(f"--schedule: {words[0]} is not a schedule; {hint}")
        line = cls(text, name, {})
        for word in words[1:]:
            key, equals, value = word.partition("=")
            if not equals or not value:
                raise ConfigError(f"--schedule: {word}: write key=value, for example {EXAMPLE}")
            line.given[line._key(key)] = _value(key, value)
        line.declare(Run(time=0.0, run_id="", total_steps=1000, epochs=10), 100)
        return line

    def __str__(self) -> str:
        return "--schedule"

    def _key(self, typed: str) -> str:
        known = FAMILIES[self.name].__struct_fields__
        key = SYNONYMS.get(typed.lower(), typed)
        if typed == "lr" and "lr" not in known:
            key = "max_lr"
        if key == "max_lr" and key not in known:
            key = "lr"
        if key not in known and key != "steps_per_epoch":
            near = difflib.get_close_matches(key, known, 1)
            hint = f"did you mean {near[0]}?" if near else f"it takes {', '.join(known)}"
            raise ConfigError(f"--schedule: {self.name} takes no {typed}; {hint}")
        return key

    def declare(self, run: Run, steps_per_epoch: int | None) -> dict[str, Any]:
        """The schedule over a run. Raises ConfigError where its length is neither given nor logged."""
        given = {key: value for key, value in self.given.items() if key != "steps_per_epoch"}
        length = run.total_steps
        if given.get("unit") == "epoch":
            per_epoch = self.given.get("steps_per_epoch") or steps_per_epoch
            length = run.epochs or (-(-length // per_epoch) if length and per_epoch else None)
        if given.get("total_steps") is None:
            if length is None:
                raise ConfigError("--schedule: the log does not say how long the run is: add total=N")
            given["total_steps"] = length
        warmup = given.get("warmup_steps")
        if isinstance(warmup, float) and 0 < warmup < 1:  # a share of the run
            given["warmup_steps"] = math.ceil(warmup * given["total_steps"])
        try:
            return as_dict(parse({"name": self.name} | given))
        except ScheduleError as error:
            raise ConfigError(f"--schedule: {str(error).removeprefix('schedule: ')}") from None


def _value(key: str, text: str) -> Any:
    if "," in text:
        return [_value(key, part) for part in text.strip("[]()").split(",") if part]
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    try:
        number = float(text.replace("_", ""))
    except ValueError:
        return text
    if not math.isfinite(number):
        raise ConfigError(f"--schedule: {key}={text}: a finite number is needed")
    return int(number) if number == int(number) and "." not in text and abs(number) >= 1 else number
