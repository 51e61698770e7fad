"""One case: a training script, what is wrong with it, where that was reported, and what may be said of it and when."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import torch

import tests.bench.silent as here
from tests.bench.silent.script import Script

GITHUB = "https://github.com/"
PARTS = ("first", "second", "third", "fourth", "fifth")
CASES: dict[str, Case] = {}
_loaded = False


@dataclass(frozen=True)
class Case:
    """`play(script, faulty)` trains and returns the outcome, a tensor in which the error shows.

    `rules`: the names (or patterns of names) that describe the error; none for a healthy training. `first`: the first
    step whose equality is broken, 0 where it is broken before the first step. `part`: "first", "second", "third",
    "fourth" or "fifth", the set that it belongs to. `note`: what the reproduction imitates and does not run.
    `again`: a case of an earlier set has the same mechanism in another form.
    """

    name: str
    part: str
    source: str
    what: str
    rules: tuple[str, ...]
    first: int
    play: Callable[[Script, bool], torch.Tensor]
    note: str = ""
    again: bool = False

    @property
    def is_error(self) -> bool:
        return bool(self.rules)

    def names(self, rule: str) -> bool:
        """Does a finding of this rule describe the error? `off_schedule:weight_decay` is one of off_schedule."""
        return any(fnmatchcase(rule, pattern) or fnmatchcase(rule.split(":")[0], pattern) for pattern in self.rules)


def error(
    source: str, what: str, *rules: str, first: int, note: str = "", again: bool = False
) -> Callable[[Callable[[Script, bool], torch.Tensor]], Callable[[Script, bool], torch.Tensor]]:
    """Register a faulty training with its reference: the same script, called with `faulty=False`."""

    def register(play: Callable[[Script, bool], torch.Tensor]) -> Callable[[Script, bool], torch.Tensor]:
        _add(Case(play.__name__, _part(play), _address(source), what, rules, first, play, note, again))
        return play

    return register


def healthy(what: str, source: str = "") -> Callable[[Callable[[Script], torch.Tensor]], Any]:
    """Register a training that is as it should be and looks odd to a careless rule."""

    def register(play: Callable[[Script], torch.Tensor]) -> Callable[[Script], torch.Tensor]:
        def alone(script: Script, faulty: bool) -> torch.Tensor:
            if faulty:
                raise ValueError(f"{play.__name__} has no faulty form")
            return play(script)

        _add(Case(play.__name__, _part(play), _address(source), what, (), 0, alone))
        return play

    return register


def cases(part: str | None = None) -> list[Case]:
    """All cases, errors before healthy ones, in the order of their modules. Imports the modules."""
    global _loaded
    if not _loaded:
        for name in PARTS:
            package = importlib.import_module(f"{here.__name__}.{name}")
            for module in pkgutil.iter_modules(package.__path__):
                importlib.import_module(f"{package.__name__}.{module.name}")
        _loaded = True
    chosen = [case for case in CASES.values() if part in (None, case.part)]
    return sorted(chosen, key=lambda case: (PARTS.index(case.part), not case.is_error))


def _add(case: Case) -> None:
    if case.name in CASES:
        raise ValueError(f"two cases are called {case.name}")
    CASES[case.name] = case


def _part(play: Callable[..., Any]) -> str:
    return play.__module__.split(".")[-2]


def _address(source: str) -> str:
    return source if not source or source.startswith("http") else GITHUB + source
