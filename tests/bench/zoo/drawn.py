"""Scenarios drawn as curves with the noise of their kind: what no small model shows, and long runs cheaply."""

from __future__ import annotations

from statistics import NormalDist

import numpy as np

from eegwatch.schedule import parse
from tests.bench.zoo.trace import Column, Trace, scenario

T = 6_000


def rates(rng: np.random.Generator, total: int, name: str = "") -> Column:
    """One of the common schedules."""
    n = np.arange(total)
    kind = name or str(rng.choice(["cosine", "one_cycle", "constant"]))
    if kind == "constant":
        return np.full(total, 1e-3)
    if kind == "cosine":
        return parse({"name": "cosine", "total_steps": total, "max_lr": 1e-3, "warmup_steps": total // 20}).rate(n)
    if kind == "restarts":
        return parse({"name": "cosine_restarts", "total_steps": total, "max_lr": 1e-3, "T_0": total // 5}).rate(n)
    if kind == "triangles":
        return 1e-5 + 1e-3 * np.abs((n / (total / 8)) % 2 - 1)
    return parse({"name": "one_cycle", "total_steps": total, "max_lr": 3e-3, "pct_start": 0.3}).rate(n)


def base(rng: np.random.Generator, loss: Column, lr: Column | None = None, **run: object) -> Trace:
    total = len(loss)
    norm = np.exp(rng.normal(0, 0.4, total)) * rng.uniform(0.1, 3)
    seconds = rng.lognormal(-2.3, 0.15, total)
    return Trace(loss, norm, rates(rng, total) if lr is None else lr, seconds, run=dict(run))


def smooth(rng: np.random.Generator, total: int, span: int) -> Column:
    """Correlated noise of unit size that forgets after `span` steps."""
    keep = np.exp(-1 / span)
    white = rng.normal(0, np.sqrt(1 - keep**2), total)
    out = np.empty(total)
    level = rng.normal()
    for i in range(total):
        level = keep * level + white[i]
        out[i] = level
    return out


def fall(total: int, first: float, last: float, tau: float) -> Column:
    n = np.arange(total)
    return last + (first - last) * np.exp(-n / (tau * total))


def diverge(rng: np.random.Generator, loss: Column, fault: str, top: float) -> Column:
    """`early`, `late`: a rise towards `top` within 2 to 8 % of the run; `creep`: over a third of it."""
    total = len(loss)
    at = int(total * (rng.uniform(0.08, 0.2) if fault == "early" else rng.uniform(0.35, 0.6)))
    takes = total * (0.33 if fault == "creep" else rng.uniform(0.02, 0.08))
    share = np.clip((np.arange(total) - at) / takes, 0, 1)
    scatter = rng.normal(0, 0.08 * abs(top - loss[at]) + 1e-12, total) * share
    return loss * (1 - share) + top * share + scatter


def binary(seed: int, total: int, batch: int = 32, top: float = 0.86) -> tuple[Column, Column]:
    """(batch losses, AUROC) of a calibrated binary classifier that learns."""
    rng = np.random.default_rng(seed)
    auroc = 0.5 + (top - 0.5) * (1 - np.exp(-np.arange(total) / (0.15 * total)))
    grid = np.linspace(0.5, 0.98, 481)
    d2 = np.interp(auroc, grid, 2 * np.array([NormalDist().inv_cdf(a) for a in grid]) ** 2)
    margin = d2[:, None] / 2 + np.sqrt(d2)[:, None] * rng.standard_normal((total, batch), np.float32)
    return np.logaddexp(0, -margin).mean(1), auroc


def measured(rng: np.random.Generator, trace: Trace, auroc: Column, val: Column, count: int = 20) -> None:
    """Evaluations with loss and AUROC, `count` of them."""
    for step in np.linspace(len(trace) / count, len(trace), count).astype(int):
        scores = {"loss": val[step - 1] + rng.normal(0, 0.004), "auroc": auroc[step - 1] + rng.normal(0, 0.003)}
        trace.evals.append((int(step), scores))


@scenario(
    "drawn",
    early="loss_diverging",
    late="loss_diverging",
    creep="loss_diverging",
    chance="loss_plateau metric_stuck",
    overfit="overfitting",
    stuck="metric_stuck",
)
def eeg_binary(seed: int, fault: str) -> Trace:
    rng = np.random.default_rng(seed)
    loss, auroc = binary(seed, T)
    val = np.convolve(np.pad(loss, 150, mode="edge"), np.ones(301) / 301, "valid")
    if fault in ("early", "late", "creep"):
        loss = diverge(rng, loss, fault, rng.uniform(0.85, 2.0))
        val = diverge(rng, val, fault, 1.0)
    if fault == "chance":
        loss, auroc, val = np.log(2) + rng.normal(0, 0.03, T), np.full(T, 0.5), np.full(T, 0.694)
    if fault == "overfit":
        loss = loss * np.linspace(1, 0.4, T)
        share = np.clip((np.arange(T) - T // 4) / (0.75 * T), 0, 1)
        val, auroc = val[T // 4] * np.ones(T) + 0.5 * share, auroc - 0.12 * share
    if fault == "stuck":
        auroc = np.minimum(auroc, 0.74)
    trace = base(rng, loss, batch_size=32, steps_per_epoch=T // 20, epochs=20, target={"auroc": 0.85})
    measured(rng, trace, auroc, val)
    return trace


@scenario("drawn")
def eeg_overconfident(seed: int, fault: str) -> Trace:
    """The validation loss rises (calibration is lost) while the AUROC, the target, still rises."""
    rng = np.random.default_rng(seed)
    loss, auroc = binary(seed, T)
    loss = loss * np.linspace(1, 0.5, T)
    val = 0.5 + 0.2 * np.exp(-np.arange(T) / 500) + 0.15 * np.arange(T) / T
    auroc = auroc + 0.03 * np.arange(T) / T
    trace = base(rng, loss, batch_size=32, steps_per_epoch=T // 20, target={"auroc": 0.9})
    measured(rng, trace, auroc, val)
    return trace


@scenario("drawn", overfit="overfitting")
def frequent_evaluations(seed: int, fault: str) -> Trace:
    """Evaluated ten times an epoch, on a small noisy validation set."""
    rng = np.random.default_rng(seed)
    loss, auroc = binary(seed, 2_000)
    val = 0.42 + 0.27 * np.exp(-np.arange(2_000) / 200) + 0.02 * smooth(rng, 2_000, 60)
    if fault:
        loss = loss * np.linspace(1, 0.3, 2_000)
        val = val + 0.6 * np.clip((np.arange(2_000) - 500) / 1_500, 0, 1)
        auroc = auroc - 0.08 * np.clip((np.arange(2_000) - 500) / 1_500, 0, 1)
    trace = base(rng, loss, batch_size=32, steps_per_epoch=100, target={"auroc": 0.85})
    measured(rng, trace, auroc, val, 200)
    return trace


@scenario("drawn", early="loss_diverging", late="loss_diverging", flat="loss_plateau")
def five_classes(seed: int, fault: str) -> Trace:
    rng = np.random.default_rng(seed)
    level = fall(T, np.log(5), rng.uniform(0.3, 0.9), 0.2)
    loss = level * np.exp(rng.normal(0, 0.12, T))
    val = level * 1.05
    if fault == "flat":
        loss, val = np.log(5) + rng.normal(0, 0.03, T), np.full(T, np.log(5))
    elif fault:
        loss, val = diverge(rng, loss, fault, rng.uniform(1.6, 4)), diverge(rng, val, fault, 2.0)
    trace = base(rng, loss, batch_size=64, steps_per_epoch=T // 10)
    trace.evals = [(s, {"loss": val[s - 1] + rng.normal(0, 0.01)}) for s in range(T // 10, T + 1, T // 10)]
    return trace


@scenario("drawn", early="loss_diverging", late="loss_diverging")
def language_model(seed: int, fault: str) -> Trace:
    """A power law with single spikes, each gone within a few steps."""
    rng = np.random.default_rng(seed)
    n = np.arange(T)
    loss = 2.6 + 8 * (1 + n / 40) ** -0.5 + rng.normal(0, 0.06, T)
    for at in rng.integers(1_000, T, 6):
        loss[at : at + 2] += rng.uniform(0.3, 2)
    if fault:
        loss = diverge(rng, loss, fault, rng.uniform(6, 8))
    trace = base(rng, loss, rates(rng, T, "cosine"))
    trace.evals = [(s, {"loss": float(loss[s - 100 : s].mean())}) for s in range(1_000, T + 1, 1_000)]
    return trace


def _regression(seed: int, fault: str, unit: float) -> Trace:
    rng = np.random.default_rng(seed)
    level = fall(T, 1.0, rng.uniform(0.02, 0.2), 0.1)
    loss = level * rng.chisquare(32, T) / 32
    if fault == "flat":
        loss = rng.chisquare(32, T) / 32
    elif fault:
        loss = diverge(rng, loss, fault, rng.uniform(1, 5))
    val = np.convolve(np.pad(loss, 150, mode="edge"), np.ones(301) / 301, "valid")
    trace = base(rng, unit * loss, steps_per_epoch=T // 10, batch_size=32)
    trace.norm *= unit
    trace.evals = [(s, {"loss": unit * val[s - 1]}) for s in range(T // 10, T + 1, T // 10)]
    return trace


@scenario("drawn", early="loss_diverging", late="loss_diverging", flat="loss_plateau")
def regression_large(seed: int, fault: str) -> Trace:
    return _regression(seed, fault, 1e5)


@scenario("drawn", early="loss_diverging", late="loss_diverging", flat="loss_plateau")
def regression_tiny(seed: int, fault: str) -> Trace:
    return _regression(seed, fault, 1e-9)


@scenario("drawn")
def regression_near_ln2(seed: int, fault: str) -> Trace:
    """A mean squared error that ends, by chance, at 0.69."""
    rng = np.random.default_rng(seed)
    return base(rng, fall(T, 3.0, np.log(2), 0.08) + rng.normal(0, 0.1, T))


@scenario("drawn", late="loss_diverging")
def elbo(seed: int, fault: str) -> Trace:
    rng = np.random.default_rng(seed)
    loss = fall(T, 50, -90, 0.15) + rng.normal(0, 4, T)
    return base(rng, diverge(rng, loss, fault, rng.uniform(0, 80)) if fault else loss)


@scenario("drawn", late="loss_diverging", overfit="overfitting")
def log_likelihood(seed: int, fault: str) -> Trace:
    """Negative throughout: the logarithm of a density."""
    rng = np.random.default_rng(seed)
    level = fall(T, -1.0, -6.0, 0.2)
    val = level + 0.1
    if fault == "overfit":
        val = level + 0.1 + 4 * np.clip((np.arange(T) - T / 4) / T, 0, 1)
    loss = level + rng.normal(0, 0.3, T)
    trace = base(rng, diverge(rng, loss, fault, rng.uniform(-1, 3)) if fault == "late" else loss)
    trace.evals = [(s, {"loss": val[s - 1] + rng.normal(0, 0.03)}) for s in range(T // 20, T + 1, T // 20)]
    if fault == "late":
        trace.evals = []
    return trace


@scenario("drawn")
def policy_loss(seed: int, fault: str) -> Trace:
    """A policy gradient's loss: around zero, it means nothing."""
    rng = np.random.default_rng(seed)
    drift = 0.02 * smooth(rng, T, 400)
    return base(rng, drift + rng.standard_t(4, T) * 0.03 * rng.uniform(0.5, 2))


@scenario("drawn")
def td_loss(seed: int, fault: str) -> Trace:
    """DQN: small before rewards are found, then as large as the values, with heavy tails."""
    rng = np.random.default_rng(seed)
    n = np.arange(T)
    scale = 0.005 + rng.uniform(0.1, 2) / (1 + np.exp(-(n - rng.uniform(0.1, 0.5) * T) / (0.08 * T)))
    return base(rng, scale * np.exp(0.5 * smooth(rng, T, 150)) * rng.lognormal(-0.2, 0.6, T))


@scenario("drawn")
def gan_generator(seed: int, fault: str) -> Trace:
    rng = np.random.default_rng(seed)
    n = np.arange(T)
    level = 0.7 + rng.uniform(1, 4) * (1 - np.exp(-n / (0.25 * T)))
    return base(rng, np.abs(level + 0.6 * smooth(rng, T, 60) * level / 2 + rng.normal(0, 0.4, T) * level / 3))


@scenario("drawn")
def gan_discriminator(seed: int, fault: str) -> Trace:
    rng = np.random.default_rng(seed)
    n = np.arange(T)
    level = 1.386 * np.exp(-n / (0.02 * T)) + rng.uniform(0.3, 1.0) * (1 - np.exp(-n / (0.3 * T)))
    return base(rng, np.abs(level + 0.15 * smooth(rng, T, 80) + rng.normal(0, 0.15, T)))


@scenario("drawn")
def wgan_critic(seed: int, fault: str) -> Trace:
    """Falls to a negative estimate of the distance, then rises towards zero as the generator learns."""
    rng = np.random.default_rng(seed)
    n = np.arange(T)
    level = -rng.uniform(5, 20) * (1 - np.exp(-n / (0.02 * T))) * np.exp(-n / (0.4 * T))
    return base(rng, level + 0.5 * smooth(rng, T, 50) + rng.normal(0, 0.6, T))


@scenario("drawn")
def kl_annealing(seed: int, fault: str) -> Trace:
    """The weight of the KL term rises over the first half: the loss rises with it."""
    rng = np.random.default_rng(seed)
    n = np.arange(T)
    beta = np.clip((n - 0.05 * T) / (rng.uniform(0.2, 0.5) * T), 0, 1)
    loss = fall(T, 540, 85, 0.02) + beta * rng.uniform(15, 60)
    return base(rng, loss + rng.normal(0, 4, T))


@scenario("drawn")
def momentum_contrast(seed: int, fault: str) -> Trace:
    """The queue fills: the loss rises to its highest first, then falls for the rest of the run."""
    rng = np.random.default_rng(seed)
    n = np.arange(T)
    level = 9.0 * (1 - np.exp(-n / (0.015 * T))) - 2.5 * (1 - np.exp(-n / (0.4 * T)))
    return base(rng, level + rng.normal(0, 0.1, T))


@scenario("drawn")
def curriculum(seed: int, fault: str) -> Trace:
    """Harder data in three stages: the loss jumps and falls again."""
    rng = np.random.default_rng(seed)
    parts = []
    for stage in range(3):
        first, last = (2.0, 0.4) if stage == 0 else (rng.uniform(0.9, 1.8), rng.uniform(0.5, 0.8))
        parts.append(fall(T // 3, first, last, rng.uniform(0.1, 0.3)))
    return base(rng, np.concatenate(parts) * np.exp(rng.normal(0, 0.1, T)))


@scenario("drawn")
def stronger_augmentation(seed: int, fault: str) -> Trace:
    """From half of the run on the training data are harder for good; the validation loss falls on."""
    rng = np.random.default_rng(seed)
    level = fall(T, 2.3, 0.5, 0.15)
    val = level * 1.05
    at = int(rng.uniform(0.3, 0.6) * T)
    level[at:] = level[at:] * rng.uniform(1.2, 1.8)
    trace = base(rng, level * np.exp(rng.normal(0, 0.1, T)))
    trace.evals = [(s, {"loss": val[s - 1] + rng.normal(0, 0.01)}) for s in range(T // 20, T + 1, T // 20)]
    return trace


@scenario("drawn")
def pruning(seed: int, fault: str) -> Trace:
    rng = np.random.default_rng(seed)
    level = fall(T, 2.3, 0.5, 0.1)
    for at in range(T // 4, T, T // 6):
        level[at:] += rng.uniform(0.2, 0.7) * np.exp(-np.arange(T - at) / rng.uniform(50, 300))
    return base(rng, level * np.exp(rng.normal(0, 0.1, T)))


def _scheduled(seed: int, name: str, swing: float) -> Trace:
    """A loss that follows the rate: higher where the rate is high."""
    rng = np.random.default_rng(seed)
    lr = rates(rng, T, name)
    level = fall(T, 2.3, 0.35, 0.15) + swing * (lr / lr.max()) * np.clip(np.arange(T) / 500, 0, 1)
    return base(rng, level * np.exp(rng.normal(0, 0.08, T)), lr)


@scenario("drawn")
def warm_restarts(seed: int, fault: str) -> Trace:
    return _scheduled(seed, "restarts", 0.8)


@scenario("drawn")
def cyclic_rate(seed: int, fault: str) -> Trace:
    return _scheduled(seed, "triangles", 0.8)


@scenario("drawn")
def one_cycle_peak(seed: int, fault: str) -> Trace:
    rng = np.random.default_rng(seed)
    lr = rates(rng, T, "one_cycle")
    level = fall(T, 2.3, 0.4, 0.04) + 1.0 * (lr / lr.max()) ** 2
    return base(rng, level * np.exp(rng.normal(0, 0.08, T)), lr)


@scenario("drawn", late="loss_diverging")
def batches_by_subject(seed: int, fault: str) -> Trace:
    """EEG read recording by recording: a hundred batches of one subject, then of the next."""
    rng = np.random.default_rng(seed)
    loss, _ = binary(seed, T)
    subjects = np.repeat(rng.lognormal(0, 0.35, T // 100 + 1), 100)[:T]
    loss = loss * subjects
    return base(rng, diverge(rng, loss, fault, rng.uniform(1.5, 3)) if fault else loss, steps_per_epoch=T // 6)


@scenario("drawn")
def sorted_by_length(seed: int, fault: str) -> Trace:
    """Short sequences first in each epoch: the loss climbs within it and starts again."""
    rng = np.random.default_rng(seed)
    epoch = T // int(rng.choice([4, 6, 12]))
    ramp = 0.5 + 1.0 * (np.arange(T) % epoch) / epoch
    return base(rng, fall(T, 2.5, 0.8, 0.2) * ramp * np.exp(rng.normal(0, 0.08, T)), steps_per_epoch=epoch)


@scenario("drawn")
def unfreezing(seed: int, fault: str) -> Trace:
    """The backbone is unfrozen at a third: gradient norms rise from 0.01 to 2, the loss falls on."""
    rng = np.random.default_rng(seed)
    level = fall(T, 0.7, 0.55, 0.1)
    level[T // 3 :] -= 0.2 * (1 - np.exp(-np.arange(T - T // 3) / 800))
    trace = base(rng, level + rng.normal(0, 0.06, T))
    trace.norm[: T // 3] *= 0.01
    return trace


@scenario("drawn")
def progressive_resizing(seed: int, fault: str) -> Trace:
    rng = np.random.default_rng(seed)
    loss = fall(T, 2.3, 0.5, 0.2) * np.exp(rng.normal(0, 0.1, T))
    trace = base(rng, loss, steps_per_epoch=T // 30)
    trace.seconds[T // 3 :] *= 2.2
    trace.seconds[2 * T // 3 :] *= 2.2
    return trace


@scenario("drawn")
def half_precision(seed: int, fault: str) -> Trace:
    """The loss scaler finds its scale: the first steps' gradients are infinite, later one now and then."""
    rng = np.random.default_rng(seed)
    trace = base(rng, fall(T, 2.3, 0.5, 0.2) * np.exp(rng.normal(0, 0.1, T)))
    trace.norm[: rng.integers(2, 12)] = np.inf
    trace.norm[2_000::2_000] = np.inf
    return trace


@scenario("drawn")
def near_zero(seed: int, fault: str) -> Trace:
    """Fine-tuning of what is nearly perfect: most batches have no error at all."""
    rng = np.random.default_rng(seed)
    trace = base(rng, 0.02 * rng.gamma(0.4, 1, T) + 1e-4)
    trace.norm *= rng.gamma(0.3, 1, T) + 1e-3
    return trace


@scenario("drawn")
def sparse_gradients(seed: int, fault: str) -> Trace:
    rng = np.random.default_rng(seed)
    trace = base(rng, fall(T, 2.3, 0.5, 0.2) * np.exp(rng.normal(0, 0.1, T)))
    trace.norm[rng.random(T) < 0.3] = 0
    return trace


@scenario("drawn")
def hinge(seed: int, fault: str) -> Trace:
    """Batches without a violated margin have no loss and no gradient, more and more of them."""
    rng = np.random.default_rng(seed)
    errors = rng.binomial(32, 0.3 * np.exp(-np.arange(T) / (0.15 * T)) + 0.002)
    trace = base(rng, errors / 32 * rng.uniform(0.5, 1.5, T))
    trace.norm *= errors
    return trace


@scenario("drawn", late="loss_diverging", overfit="overfitting")
def epoch_rows(seed: int, fault: str) -> Trace:
    """One record an epoch, with its evaluation: a hundred in all."""
    rng = np.random.default_rng(seed)
    level = fall(100, 2.0, 0.4, 0.15)
    loss, val = level + rng.normal(0, 0.03, 100), level * 1.1 + 0.1 + rng.normal(0, 0.03, 100)
    if fault == "late":
        loss, val = diverge(rng, loss, fault, 3.0), diverge(rng, val, fault, 3.2)
    if fault == "overfit":
        loss = loss - 0.3 * np.linspace(0, 1, 100)
        val = val + np.clip((np.arange(100) - 20) / 80, 0, 1)
    trace = base(rng, loss, rates(rng, 100, "constant"), steps_per_epoch=1)
    trace.norm[:] = np.nan
    trace.evals = [(i + 1, {"loss": float(val[i])}) for i in range(100)]
    return trace


@scenario("drawn", late="loss_diverging", early="loss_diverging")
def each_fiftieth_step(seed: int, fault: str) -> Trace:
    """A log of each fiftieth step of 20,000: 400 records."""
    rng = np.random.default_rng(seed)
    loss = fall(20_000, 2.3, 0.5, 0.15) + rng.normal(0, 0.07, 20_000)
    if fault:
        loss = diverge(rng, loss, fault, rng.uniform(2.3, 4))
    trace = base(rng, loss)
    trace.every = 50
    trace.evals = [(s, {"loss": float(loss[s - 300 : s].mean())}) for s in range(1_000, 20_001, 1_000)]
    return trace


@scenario("drawn", late="loss_diverging")
def two_hundred_steps(seed: int, fault: str) -> Trace:
    rng = np.random.default_rng(seed)
    loss = fall(200, 2.3, 0.7, 0.25) + rng.normal(0, 0.08, 200)
    return base(rng, diverge(rng, loss, fault, rng.uniform(2.5, 5)) if fault else loss)
