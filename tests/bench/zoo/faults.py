"""Faults that any run can have, put into a healthy trace: spikes, gradients, pace."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tests.bench.zoo.trace import Trace

Spoil = Callable[[np.random.Generator, Trace], None]


def _at(rng: np.random.Generator, trace: Trace) -> int:
    return int(len(trace) * rng.uniform(0.3, 0.7))


def spikes(rng: np.random.Generator, trace: Trace) -> None:
    at = _at(rng, trace)
    high = float(np.nanmax(trace.loss)) + 3 * float(np.nanstd(trace.loss))
    trace.loss[at : at + 8] = high * rng.uniform(1, 2, 8) if high > 0 else high + rng.uniform(0, 1, 8)


def gradients_zero(rng: np.random.Generator, trace: Trace) -> None:
    trace.norm[_at(rng, trace) :] = 0


def gradients_zero_from_the_start(rng: np.random.Generator, trace: Trace) -> None:
    trace.norm[:] = 0


def gradients_vanish(rng: np.random.Generator, trace: Trace) -> None:
    trace.norm[_at(rng, trace) :] *= 1e-12


def gradients_tiny_from_the_start(rng: np.random.Generator, trace: Trace) -> None:
    trace.norm *= 1e-12


def gradients_explode(rng: np.random.Generator, trace: Trace) -> None:
    at = _at(rng, trace)
    trace.norm[at:] *= 10 ** np.clip(np.arange(len(trace) - at) / 10, 0, 5)


def gradients_creep_up(rng: np.random.Generator, trace: Trace) -> None:
    """By 20,000 times over the last two thirds."""
    at = len(trace) // 3
    trace.norm[at:] *= 20_000 ** (np.arange(len(trace) - at) / (len(trace) - at))


def slower(rng: np.random.Generator, trace: Trace) -> None:
    trace.seconds[_at(rng, trace) + 7 :] *= rng.uniform(2.5, 5)


def stalls(rng: np.random.Generator, trace: Trace) -> None:
    """The loader is empty at each twentieth step."""
    trace.seconds[_at(rng, trace) :: 20] += 5.0


FAULTS: dict[str, tuple[Spoil, tuple[str, ...]]] = {
    "spikes": (spikes, ("loss_spike",)),
    "gradients_zero": (gradients_zero, ("grad_zero",)),
    "gradients_zero_from_the_start": (gradients_zero_from_the_start, ("grad_zero",)),
    "gradients_vanish": (gradients_vanish, ("grad_zero",)),
    "gradients_tiny_from_the_start": (gradients_tiny_from_the_start, ("grad_zero",)),
    "gradients_explode": (gradients_explode, ("grad_exploding",)),
    "gradients_creep_up": (gradients_creep_up, ("grad_exploding",)),
    "slower": (slower, ("throughput_drop",)),
    "stalls": (stalls, ("throughput_drop",)),
}
# the scenarios that each is put into: ordinary training, where these mean something
HOSTS = (
    "eeg_binary",
    "five_classes",
    "regression_large",
    "language_model",
    "speech",
    "segmentation",
    "small_classifier",
)
