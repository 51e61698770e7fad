"""Healthy trainings whose optimizers, gradients or schedules are unusual on purpose."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import clip_grad_norm_, clip_grads_with_norm_, get_total_norm
from torch.optim import ASGD, SGD, Adagrad, Adam, AdamW, NAdam, RAdam, Rprop
from torch.optim.lr_scheduler import (
    CosineAnnealingLR,
    CosineAnnealingWarmRestarts,
    LambdaLR,
    LinearLR,
    OneCycleLR,
    ReduceLROnPlateau,
    SequentialLR,
)

from tests.bench.silent.case import healthy
from tests.bench.silent.script import Script
from tests.bench.silent.toy import CLASSES, FEATURES, batches, loss_of, mlp, points, scored, update, weights


@healthy(
    "a probe on both sides of a pretrained model: no optimizer holds the middle, whose gradients are never cleared",
    "BINE022/EEGPT/issues/18",
)
def probe_on_both_sides(script: Script) -> Tensor:
    model = nn.Sequential()
    model.channels, model.encoder, model.probe = nn.Linear(FEATURES, FEATURES), mlp(12), nn.Linear(CLASSES, CLASSES)
    model.encoder.eval()
    optimizer = AdamW([*model.channels.parameters(), *model.probe.parameters()], lr=1e-2, weight_decay=0.01)
    log = script.log()
    log.watch(model, optimizer)
    for batch in batches(26):
        log.step(loss=update(model, optimizer, batch))
    return weights(model)


@healthy("torch's RAdam and NAdam, a layer each, both with decoupled decay")
def radam_and_nadam(script: Script) -> Tensor:
    model = mlp()
    optimizers = [
        RAdam(model[0].parameters(), lr=1e-2, weight_decay=0.1, decoupled_weight_decay=True),
        NAdam(model[2].parameters(), lr=1e-2, weight_decay=0.1, decoupled_weight_decay=True),
    ]
    log = script.log()
    log.watch(model, optimizers)
    for batch in batches(26):
        loss = loss_of(model, batch)
        loss.backward()
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        log.step(loss=loss)
    return weights(model)


@healthy("Rprop on the full batch: the size of a gradient does not count")
def rprop_on_the_full_batch(script: Script) -> Tensor:
    model, everything = mlp(), points(64)
    optimizer = Rprop(model.parameters(), lr=1e-2)
    log = script.log()
    log.watch(model, optimizer)
    for _ in range(26):
        log.step(loss=update(model, optimizer, everything))
    return weights(model)


@healthy("Adagrad with a decay of its own rate")
def adagrad_with_a_falling_rate(script: Script) -> Tensor:
    model = mlp()
    optimizer = Adagrad(model.parameters(), lr=0.1, lr_decay=0.05, initial_accumulator_value=0.1)
    log = script.log()
    log.watch(model, optimizer)
    for batch in batches(26):
        log.step(loss=update(model, optimizer, batch))
    return weights(model)


@healthy("averaged SGD, whose average lives in the optimizer's state and is put into the model at the end")
def asgd_with_its_average(script: Script) -> Tensor:
    model = mlp()
    optimizer = ASGD(model.parameters(), lr=0.1, t0=5)
    log = script.log()
    log.watch(model, optimizer)
    for batch in batches(26):
        log.step(loss=update(model, optimizer, batch))
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(optimizer.state[p]["ax"])
    model.eval()
    with log.evaluating():
        value = scored(model)
    log.eval(loss=value)
    return weights(model)


@healthy("accumulation of sums: the gradients are divided by the number of tokens just before the step")
def gradients_divided_by_hand(script: Script) -> Tensor:
    model = mlp()
    optimizer = SGD(model.parameters(), lr=0.2)
    log = script.log(accumulate=3)
    log.watch(model, optimizer, accumulate=3)
    for step in range(24):
        items = 0
        for part in range(3):
            x, y = points(4 + 3 * part, 10 * step + part)
            loss = F.cross_entropy(model(x), y, reduction="sum")
            loss.backward()
            items += len(x)
        for p in model.parameters():
            p.grad /= items
        optimizer.step()
        optimizer.zero_grad()
        log.step(loss=loss / len(x))
    return weights(model)


@healthy("an evaluation between two micro-batches of one step: the gradients wait")
def evaluation_within_a_window(script: Script) -> Tensor:
    model = mlp(dropout=0.2)
    optimizer = Adam(model.parameters(), lr=1e-2)
    log = script.log(accumulate=4)
    log.watch(model, optimizer, accumulate=4)
    for number, batch in enumerate(batches(96), start=1):
        loss = loss_of(model, batch) / 4
        loss.backward()
        if number % 4 == 0:
            optimizer.step()
            optimizer.zero_grad()
            log.step(loss=loss * 4)
        if number % 30 == 0:
            model.eval()
            with log.evaluating():
                value = scored(model)
            log.eval(loss=value)
            model.train()
    return weights(model)


@healthy("an evaluation with attributions: backward() to the input, the model's gradients cleared after it")
def attributions_in_the_evaluation(script: Script) -> Tensor:
    model = mlp(dropout=0.1)
    optimizer = AdamW(model.parameters(), lr=1e-2)
    log = script.log()
    log.watch(model, optimizer)
    for epoch in range(3):
        model.train()
        for batch in batches(8, seed=epoch):
            log.step(loss=update(model, optimizer, batch))
        model.eval()
        with log.evaluating():
            x, y = points(16, 7777)
            x.requires_grad_()
            loss = F.cross_entropy(model(x), y)
            loss.backward()
            salience = float(x.grad.abs().mean())
            optimizer.zero_grad()
        log.eval(loss=loss, metrics={"salience": salience})
    return weights(model)


@healthy("requires_grad of the discriminator is switched off while the generator trains (CycleGAN)")
def requires_grad_switched(script: Script) -> Tensor:
    generator = nn.Linear(4, FEATURES)
    critic = nn.Sequential(nn.Linear(FEATURES, 8), nn.LeakyReLU(0.2), nn.Linear(8, 1))
    of_g, of_d = (Adam(m.parameters(), lr=2e-3, betas=(0.5, 0.999)) for m in (generator, critic))
    log = script.log()
    log.watch([generator, critic], [of_g, of_d])
    for x, _ in batches(26):
        fake = generator(torch.randn(len(x), 4))
        critic.requires_grad_(False)
        of_g.zero_grad()
        loss = (critic(fake) - 1).pow(2).mean()
        loss.backward()
        of_g.step()
        critic.requires_grad_(True)
        of_d.zero_grad()
        ((critic(x) - 1).pow(2).mean() + critic(fake.detach()).pow(2).mean()).backward()
        of_d.step()
        log.step(loss=loss)
    return weights(generator, critic)


@healthy("lazy regularisation: every fourth step the discriminator takes a second step for a penalty (StyleGAN2)")
def lazy_regularisation(script: Script) -> Tensor:
    generator = nn.Linear(4, FEATURES)
    critic = nn.Sequential(nn.Linear(FEATURES, 8), nn.Softplus(), nn.Linear(8, 1))
    of_g, of_d = Adam(generator.parameters(), lr=2e-3), Adam(critic.parameters(), lr=2e-3, betas=(0.0, 0.99))
    log = script.log()
    log.watch([generator, critic], [of_g, of_d])
    for number, (x, _) in enumerate(batches(26)):
        fake = generator(torch.randn(len(x), 4))
        of_d.zero_grad()
        (F.softplus(-critic(x)).mean() + F.softplus(critic(fake.detach())).mean()).backward()
        of_d.step()
        if number % 4 == 0:
            real = x.clone().requires_grad_()
            (slope,) = torch.autograd.grad(critic(real).sum(), real, create_graph=True)
            of_d.zero_grad()
            (4 * 0.5 * slope.pow(2).sum(1).mean()).backward()
            of_d.step()
        of_g.zero_grad()
        loss = F.softplus(-critic(fake)).mean()
        loss.backward()
        of_g.step()
        log.step(loss=loss)
    return weights(generator, critic)


@healthy("only the signs of the gradients are used, written over them before the step")
def signs_of_gradients(script: Script) -> Tensor:
    model = mlp()
    optimizer = SGD(model.parameters(), lr=3e-3, momentum=0.9)
    log = script.log()
    log.watch(model, optimizer)
    for batch in batches(26):
        optimizer.zero_grad()
        loss = loss_of(model, batch)
        loss.backward()
        for p in model.parameters():
            p.grad.sign_()
        optimizer.step()
        log.step(loss=loss)
    return weights(model)


@healthy("only the rows of new tokens train: a hook takes the gradient of the old ones away")
def only_new_tokens_train(script: Script) -> Tensor:
    model = nn.Sequential(nn.Embedding(16, 8), nn.Linear(8, 16))
    model[1].requires_grad_(False)
    model[0].weight.register_hook(lambda g: g * (torch.arange(16) >= 12)[:, None])
    optimizer = AdamW(model[0].parameters(), lr=1e-2, weight_decay=0.0)
    log = script.log()
    log.watch(model, optimizer)
    for step in range(26):
        tokens = torch.randint(0, 16, (12,), generator=torch.Generator().manual_seed(step))
        optimizer.zero_grad()
        loss = F.cross_entropy(model(tokens), (tokens + 1) % 16)
        loss.backward()
        optimizer.step()
        log.step(loss=loss)
    return weights(model)


@healthy("gradients that are not finite are set to zero, and the step is taken with them")
def non_finite_gradients_zeroed(script: Script) -> Tensor:
    model = mlp()
    optimizer = AdamW(model.parameters(), lr=1e-2)
    log = script.log()
    log.watch(model, optimizer, clip=1.0)
    for number, (x, y) in enumerate(batches(26)):
        optimizer.zero_grad(set_to_none=False)
        loss = F.cross_entropy(model(x), y) * (float("inf") if number in (7, 15) else 1.0)
        loss.backward()
        norm = clip_grad_norm_(model.parameters(), 1.0)
        if not torch.isfinite(norm):
            optimizer.zero_grad(set_to_none=False)
        optimizer.step()
        log.step(loss=float(loss) if math.isfinite(float(loss)) else 0.0)
    return weights(model)


@healthy("clipping in two calls: the norm over all parameters, the factor onto each group")
def clipped_in_two_calls(script: Script) -> Tensor:
    model = mlp()
    optimizer = SGD([{"params": model[0].parameters()}, {"params": model[2].parameters(), "lr": 0.05}], lr=0.3)
    log = script.log()
    log.watch(model, optimizer, clip=0.3)
    for batch in batches(26):
        optimizer.zero_grad()
        loss = loss_of(model, batch)
        loss.backward()
        norm = get_total_norm([p.grad for p in model.parameters()])
        for group in optimizer.param_groups:
            clip_grads_with_norm_(group["params"], 0.3, norm)
        optimizer.step()
        log.step(loss=loss)
    return weights(model)


@healthy("a gradient scaler that is there and turned off, with its calls all the same")
def scaler_turned_off(script: Script) -> Tensor:
    model = mlp()
    optimizer = AdamW(model.parameters(), lr=1e-2)
    scaler = torch.amp.GradScaler("cpu", enabled=False)
    log = script.log()
    log.watch(model, optimizer, scaler=scaler, clip=0.5)
    for batch in batches(26):
        loss = loss_of(model, batch)
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        clip_grad_norm_(model.parameters(), 0.5)
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
        log.step(loss=loss)
    return weights(model)


@healthy("a scale that grows every third step and falls as soon as it overflows")
def scale_that_goes_up_and_down(script: Script) -> Tensor:
    model = mlp()
    optimizer = SGD(model.parameters(), lr=0.1, momentum=0.9)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**120, growth_factor=4.0, growth_interval=3)
    log = script.log()
    log.watch(model, optimizer, scaler=scaler, clip=0.5)
    for batch in batches(30):
        optimizer.zero_grad()
        loss = 4 * loss_of(model, batch)
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        clip_grad_norm_(model.parameters(), 0.5)
        scaler.step(optimizer)
        scaler.update()
        log.step(loss=loss)
    return weights(model)


@healthy("a warm-up from a rate of zero: the first step changes nothing")
def first_step_at_rate_zero(script: Script) -> Tensor:
    model = mlp()
    optimizer = AdamW(model.parameters(), lr=1e-2, weight_decay=0.1)
    scheduler = LambdaLR(optimizer, lambda p: min(1.0, p / 10))
    log = script.log(schedule=scheduler, total_steps=26)
    log.watch(model, optimizer)
    for batch in batches(26):
        loss = update(model, optimizer, batch)
        scheduler.step()
        log.step(loss=loss)
    return weights(model)


@healthy("a linear warm-up and a cosine one after the other, read off the scheduler that holds both")
def two_schedules_in_sequence(script: Script) -> Tensor:
    model = mlp()
    optimizer = SGD(model.parameters(), lr=0.1, momentum=0.9, nesterov=True)
    parts = [LinearLR(optimizer, 0.01, total_iters=6), CosineAnnealingLR(optimizer, T_max=24, eta_min=1e-4)]
    scheduler = SequentialLR(optimizer, parts, milestones=[6])
    log = script.log(schedule=scheduler, total_steps=30)
    log.watch(model, optimizer)
    for batch in batches(30):
        loss = update(model, optimizer, batch)
        scheduler.step()
        log.step(loss=loss)
    return weights(model)


@healthy("the rate falls when the evaluation gets no better, down to its least value")
def rate_falls_on_a_plateau(script: Script) -> Tensor:
    model = mlp()
    optimizer = Adam(model.parameters(), lr=3e-2)
    scheduler = ReduceLROnPlateau(optimizer, factor=0.1, patience=0, threshold=0.5, min_lr=1e-4)
    log = script.log()
    log.watch(model, optimizer)
    for epoch in range(5):
        model.train()
        for batch in batches(6, seed=epoch):
            log.step(loss=update(model, optimizer, batch))
        model.eval()
        with log.evaluating():
            value = scored(model)
        log.eval(loss=value)
        scheduler.step(value)
    return weights(model)


@healthy("warm restarts by fractions of an epoch, each cycle twice as long, declared as a function of the step")
def warm_restarts_by_fractions(script: Script) -> Tensor:
    def meant(step: int, group: int) -> float:
        at, length = (step - 1) / 6, 1
        while at >= length:
            at, length = at - length, 2 * length
        return 0.1 * (1 + math.cos(math.pi * at / length)) / 2

    model = mlp()
    optimizer = SGD(model.parameters(), lr=0.1)
    scheduler = CosineAnnealingWarmRestarts(optimizer, T_0=1, T_mult=2)
    log = script.log(steps_per_epoch=6)
    log.watch(model, optimizer, scheduled={"lr": meant})
    for epoch in range(5):
        for number, batch in enumerate(batches(6, seed=epoch)):
            scheduler.step(epoch + number / 6)
            log.step(loss=update(model, optimizer, batch))
    return weights(model)


@healthy("layer-wise decay of the rate under a cosine, declared for each group")
def layer_decay_declared(script: Script) -> Tensor:
    model = nn.Sequential(nn.Linear(FEATURES, 12), nn.GELU(), nn.Linear(12, 8), nn.GELU(), nn.Linear(8, CLASSES))
    groups = [{"params": model[2 * i].parameters(), "lr": 1e-2 * 0.65 ** (2 - i)} for i in range(3)]
    optimizer = AdamW(groups, lr=1e-2, weight_decay=0.05)
    scheduler = CosineAnnealingLR(optimizer, T_max=30)
    log = script.log(total_steps=30)
    log.watch(
        model,
        optimizer,
        scheduled={"lr": lambda step, i: 1e-2 * 0.65 ** (2 - i) * (1 + math.cos(math.pi * (step - 1) / 30)) / 2},
    )
    for batch in batches(30):
        loss = update(model, optimizer, batch)
        scheduler.step()
        log.step(loss=loss)
    return weights(model)


@healthy("one-cycle under AdamW, which cycles the first of its betas")
def one_cycle_of_betas(script: Script) -> Tensor:
    model = mlp()
    optimizer = AdamW(model.parameters(), lr=1e-3)
    scheduler = OneCycleLR(optimizer, max_lr=[1e-2], total_steps=30, three_phase=True)
    log = script.log(schedule=scheduler, total_steps=30)
    log.watch(model, optimizer)
    for batch in batches(30):
        loss = update(model, optimizer, batch)
        scheduler.step()
        log.step(loss=loss)
    return weights(model)


@healthy("soft actor-critic: three optimizers, a temperature of its own, targets moved every second step")
def soft_actor_critic(script: Script) -> Tensor:
    actor, critic, target = (nn.Linear(FEATURES, CLASSES) for _ in range(3))
    target.load_state_dict(critic.state_dict())
    target.requires_grad_(False)
    log_alpha = nn.Parameter(torch.zeros(1))
    of_actor, of_critic = Adam(actor.parameters(), lr=3e-3), Adam(critic.parameters(), lr=3e-3)
    of_alpha = Adam([log_alpha], lr=3e-3)
    log = script.log()
    log.watch([actor, critic], [of_actor, of_critic, of_alpha])
    log.ema(target, lambda step: 0.9 if step % 2 == 0 else None)
    for step, (x, action) in enumerate(batches(28), start=1):
        alpha = log_alpha.exp().detach()
        with torch.no_grad():
            chance = actor(x.flip(0)).softmax(1)
            aim = x.sum(1) + 0.9 * (chance * (target(x.flip(0)) - alpha * chance.log())).sum(1)
        of_critic.zero_grad()
        F.mse_loss(critic(x).gather(1, action[:, None]).squeeze(1), aim).backward()
        of_critic.step()
        chance = actor(x).softmax(1)
        of_actor.zero_grad()
        loss = (chance * (alpha * chance.log() - critic(x).detach())).sum(1).mean()
        loss.backward()
        of_actor.step()
        of_alpha.zero_grad()
        entropy = -(chance * chance.log()).sum(1).mean().detach()
        (log_alpha.exp() * (entropy - 0.8)).sum().backward()
        of_alpha.step()
        if step % 2 == 0:
            with torch.no_grad():
                for t, p in zip(target.parameters(), critic.parameters()):
                    t.lerp_(p, 0.1)
        log.step(loss=loss)
    return torch.cat([weights(actor, critic, target), log_alpha.detach().double()])
