"""Values that were declared to follow a schedule (weight decay, momentum, …), read off the groups at a look."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from typing import Any

from eegwatch.schedule import Schedule, as_dict, parse_for_run, rate_at

EXACT, SINGLE = 1e-9, 1e-6  # relative: a Python float; a value that went through float32
MORE = 64  # groups beyond those that there are
OF_BETAS = {"momentum": 0, "beta1": 0, "beta2": 1}


class Scheduled:
    """`of_groups`: are there values that parameter groups hold? `others`: names that only log.step(metrics=…) tells."""

    def __init__(self, declared: Mapping[str, Any], steps_per_epoch: int | None) -> None:
        """`declared`: {name: schedule, or f(step from 1, group number)}. Raises ScheduleError, TypeError."""
        self._laws = {name: _law(name, law, steps_per_epoch) for name, law in declared.items()}
        self.others: set[str] = set()

    @property
    def names(self) -> list[str]:
        """What is scheduled."""
        return list(self._laws)

    @property
    def of_groups(self) -> bool:
        return bool(self._laws)

    def off(self, step: int, groups: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Values that are not as declared: [{"name", "group", "got", "want"}]."""
        found = []
        for name, law in self._laws.items():
            for number, group in enumerate(groups):
                got = _value(group, name)
                if got is None:
                    self.others.add(name)
                    continue
                self.others.discard(name)
                found += self._compared(name, number, float(got), law(step, number), getattr(got, "dtype", None))
        return found

    def empty(self, step: int, groups: list[dict[str, Any]]) -> dict[str, Any] | None:
        """{"name", "group"} of a value that is scheduled for a group by itself, where that group holds no tensor."""
        for number, group in enumerate(groups):
            for name, law in self._laws.items() if not group["params"] else ():
                own = law(step, number)
                if own is not None and all(law(step, n) != own for n, one in enumerate(groups) if one["params"]):
                    return {"name": name, "group": number}
        return None

    def beyond(self, step: int, groups: list[dict[str, Any]]) -> dict[str, Any] | None:
        """{"name", "groups"} of a value that is declared for more groups than there are, as a table is.

        A function that has a value for any number of groups tells nothing.
        """
        for name, law in self._laws.items():
            own, others = {law(step, number) for number in range(len(groups))}, []
            for number in range(len(groups), len(groups) + MORE):
                try:
                    others.append(law(step, number))
                except Exception:  # the script's own function, asked for a group that is not there
                    break
            if 0 < len(others) < MORE and any(one is not None and one not in own for one in others):
                return {"name": name, "groups": len(groups) + len(others)}
        return None

    def of_metrics(self, step: int, metrics: Mapping[str, Any]) -> list[dict[str, Any]]:
        """The same of values that a step's record names."""
        return [
            one
            for name in sorted(self.others & metrics.keys())
            for one in self._compared(name, 0, float(metrics[name]), self._laws[name](step, 0), None)
        ]

    def _compared(self, name: str, group: int, got: float, want: float | None, dtype: Any) -> list[dict[str, Any]]:
        if want is None or not math.isfinite(want):
            return []
        near = SINGLE if dtype is not None else EXACT
        if math.isclose(got, want, rel_tol=near, abs_tol=1e-12):
            return []
        return [{"name": name, "group": group, "got": got, "want": float(want)}]


def _value(group: dict[str, Any], name: str) -> Any | None:
    if name in group:
        return group[name]
    betas = group.get("betas")
    return betas[OF_BETAS[name]] if betas and name in OF_BETAS else None


def _law(name: str, law: Any, steps_per_epoch: int | None) -> Callable[[int, int], float | None]:
    if isinstance(law, Mapping | Schedule):
        spec = as_dict(law) if isinstance(law, Schedule) else dict(law)
        spec.setdefault("unit", "step")
        schedule = parse_for_run(spec, steps_per_epoch)
        return lambda step, _group: float(rate_at(schedule, step, steps_per_epoch))
    if not callable(law):
        raise TypeError(f"scheduled: {name}: a schedule or a function of (step, group), not {type(law).__name__}")
    try:
        takes = len(inspect.signature(law).parameters)
    except (TypeError, ValueError):  # a builtin
        takes = 2
    return (lambda step, _group: law(step)) if takes == 1 else law
