"""Compares the declared schedule with the rates in the configuration's `expected:` block."""

from __future__ import annotations

import numpy as np

from eegwatch.diagnosis.findings import WARNING, Cause, Finding
from eegwatch.run.records import Run
from eegwatch.schedule import Schedule, declared_base, final_rate, initial_rate, peak_rate
from eegwatch.wording import short_rate

AGREE = 1e-6  # declared and expected rates are typed by hand: 3e-6 and 3.0e-06 must agree, 1.2e-7 must not


def against_expected(run: Run, schedule: Schedule) -> list[Finding]:
    """`config_mismatch` where a declared rate is not the expected one; with the line to write where one is known."""
    base = declared_base(schedule)
    wrong: list[str] = []
    floor_cause = None
    for key, value in (
        ("initial_lr", initial_rate(base)),
        ("peak_lr", peak_rate(base)),
        ("final_lr", final_rate(base)),
    ):
        asked = (run.expected or {}).get(key)
        if asked is None or np.isclose(value, asked, rtol=AGREE, atol=0):
            continue
        wrong.append(f"{key.removesuffix('_lr')} {short_rate(value)}, expected {short_rate(asked)}")
        final_div = getattr(base, "final_div_factor", None)
        if key == "final_lr" and asked > 0 and final_div and np.isclose(peak_rate(base) / final_div, asked, rtol=AGREE):
            right = initial_rate(base) / asked
            says = f"final_div_factor divides the initial rate: write final_div_factor: {right:g}"
            floor_cause = Cause("final_div_factor_from_initial", says, says=says)
    if not wrong:
        return []
    message = f"the declared schedule does not have the rates of expected: {'; '.join(wrong)}"
    if floor_cause:
        message += f" ({floor_cause.says})"
    remedy = floor_cause.says if floor_cause else "correct training.scheduler or expected:"
    return [
        Finding("config_mismatch", WARNING, run.step, run.step, message, floor_cause, headline=message, remedy=remedy)
    ]
