"""Scenarios written after the rules were tuned, so that nothing was tuned on them."""

from __future__ import annotations

import numpy as np

from tests.bench.zoo.drawn import base, binary, diverge, fall, measured, rates, smooth
from tests.bench.zoo.trace import Trace, scenario

T = 5_000


def _evaluated(rng: np.random.Generator, trace: Trace, level: np.ndarray, count: int, noise: float) -> None:
    for step in np.linspace(len(trace) / count, len(trace), count).astype(int):
        trace.evals.append((int(step), {"loss": float(level[step - 1] + rng.normal(0, noise))}))


@scenario("later", early="loss_diverging", late="loss_diverging")
def speech(seed: int, fault: str) -> Trace:
    """CTC: stands at a plateau of blanks, then falls; utterances differ much in length."""
    rng = np.random.default_rng(seed)
    n = np.arange(T)
    level = 3.0 + 4 * np.exp(-n / 120) - 2.4 / (1 + np.exp(-(n - 1200) / 250))
    if fault:
        level = diverge(rng, level, fault, rng.uniform(4.5, 8))
    trace = base(rng, level * np.exp(rng.normal(0, 0.18, T)), rates(rng, T, "cosine"), steps_per_epoch=250)
    _evaluated(rng, trace, level * 1.1, 20, 0.03)
    return trace


@scenario("later", late="loss_diverging", overfit="overfitting")
def segmentation(seed: int, fault: str) -> Trace:
    """The negative Dice score: from 0 to -0.9."""
    rng = np.random.default_rng(seed)
    level = fall(T, -0.1, -0.88, 0.15)
    val = level + 0.03
    if fault == "late":
        level = diverge(rng, level, fault, rng.uniform(-0.2, 0))
        val = level + 0.03
    if fault == "overfit":
        val = val + 0.3 * np.clip((np.arange(T) - T / 4) / T, 0, 1)
        level = level - 0.08 * np.arange(T) / T
    trace = base(rng, level + rng.normal(0, 0.04, T), steps_per_epoch=200)
    _evaluated(rng, trace, val, 25, 0.005)
    return trace


@scenario("later")
def grokking(seed: int, fault: str) -> Trace:
    """Cross-entropy over 97 classes that falls late; the validation loss rises for long before it does."""
    rng = np.random.default_rng(seed)
    n = np.arange(T)
    level = 4.57 / (1 + np.exp((n - rng.uniform(800, 1500)) / 150)) + 0.01
    return base(rng, level * np.exp(rng.normal(0, 0.1, T)), np.full(T, 1e-3))


@scenario("later")
def hard_subjects_last(seed: int, fault: str) -> Trace:
    """Recordings of patients follow those of healthy people in each epoch: the second half is harder."""
    rng = np.random.default_rng(seed)
    loss, auroc = binary(seed, T)
    epoch = T // 10
    loss = loss * np.where(np.arange(T) % epoch < epoch // 2, 0.8, 1.25)
    val = np.convolve(np.pad(loss, 250, mode="edge"), np.ones(501) / 501, "valid")
    trace = base(rng, loss, steps_per_epoch=epoch, batch_size=32, target={"auroc": 0.85})
    measured(rng, trace, auroc, val, 10)
    return trace


@scenario("later")
def actor_loss(seed: int, fault: str) -> Trace:
    """SAC's actor: the loss is the negative value, which falls, rises and falls again."""
    rng = np.random.default_rng(seed)
    wander = np.cumsum(smooth(rng, T, 300)) * 0.01
    return base(rng, -wander + rng.normal(0, 0.5, T))


@scenario("later")
def noise_prediction(seed: int, fault: str) -> Trace:
    """Diffusion: a quick fall, then for most of the run less progress than the noise of a batch."""
    rng = np.random.default_rng(seed)
    n = np.arange(T)
    level = 0.03 + 0.97 * np.exp(-n / 60) + 0.03 * (1 + n / 100) ** -0.5
    return base(rng, level * np.exp(rng.normal(0, 0.35, T)), np.full(T, 1e-4))


@scenario("later")
def layers_unfrozen_one_by_one(seed: int, fault: str) -> Trace:
    rng = np.random.default_rng(seed)
    level = fall(T, 1.1, 0.6, 0.2)
    trace = base(rng, level * np.exp(rng.normal(0, 0.12, T)), steps_per_epoch=500)
    for k in range(1, 5):
        trace.norm[k * 500 :] *= 4
        level[k * 500 :] += 0.15 * np.exp(-np.arange(T - k * 500) / 100)
    return trace


@scenario("later")
def label_smoothing_ends(seed: int, fault: str) -> Trace:
    """Mixup and smoothing are switched off for the last fifth: the loss drops at once."""
    rng = np.random.default_rng(seed)
    level = fall(T, 6.9, 2.6, 0.25)
    level[4 * T // 5 :] -= 1.4
    trace = base(rng, level * np.exp(rng.normal(0, 0.06, T)), rates(rng, T, "cosine"), steps_per_epoch=250)
    _evaluated(rng, trace, fall(T, 6.9, 1.1, 0.25), 20, 0.02)
    return trace


@scenario("later", late="loss_diverging")
def each_hundredth_step(seed: int, fault: str) -> Trace:
    """A log of each hundredth step of 30,000, without an evaluation."""
    rng = np.random.default_rng(seed)
    loss = fall(30_000, 5.0, 1.5, 0.1) + rng.normal(0, 0.15, 30_000)
    trace = base(rng, diverge(rng, loss, fault, rng.uniform(6, 9)) if fault else loss, steps_per_epoch=3_000)
    trace.every = 100
    return trace


@scenario("later")
def checkpoints_every_200_steps(seed: int, fault: str) -> Trace:
    """A pause of twenty seconds at each, and of a minute at the end of an epoch."""
    rng = np.random.default_rng(seed)
    trace = base(rng, fall(T, 2.3, 0.4, 0.2) * np.exp(rng.normal(0, 0.1, T)), steps_per_epoch=1_000)
    trace.seconds[::200] += 20
    trace.seconds[::1_000] += 60
    return trace
