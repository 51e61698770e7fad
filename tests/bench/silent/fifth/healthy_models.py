"""Healthy trainings of unusual models: masks, parametrizations, stages, copies, several networks."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm, weight_norm
from torch.optim import SGD, Adam, AdamW

from tests.bench.silent.case import healthy
from tests.bench.silent.script import Script
from tests.bench.silent.toy import CLASSES, FEATURES, Probe, batches, loss_of, mlp, points, scored, update, weights


@healthy("noisy weights: the forward pass is called with parameters plus noise (functional_call)")
def forward_with_noisy_weights(script: Script) -> Tensor:
    model = mlp()
    optimizer = AdamW(model.parameters(), lr=1e-2)
    log = script.log()
    log.watch(model, optimizer)
    for x, y in batches(26):
        optimizer.zero_grad()
        noisy = {name: p + 0.01 * torch.randn_like(p) for name, p in model.named_parameters()}
        loss = F.cross_entropy(functional_call(model, noisy, (x,)), y)
        loss.backward()
        optimizer.step()
        log.step(loss=loss)
    return weights(model)


@healthy("learned inner rates: each tensor has a rate, trained through an inner step (Meta-SGD)")
def learned_inner_rates(script: Script) -> Tensor:
    model = mlp()
    names = [name for name, _ in model.named_parameters()]
    rates = nn.ParameterList(nn.Parameter(torch.full_like(p, 0.05)) for p in model.parameters())
    optimizer = Adam([*model.parameters(), *rates], lr=3e-3)
    log = script.log()
    log.watch([model, rates], optimizer)
    for step in range(26):
        optimizer.zero_grad()
        (x, y), (x2, y2) = points(8, 2 * step), points(8, 2 * step + 1)
        held = dict(model.named_parameters())
        grads = torch.autograd.grad(F.cross_entropy(model(x), y), list(held.values()), create_graph=True)
        fast = {name: held[name] - rate * g for name, rate, g in zip(names, rates, grads)}
        loss = F.cross_entropy(functional_call(model, fast, (x2,)), y2)
        loss.backward()
        optimizer.step()
        log.step(loss=loss)
    return weights(model, rates)


@healthy("lazy modules: the first batch gives the shapes before the optimizer is made")
def shapes_by_the_first_batch(script: Script) -> Tensor:
    model = nn.Sequential(nn.LazyLinear(12), nn.LazyBatchNorm1d(), nn.ReLU(), nn.LazyLinear(CLASSES))
    with torch.no_grad():
        model(points(8, 1)[0])
    optimizer = Adam(model.parameters(), lr=1e-2)
    log = script.log()
    log.watch(model, optimizer)
    for batch in batches(26):
        log.step(loss=update(model, optimizer, batch))
    return weights(model)


@healthy("a discriminator with spectral norms: power iterations move buffers in each forward pass in train mode")
def spectral_norms_in_a_gan(script: Script) -> Tensor:
    generator = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, FEATURES))
    judge = nn.Sequential(spectral_norm(nn.Linear(FEATURES, 8)), nn.LeakyReLU(0.2), spectral_norm(nn.Linear(8, 1)))
    of_g, of_d = (Adam(part.parameters(), lr=1e-3, betas=(0.0, 0.9)) for part in (generator, judge))
    log = script.log()
    log.watch([generator, judge], [of_g, of_d])
    for x, _ in batches(26):
        of_d.zero_grad()
        fake = generator(torch.randn(8, 4))
        (F.relu(1 - judge(x)).mean() + F.relu(1 + judge(fake.detach())).mean()).backward()
        of_d.step()
        of_g.zero_grad()
        loss = -judge(fake).mean()
        loss.backward()
        of_g.step()
        log.step(loss=loss)
    return weights(generator, judge)


@healthy("weights by length and direction, and two layers that share one of them (weight_norm and tying)")
def lengths_and_directions_shared(script: Script) -> Tensor:
    layer = weight_norm(nn.Linear(FEATURES, FEATURES))
    model = nn.Sequential(layer, nn.Tanh(), layer, nn.Tanh(), nn.Linear(FEATURES, CLASSES))
    optimizer = AdamW(model.parameters(), lr=1e-2)
    log = script.log()
    log.watch(model, optimizer)
    for batch in batches(26):
        log.step(loss=update(model, optimizer, batch))
    return weights(model)


class LearnedSteps(nn.Module):
    """A linear layer whose weights are rounded to a step width that is learned too (LSQ)."""

    def __init__(self, inp: int, out: int) -> None:
        super().__init__()
        self.inner = nn.Linear(inp, out)
        self.width = nn.Parameter(2 * self.inner.weight.detach().abs().mean() / 7**0.5)

    def forward(self, x: Tensor) -> Tensor:
        scale = 1 / (self.inner.weight.numel() * 7) ** 0.5
        width = (self.width - self.width * scale).detach() + self.width * scale
        level = (self.inner.weight / width).clamp(-8, 7)
        rounded = (level.round() - level).detach() + level
        return F.linear(x, rounded * width, self.inner.bias)


@healthy("quantisation with learned steps: the width of the steps has a gradient that is scaled in the forward pass")
def learned_steps_of_quantisation(script: Script) -> Tensor:
    model = nn.Sequential(LearnedSteps(FEATURES, 12), nn.ReLU(), LearnedSteps(12, CLASSES))
    optimizer = SGD(model.parameters(), lr=0.02, momentum=0.9)
    log = script.log()
    log.watch(model, optimizer)
    for batch in batches(26):
        log.step(loss=update(model, optimizer, batch))
    return weights(model)


@healthy("gradual pruning: every fifth step more of the smallest weights are masked, and held at zero after each step")
def more_and_more_masked(script: Script) -> Tensor:
    model = mlp()
    masks = {p: torch.ones_like(p) for p in model.parameters() if p.ndim > 1}
    optimizer = Adam(model.parameters(), lr=1e-2)
    log = script.log()
    log.watch(model, optimizer)
    for step, batch in enumerate(batches(26)):
        if step % 5 == 0:
            for p in masks:
                limit = p.detach().abs().flatten().quantile(0.1 * (1 + step // 5))
                masks[p] = (p.detach().abs() > limit).float()
        loss = update(model, optimizer, batch)
        with torch.no_grad():
            for p, mask in masks.items():
                p.mul_(mask)
        log.step(loss=loss)
    return weights(model)


@healthy(
    "lottery ticket: in the middle of the run the weights go back to their first values, with a mask, and train again"
)
def back_to_the_first_weights(script: Script) -> Tensor:
    model = mlp()
    first = copy.deepcopy(model.state_dict())
    optimizer = SGD(model.parameters(), lr=0.1, momentum=0.9)
    log = script.log()
    log.watch(model, optimizer)
    mask = torch.ones_like(model[0].weight)
    for step, batch in enumerate(batches(30)):
        if step == 15:
            mask = (model[0].weight.detach().abs() > model[0].weight.detach().abs().median()).float()
            model.load_state_dict(first)
            optimizer = SGD(model.parameters(), lr=0.1, momentum=0.9)
            log.watch(model, optimizer, fresh_optimizer=True)
            with torch.no_grad():
                model[0].weight.mul_(mask)
        optimizer.zero_grad()
        loss = loss_of(model, batch)
        loss.backward()
        model[0].weight.grad.mul_(mask)
        optimizer.step()
        log.step(loss=loss)
    return weights(model)


class Contrast(nn.Module):
    """An encoder and a queue of keys, which is a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(FEATURES, 12), nn.BatchNorm1d(12), nn.ReLU(), nn.Linear(12, 4))
        self.register_buffer("queue", F.normalize(torch.randn(4, 32), dim=0))
        self.register_buffer("at", torch.zeros((), dtype=torch.long))

    def push(self, keys: Tensor) -> None:
        begin = int(self.at)
        self.queue[:, begin : begin + len(keys)] = keys.T
        self.at.copy_((self.at + len(keys)) % 32)


@healthy("contrast with a queue: keys come from an average of the encoder, and the queue is a buffer that turns (MoCo)")
def queue_of_keys(script: Script) -> Tensor:
    model = Contrast()
    slow = copy.deepcopy(model.encoder).requires_grad_(False)
    optimizer = SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-4)
    log = script.log()
    log.watch(model, optimizer)
    log.ema(slow, 0.95)
    for x, _ in batches(26):
        with torch.no_grad():
            keys = F.normalize(slow(x + 0.1 * torch.randn_like(x)), dim=1)
        q = F.normalize(model.encoder(x + 0.1 * torch.randn_like(x)), dim=1)
        logits = torch.cat([(q * keys).sum(1, keepdim=True), q @ model.queue.clone()], 1) / 0.2
        optimizer.zero_grad()
        loss = F.cross_entropy(logits, torch.zeros(len(x), dtype=torch.long))
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            for s, p in zip(slow.parameters(), model.encoder.parameters()):
                s.lerp_(p, 0.05)
        model.push(keys)
        log.step(loss=loss)
    return weights(model, slow)


@healthy("prototypes: of norm one after each step, and without a gradient in the first eight (SwAV)")
def prototypes_that_wait(script: Script) -> Tensor:
    encoder, prototypes = nn.Linear(FEATURES, 4), nn.Linear(4, 6, bias=False)
    model = nn.ModuleDict({"encoder": encoder, "prototypes": prototypes})
    optimizer = SGD(model.parameters(), lr=0.1, momentum=0.9)
    log = script.log()
    log.watch(model, optimizer)
    for step, (x, _) in enumerate(batches(28)):
        with torch.no_grad():
            prototypes.weight.copy_(F.normalize(prototypes.weight, dim=1))
        a, b = (prototypes(F.normalize(encoder(x + 0.1 * torch.randn_like(x)), dim=1)) for _ in range(2))
        with torch.no_grad():
            codes = (a / 0.1).softmax(0)
            codes = codes / codes.sum(1, keepdim=True)
        optimizer.zero_grad()
        loss = -(codes * (b / 0.1).log_softmax(1)).sum(1).mean()
        loss.backward()
        if step < 8:
            prototypes.weight.grad = None
        optimizer.step()
        log.step(loss=loss)
    return weights(model)


@healthy("a stop-gradient between two views and a predictor at a rate that never falls (SimSiam)")
def predictor_with_a_fixed_rate(script: Script) -> Tensor:
    encoder = nn.Sequential(nn.Linear(FEATURES, 12), nn.BatchNorm1d(12), nn.ReLU(), nn.Linear(12, 6))
    predictor = nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 6))
    groups = [{"params": encoder.parameters(), "fix_lr": False}, {"params": predictor.parameters(), "fix_lr": True}]
    optimizer = SGD(groups, lr=0.05, momentum=0.9)
    model = nn.ModuleList([encoder, predictor])
    log = script.log()
    log.watch(model, optimizer, scheduled={"lr": lambda step, group: 0.05 * (1 - (step - 1) / 26) ** (1 - group)})
    for step, (x, _) in enumerate(batches(26)):
        for group in optimizer.param_groups:
            group["lr"] = 0.05 if group["fix_lr"] else 0.05 * (1 - step / 26)
        one, two = (encoder(x + 0.1 * torch.randn_like(x)) for _ in range(2))
        optimizer.zero_grad()
        loss = -(F.cosine_similarity(predictor(one), two.detach()) + F.cosine_similarity(predictor(two), one.detach()))
        loss.mean().backward()
        optimizer.step()
        log.step(loss=loss.mean())
    return weights(model)


@healthy("three losses and three optimizers on one graph: a variational auto-encoder with an adversary")
def three_optimizers_on_one_graph(script: Script) -> Tensor:
    encoder, decoder, judge = nn.Linear(FEATURES, 6), nn.Linear(3, FEATURES), nn.Linear(FEATURES, 1)
    parts = [encoder, decoder, judge]
    optimizers = [Adam(part.parameters(), lr=3e-3) for part in parts]
    log = script.log()
    log.watch(parts, optimizers)
    for x, _ in batches(26):
        mean, spread = encoder(x).chunk(2, 1)
        out = decoder(mean + spread.mul(0.5).exp() * torch.randn_like(mean))
        real, fake = judge(x), judge(out)
        adversary = F.softplus(-real).mean() + F.softplus(fake).mean()
        kl = -0.5 * (1 + spread - mean.square() - spread.exp()).mean()
        for part, loss in zip(parts, (F.mse_loss(out, x) + 0.1 * kl, F.mse_loss(out, x) - 0.1 * adversary, adversary)):
            for p, g in zip(part.parameters(), torch.autograd.grad(loss, list(part.parameters()), retain_graph=True)):
                p.grad = g
        for optimizer in optimizers:
            optimizer.step()
        log.step(loss=adversary)
    return weights(*parts)


@healthy("mutual learning: two students with an optimizer each, each of them a teacher of the other")
def students_teach_each_other(script: Script) -> Tensor:
    students = [mlp(8), mlp(12)]
    optimizers = [SGD(student.parameters(), lr=0.1, momentum=0.9) for student in students]
    log = script.log()
    log.watch(students, optimizers)
    for x, y in batches(26):
        logits = [student(x) for student in students]
        for turn in range(2):
            soft = F.kl_div(logits[turn].log_softmax(1), logits[1 - turn].detach().softmax(1), reduction="batchmean")
            optimizers[turn].zero_grad()
            (F.cross_entropy(logits[turn], y) + soft).backward()
            optimizers[turn].step()
        with torch.no_grad():
            loss = F.cross_entropy(logits[0], y)
        log.step(loss=loss)
    return weights(*students)


@healthy("a network that grows: a block is put in and faded in, the optimizer is made anew and watched again")
def network_that_grows(script: Script) -> Tensor:
    class Growing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inp, self.out = nn.Linear(FEATURES, 8), nn.Linear(8, CLASSES)
            self.blocks, self.alpha = nn.ModuleList(), 0.0

        def forward(self, x: Tensor) -> Tensor:
            x = self.inp(x).tanh()
            for number, block in enumerate(self.blocks):
                share = self.alpha if number == len(self.blocks) - 1 else 1.0
                x = (1 - share) * x + share * block(x).tanh()
            return self.out(x)

    model = Growing()
    log = script.log()
    optimizer = Adam(model.parameters(), lr=1e-2)
    log.watch(model, optimizer)
    for stage in range(3):
        if stage:
            model.blocks.append(nn.Linear(8, 8))
            optimizer = Adam(model.parameters(), lr=1e-2)
            log.watch(model, optimizer, fresh_optimizer=True)
        for number, batch in enumerate(batches(10, seed=stage)):
            model.alpha = min(1.0, (number + 1) / 5)
            log.step(loss=update(model, optimizer, batch))
    return weights(model)


@healthy("greedy stages: the layer below is frozen when the next begins to train, all in one optimizer")
def frozen_stage_by_stage(script: Script) -> Tensor:
    layers = nn.ModuleList(nn.Linear(FEATURES, FEATURES) for _ in range(3))
    heads = nn.ModuleList(nn.Linear(FEATURES, CLASSES) for _ in range(3))
    model: Any = nn.ModuleDict({"layers": layers, "heads": heads})
    optimizer = AdamW(model.parameters(), lr=1e-2)
    log = script.log()
    log.watch(model, optimizer)
    for stage in range(3):
        for number in range(3):
            layers[number].requires_grad_(number == stage)
            heads[number].requires_grad_(number == stage)
        for x, y in batches(10, seed=stage):
            optimizer.zero_grad()
            for layer in layers[: stage + 1]:
                x = layer(x).tanh()
            loss = F.cross_entropy(heads[stage](x), y)
            loss.backward()
            optimizer.step()
            log.step(loss=loss)
    return weights(model)


@healthy("a batch norm of its own for each of three subjects: each step has one subject")
def batch_norm_for_each_subject(script: Script) -> Tensor:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inp, self.out = nn.Linear(FEATURES, 12), nn.Linear(12, CLASSES)
            self.norms = nn.ModuleList(nn.BatchNorm1d(12) for _ in range(3))

        def forward(self, x: Tensor, subject: int) -> Tensor:
            return self.out(self.norms[subject](self.inp(x)).relu())

    model = Net()
    optimizer = Adam(model.parameters(), lr=1e-2)
    log = script.log()
    log.watch(model, optimizer)
    seen = []
    for step, (x, y) in enumerate(batches(30)):
        model.train()
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x + step % 3, step % 3), y)
        loss.backward()
        optimizer.step()
        log.step(loss=loss)
        if step % 10 == 9:
            model.eval()
            with torch.no_grad(), log.evaluating():
                seen.append(float(F.cross_entropy(model(points(32, 5)[0] + 1, 1), points(32, 5)[1])))
            log.eval(loss=seen[-1])
    return torch.cat([weights(model), torch.tensor(seen, dtype=torch.float64)])


@healthy(
    "statistics adapted to the test subject: a copy of the model is run in train mode within the evaluation (AdaBN)"
)
def copy_adapted_in_the_evaluation(script: Script) -> Tensor:
    model = Probe()
    optimizer = Adam(model.parameters(), lr=1e-2)
    log = script.log()
    log.watch(model, optimizer)
    seen = []
    for epoch in range(3):
        model.train()
        for batch in batches(8, seed=epoch):
            log.step(loss=update(model, optimizer, batch))
        model.eval()
        with torch.no_grad(), log.evaluating():
            adapted = copy.deepcopy(model).train()
            for x, _ in batches(4, seed=60):
                adapted(x + 1)
            seen.append(scored(adapted.eval()))
        log.eval(loss=seen[-1])
    return torch.cat([weights(model), torch.tensor(seen, dtype=torch.float64)])


@healthy("test-time training: within the evaluation a copy takes some steps by an optimizer of its own")
def copy_trained_in_the_evaluation(script: Script) -> Tensor:
    body, head, turned = nn.Linear(FEATURES, 12), nn.Linear(12, CLASSES), nn.Linear(12, 1)
    model = nn.ModuleDict({"body": body, "head": head, "turned": turned})
    optimizer = AdamW(model.parameters(), lr=1e-2)
    log = script.log()
    log.watch(model, optimizer)

    def auxiliary(net: Any, x: Tensor) -> Tensor:
        both = torch.cat([x, x.flip(1)])
        which = torch.cat([torch.zeros(len(x)), torch.ones(len(x))])
        return F.binary_cross_entropy_with_logits(net["turned"](net["body"](both).relu()).squeeze(1), which)

    seen = []
    for epoch in range(3):
        for x, y in batches(8, seed=epoch):
            optimizer.zero_grad()
            loss = F.cross_entropy(head(body(x).relu()), y) + 0.3 * auxiliary(model, x)
            loss.backward()
            optimizer.step()
            log.step(loss=loss)
        with log.evaluating():
            net = copy.deepcopy(model)
            steps = SGD(net.parameters(), lr=0.01)
            x, y = points(16, 77)
            for _ in range(3):
                steps.zero_grad()
                auxiliary(net, x).backward()
                steps.step()
            with torch.no_grad():
                seen.append(float(F.cross_entropy(net["head"](net["body"](x).relu()), y)))
        log.eval(loss=seen[-1])
    return torch.cat([weights(model), torch.tensor(seen, dtype=torch.float64)])


@healthy("a cache of keys that is a buffer and not saved is written in the evaluation")
def cache_written_in_the_evaluation(script: Script) -> Tensor:
    class Cached(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.key, self.out = nn.Linear(FEATURES, 8), nn.Linear(8, CLASSES)
            self.register_buffer("cache", torch.zeros(64, 8), persistent=False)

        def forward(self, x: Tensor) -> Tensor:
            keys = self.key(x).tanh()
            if not self.training:
                self.cache[: len(x)] = keys.detach()
                keys = self.cache[: len(x)]
            return self.out(keys)

    model = Cached()
    optimizer = AdamW(model.parameters(), lr=1e-2)
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
