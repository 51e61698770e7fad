"""Healthy loops: agents, memories, tasks one after the other, precision, parts that rest."""

from __future__ import annotations

import copy
import random

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import clip_grad_norm_
from torch.optim import SGD, Adam, AdamW

from tests.bench.silent.case import healthy
from tests.bench.silent.script import Script
from tests.bench.silent.toy import CLASSES, FEATURES, batches, loss_of, mlp, points, update, weights


@healthy("twin critics, and a policy with its targets that moves at every second step alone, declared so (TD3)")
def policy_every_second_step(script: Script) -> Tensor:
    actor, critics = nn.Linear(FEATURES, 2), nn.ModuleList(nn.Linear(FEATURES + 2, 1) for _ in range(2))
    slow_actor, slow_critics = copy.deepcopy(actor), copy.deepcopy(critics)
    of_actor, of_critics = Adam(actor.parameters(), lr=1e-3), Adam(critics.parameters(), lr=1e-2)
    log = script.log()
    log.watch([actor, critics], [of_actor, of_critics])
    for slow in (slow_actor, slow_critics):
        log.ema(slow, lambda step: 0.9 if step % 2 == 0 else None)
    for step, (x, y) in enumerate(batches(28), start=1):
        with torch.no_grad():
            after = x.roll(1, 0)
            noise = (0.2 * torch.randn(len(x), 2)).clamp(-0.3, 0.3)
            state = torch.cat([after, (slow_actor(after).tanh() + noise).clamp(-1, 1)], 1)
            wanted = y[:, None].float() + 0.9 * torch.minimum(*(critic(state) for critic in slow_critics))
        action = actor(x).tanh()
        of_critics.zero_grad()
        loss = sum(F.mse_loss(critic(torch.cat([x, action.detach()], 1)), wanted) for critic in critics)
        loss.backward()
        of_critics.step()
        if step % 2 == 0:
            of_actor.zero_grad()
            (-critics[0](torch.cat([x, action], 1)).mean()).backward()
            of_actor.step()
            with torch.no_grad():
                for slow, fast in ((slow_actor, actor), (slow_critics, critics)):
                    for s, p in zip(slow.parameters(), fast.parameters()):
                        s.lerp_(p, 0.1)
        log.step(loss=loss)
    return weights(actor, critics)


@healthy("policy gradients: episodes of unequal length, a baseline that is a plain number, one step an episode")
def episodes_of_unequal_length(script: Script) -> Tensor:
    policy = nn.Sequential(nn.Linear(FEATURES, 12), nn.Tanh(), nn.Linear(12, CLASSES))
    optimizer = AdamW(policy.parameters(), lr=1e-2)
    log = script.log()
    log.watch(policy, optimizer)
    baseline = 0.0
    for episode in range(28):
        optimizer.zero_grad()
        gained = 0.0
        for x, y in batches(1 + random.randrange(4), 1, seed=episode):
            drawn = torch.distributions.Categorical(logits=policy(x))
            action = drawn.sample()
            reward = float(action == y)
            gained += reward
            (-(reward - baseline) * drawn.log_prob(action).sum()).backward()
        baseline = 0.9 * baseline + 0.1 * gained
        optimizer.step()
        log.step(metrics={"reward": gained})
    return weights(policy)


@healthy("an actor is trained through a model of the world, whose gradients are cleared before its own pass")
def actor_through_a_world(script: Script) -> Tensor:
    world, actor = nn.Linear(FEATURES + 2, FEATURES), nn.Linear(FEATURES, 2)
    of_world, of_actor = Adam(world.parameters(), lr=1e-2), Adam(actor.parameters(), lr=3e-3)
    log = script.log()
    log.watch([world, actor], [of_world, of_actor])
    for x, _ in batches(26):
        of_world.zero_grad()
        action = torch.randn(len(x), 2)
        loss = F.mse_loss(world(torch.cat([x, action], 1)), x.roll(1, 1) + action.sum(1, keepdim=True))
        loss.backward()
        of_world.step()
        of_actor.zero_grad()
        state, value = x, torch.zeros(())
        for _ in range(3):
            state = world(torch.cat([state, actor(state).tanh()], 1))
            value = value + state.square().mean()
        value.backward()
        of_actor.step()
        log.step(loss=loss)
    return weights(world, actor)


@healthy("two tasks one after the other: between them passes without a step measure what each weight is worth (EWC)")
def worth_of_each_weight(script: Script) -> Tensor:
    model = mlp()
    optimizer = SGD(model.parameters(), lr=0.05)
    worth = [torch.zeros_like(p) for p in model.parameters()]
    kept = [p.detach().clone() for p in model.parameters()]
    log = script.log()
    log.watch(model, optimizer)
    for task in range(2):
        for x, y in batches(14, seed=task):
            optimizer.zero_grad()
            loss = F.cross_entropy(model(x if not task else x.flip(1)), y)
            held = sum((w * (p - k).square()).sum() for w, p, k in zip(worth, model.parameters(), kept))
            (loss + 0.5 * held).backward()
            optimizer.step()
            log.step(loss=loss)
        for batch in batches(12, 1, seed=40 + task):
            model.zero_grad()
            loss_of(model, batch).backward()
            for w, p in zip(worth, model.parameters()):
                w += p.grad.square() / 12
        model.zero_grad()
        kept = [p.detach().clone() for p in model.parameters()]
    return weights(model)


@healthy("a memory of earlier samples: a gradient that points against theirs is projected before the step (A-GEM)")
def projected_by_a_memory(script: Script) -> Tensor:
    model = mlp()
    optimizer = SGD(model.parameters(), lr=0.1)
    memory = points(16, 4321)
    log = script.log()
    log.watch(model, optimizer)
    for x, y in batches(26):
        optimizer.zero_grad()
        loss_of(model, memory).backward()
        earlier = [p.grad.clone() for p in model.parameters()]
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), (y + 1) % CLASSES)
        loss.backward()
        dot = sum((p.grad * g).sum() for p, g in zip(model.parameters(), earlier))
        if dot < 0:
            square = sum(g.square().sum() for g in earlier)
            for p, g in zip(model.parameters(), earlier):
                p.grad -= dot / square * g
        optimizer.step()
        log.step(loss=loss)
    return weights(model)


@healthy("diffusion: samples are drawn in the evaluation by an average whose decay is ramped, declared by its law")
def samples_of_a_ramped_average(script: Script) -> Tensor:
    model = nn.Sequential(nn.Linear(FEATURES + 1, 16), nn.SiLU(), nn.Linear(16, FEATURES))
    average = copy.deepcopy(model).requires_grad_(False).eval()

    def decay(step: int) -> float:
        return min(0.95, (1 + step) / (10 + step))

    optimizer = AdamW(model.parameters(), lr=2e-3)
    log = script.log()
    log.watch(model, optimizer)
    log.ema(average, decay)
    for step, (x, _) in enumerate(batches(27), start=1):
        t, noise = torch.rand(len(x), 1), torch.randn_like(x)
        optimizer.zero_grad()
        loss = F.mse_loss(model(torch.cat([(1 - t) * x + t * noise, t], 1)), noise - x)
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            for a, p in zip(average.parameters(), model.parameters()):
                a.lerp_(p, 1 - decay(step))
        log.step(loss=loss)
        if step % 9 == 0:
            with torch.no_grad(), log.evaluating():
                sample = torch.randn(8, FEATURES)
                for k in range(4, 0, -1):
                    sample = sample - average(torch.cat([sample, torch.full((8, 1), k / 4)], 1)) / 4
            log.eval(metrics={"spread": float(sample.std())})
    return weights(model, average)


@healthy("the evaluation averages over shifted copies of its inputs, which it draws outside of the model")
def evaluation_over_shifted_inputs(script: Script) -> Tensor:
    model = mlp(dropout=0.2)
    optimizer = Adam(model.parameters(), lr=1e-2)
    x_test, y_test = points(32, 9)
    log = script.log()
    log.watch(model, optimizer)
    seen = []
    for epoch in range(3):
        model.train()
        for batch in batches(8, seed=epoch):
            log.step(loss=update(model, optimizer, batch))
        model.eval()
        with torch.no_grad(), log.evaluating():
            copies = [model(x_test + 0.1 * torch.randn_like(x_test)).softmax(1) for _ in range(4)]
            seen.append(float(F.nll_loss(torch.stack(copies).mean(0).log(), y_test)))
        log.eval(loss=seen[-1])
    return torch.cat([weights(model), torch.tensor(seen, dtype=torch.float64)])


@healthy("data echoing: each batch is read once and used for two steps")
def each_batch_used_twice(script: Script) -> Tensor:
    model = mlp()
    optimizer = SGD(model.parameters(), lr=0.05, momentum=0.9)
    log = script.log()
    log.watch(model, optimizer)
    for batch in batches(14):
        for _ in range(2):
            log.step(loss=update(model, optimizer, batch))
    return weights(model)


@healthy("a compiled network with accumulation and clipping, both declared")
def compiled_and_clipped(script: Script) -> Tensor:
    model = mlp()
    compiled = torch.compile(model, backend="eager")
    optimizer = AdamW(model.parameters(), lr=1e-2)
    log = script.log(accumulate=2)
    log.watch(compiled, optimizer, accumulate=2, clip=0.5)
    for number, batch in enumerate(batches(52), start=1):
        loss = loss_of(compiled, batch) / 2
        loss.backward()
        if number % 2 == 0:
            clip_grad_norm_(model.parameters(), 0.5)
            optimizer.step()
            optimizer.zero_grad()
            log.step(loss=2 * loss)
    torch._dynamo.reset()
    return weights(model)


@healthy("bfloat16 autocast without a scaler, micro-batches of unequal size weighed by their items, and clipping")
def autocast_items_and_clipping(script: Script) -> Tensor:
    model = mlp()
    optimizer = AdamW(model.parameters(), lr=1e-2)
    log = script.log(accumulate=2)
    log.watch(model, optimizer, accumulate=2, clip=0.2)
    for step in range(26):
        sizes = (8, 4 + step % 5)
        for number, size in enumerate(sizes):
            with torch.autocast("cpu", dtype=torch.bfloat16):
                loss = log.micro(loss_of(model, points(size, 10 * step + number)), items=size)
            (loss * size / sum(sizes)).backward()
        clip_grad_norm_(model.parameters(), 0.2)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        log.step(loss=loss)
    return weights(model)


@healthy("each step trains one of four heads, which is drawn; the others have no gradient")
def a_head_is_drawn(script: Script) -> Tensor:
    body = nn.Sequential(nn.Linear(FEATURES, 12), nn.ReLU())
    heads = nn.ModuleList(nn.Linear(12, CLASSES) for _ in range(4))
    model = nn.ModuleDict({"body": body, "heads": heads})
    optimizer = Adam(model.parameters(), lr=1e-2)
    log = script.log()
    log.watch(model, optimizer)
    for step, (x, y) in enumerate(batches(28)):
        task = step if step < 4 else random.randrange(4)
        optimizer.zero_grad(set_to_none=True)
        loss = F.cross_entropy(heads[task](body(x + task)), y)
        loss.backward()
        optimizer.step()
        log.step(loss=loss)
    return weights(model)


@healthy("blocks are left out at random in training (LayerDrop): in some steps a block has no gradient")
def blocks_left_out(script: Script) -> Tensor:
    class Dropping(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.blocks = nn.ModuleList(nn.Linear(FEATURES, FEATURES) for _ in range(3))
            self.out = nn.Linear(FEATURES, CLASSES)

        def forward(self, x: Tensor) -> Tensor:
            for block in self.blocks:
                if not self.training or torch.rand(()) > 0.3:
                    x = x + block(x).tanh()
            return self.out(x)

    model = Dropping()
    optimizer = AdamW(model.parameters(), lr=1e-2)
    log = script.log()
    log.watch(model, optimizer)
    for batch in batches(28):
        log.step(loss=update(model, optimizer, batch))
    return weights(model)
