"""Healthy trainings whose parameters rest, share, move by themselves, or get no gradient for a while."""

from __future__ import annotations

import copy
import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import SGD, Adam, AdamW
from torch.utils.checkpoint import checkpoint

from tests.bench.silent.case import healthy
from tests.bench.silent.script import Script
from tests.bench.silent.toy import CLASSES, FEATURES, Probe, batches, loss_of, mlp, update, weights


def trained(
    script: Script, model: nn.Module, optimizer: torch.optim.Optimizer, steps: int = 24, **watch: Any
) -> Tensor:
    """The plain loop, watched."""
    log = script.log()
    log.watch(model, optimizer, **watch)
    for batch in batches(steps):
        log.step(loss=update(model, optimizer, batch))
    return weights(model)


class LoRA(nn.Module):
    """W x + B A x with W frozen and B at zero: A has no gradient at step 1."""

    def __init__(self, inputs: int, outputs: int, rank: int = 2) -> None:
        super().__init__()
        self.base = nn.Linear(inputs, outputs).requires_grad_(False)
        self.a, self.b = nn.Linear(inputs, rank, bias=False), nn.Linear(rank, outputs, bias=False)
        nn.init.zeros_(self.b.weight)

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x) + self.b(self.a(x))


@healthy("LoRA: the base is frozen, A has a zero gradient at the first step")
def lora(script: Script) -> Tensor:
    model = nn.Sequential(LoRA(FEATURES, 12), nn.ReLU(), LoRA(12, CLASSES))
    return trained(script, model, AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2))


@healthy("LoRA with every parameter given to the optimizer, frozen ones too")
def lora_all_parameters_held(script: Script) -> Tensor:
    model = nn.Sequential(LoRA(FEATURES, 12), nn.ReLU(), LoRA(12, CLASSES))
    return trained(script, model, AdamW(model.parameters(), lr=1e-2, weight_decay=0.1), frozen=["0.base", "2.base"])


class Experts(nn.Module):
    """Top-1 of four experts for each batch: three have no gradient."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = nn.Linear(FEATURES, 4)
        self.experts = nn.ModuleList(nn.Linear(FEATURES, CLASSES) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        share = self.gate(x).softmax(-1).mean(0)
        chosen = int(share.argmax())
        return self.experts[chosen](x) * share[chosen]


@healthy("a mixture of experts: those that no token chose have no gradient")
def mixture_of_experts(script: Script) -> Tensor:
    model = Experts()
    return trained(script, model, Adam(model.parameters(), lr=3e-2))


class ReZero(nn.Module):
    """x + alpha f(x), alpha at zero: f has a zero gradient at step 1."""

    def __init__(self) -> None:
        super().__init__()
        self.alpha, self.block = nn.Parameter(torch.zeros(1)), nn.Linear(FEATURES, FEATURES)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.alpha * torch.tanh(self.block(x))


@healthy("ReZero: the blocks do not move at the first step", "majumderb/rezero")
def rezero(script: Script) -> Tensor:
    model = nn.Sequential(ReZero(), ReZero(), nn.Linear(FEATURES, CLASSES))
    return trained(script, model, SGD(model.parameters(), lr=0.1))


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.mix, self.output = nn.Embedding(40, 8), nn.Linear(8, 8), nn.Linear(8, 40, bias=False)
        self.output.weight = self.embedding.weight

    def forward(self, tokens: Tensor) -> Tensor:
        return self.output(torch.tanh(self.mix(self.embedding(tokens))))


@healthy("tied weights: one tensor under two names, rare tokens without a gradient of the input side")
def tied_weights(script: Script) -> Tensor:
    model = Tied()
    optimizer = AdamW(model.parameters(), lr=1e-2)
    log = script.log()
    log.watch(model, optimizer)
    for step in range(24):
        tokens = torch.randint(0, 5, (8,), generator=torch.Generator().manual_seed(step))
        optimizer.zero_grad()
        loss = F.cross_entropy(model(tokens), (tokens + 1) % 40)
        loss.backward()
        optimizer.step()
        log.step(loss=loss)
    return weights(model)


@healthy(
    "a GAN: the generator's backward pass puts gradients on the discriminator, cleared before its own",
    "pytorch/examples",
)
def gan(script: Script) -> Tensor:
    generator, critic = nn.Linear(4, 6), nn.Sequential(nn.Linear(6, 8), nn.LeakyReLU(0.2), nn.Linear(8, 1))
    of_g, of_d = Adam(generator.parameters(), lr=1e-3), Adam(critic.parameters(), lr=1e-3)
    log = script.log()
    log.watch([generator, critic], [of_g, of_d])
    for x, _ in batches(24):
        fake = generator(torch.randn(len(x), 4))
        of_d.zero_grad()
        loss_d = F.softplus(-critic(x)).mean() + F.softplus(critic(fake.detach())).mean()
        loss_d.backward()
        of_d.step()
        of_g.zero_grad()
        loss_g = F.softplus(-critic(fake)).mean()
        loss_g.backward()
        of_g.step()
        log.step(loss=loss_g)
    return weights(generator, critic)


@healthy(
    "WGAN: five steps of the critic to one of the generator, the critic's weights clamped after each",
    "martinarjovsky/WassersteinGAN",
)
def wgan_with_clamped_weights(script: Script) -> Tensor:
    generator, critic = nn.Linear(4, 6), nn.Sequential(nn.Linear(6, 8), nn.LeakyReLU(0.2), nn.Linear(8, 1))
    of_g, of_d = torch.optim.RMSprop(generator.parameters(), lr=5e-4), torch.optim.RMSprop(critic.parameters(), lr=5e-4)
    log = script.log()
    log.watch([generator, critic], [of_g, of_d])
    for number, (x, _) in enumerate(batches(60), start=1):
        of_d.zero_grad()
        fake = generator(torch.randn(len(x), 4)).detach()
        (critic(fake).mean() - critic(x).mean()).backward()
        of_d.step()
        with torch.no_grad():
            for p in critic.parameters():
                p.clamp_(-0.01, 0.01)
        if number % 5 == 0:
            of_g.zero_grad()
            loss = -critic(generator(torch.randn(len(x), 4))).mean()
            loss.backward()
            of_g.step()
            log.step(loss=loss)
    return weights(generator, critic)


@healthy("BYOL: the target network has no gradient and is moved by an average", "lucidrains/byol-pytorch")
def byol(script: Script) -> Tensor:
    online, predictor = mlp(), nn.Linear(CLASSES, CLASSES)
    target = copy.deepcopy(online).requires_grad_(False)
    model = nn.ModuleDict({"online": online, "predictor": predictor, "target": target})
    optimizer = Adam([*online.parameters(), *predictor.parameters()], lr=1e-2)
    log = script.log()
    log.watch(model, optimizer)
    for x, _ in batches(24):
        optimizer.zero_grad()
        seen = predictor(online(x + 0.1 * torch.randn_like(x)))
        with torch.no_grad():
            wanted = target(x + 0.1 * torch.randn_like(x))
        loss = 2 - 2 * F.cosine_similarity(seen, wanted).mean()
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            for t, o in zip(target.parameters(), online.parameters()):
                t.mul_(0.98).add_(o, alpha=0.02)
        log.step(loss=loss)
    return weights(model)


@healthy("layers unfreeze one after the other and join the optimizer as new groups")
def gradual_unfreezing(script: Script) -> Tensor:
    model = nn.Sequential(nn.Linear(FEATURES, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, CLASSES))
    model.requires_grad_(False)
    model[4].requires_grad_(True)
    optimizer = SGD(model[4].parameters(), lr=0.1, momentum=0.9)
    log = script.log()
    log.watch(model, optimizer)
    for step, batch in enumerate(batches(30), start=1):
        if step in (11, 21):
            layer = model[2 if step == 11 else 0].requires_grad_(True)
            optimizer.add_param_group({"params": list(layer.parameters()), "lr": 0.03})
        log.step(loss=update(model, optimizer, batch))
    return weights(model)


@healthy("a frozen backbone in eval mode below a head that trains")
def linear_probe(script: Script) -> Tensor:
    model = Probe()
    model.backbone.requires_grad_(False)
    model.train()
    model.backbone.eval()
    return trained(script, model, SGD(model.head.parameters(), lr=0.1, momentum=0.9), frozen=["backbone"])


@healthy("fine-tuning with batch normalisation in eval mode from the first step on")
def batchnorm_in_eval_mode(script: Script) -> Tensor:
    model = Probe()
    model.train()
    model.backbone[1].eval()
    return trained(script, model, AdamW(model.parameters(), lr=1e-2))


class Weighed(nn.Module):
    """A loss with parameters of its own: log variances of two tasks."""

    def __init__(self) -> None:
        super().__init__()
        self.log_variance = nn.Parameter(torch.zeros(2))

    def forward(self, *losses: Tensor) -> Tensor:
        return sum((torch.exp(-v) * each + v for v, each in zip(self.log_variance, losses)), torch.zeros(()))


@healthy("losses weighed by parameters that belong to no watched model", "yaringal/multi-task-learning-example")
def loss_with_parameters_of_its_own(script: Script) -> Tensor:
    model, weighing = mlp(), Weighed()
    optimizer = Adam([*model.parameters(), *weighing.parameters()], lr=1e-2)
    log = script.log()
    log.watch(model, optimizer)
    for x, y in batches(24):
        optimizer.zero_grad()
        out = model(x)
        loss = weighing(F.cross_entropy(out, y), out.pow(2).mean())
        loss.backward()
        optimizer.step()
        log.step(loss=loss)
    return weights(model, weighing)


@healthy("a reentrant checkpoint over a block that is used three times")
def checkpointed_shared_block(script: Script) -> Tensor:
    first, block, head = nn.Linear(FEATURES, 8), nn.Sequential(nn.Linear(8, 8), nn.Tanh()), nn.Linear(8, CLASSES)
    model = nn.ModuleList([first, block, head])
    optimizer = Adam(model.parameters(), lr=1e-2)
    log = script.log()
    log.watch(model, optimizer)
    for x, y in batches(24):
        optimizer.zero_grad()
        hidden = first(x)
        for _ in range(3):
            hidden = checkpoint(block, hidden, use_reentrant=True)
        loss = F.cross_entropy(head(hidden), y)
        loss.backward()
        optimizer.step()
        log.step(loss=loss)
    return weights(model)


@healthy("checkpointing that is not reentrant, with dropout inside")
def checkpointed_with_dropout(script: Script) -> Tensor:
    first, head = nn.Linear(FEATURES, 8), nn.Linear(8, CLASSES)
    block = nn.Sequential(nn.Linear(8, 8), nn.Dropout(0.3), nn.Tanh())
    model = nn.ModuleList([first, block, head])
    optimizer = SGD(model.parameters(), lr=0.1)
    log = script.log()
    log.watch(model, optimizer)
    for x, y in batches(24):
        optimizer.zero_grad()
        loss = F.cross_entropy(head(checkpoint(block, first(x), use_reentrant=False)), y)
        loss.backward()
        optimizer.step()
        log.step(loss=loss)
    return weights(model)


@healthy("truncated backpropagation through time: the hidden state is kept and detached", "pytorch/examples")
def truncated_backpropagation(script: Script) -> Tensor:
    cell, head = nn.GRUCell(FEATURES, 8), nn.Linear(8, CLASSES)
    model = nn.ModuleDict({"cell": cell, "head": head})
    optimizer = SGD(model.parameters(), lr=0.1)
    log = script.log()
    log.watch(model, optimizer, clip=1.0)
    hidden = torch.zeros(8, 8)
    for step in range(24):
        hidden = hidden.detach()
        optimizer.zero_grad()
        loss = torch.zeros(())
        for x, y in batches(3, seed=step):
            hidden = cell(x, hidden)
            loss = loss + F.cross_entropy(head(hidden), y)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        log.step(loss=loss)
    return weights(model)


@healthy("noise of Langevin dynamics is added to the weights after each step")
def langevin_noise(script: Script) -> Tensor:
    model = mlp()
    optimizer = SGD(model.parameters(), lr=0.05)
    log = script.log()
    log.watch(model, optimizer)
    for batch in batches(24):
        loss = update(model, optimizer, batch)
        with torch.no_grad():
            for p in model.parameters():
                p.add_(torch.randn_like(p), alpha=math.sqrt(2 * 0.05 * 1e-4))
        log.step(loss=loss)
    return weights(model)


@healthy("sparse gradients of an embedding under SparseAdam, dense ones under Adam")
def sparse_embedding(script: Script) -> Tensor:
    embedding, head = nn.Embedding(50, 8, sparse=True), nn.Linear(8, CLASSES)
    model = nn.ModuleDict({"embedding": embedding, "head": head})
    optimizers = [torch.optim.SparseAdam(embedding.parameters(), lr=1e-2), Adam(head.parameters(), lr=1e-2)]
    log = script.log()
    log.watch(model, optimizers)
    for step in range(24):
        tokens = torch.randint(0, 50, (8,), generator=torch.Generator().manual_seed(step))
        for optimizer in optimizers:
            optimizer.zero_grad()
        loss = F.cross_entropy(head(embedding(tokens)), tokens % CLASSES)
        loss.backward()
        for optimizer in optimizers:
            optimizer.step()
        log.step(loss=loss)
    return weights(model)


@healthy("pruned weights are set back to zero after each step")
def pruned_weights(script: Script) -> Tensor:
    model = mlp()
    masks = {name: (p.abs() > p.abs().median()).float() for name, p in model.named_parameters() if p.ndim > 1}
    optimizer = SGD(model.parameters(), lr=0.1, momentum=0.9)
    log = script.log()
    log.watch(model, optimizer)
    for batch in batches(24):
        loss = update(model, optimizer, batch)
        with torch.no_grad():
            for name, p in model.named_parameters():
                if name in masks:
                    p.mul_(masks[name])
        log.step(loss=loss)
    assert loss_of(model, next(batches(1))).isfinite()
    return weights(model)
