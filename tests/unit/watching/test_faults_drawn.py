"""One fault in a random training is found, and at the first steps that can show it."""

from __future__ import annotations

import os
import tempfile
import warnings
from dataclasses import replace
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.watching.drawn import PLANS, Plan
from tests.unit.watching.faulty import FAULTS, Fault, outcome

EXAMPLES = 500 if os.environ.get("EEGWATCH_FULL") else 8
LATE = (
    3  # steps: gradients that are not cleared any more after a step are part of the next; a rest is told of at 2, 3, …
)


@settings(max_examples=EXAMPLES)
@given(st.sampled_from(FAULTS), PLANS, st.integers(2, 9))
def test_a_fault_in_a_random_training_is_found(fault: Fault, plan: Plan, at: int) -> None:
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="eegwatch reads no schedule")
        seen = outcome(fault, replace(plan, at=at), Path(folder))
        if seen is not None:
            shown, said, _ = seen
            assert said is not None and said <= shown + LATE, (fault.name, shown, said)
