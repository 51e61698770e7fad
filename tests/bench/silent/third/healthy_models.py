"""Healthy trainings whose models, averages or evaluations are unusual on purpose."""

from __future__ import annotations

import copy
import math
import random

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import prune
from torch.nn.utils.parametrizations import orthogonal
from torch.optim import SGD, Adam, AdamW
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from tests.bench.silent.case import healthy
from tests.bench.silent.script import Script
from tests.bench.silent.toy import (
    CLASSES,
    FEATURES,
    Probe,
    batches,
    mlp,
    points,
    scored,
    update,
    weights,
)


class LowRank(nn.Module):
    """A frozen layer with a trainable path of rank 2 beside it."""

    def __init__(self, base: nn.Linear) -> None:
        super().__init__()
        self.base = base.requires_grad_(False)
        self.down, self.up = nn.Linear(base.in_features, 2, bias=False), nn.Linear(2, base.out_features, bias=False)
        nn.init.zeros_(self.up.weight)

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x) + self.up(self.down(x))


@healthy(
    "adapters are put into the model in the middle of the run, the layer below them is frozen, the optimizer gets them"
)
def adapters_put_in_late(script: Script) -> Tensor:
    model = mlp()
    optimizer = AdamW(model.parameters(), lr=1e-2)
    log = script.log()
    log.watch(model, optimizer)
    for step, batch in enumerate(batches(28)):
        if step == 14:
            optimizer.zero_grad()
            model[0] = LowRank(model[0])
            optimizer.add_param_group({"params": [*model[0].down.parameters(), *model[0].up.parameters()]})
        log.step(loss=update(model, optimizer, batch))
    return weights(model)


@healthy("Bayesian dropout: the evaluation draws its masks on purpose and averages over them")
def bayesian_dropout(script: Script) -> Tensor:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.head = nn.Linear(FEATURES, 16), nn.Linear(16, CLASSES)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(F.dropout(self.body(x).relu(), 0.2, training=True))

    model = Net()
    optimizer = Adam(model.parameters(), lr=1e-2)
    log = script.log()
    log.watch(model, optimizer)
    for epoch in range(3):
        model.train()
        for batch in batches(8, seed=epoch):
            log.step(loss=update(model, optimizer, batch))
        model.eval()
        with log.evaluating():
            value = sum(scored(model) for _ in range(5)) / 5
        log.eval(loss=value)
    return weights(model)


@healthy("the tensors of the average are put behind the parameters for an evaluation (p.data), and back")
def average_swapped_by_pointer(script: Script) -> Tensor:
    model = Probe()
    averaged = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.9), use_buffers=True)
    optimizer = SGD(model.parameters(), lr=0.1, momentum=0.9)
    log = script.log()
    log.watch(model, optimizer)
    for epoch in range(4):
        model.train()
        for batch in batches(7, seed=epoch):
            loss = update(model, optimizer, batch)
            averaged.update_parameters(model)
            log.step(loss=loss)
        model.eval()
        with log.evaluating():
            pairs = list(zip(model.parameters(), averaged.module.parameters()))
            for p, a in pairs:
                p.data, a.data = a.data, p.data
            value = scored(model)
            for p, a in pairs:
                p.data, a.data = a.data, p.data
        log.eval(loss=value)
    return weights(model, averaged.module)


@healthy("pruning by torch.nn.utils.prune: weights become masked copies of weight_orig, and are made permanent later")
def pruned_and_made_permanent(script: Script) -> Tensor:
    model = mlp()
    optimizer = SGD(model.parameters(), lr=0.1, momentum=0.9)
    log = script.log()
    log.watch(model, optimizer)
    for step, batch in enumerate(batches(30)):
        if step == 10:
            prune.l1_unstructured(model[0], "weight", amount=0.5)
        if step == 22:
            prune.remove(model[0], "weight")
            held = {id(p) for group in optimizer.param_groups for p in group["params"]}
            optimizer.add_param_group({"params": [p for p in model.parameters() if id(p) not in held]})
        log.step(loss=update(model, optimizer, batch))
    return weights(model)


@healthy(
    "Q learning: a replay buffer drawn from at random, a target network copied every six steps, steps before it is full left out"
)
def replay_buffer(script: Script) -> Tensor:
    online = mlp()
    target = copy.deepcopy(online).requires_grad_(False)
    optimizer = Adam(online.parameters(), lr=3e-3)
    log = script.log()
    log.watch(online, optimizer, clip=10.0)
    log.ema(target, lambda step: 0.0 if step % 6 == 0 else None)
    draw, memory, steps = random.Random(3), [], 0
    for number in range(44):
        x, action = points(1, number)
        memory.append((x[0], action[0], float(x.sum()), points(1, number + 1)[0][0]))
        if len(memory) < 12:
            continue
        chosen = draw.sample(memory, 8)
        state, following = torch.stack([m[0] for m in chosen]), torch.stack([m[3] for m in chosen])
        action, reward = torch.stack([m[1] for m in chosen]), torch.tensor([m[2] for m in chosen])
        aim = reward + 0.9 * target(following).max(1).values
        loss = F.smooth_l1_loss(online(state).gather(1, action[:, None]).squeeze(1), aim)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(online.parameters(), 10.0)
        optimizer.step()
        steps += 1
        if steps % 6 == 0:
            target.load_state_dict(online.state_dict())
        log.step(loss=loss)
    return weights(online, target)


@healthy(
    "self-distillation with a declared decay and a declared ramp of the teacher's average (DINO)",
    "facebookresearch/dino",
)
def declared_ramps(script: Script) -> Tensor:
    def ramp(low: float, high: float, step: int) -> float:
        return high - (high - low) * (1 + math.cos(math.pi * (step - 1) / 30)) / 2

    student = mlp()
    teacher = copy.deepcopy(student).requires_grad_(False)
    optimizer = AdamW(student.parameters(), lr=1e-2)
    log = script.log(total_steps=30)
    log.watch(student, optimizer, scheduled={"weight_decay": lambda step, group: ramp(0.04, 0.4, step)})  # noqa: ARG005
    log.ema(teacher, lambda step: ramp(0.9, 1.0, step))
    for step, (x, _) in enumerate(batches(30), start=1):
        for group in optimizer.param_groups:
            group["weight_decay"] = ramp(0.04, 0.4, step)
        optimizer.zero_grad()
        aim = (teacher(x + 0.1 * torch.randn_like(x)) / 0.5).softmax(1)
        loss = -(aim * student(x + 0.1 * torch.randn_like(x)).log_softmax(1)).sum(1).mean()
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            for t, p in zip(teacher.parameters(), student.parameters()):
                t.mul_(ramp(0.9, 1.0, step)).add_(p, alpha=1 - ramp(0.9, 1.0, step))
        log.step(loss=loss)
    return weights(student, teacher)


@healthy("layers are dropped at random in training: those have no gradient in some of the steps")
def stochastic_depth(script: Script) -> Tensor:
    class Deep(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.blocks = nn.ModuleList(nn.Linear(FEATURES, FEATURES) for _ in range(4))
            self.head = nn.Linear(FEATURES, CLASSES)

        def forward(self, x: Tensor) -> Tensor:
            for block in self.blocks:
                if not self.training or float(torch.rand(())) > 0.5:
                    x = x + torch.tanh(block(x))
            return self.head(x)

    model = Deep()
    optimizer = AdamW(model.parameters(), lr=1e-2)
    log = script.log()
    log.watch(model, optimizer)
    for batch in batches(28):
        log.step(loss=update(model, optimizer, batch))
    return weights(model)


@healthy("an embedding with max_norm: the forward pass itself rescales rows of the weight")
def embedding_with_max_norm(script: Script) -> Tensor:
    model = nn.Sequential(nn.Embedding(20, 8, padding_idx=0, max_norm=1.0), nn.Linear(8, 20))
    optimizer = SGD(model.parameters(), lr=0.5)
    log = script.log()
    log.watch(model, optimizer)
    for step in range(26):
        tokens = torch.randint(0, 20, (12,), generator=torch.Generator().manual_seed(step))
        optimizer.zero_grad()
        loss = F.cross_entropy(model(tokens), (tokens + 1) % 20)
        loss.backward()
        optimizer.step()
        log.step(loss=loss)
    return weights(model)


@healthy(
    "vector quantisation: the code book is a buffer that an average in the forward pass moves",
    "lucidrains/vector-quantize-pytorch",
)
def code_book_by_averages(script: Script) -> Tensor:
    class Quantised(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder, self.decoder = nn.Linear(FEATURES, 4), nn.Linear(4, FEATURES)
            self.register_buffer("codes", torch.randn(8, 4))

        def forward(self, x: Tensor) -> Tensor:
            z = self.encoder(x)
            nearest = torch.cdist(z, self.codes).argmin(1)
            if self.training:
                with torch.no_grad():
                    hit = F.one_hot(nearest, 8).float()
                    mean = hit.T @ z / hit.sum(0).clamp(min=1)[:, None]
                    self.codes.lerp_(torch.where(hit.sum(0)[:, None] > 0, mean, self.codes), 0.1)
            return self.decoder(z + (self.codes[nearest] - z).detach())

    model = Quantised()
    optimizer = Adam(model.parameters(), lr=1e-2)
    log = script.log()
    log.watch(model, optimizer)
    for x, _ in batches(26):
        optimizer.zero_grad()
        loss = F.mse_loss(model(x), x)
        loss.backward()
        optimizer.step()
        log.step(loss=loss)
    return weights(model)


@healthy(
    "an orthogonal layer by parametrization, and the old weight_norm whose weight is made anew in each forward pass"
)
def orthogonal_and_old_weight_norm(script: Script) -> Tensor:
    model = nn.Sequential(
        orthogonal(nn.Linear(FEATURES, FEATURES)), nn.Tanh(), nn.utils.weight_norm(nn.Linear(FEATURES, CLASSES))
    )
    optimizer = Adam(model.parameters(), lr=1e-2)
    log = script.log()
    log.watch(model, optimizer)
    for batch in batches(26):
        log.step(loss=update(model, optimizer, batch))
    return torch.cat([p.detach().reshape(-1).double() for p in model.parameters()])


@healthy("the model becomes double in the middle of the run: the same parameters with other data")
def made_double_in_the_middle(script: Script) -> Tensor:
    model = mlp()
    optimizer = SGD(model.parameters(), lr=0.1)
    log = script.log()
    log.watch(model, optimizer)
    for step, (x, y) in enumerate(batches(26)):
        if step == 12:
            optimizer.zero_grad()
            model.double()
        log.step(loss=update(model, optimizer, (x.double() if step >= 12 else x, y)))
    return weights(model)


@healthy("each layer has a loss, an optimizer and a detached input of its own", "forward-forward")
def layers_trained_on_their_own(script: Script) -> Tensor:
    layers = nn.ModuleList([nn.Linear(FEATURES, 12), nn.Linear(12, 12)])
    optimizers = [Adam(layer.parameters(), lr=1e-2) for layer in layers]
    log = script.log()
    log.watch(layers, optimizers)
    for x, y in batches(26):
        good, bad = x + F.one_hot(y, FEATURES), x + F.one_hot((y + 1) % CLASSES, FEATURES)
        for layer, optimizer in zip(layers, optimizers):
            good, bad = layer(good).relu(), layer(bad).relu()
            loss = F.softplus(torch.cat([2 - good.pow(2).mean(1), bad.pow(2).mean(1) - 2])).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            good, bad = good.detach(), bad.detach()
        log.step(loss=loss)
    return weights(layers)
