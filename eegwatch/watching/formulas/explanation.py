"""What explains a step that is not the one of its settings: the one thing that, done otherwise, gives all elements."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from eegwatch.watching.formulas.elements import Elements, Floats
from eegwatch.watching.formulas.formula import Formula, Setting, Trial

POINTS, ROUNDS = 33, 8  # of the search for another value of a setting: each round narrows it 32 times
DIGITS = 9  # that a found value is shown with at most
SEVERAL = 3  # elements that differ: fewer are explained by any setting
_FACTORS = np.logspace(-4, 4, POINTS - 1)
WORDS = 2  # that explain a step equally well: more say nothing


def explained(formula: Formula, e: Elements, after: Floats) -> str | None:
    """In words: the one change that gives what the step has made of all these elements; None if none does."""
    with np.errstate(all="ignore"):
        for words, trial in _trials(formula, e):
            changed = any(not np.array_equal(trial[n], e[n], equal_nan=True) for n in e.columns)
            if changed and _fits(formula, trial, after):
                return words
        rate = _another_rate(formula, e, after)
        want, bound = formula.update(e)
        if int((np.abs(after - want) > bound).sum()) < SEVERAL:
            return rate
        others = [_another_value(formula, e, after, one) for one in formula.settings]
        found = [one for one in (rate, *others) if one is not None]
        return " or ".join(found) if 0 < len(found) <= WORDS else rate


def _trials(formula: Formula, e: Elements) -> Iterator[Trial]:
    if "decay" in e:
        yield "without its weight decay", e.but(decay=0.0)
    for momentum in ("momentum", "beta1"):
        if momentum in e:
            yield "with momentum 0", e.but(**{momentum: 0.0})
    if "maximize" in e:
        yield "with the sign of the gradient turned", e.but(maximize=1 - e["maximize"])
    yield from formula.trials(e)


def _fits(formula: Formula, e: Elements, after: Floats) -> bool:
    want, bound = formula.update(e)
    return bool((np.abs(after - want) <= bound).all())


def _another_rate(formula: Formula, e: Elements, after: Floats) -> str | None:
    """One factor on the rates that explains all elements: the step is nearly proportional to it."""
    want, _ = formula.update(e)
    step, taken = want - e["weight"], after - e["weight"]
    at = int(np.argmax(np.abs(step)))
    if not step[at] or not np.isfinite(taken[at]):
        return None
    factor, rate = float(taken[at] / step[at]), float(e["lr"][at])
    if not factor or not _fits(formula, e.but(lr=e["lr"] * factor), after):
        return None
    for digits in range(1, DIGITS):
        shown = float(f"{rate * factor:.{digits}g}")
        if shown != rate and _fits(formula, e.but(lr=e["lr"] * (shown / rate)), after):
            return f"at a rate of {shown:.6g}, not {rate:.6g}"
    return f"at a rate of {rate * factor:.6g}, not {rate:.6g}"


def _another_value(formula: Formula, e: Elements, after: Floats, setting: Setting) -> str | None:
    """Another value of one setting that explains all elements, in words."""
    if not setting.kind or setting.column == "lr":
        return None
    want, bound = formula.update(e)
    at = int(np.argmax(np.where(np.isfinite(bound), np.abs(after - want) / bound, 0.0)))
    now = float(e[setting.column][at])
    for value in _values(formula, e.of(np.full(POINTS, at)), float(after[at]), setting, now):
        for digits in range(1, DIGITS):
            shown = float(f"{value:.{digits}g}")
            if shown != now and _fits(formula, e.but(**{setting.column: shown}), after):
                return f"with {setting.words} of {shown:.6g}, not {now:.6g}"
    return None


def _values(formula: Formula, one: Elements, after: float, setting: Setting, now: float) -> Iterator[float]:
    """Values of a setting with which the formula makes `after` of one element (which `one` holds POINTS times)."""
    if setting.kind == "share":
        grid = 1 - np.concatenate([np.logspace(0, -6, POINTS - 1), [0.0]])
    else:
        by_size = setting.kind == "small" or not now
        grid = np.concatenate([[0.0], np.logspace(-10, 1, POINTS - 1) if by_size else _FACTORS * now])
    off = formula.update(one.but(**{setting.column: grid}))[0] - after
    for place in np.flatnonzero(off[:-1] * off[1:] <= 0):
        low, high = grid[place], grid[place + 1]
        for _ in range(ROUNDS):
            between = np.linspace(low, high, POINTS)
            off_there = formula.update(one.but(**{setting.column: between}))[0] - after
            turns = np.flatnonzero(off_there[:-1] * off_there[1:] <= 0)
            if not len(turns):
                break
            low, high = between[turns[0]], between[turns[0] + 1]
        yield float(low + high) / 2
