"""Play one case: without a log and with one, faulty and as it should be, in folders that are removed afterwards."""

from __future__ import annotations

import os
import random
import sys
import tempfile
import time
import traceback
import warnings
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from tests.bench.silent.case import Case, cases
from tests.bench.silent.judge import Result, Said, said_of
from tests.bench.silent.script import Script


def play(case: Case) -> Result:
    """A script that raises is a result too: `crash` says in which form, and the traceback's last lines."""
    began = time.monotonic()
    outcomes: dict[tuple[bool, bool], Tensor] = {}
    said: dict[bool, tuple[Said, ...]] = {False: (), True: ()}
    crash = ""
    forms = (False, True) if case.is_error else (False,)
    for faulty in forms:
        for watched in (False, True):
            try:
                outcomes[faulty, watched], heard = played_once(case, faulty, watched)
            except Exception:
                form = f"{'faulty' if faulty else 'healthy'}, {'watched' if watched else 'unwatched'}"
                crash = crash or f"{form}: {' | '.join(traceback.format_exc().splitlines()[-3:])}"
                continue
            if watched:
                said[faulty] = tuple(heard)
    identical = all(_same(outcomes, faulty) for faulty in forms)
    real = case.is_error and not _equal(outcomes.get((False, False)), outcomes.get((True, False)))
    about = case.is_error
    seconds = time.monotonic() - began
    return Result(case.name, said[about], said[False] if about else (), identical, real, seconds, crash)


def play_by_name(name: str) -> Result:
    """In a process of a pool: the cases are found by name, functions are not sent."""
    quiet()
    return play(next(case for case in cases() if case.name == name))


def quiet() -> None:
    """One thread a process, and none of the warnings that scripts of this kind are full of."""
    torch.set_num_threads(1)
    if not sys.warnoptions:
        warnings.simplefilter("ignore")
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")


def played_once(case: Case, faulty: bool, watched: bool) -> tuple[Tensor, list[Said]]:
    """The outcome of one form of a case, and what its logs say; unwatched there are none. Raises what the script does."""
    torch.manual_seed(0)
    np.random.seed(0)
    random.seed(0)
    with tempfile.TemporaryDirectory(prefix="silent-") as folder:
        script = Script(Path(folder), watched=watched)
        try:
            outcome = case.play(script, faulty)
        finally:
            script.close()
        return outcome, said_of(script.logs) if watched else []


def _same(outcomes: dict[tuple[bool, bool], Tensor], faulty: bool) -> bool:
    return _equal(outcomes.get((faulty, False)), outcomes.get((faulty, True)))


def _equal(a: Tensor | None, b: Tensor | None) -> bool:
    """Bit for bit; a number that is none equals itself."""
    return a is not None and b is not None and a.shape == b.shape and bool(((a == b) | (a.isnan() & b.isnan())).all())
