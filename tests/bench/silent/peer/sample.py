"""Which cases are played: drawn by a fixed seed, as many of each set, in an order that any beginning of keeps balanced."""

from __future__ import annotations

import random
from dataclasses import dataclass
from itertools import zip_longest

from tests.bench.silent.case import Case
from tests.bench.silent.peer.standalone import NotStandalone, standalone

SEED = 20190
SETS = ("first", "second", "third", "fourth")  # a set that is added later changes no draw


@dataclass(frozen=True)
class Sample:
    """`pool`: references of other errors, from which the invariants for healthy trainings are inferred.

    `apart`: the cases that cannot be scripts of one process, with the reason; they were taken out before the draw.
    """

    errors: tuple[Case, ...]
    healthy: tuple[Case, ...]
    pool: tuple[Case, ...]
    apart: dict[str, str]


def draw(cases: list[Case], errors: int, healthy: int, pool: int, seed: int = SEED) -> Sample:
    """`errors` and `healthy` cases, one of each set in turn; the pool is of errors that are not among them."""
    cases = [case for case in cases if case.part in SETS]
    apart = {case.name: why for case in cases if (why := _why_apart(case))}
    able = [case for case in cases if case.name not in apart]
    wrong = _in_turn([case for case in able if case.is_error], seed)
    well = _in_turn([case for case in able if not case.is_error], seed)
    return Sample(tuple(wrong[:errors]), tuple(well[:healthy]), tuple(wrong[errors : errors + pool]), apart)


def _in_turn(cases: list[Case], seed: int) -> list[Case]:
    """Each set shuffled by itself, then dealt out one by one: a change of one set moves no case of another."""
    dealt = []
    for part in SETS:
        members = sorted((case for case in cases if case.part == part), key=lambda case: case.name)
        random.Random(f"{seed} {part}").shuffle(members)
        dealt.append(members)
    return [case for row in zip_longest(*dealt) for case in row if case is not None]


def _why_apart(case: Case) -> str:
    try:
        standalone(case, faulty=False, seed=0)
    except NotStandalone as reason:
        return str(reason)
    return ""
