"""Healthy trainings whose models or averages are unusual on purpose."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import SGD, Adam, AdamW

from tests.bench.silent.case import healthy
from tests.bench.silent.script import Script
from tests.bench.silent.toy import CLASSES, FEATURES, Probe, batches, loss_of, mlp, points, scored, update, weights


class LowRank(nn.Module):
    """A frozen layer with a trainable path of rank 2, which can be merged into it."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.base = nn.Linear(inputs, outputs).requires_grad_(False)
        self.down, self.up = nn.Linear(inputs, 2, bias=False), nn.Linear(2, outputs, bias=False)
        nn.init.zeros_(self.up.weight)

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x) + self.up(self.down(x))

    @torch.no_grad()
    def merge(self) -> None:
        self.base.weight += self.up.weight @ self.down.weight
        nn.init.kaiming_uniform_(self.down.weight)
        nn.init.zeros_(self.up.weight)


@healthy("adapters are merged into the frozen weights every ten steps, begun anew, and the moments pruned (ReLoRA)")
def adapters_merged_and_begun_anew(script: Script) -> Tensor:
    model = nn.Sequential(LowRank(FEATURES, 12), nn.Tanh(), nn.Linear(12, CLASSES))
    optimizer = AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    log = script.log()
    log.watch(model, optimizer)
    for step, batch in enumerate(batches(30), start=1):
        log.step(loss=update(model, optimizer, batch))
        if step % 10 == 0:
            model[0].merge()
            for p in (model[0].down.weight, model[0].up.weight):
                for name in ("exp_avg", "exp_avg_sq"):
                    optimizer.state[p][name].mul_(0.1)
    return weights(model)


@healthy(
    "a frozen backbone in train mode whose batch norms have a momentum of zero: the statistics stay, a counter does not"
)
def statistics_held_by_momentum_zero(script: Script) -> Tensor:
    model = Probe()
    model.backbone.requires_grad_(False)
    model.backbone[1].momentum = 0.0
    optimizer = SGD(model.head.parameters(), lr=0.1)
    log = script.log()
    log.watch(model, optimizer, frozen=["backbone"])
    for batch in batches(26):
        log.step(loss=update(model, optimizer, batch))
    return weights(model)


@healthy("batch norms with cumulative averages (momentum=None), reset before each evaluation's calibration")
def cumulative_statistics(script: Script) -> Tensor:
    model = nn.Sequential(nn.Linear(FEATURES, 12), nn.BatchNorm1d(12, momentum=None), nn.ReLU(), nn.Linear(12, CLASSES))
    optimizer = Adam(model.parameters(), lr=1e-2)
    log = script.log()
    log.watch(model, optimizer)
    for epoch in range(3):
        model.train()
        for batch in batches(8, seed=epoch):
            log.step(loss=update(model, optimizer, batch))
        model[1].reset_running_stats()
        with torch.no_grad():
            for x, _ in batches(4, seed=50 + epoch):
                model(x)
        model.eval()
        with log.evaluating():
            value = scored(model)
        log.eval(loss=value)
    return weights(model)


@healthy("a network makes the weights of another: those of the other are no parameters")
def weights_made_by_a_network(script: Script) -> Tensor:
    maker, main = nn.Linear(3, FEATURES * CLASSES), nn.Linear(FEATURES, CLASSES, bias=False)
    main.requires_grad_(False)
    optimizer = Adam(maker.parameters(), lr=1e-2)
    log = script.log()
    log.watch([maker, main], optimizer)
    for step, (x, y) in enumerate(batches(26)):
        made = maker(F.one_hot(torch.tensor(step % 3), 3).float()).reshape(CLASSES, FEATURES)
        loss = F.cross_entropy(torch.func.functional_call(main, {"weight": made}, x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        log.step(loss=loss)
    return weights(maker)


@healthy(
    "after each step the rows of a layer are scaled down to a norm of one (EEGNet's constraint)",
    "vlawhern/arl-eegmodels",
)
def rows_scaled_to_a_norm(script: Script) -> Tensor:
    model = mlp()
    optimizer = Adam(model.parameters(), lr=1e-2)
    log = script.log()
    log.watch(model, optimizer)
    for batch in batches(26):
        loss = update(model, optimizer, batch)
        with torch.no_grad():
            model[2].weight.copy_(torch.renorm(model[2].weight, p=2, dim=0, maxnorm=0.5))
        log.step(loss=loss)
    return weights(model)


@healthy("an average that copies the weights for ten steps and follows them afterwards, declared so")
def average_that_begins_late(script: Script) -> Tensor:
    model = Probe()
    averaged = copy.deepcopy(model).requires_grad_(False)
    optimizer = AdamW(model.parameters(), lr=1e-2)
    log = script.log()
    log.watch(model, optimizer)
    log.ema(averaged, lambda step: 0.0 if step <= 10 else 0.95)
    for step, batch in enumerate(batches(28), start=1):
        loss = update(model, optimizer, batch)
        decay = 0.0 if step <= 10 else 0.95
        with torch.no_grad():
            for a, p in zip(averaged.parameters(), model.parameters()):
                a.copy_(decay * a + (1 - decay) * p)
            for a, b in zip(averaged.buffers(), model.buffers()):
                a.copy_(b)
        log.step(loss=loss)
    return weights(model, averaged)


@healthy("an average by a power of the step (EDM2), declared as a function, the batch statistics copied")
def average_by_a_power(script: Script) -> Tensor:
    def decay(step: int) -> float:
        return (1 - 1 / step) ** 7.94

    model = mlp()
    averaged = copy.deepcopy(model).requires_grad_(False)
    optimizer = Adam(model.parameters(), lr=1e-2)
    log = script.log()
    log.watch(model, optimizer)
    log.ema(averaged, decay)
    for step, batch in enumerate(batches(28), start=1):
        loss = update(model, optimizer, batch)
        with torch.no_grad():
            for a, p in zip(averaged.parameters(), model.parameters()):
                a.lerp_(p, 1 - decay(step))
        log.step(loss=loss)
    return weights(model, averaged)


class Rounded(nn.Module):
    """A layer whose output is rounded to 16 levels of a range that it follows in train mode."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(FEATURES, 12)
        self.register_buffer("reach", torch.ones(()))

    def forward(self, x: Tensor) -> Tensor:
        x = self.layer(x)
        if self.training:
            with torch.no_grad():
                self.reach.lerp_(x.abs().max(), 0.1)
        grid = self.reach / 8
        return x + ((x / grid).round().clamp(-8, 7) * grid - x).detach()


@healthy("quantisation-aware training: rounded outputs, a straight-through gradient, a range that follows")
def rounded_with_a_range(script: Script) -> Tensor:
    model = nn.Sequential(Rounded(), nn.ReLU(), nn.Linear(12, CLASSES))
    optimizer = SGD(model.parameters(), lr=0.1, momentum=0.9)
    log = script.log()
    log.watch(model, optimizer)
    for epoch in range(3):
        model.train()
        for batch in batches(8, seed=epoch):
            log.step(loss=update(model, optimizer, batch))
        model.eval()
        with log.evaluating():
            value = scored(model)
        log.eval(loss=value)
    return weights(model)


@healthy("prompt tuning: a model in eval mode and frozen, a few vectors in front of its input train")
def vectors_in_front_of_the_input(script: Script) -> Tensor:
    class Prompted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = nn.GRU(FEATURES, 8, batch_first=True, dropout=0.2, num_layers=2).requires_grad_(False).eval()
            self.head = nn.Linear(8, CLASSES).requires_grad_(False)
            self.prompt = nn.Parameter(torch.zeros(3, FEATURES))

        def train(self, mode: bool = True) -> Prompted:
            super().train(mode)
            self.model.eval()
            return self

        def forward(self, x: Tensor) -> Tensor:
            whole = torch.cat([self.prompt.expand(len(x), 3, FEATURES), x[:, None]], 1)
            return self.head(self.model(whole)[0][:, -1])

    model = Prompted()
    optimizer = Adam([model.prompt], lr=3e-2)
    log = script.log()
    log.watch(model, optimizer, frozen=["model", "head"])
    for epoch in range(3):
        model.train()
        for batch in batches(8, seed=epoch):
            log.step(loss=update(model, optimizer, batch))
        model.eval()
        with log.evaluating():
            value = scored(model)
        log.eval(loss=value)
    return weights(model)


@healthy("the average of the last three epochs' weights is put into the model, which trains on from there")
def average_of_epochs_put_in(script: Script) -> Tensor:
    model = mlp()
    optimizer = SGD(model.parameters(), lr=0.2, momentum=0.9)
    log = script.log()
    log.watch(model, optimizer)
    kept: list[dict[str, Tensor]] = []
    for epoch in range(5):
        for batch in batches(6, seed=epoch):
            log.step(loss=update(model, optimizer, batch))
        kept.append(copy.deepcopy(model.state_dict()))
        if epoch == 2:
            model.load_state_dict({k: torch.stack([state[k] for state in kept]).mean(0) for k in kept[0]})
    return weights(model)


@healthy("an ensemble: three models, each with an optimizer, on the batches of one loop, one of them with another rate")
def ensemble_in_one_loop(script: Script) -> Tensor:
    members = [mlp(8 + 4 * i) for i in range(3)]
    optimizers = [Adam(member.parameters(), lr=1e-2 / (1 + i)) for i, member in enumerate(members)]
    log = script.log()
    log.watch(members, optimizers)
    for batch in batches(26):
        losses = [update(member, optimizer, batch) for member, optimizer in zip(members, optimizers)]
        log.step(loss=torch.stack(losses).mean())
    return weights(*members)


@healthy(
    "a head of its own for each subject of a batch: those that are not in it have no gradient, the body always has"
)
def head_for_each_subject(script: Script) -> Tensor:
    class Heads(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Linear(FEATURES, 8)
            self.heads = nn.ModuleList(nn.Linear(8, CLASSES) for _ in range(4))

        def forward(self, x: Tensor, subject: int) -> Tensor:
            return self.heads[subject](self.body(x).relu())

    model = Heads()
    optimizer = AdamW(model.parameters(), lr=1e-2)
    log = script.log()
    log.watch(model, optimizer)
    for step, (x, y) in enumerate(batches(28)):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x, step % 4), y)
        loss.backward()
        optimizer.step()
        log.step(loss=loss)
    return weights(model)


@healthy(
    "weights that are standardised in the forward pass, a gain that begins at zero, a layer behind a stop-gradient"
)
def standardised_weights_and_a_stop(script: Script) -> Tensor:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(FEATURES, 12), nn.Linear(12, CLASSES)
            self.gain, self.monitor = nn.Parameter(torch.zeros(())), nn.Linear(12, CLASSES)

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            w = self.first.weight
            w = (w - w.mean(1, keepdim=True)) / (w.std(1, keepdim=True) + 1e-5)
            h = F.linear(x, w, self.first.bias).relu()
            return self.second(h * (1 + self.gain)), self.monitor(h.detach())

    model = Net()
    optimizer = SGD(model.parameters(), lr=0.05)
    log = script.log()
    log.watch(model, optimizer)
    for x, y in batches(26):
        main, aside = model(x)
        optimizer.zero_grad()
        loss = F.cross_entropy(main, y) + F.cross_entropy(aside, y)
        loss.backward()
        optimizer.step()
        log.step(loss=loss)
    return weights(model)


@healthy("the optimizer is made anew at the second of two stages, which trains all that the first left frozen")
def second_stage_with_a_new_optimizer(script: Script) -> Tensor:
    model: Any = Probe()
    model.backbone.requires_grad_(False).eval()
    log = script.log()
    head = AdamW(model.head.parameters(), lr=1e-2)
    everything = AdamW(model.parameters(), lr=1e-3)
    log.watch(model, [head, everything])
    for step, batch in enumerate(batches(30)):
        if step == 15:
            model.backbone.requires_grad_(True)
            model.train()
        log.step(loss=update(model, head if step < 15 else everything, batch))
    assert loss_of(model, points(4)).isfinite()
    return weights(model)
