"""Runs that branched off from others, as a tree: each below the run that it came from, and how they differ."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from eegwatch.run.folder import RUN_LOG
from eegwatch.run.log import each_record, run_decoder
from eegwatch.run.records import Run, ScheduleChange
from eegwatch.schedule import ScheduleError, as_dict, parse
from eegwatch.wording import rate


def in_tree(names: Iterable[str], parents: Mapping[str, str | None]) -> list[tuple[int, str]]:
    """(depth, name) of runs in their order, those that branched off right below their parent.

    `parents`: the run from which each branched off; one that is not among the names counts as none.
    """
    order = list(dict.fromkeys(names))
    known, below, placed = set(order), dict[str, list[str]](), dict[str, int]()
    for name in order:
        if (parent := parents.get(name)) in known:
            below.setdefault(str(parent), []).append(name)

    def place(depth: int, name: str) -> None:
        rest = [(depth, name)]
        while rest:
            depth, name = rest.pop()
            if name not in placed:
                placed[name] = depth
                rest += [(depth + 1, child) for child in reversed(below.get(name, []))]

    for name in order:
        if parents.get(name) not in known:
            place(0, name)
    for name in order:  # what is left are rings, which no log should hold
        place(0, name)
    return [(depth, name) for name, depth in placed.items()]


def family(name: str, parents: Mapping[str, str | None]) -> set[str]:
    """The runs that share an origin with this one, itself included."""

    def origin(of: str) -> str:
        seen = {of}
        while (parent := parents.get(of)) in parents and parent not in seen:
            of = str(parent)
            seen.add(of)
        return of

    return {other for other in parents if origin(other) == origin(name)}


def changes(folder: Path) -> list[str]:
    """What was commanded about the rate of a run, in words, in order. Raises OSError."""
    words: dict[str, str] = {}
    for record in each_record(folder / RUN_LOG, run_decoder()):
        if isinstance(record, Run):
            for change in record.overrides:
                lr, at = change.get("lr"), change.get("from_step")
                if isinstance(at, int):
                    changes = (
                        f"{rate(lr)}, then {change.get('then', 'anneal')}"
                        if lr is not None
                        else "the declared schedule"
                    )
                    words[str(change.get("command"))] = f"from step {at + 1:,}: {changes}"
        elif isinstance(record, ScheduleChange) and record.command is not None:
            words.setdefault(record.command, f"from step {record.step + 1:,}: {_course(record)}")
    return list(words.values())


def _course(change: ScheduleChange) -> str:
    if change.schedule is None:
        return "the script's own scheduler"
    try:
        law = as_dict(parse(change.schedule))
    except ScheduleError:
        return "a schedule of a later version"
    if law["name"] == "manual" and law.get("lr") is not None:
        return f"{rate(law['lr'])}, then {law.get('then', 'anneal')}"
    return "the declared schedule"
