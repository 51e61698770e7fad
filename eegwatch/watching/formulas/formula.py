"""What a formula of an optimizer is: the settings and the averages that it uses, and the update that it makes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from eegwatch.watching.formulas.elements import Elements, Floats

Update = Callable[[Elements], tuple[Floats, Floats]]
Trial = tuple[str, Elements]  # what was done in place of what the settings say, in words; the elements with it
Kind = Literal["", "factor", "small", "share"]


@dataclass(frozen=True)
class Setting:
    """One value of a parameter group. `read`: (group, optimizer) -> float; a flag is 0 or 1.

    `kind`: how another value is looked for that explains a step: by factors of it, among small numbers of any size,
    among shares from 0 to 1, or not.
    """

    column: str
    read: Callable[[Mapping[str, Any], Any], float]
    words: str = ""
    kind: Kind = ""


@dataclass(frozen=True)
class Formula:
    """The update that one kind of optimizer makes of each element, from nothing but this element.

    `update`: (the elements after the step, how far rounding may take them from it). `averages`: column -> key of the
    optimizer's state, a tensor of the parameter's shape; `missing` where there is none yet. `scalars`: column -> key of
    one number for each tensor, NaN where there is none. `count`: key of the steps that it counts of each tensor; or of
    an average whose presence says that it has begun, where `counts` is False. `trials`: what may have been done in
    place of it.
    """

    name: str
    update: Update
    settings: tuple[Setting, ...]
    averages: Mapping[str, str] = field(default_factory=dict)
    scalars: Mapping[str, str] = field(default_factory=dict)
    missing: float = float("nan")
    count: str = "step"
    counts: bool = True
    trials: Callable[[Elements], Sequence[Trial]] = lambda _: ()


def value(column: str, key: str, otherwise: float = 0.0, words: str = "", kind: Kind = "") -> Setting:
    """A number of a group, which may be a tensor."""

    def read(group: Mapping[str, Any], _: Any) -> float:
        given = group.get(key)
        return otherwise if given is None else float(given)

    return Setting(column, read, words, kind)


def part(column: str, key: str, place: int, words: str = "", kind: Kind = "") -> Setting:
    """One of the numbers of a pair."""
    return Setting(column, lambda group, _: float(group[key][place]), words, kind)


def flag(column: str, key: str | None = None) -> Setting:
    """A switch of a group."""
    return Setting(column, lambda group, _: float(bool(group.get(key or column, False))))


LR = value("lr", "lr", words="the rate", kind="factor")
DECAY = value("decay", "weight_decay", words="a weight decay", kind="factor")
EPS = value("eps", "eps", words="eps", kind="small")
BETAS = part("beta1", "betas", 0, "beta1", "share"), part("beta2", "betas", 1, "beta2", "share")
MAXIMIZE = flag("maximize")
