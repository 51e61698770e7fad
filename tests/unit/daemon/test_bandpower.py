"""Band power of windows: a sine is found in its band, and blocks put together give what the whole gives."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from eegpt_daemon.data.bandpower import BANDS, BandPowerStore, band_powers
from eegwatch.run.config import load

RATE = 256


@pytest.mark.parametrize(("hertz", "band"), [(2, "delta"), (6, "theta"), (10, "alpha"), (20, "beta"), (40, "gamma")])
def test_the_power_of_a_sine_lies_in_its_band(hertz: float, band: str) -> None:
    t = np.arange(4 * RATE) / RATE
    noise = 0.01 * np.random.default_rng(0).standard_normal(len(t))
    window = np.stack([np.sin(2 * np.pi * hertz * t), 0 * t]) + noise
    powers = band_powers(window[None].astype(np.float32), RATE).reshape(2, len(BANDS))
    assert list(BANDS)[int(powers[0].argmax())] == band
    assert np.sort(powers[0])[-2] < powers[0].max() - 2, "a hundred times above every other band"
    low, high = BANDS[band]
    assert 10 ** powers[0].max() * (high - low) == pytest.approx(0.5, rel=0.35), (
        "the power of a sine is half its square"
    )


def test_blocks_of_any_length_give_the_windows_of_the_whole(config_file: Callable[..., Path], tmp_path: Path) -> None:
    config = load(config_file(data={"cache_dir": str(tmp_path / "cache")}))
    store = BandPowerStore(config)
    signal = np.random.default_rng(1).standard_normal((19, 10_000)).astype(np.float32)
    whole = store.row_of().feed(signal)
    assert len(whole) == store.windows_in(10_000)
    rower = store.row_of()
    cuts = [0, 300, 1024, 1100, 5000, 10_000]
    parts = [rower.feed(signal[:, a:b]) for a, b in itertools.pairwise(cuts)]
    np.testing.assert_array_equal(np.concatenate(parts), whole)
    assert rower.problem is None and np.isfinite(whole).all()
    short = store.row_of()
    assert not len(short.feed(signal[:, :500])) and "shorter than one window" in (short.problem or "")
