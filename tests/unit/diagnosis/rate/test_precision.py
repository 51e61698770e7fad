"""The rounding cell holds the true value, for every way a log prints it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eegwatch.diagnosis.rate.precision import Precision


@given(
    values=st.lists(st.floats(1e-9, 10.0), min_size=1, max_size=50),
    form=st.sampled_from(["%.0e", "%.1e", "%.2e", "%.4e", "%.6e", "%.4f", "%.6f", "%.8f", "%.3g", "%.5g"]),
)
@settings(max_examples=300, deadline=None)
def test_the_cell_of_a_printed_value_holds_the_value_that_was_printed(values: list[float], form: str) -> None:
    truth = np.array(values)
    printed = np.array([float(form % v) for v in values])
    precision = Precision()
    precision.learn(printed)
    low, high = precision.cell(printed)
    shown = printed > 0  # what %.4f prints as zero has lost its size: half a unit of the decimals seen is all there is
    assert (low[shown] <= truth[shown]).all() and (truth[shown] <= high[shown]).all()


def test_at_a_power_of_ten_the_cell_is_lopsided() -> None:
    low, high = Precision(3).cell(np.array([1e-3]))
    assert low[0] == pytest.approx(9.995e-4, rel=1e-9) and high[0] == pytest.approx(1.005e-3, rel=1e-9)


def test_full_precision_is_recognised_and_leaves_no_room() -> None:
    precision = Precision()
    values = np.array([0.00012, 2.8365154082891954e-03])
    precision.learn(values)
    assert precision.full
    low, high = precision.cell(values)
    assert np.array_equal(low, values) and np.array_equal(high, values)


def test_a_zero_that_a_script_prints_may_be_any_rate_that_three_decimals_lose() -> None:
    printed, exact = Precision.named("printed"), Precision.named("float64")
    assert printed is not None and exact is not None
    low, high = printed.cell(np.array([0.0]))
    assert low[0] <= 0 and high[0] >= 4.9e-4 and exact.cell(np.array([0.0]))[1][0] == 0
