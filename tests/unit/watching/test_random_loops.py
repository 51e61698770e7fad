"""Random training loops, watched and not: the same bits, whatever the loop does, and no proof of what is healthy."""

from __future__ import annotations

import os
import tempfile
import warnings
from pathlib import Path

import torch
from hypothesis import given, settings

from tests.unit.watching.drawn import PLANS, Plan, Training
from tests.unit.watching.loops import silent

EXAMPLES = 400 if os.environ.get("EEGWATCH_FULL") else 12


def bytes_of(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.contiguous().reshape(-1).view(torch.uint8)


@settings(max_examples=EXAMPLES)
@given(PLANS)
def test_a_random_loop_is_the_same_bit_by_bit_and_nothing_is_proved_of_it(plan: Plan) -> None:
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.filterwarnings("error", message="eegwatch: the watcher")
        alone = Training(plan, None).run()
        training = Training(plan, Path(folder))
        watched = training.run()
        assert len(alone) == len(watched)
        assert all(torch.equal(bytes_of(a), bytes_of(b)) for a, b in zip(alone, watched))
        assert training.log is not None
        wrong = [f for f in silent(training.log.folder) if f.severity == "error" or f.rule == "watcher_failed"]
        assert not wrong, [(finding.rule, finding.message) for finding in wrong]
