"""The hyperparameters that lie beside another program's log, taken as its schedule where the first records agree.

A file may be of another run, or of a run that was changed since: it declares only what the log's own rates confirm.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np

from eegwatch.run.config import ConfigError
from eegwatch.run.declaration import hyperparameter_files
from eegwatch.run.declaration.hyperparameters import Hyperparameters, interpret
from eegwatch.run.records import Run, Step, number
from eegwatch.schedule import Schedule, parse, rate_at

NAMES = ("training_args.bin", "training_args.json", "args.json", "args.yaml", "hparams.yaml", "config.yaml",
         "config.json", "config.py")  # fmt: skip
UP = ("vis_data", "version_", "checkpoint-")  # folders whose parent holds the files, too
FEWEST = 5  # records that must agree
LOOKED_AT = 64  # of the first records
SHIFTS = (0, 1, -1)  # the rate may be logged before or after the scheduler moved
SKIPPED = 16  # steps that mixed precision may have skipped before a record
EXACT_DIGITS, EXACT = 9, 1e-6  # a value with so many digits is known to a part in a million (float32)


def sources(log: Path) -> Iterator[Hyperparameters]:
    """The files of hyperparameters beside a log that are understood, the surest first."""
    folder = log if log.is_dir() else log.parent
    places = [folder, folder.parent] if folder.name.startswith(UP) else [folder]
    for place in places:
        own = sorted(place.glob("*.py"))[:3] if folder.name == "vis_data" else []
        for path in [*(place / name for name in NAMES), *own]:
            if path.is_file() and path != log:
                try:
                    known = interpret(hyperparameter_files.read(path), str(path))
                except ConfigError:
                    continue  # what cannot be read declares nothing
                if known is not None:
                    yield known


def agreeing(log: Path, run: Run, steps: Sequence[Step]) -> tuple[dict[str, Any] | None, str | None]:
    """(the schedule that the first records confirm, a remark about a file that they contradict)."""
    logged = [(step.step, number(step.lr)) for step in steps[:LOOKED_AT]]
    logged = [(n, rate) for n, rate in logged if np.isfinite(rate)]
    remark: str | None = None
    if len(logged) < FEWEST:
        return None, None
    for source in sources(log):
        try:
            declared = source.declare(run, run.steps_per_epoch)
            schedule = parse(declared)
            if schedule.unit == "epoch" and not run.steps_per_epoch:
                continue
        except ConfigError:
            continue  # it does not say everything: nothing is declared
        wrong = next((one for one in logged if not _could_be(schedule, run.steps_per_epoch, *one)), None)
        if wrong is None:
            return declared, None
        other = float(rate_at(schedule, wrong[0], run.steps_per_epoch))
        remark = remark or (
            f"{source.where} is not taken for the schedule: at step {wrong[0]:,} the log has {wrong[1]:.6g}, it has "
            f"{other:.6g} (--config {source.where} holds the log to it)"
        )
    return None, remark


def _could_be(schedule: Schedule, per_epoch: int | None, step: int, rate: float) -> bool:
    """Whether this is the rate of the step, of a neighbouring one, or of one a few skipped steps earlier."""
    shifts = [*SHIFTS, *(-k for k in range(2, SKIPPED + 1))]
    rates = rate_at(schedule, np.maximum(step + np.array(shifts), 1), per_epoch)
    return bool((np.abs(rates - rate) <= _room(rate) + 1e-12 * schedule.peak()).any())


def _room(rate: float) -> float:
    """Half a unit in the last digit that is written."""
    if rate == 0:
        return 0.0
    _, digits, exponent = Decimal(f"{rate:.15g}").normalize().as_tuple()
    if len(digits) >= EXACT_DIGITS:
        return EXACT * abs(rate)
    return float(0.5 * 10.0 ** max(int(exponent), int(np.floor(np.log10(abs(rate)))) - 4))
