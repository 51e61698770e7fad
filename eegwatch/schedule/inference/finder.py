"""From records to a law: which drafts hold for every record, and whether that decides the law."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from itertools import chain

import numpy as np

from eegwatch.schedule.inference.curves import FALLS, Floats
from eegwatch.schedule.inference.cycles import one_cycle, restarts, triangles
from eegwatch.schedule.inference.falls import lengths
from eegwatch.schedule.inference.law import Law
from eegwatch.schedule.inference.per_epoch import stairs
from eegwatch.schedule.inference.phases import Records, cycles
from eegwatch.schedule.inference.search import Draft, Known, single
from eegwatch.schedule.inference.short_decimals import digits
from eegwatch.schedule.inference.skipped_steps import lagging

SURPLUS = 3  # distinct values beyond the parameters: so many predictions came true
ENOUGH = 64  # drafts of one family that hold: no better one comes after them
MOST_DRAFTS = 2_000  # tried in one search: laws that were found took 200 at most, a log of two digits drew 10,456
MOST_ROUNDS = 64  # rises and falls: more is noise
LEAST = 6  # records below which nothing is looked for
SLACK = 1e-9  # of the rate: torch's recursive schedulers drift
PLAIN_DIGITS = 3  # of a peak
COARSE = 1.1e-2  # relative width of a cell: three digits are enough, two are not
OF_PEAK = 1e-12  # of the highest rate: the same, near a floor of 0


def cells(rate: Floats, low: Floats, high: Floats) -> tuple[Floats, Floats]:
    """The printed cells, wider by what a framework's own arithmetic may be off."""
    room = SLACK * np.abs(rate) + OF_PEAK * float(np.abs(rate).max(initial=0.0))
    return low - room, high + room


def find(records: Records, known: Known | None = None) -> Law | None:
    """The law of the rates, or None where they decide none."""
    known = known or Known()
    if len(records) < LEAST or records.distinct < 2 + SURPLUS or _coarse(records):
        return None
    return _of_steps(records, known) or _of_epochs(records, known)


def _coarse(records: Records) -> bool:
    """Are the rates printed with two digits or fewer? Too many families go through such cells."""
    size = np.abs(records.rate)
    some = size > size.max() / 10
    return bool(np.median((records.high[some] - records.low[some]) / size[some]) > COARSE)


def _of_steps(records: Records, known: Known) -> Law | None:
    """A law that moves at every step."""
    rounds = cycles(records)
    if not rounds or len(rounds) > MOST_ROUNDS:
        return None
    falling = records[rounds[0].falling]
    if len(rounds) == 1:
        drafts = chain(single(records, rounds[0], known), one_cycle(records, rounds[0], known))
        return _best(records, drafts, falling) or lagging(records, rounds[0], known)
    return _best(records, chain(restarts(records, rounds, known), triangles(records, rounds, known)), falling)


def _of_epochs(records: Records, known: Known) -> Law | None:
    """A law that moves once an epoch."""
    for steps in stairs(records, known.begins, known.steps_per_epoch):
        if len(steps.levels) < LEAST or steps.levels.distinct < 2 + SURPLUS:
            continue
        epochs = -(-known.total // steps.length) if known.total else None
        inner = _of_steps(steps.levels, Known(epochs, (0,)))
        if inner is None or inner.skips:
            continue
        law = replace(inner, begin=steps.begin + inner.begin * steps.length, steps_per_epoch=steps.length)
        if records.distinct >= _parameters(inner) + SURPLUS and records.holds(law.rate(records.step)).all():
            return law
    return None


def _parameters(law: Law) -> int:
    """What the law of the epochs took, and the epoch's length."""
    given = law.as_dict()
    return 3 + sum(bool(given.get(key)) for key in ("final_lr", "warmup_steps", "power"))


def _best(records: Records, drafts: Iterable[Draft], falling: Records) -> Law | None:
    """The simplest draft that holds; where digits are few, only if no other family and no rival holds too."""
    distinct = records.distinct
    held: list[tuple[Law, Draft]] = []
    for tried, draft in enumerate(drafts):
        if tried >= MOST_DRAFTS:
            if not records.exact:
                return None  # among the rest there may be a rival
            break
        name = draft.declared["name"]
        if held and records.exact and name != held[0][0].name:
            break  # exact records decide the family: the first that holds, the simplest, is it
        if distinct < draft.parameters + SURPLUS:
            continue
        law = draft.law()
        if law is not None and records.holds(law.rate(records.step)).all():
            held.append((law, draft))
            if len(held) >= ENOUGH:
                break
    if not held:
        return None
    names = {law.name for law, _ in held}
    if not records.exact and (len(names) > 1 or _floors_differ(held)):
        return None
    law, draft = min(held, key=lambda one: _written(one[1]))
    if (not records.exact or not _plain(draft)) and _a_rival_holds(falling, law.name):
        return None
    return _worded(_with_ends(law, draft, falling), draft)


def _plain(draft: Draft) -> bool:
    """Are the parameters those that a person writes? Then even the beginning of a curve tells it."""
    return not draft.declared.get("final_lr") and digits(float(draft.declared.get("max_lr", 0.0))) <= PLAIN_DIGITS


def _with_ends(law: Law, draft: Draft, falling: Records) -> Law:
    """The law with every length that its own peak and floor allow."""
    given = draft.declared
    fall = next((f for f in FALLS if f.name == law.name and f.power in (None, given.get("power"))), None)
    if fall is None or given.get("warmup_mode", "reset") != "reset":
        return law
    S = law.begin + float(given.get("warmup_steps", 0.0))
    m, f = (np.array([[float(given.get(key, 0.0))]]) for key in ("max_lr", "final_lr"))
    some = falling[falling.rate > float(given.get("final_lr", 0.0))]
    if not len(some):
        return law
    least, most = lengths(fall, some, np.array([[S]]), m, f)
    low, high = (S - law.begin + float(v[0]) for v in (least, most))
    first, last = int(np.ceil(low - 1e-6)), int(np.floor(min(high, 1e12) + 1e-6))
    return replace(law, ends=(first, last)) if first < last else replace(law, ends=None)


def _floors_differ(held: list[tuple[Law, Draft]]) -> bool:
    """Do laws of one family with different floors hold? Then the digits decide neither the floor nor the length."""
    return len({draft.declared.get("final_lr", 0.0) for _, draft in held}) > 1


def _written(draft: Draft) -> tuple[int, int]:
    """How much a person would have written for it: parameters, then digits."""
    values = [draft.declared.get(key, 0.0) for key in ("max_lr", "initial_lr", "final_lr")]
    return draft.parameters, sum(digits(float(v)) for v in values) + digits(float(draft.declared["total_steps"]))


def _worded(law: Law, draft: Draft) -> Law:
    if law.name == "linear" and not draft.declared["final_lr"]:
        return replace(law, others=("a line that ends at a floor which it has not reached",))
    return law


def _a_rival_holds(falling: Records, name: str) -> bool:
    """Whether a parabola or a cubic fits the cells too: then the digits do not decide the family."""
    if name == "linear":
        return False
    x = (falling.step - falling.step[0]) / max(float(falling.step[-1] - falling.step[0]), 1.0)
    weight = 2 / (falling.high - falling.low)
    for degree in (2, 3):
        curve = np.polynomial.polynomial.polyfit(x, falling.rate, degree, w=weight)
        if falling.holds(np.polynomial.polynomial.polyval(x, curve)).all():
            return True
    return False
