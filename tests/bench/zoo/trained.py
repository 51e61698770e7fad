"""Small models trained for real with torch, 1,200 steps each: their curves are what training makes, not what we draw."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from tests.bench.zoo.drawn import rates
from tests.bench.zoo.trace import Trace, scenario

T, BATCH = 1_200, 32
Loss = Callable[[int], torch.Tensor]  # step -> the loss of a batch


def train(
    seed: int,
    parameters: list[nn.Parameter],
    loss_of: Loss,
    lr: np.ndarray,
    *,
    evaluate: Callable[[], dict[str, float]] | None = None,
    **run: object,
) -> Trace:
    """Adam over `lr`; one loss, gradient norm and duration a step; `evaluate` twenty times."""
    optimizer = torch.optim.Adam(parameters, lr=float(lr[0]))
    loss, norm, seconds = np.empty(len(lr)), np.empty(len(lr)), np.empty(len(lr))
    trace = Trace(loss, norm, lr, seconds, run=dict(run))
    for i in range(len(lr)):
        began = time.perf_counter()
        for group in optimizer.param_groups:
            group["lr"] = float(lr[i])
        value = loss_of(i)
        optimizer.zero_grad()
        if value.requires_grad:
            value.backward()
        gradients = [p.grad.norm() for p in parameters if p.grad is not None]
        norm[i] = float(torch.stack(gradients).norm()) if gradients else 0.0
        loss[i] = float(value.detach())
        optimizer.step()
        seconds[i] = time.perf_counter() - began
        if evaluate is not None and (i + 1) % (len(lr) // 20) == 0:
            with torch.no_grad():
                trace.evals.append((i + 1, evaluate()))
    # the machine that draws these curves is shared: its pauses are not what is measured
    seconds[:] = np.random.default_rng(seed).lognormal(-2.3, 0.15, len(lr))
    return trace


def schedule(seed: int, peak: float, name: str = "") -> np.ndarray:
    lr = rates(np.random.default_rng(seed), T, name)
    out: np.ndarray = lr / lr.max() * peak
    return out


def _points(seed: int, classes: int, count: int, spread: float = 1.0) -> tuple[torch.Tensor, torch.Tensor]:
    """Gaussian clouds around fixed centres, 16 numbers a point."""
    centres = 1.2 * torch.randn(classes, 16, generator=torch.Generator().manual_seed(7))
    random = torch.Generator().manual_seed(seed)
    labels = torch.randint(classes, (count,), generator=random)
    return centres[labels] + spread * torch.randn(count, 16, generator=random), labels


def _classifier(classes: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, classes))


@scenario(
    "trained",
    hot="loss_diverging",
    late_hot="loss_diverging",
    overfit="overfitting",
    detached="grad_zero",
    bad="loss_spike",
)
def small_classifier(seed: int, fault: str) -> Trace:
    torch.manual_seed(seed)
    model, lr = _classifier(10), schedule(seed, 3e-3, "cosine")
    x, y = _points(seed, 10, 60 if fault == "overfit" else 4_000, 3.0)
    val_x, val_y = _points(seed + 1_000, 10, 500, 3.0)
    if fault == "hot":
        lr = lr * 100
    if fault == "late_hot":
        lr[T // 2 :] = 2.0

    def loss_of(step: int) -> torch.Tensor:
        rows = torch.randint(len(x), (BATCH,))
        data = x[rows] * (30 if fault == "bad" and 700 <= step < 708 else 1)
        value = F.cross_entropy(model(data), y[rows])
        return value.detach() if fault == "detached" and step > 500 else value

    def evaluate() -> dict[str, float]:
        logits = model(val_x)
        return {
            "loss": float(F.cross_entropy(logits, val_y)),
            "accuracy": float((logits.argmax(1) == val_y).float().mean()),
        }

    return train(seed, list(model.parameters()), loss_of, lr, evaluate=evaluate, steps_per_epoch=len(x) // BATCH + 1)


@scenario("trained", shuffled="loss_plateau")
def small_regression(seed: int, fault: str) -> Trace:
    """Targets of the size of thousands; with shuffled targets there is nothing to learn."""
    torch.manual_seed(seed)
    model = _classifier(1)
    x = torch.randn(6_000, 16)
    y = 1_000 * (x[:, :1] * 2 + x[:, 1:2] * x[:, 2:3])
    if fault:
        y = 1_000 * 2.2 * torch.randn(6_000, 1)
    model[2].weight.data.mul_(0.0)

    def loss_of(step: int) -> torch.Tensor:
        rows = torch.randint(5_000, (128,))
        return F.mse_loss(1_000 * model(x[rows]), y[rows])

    def evaluate() -> dict[str, float]:
        return {"loss": float(F.mse_loss(1_000 * model(x[5_000:]), y[5_000:]))}

    lr = schedule(seed, 1e-5 if fault else 3e-3, "cosine")
    return train(seed, list(model.parameters()), loss_of, lr, evaluate=evaluate)


def _gan(seed: int, which: str, wasserstein: bool) -> Trace:
    torch.manual_seed(seed)
    generator = nn.Sequential(nn.Linear(8, 64), nn.ReLU(), nn.Linear(64, 2))
    critic = nn.Sequential(nn.Linear(2, 64), nn.LeakyReLU(0.2), nn.Linear(64, 1))
    logged, other = (critic, generator) if which == "critic" else (generator, critic)
    beside = torch.optim.Adam(other.parameters(), lr=1e-3, betas=(0.5, 0.9))

    def losses() -> dict[str, torch.Tensor]:
        angle = 2 * math.pi * torch.randint(8, (64, 1)) / 8
        real = torch.cat([torch.cos(angle), torch.sin(angle)], 1) * 2 + 0.05 * torch.randn(64, 2)
        fake = generator(torch.randn(64, 8))
        if wasserstein:
            return {"critic": critic(fake.detach()).mean() - critic(real).mean(), "generator": -critic(fake).mean()}
        return {
            "critic": F.softplus(-critic(real)).mean() + F.softplus(critic(fake.detach())).mean(),
            "generator": F.softplus(-critic(fake)).mean(),
        }

    def loss_of(step: int) -> torch.Tensor:
        beside.zero_grad()
        losses()["generator" if which == "critic" else "critic"].backward()
        beside.step()
        if wasserstein:
            for p in critic.parameters():
                p.data.clamp_(-0.1, 0.1)
        return losses()[which]

    return train(seed, list(logged.parameters()), loss_of, np.full(T, 1e-3))


@scenario("trained")
def gan_generator_trained(seed: int, fault: str) -> Trace:
    return _gan(seed, "generator", wasserstein=False)


@scenario("trained")
def gan_critic_trained(seed: int, fault: str) -> Trace:
    return _gan(seed, "critic", wasserstein=False)


@scenario("trained")
def wasserstein_critic_trained(seed: int, fault: str) -> Trace:
    return _gan(seed, "critic", wasserstein=True)


@scenario("trained")
def policy_gradient_trained(seed: int, fault: str) -> Trace:
    """REINFORCE with a running baseline on a bandit with ten arms that depend on the context."""
    torch.manual_seed(seed)
    model, (centres, labels) = _classifier(10), _points(seed, 10, 4_000)
    baseline = [0.0]

    def loss_of(step: int) -> torch.Tensor:
        rows = torch.randint(4_000, (BATCH,))
        chosen = torch.distributions.Categorical(logits=model(centres[rows]))
        action = chosen.sample()
        reward = (action == labels[rows]).float()
        advantage = reward - baseline[0]
        baseline[0] = 0.95 * baseline[0] + 0.05 * float(reward.mean())
        return -(advantage * chosen.log_prob(action)).mean()

    return train(seed, list(model.parameters()), loss_of, np.full(T, 1e-3))


@scenario("trained")
def q_learning_trained(seed: int, fault: str) -> Trace:
    """Q-learning with a target network on a chain of 12 states, rewarded at its end."""
    torch.manual_seed(seed)
    model, target = _classifier(2), _classifier(2)
    features = torch.randn(12, 16)

    def loss_of(step: int) -> torch.Tensor:
        if step % 50 == 0:
            target.load_state_dict(model.state_dict())
        state, action = torch.randint(11, (BATCH,)), torch.randint(2, (BATCH,))
        after = (state + 2 * action - 1).clamp(0, 11)
        reward = 10.0 * (after == 11).float()
        with torch.no_grad():
            value = reward + 0.97 * target(features[after]).max(1).values * (after != 11)
        return F.mse_loss(model(features[state]).gather(1, action[:, None])[:, 0], value)

    return train(seed, list(model.parameters()), loss_of, np.full(T, 1e-3))


@scenario("trained")
def autoencoder_with_kl_annealing(seed: int, fault: str) -> Trace:
    torch.manual_seed(seed)
    encoder, decoder = nn.Linear(16, 8), nn.Linear(4, 16)
    x, _ = _points(seed, 5, 4_000)

    def loss_of(step: int) -> torch.Tensor:
        batch = x[torch.randint(4_000, (BATCH,))]
        mean, log_variance = encoder(batch).chunk(2, 1)
        latent = mean + torch.exp(log_variance / 2) * torch.randn_like(mean)
        kl = 0.5 * (mean**2 + log_variance.exp() - 1 - log_variance).sum(1).mean()
        weight = min(1.0, max(0.0, (step - 100) / 500))
        return 0.5 * ((decoder(latent) - batch) ** 2).sum(1).mean() + weight * kl

    return train(seed, [*encoder.parameters(), *decoder.parameters()], loss_of, np.full(T, 3e-3))


@scenario("trained")
def contrastive_trained(seed: int, fault: str) -> Trace:
    torch.manual_seed(seed)
    model, (x, _) = _classifier(8), _points(seed, 40, 4_000, 0.3)

    def loss_of(step: int) -> torch.Tensor:
        batch = x[torch.randint(4_000, (64,))]
        one, two = (F.normalize(model(batch + 0.3 * torch.randn_like(batch)), dim=1) for _ in range(2))
        return F.cross_entropy(one @ two.T / 0.2, torch.arange(64))

    return train(seed, list(model.parameters()), loss_of, schedule(seed, 3e-3))


@scenario("trained")
def curriculum_trained(seed: int, fault: str) -> Trace:
    """Noise is added to the inputs in three stages."""
    torch.manual_seed(seed)
    model, (x, y) = _classifier(10), _points(seed, 10, 4_000, 0.5)

    def loss_of(step: int) -> torch.Tensor:
        rows = torch.randint(4_000, (BATCH,))
        return F.cross_entropy(model(x[rows] + (3 * step // T) * 1.2 * torch.randn(BATCH, 16)), y[rows])

    return train(seed, list(model.parameters()), loss_of, np.full(T, 1e-3))


@scenario("trained")
def warm_restarts_trained(seed: int, fault: str) -> Trace:
    torch.manual_seed(seed)
    model, (x, y) = _classifier(10), _points(seed, 10, 4_000, 2.0)

    def loss_of(step: int) -> torch.Tensor:
        rows = torch.randint(4_000, (BATCH,))
        return F.cross_entropy(model(x[rows]), y[rows])

    return train(seed, list(model.parameters()), loss_of, schedule(seed, 5e-2, "restarts"))


@scenario("trained")
def hinge_trained(seed: int, fault: str) -> Trace:
    """Few points violate the margin in the end: batches without loss and gradient."""
    torch.manual_seed(seed)
    model, (x, y) = _classifier(2), _points(seed, 2, 4_000, 0.6)

    def loss_of(step: int) -> torch.Tensor:
        rows = torch.randint(4_000, (BATCH,))
        return F.multi_margin_loss(model(x[rows]), y[rows])

    return train(seed, list(model.parameters()), loss_of, np.full(T, 3e-3))
