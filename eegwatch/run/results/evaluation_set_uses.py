"""Counts the uses of the official evaluation set: by a run's own reports, and by commands about the run.

The run's log holds its reports. A command that scores something on the set (`optimum`, `baselines`) notes it in
`looks.jsonl` before it does; the arms of `cost` report in logs of their own.
"""

from __future__ import annotations

import functools
import time
from collections import Counter
from pathlib import Path

from eegwatch.run.folder import RUN_LOG
from eegwatch.run.log import AppendLog, Decoder, read_all
from eegwatch.run.records import Record
from eegwatch.run.results.cost import TWIN
from eegwatch.wording import count

LOOK = b'"split":"eval"'  # of an `eval` record on the official set: in no other record, where quotes are escaped
LOOKS = "looks.jsonl"
READ_BYTES = 4 << 20


class EvaluationSetUse(Record, frozen=True, kw_only=True, tag="look"):
    """One look by a command: `by` its name, `what` it scored."""

    by: str
    what: str = ""


def uses_of(log: Path) -> int:
    """Reports on the official set that a run log holds, those of superseded attempts included. Raises OSError."""
    count, kept = 0, b""
    with log.open("rb") as file:
        for part in iter(functools.partial(file.read, READ_BYTES), b""):
            count += (kept + part).count(LOOK)
            kept = part[-(len(LOOK) - 1) :]
    return count


def record_use(folder: Path, by: str, what: str) -> None:
    """Write down that a command is about to score `what` on the official set. Raises OSError."""
    log = AppendLog(folder / LOOKS)
    try:
        log.append(EvaluationSetUse(time=time.time(), by=by, what=what))
    finally:
        log.close()


def uses_beside(folder: Path) -> Counter[str]:
    """Looks of commands about a run, by the command. What cannot be read is not counted."""
    looks: Counter[str] = Counter()
    try:
        if (folder / LOOKS).exists():
            looks.update(look.by for look in read_all(folder / LOOKS, Decoder[EvaluationSetUse](EvaluationSetUse)))
        arms = sum(uses_of(log) for log in folder.glob(f"{TWIN}/*/{RUN_LOG}"))
    except OSError:
        return looks
    if arms:
        looks["cost"] += arms
    return looks


def uses_in_words(looks: Counter[str]) -> str:
    """5 times by commands about it (baselines 4, optimum 1); empty where there are none."""
    each = ", ".join(f"{by} {times:,}" for by, times in sorted(looks.items()))
    return f"{count(looks.total(), 'time')} by commands about it ({each})" if looks else ""
