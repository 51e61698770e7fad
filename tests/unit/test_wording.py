"""How numbers are said to people."""

from __future__ import annotations

from pathlib import Path

import pytest

from eegwatch import wording
from eegwatch.wording import fitting, path_end, significant


@pytest.mark.parametrize(
    ("ratio", "words"),
    [
        (1.017, "+1.7 %"),
        (0.963, "-3.7 %"),
        (1 / 12.4, "12 times too low"),
        (2.35, "2.4 times too high"),
        (1 + 4.4e-7, "+0.000044 %"),
        (25.0, "25 times too high"),
        (0.0, "0 instead of a rate"),
    ],
)
def test_a_deviation_is_a_percentage_when_small_and_a_factor_when_large(ratio: float, words: str) -> None:
    assert wording.deviation(ratio) == words


def test_two_rates_are_told_with_as_many_digits_as_tell_them_apart() -> None:
    assert wording.exact_rate(1.2e-4, 1.2000005e-4) == "1.200000e-4"
    assert wording.exact_rate(2.84e-3, 2.79e-3) == "2.84e-3"
    assert wording.exact_rate(3e-4, 3e-4) == "3.00e-4"


@pytest.mark.parametrize(("value", "words"), [(5.0, "5"), (0.1, "0.1"), (0.30000000000000004, "0.30000000000000004")])
def test_a_number_that_people_type_without_an_exponent_has_none(value: float, words: str) -> None:
    assert wording.exact(value) == words and float(words) == value
    assert wording.short_rate(value) == f"{value:.3g}"


def test_a_rate_of_zero_is_0() -> None:
    assert wording.exact_rate(0.0, 1e-3) == "0" and wording.exact_rate(1e-3, 0.0) == "1.00e-3"


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(12, "12 s"), (200, "3 min 20 s"), (1800, "30 min"), (7500, "2 h 05 min"), (356400, "4 d 3 h")],
)
def test_durations(seconds: float, words: str) -> None:
    assert wording.duration(seconds) == words


def test_text_of_a_log_is_harmless_in_a_terminal() -> None:
    assert wording.plain("a\x1b[2Jb\x07\tc\u202ed") == "a�[2Jb� c�d"


def test_short_rates_for_axes() -> None:
    assert [wording.short_rate(v) for v in (3e-3, 1.2e-4, 3e-6, 0.0)] == ["3e-3", "1.2e-4", "3e-6", "0"]


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (0.0, "0"), (0.0123456, "0.0123"), (0.5, "0.5"), (4.567, "4.57"), (22.4, "22.4"), (999.6, "1,000"),
        (1969.7, "1,970"), (54321.0, "54,300"), (-3.2, "-3.2"), (1.5e6, "1.5e6"), (2.5e-5, "2.5e-5"),
        (float("nan"), "nan"), (float("inf"), "inf"),
    ],
)  # fmt: skip
def test_a_measured_number_is_written_as_people_write_it(value: float, words: str) -> None:
    assert significant(value) == words


def test_of_a_long_path_the_last_parts_stand_whole() -> None:
    path = Path("/data/experiments/experiment_7/logs")
    assert path_end(path, 80) == "/data/experiments/experiment_7/logs"
    assert path_end(path, 24) == "…/experiment_7/logs" and path_end(path, 3) == "…/logs"


def test_parts_that_do_not_fit_are_left_out_whole() -> None:
    parts = ["loss (linear)", "░ every step", "━ smoothed"]
    assert fitting(parts, 100) == "loss (linear)  ░ every step  ━ smoothed"
    assert fitting(parts, 27) == "loss (linear)  ░ every step" and fitting(parts, 26) == "loss (linear)"
    assert fitting(parts, 3) == "loss (linear)" and fitting([], 9) == ""
