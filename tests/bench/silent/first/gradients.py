"""Errors of gradients: never cleared, applied twice, dropped between micro-batches, weighted wrongly, clipped wrongly."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import clip_grad_norm_
from torch.optim import SGD, Adam

from tests.bench.silent.case import error
from tests.bench.silent.script import Script
from tests.bench.silent.toy import batches, loss_of, mlp, points, weights


@error(
    "https://stackoverflow.com/questions/60335387",
    "zero_grad() is not called at all (TrainCheck: stackoverflow-60335387)",
    "gradients_not_cleared",
    first=2,
)
def zero_grad_missing(script: Script, faulty: bool) -> Tensor:
    model = mlp()
    optimizer = SGD(model.parameters(), lr=0.1)
    log = script.log()
    log.watch(model, optimizer)
    for batch in batches(24):
        if not faulty:
            optimizer.zero_grad()
        loss = loss_of(model, batch)
        loss.backward()
        optimizer.step()
        log.step(loss=loss)
    return weights(model)


@error(
    "pytorch/pytorch/issues/47175",
    "zero_grad() at the beginning of each epoch instead of each iteration",
    "gradients_not_cleared",
    first=2,
)
def zero_grad_once_an_epoch(script: Script, faulty: bool) -> Tensor:
    model = mlp()
    optimizer = Adam(model.parameters(), lr=1e-2)
    log = script.log(steps_per_epoch=8)
    log.watch(model, optimizer)
    for epoch in range(3):
        optimizer.zero_grad()
        for batch in batches(8, seed=epoch):
            loss = loss_of(model, batch)
            loss.backward()
            optimizer.step()
            if not faulty:
                optimizer.zero_grad()
            log.step(loss=loss)
    return weights(model)


@error(
    "Hsintien-Ng/idinvert_pytorch-reproduced/issues/1",
    "of two optimizers, the discriminator's is never cleared",
    "gradients_not_cleared",
    first=2,
)
def discriminator_never_cleared(script: Script, faulty: bool) -> Tensor:
    generator, critic = nn.Linear(4, 6), nn.Sequential(nn.Linear(6, 8), nn.LeakyReLU(0.2), nn.Linear(8, 1))
    of_g, of_d = Adam(generator.parameters(), lr=1e-3), Adam(critic.parameters(), lr=1e-3)
    log = script.log()
    log.watch([generator, critic], [of_g, of_d])
    for x, _ in batches(24):
        fake = generator(torch.randn(len(x), 4))
        if not faulty:
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


@error(
    "IAHispano/Applio/pull/860",
    "optimizer.step() after scaler.step(optimizer): every gradient is applied twice",
    "gradient_applied_twice",
    first=1,
)
def step_after_scaler_step(script: Script, faulty: bool) -> Tensor:
    model = mlp()
    optimizer = SGD(model.parameters(), lr=0.05)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    log = script.log()
    log.watch(model, optimizer, scaler=scaler)
    for batch in batches(24):
        optimizer.zero_grad()
        loss = loss_of(model, batch)
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        if faulty:
            optimizer.step()
        scaler.update()
        log.step(loss=loss)
    return weights(model)


@error(
    "bytetriper/RAE/issues/67",
    "zero_grad() at every micro-batch: only the last of four counts",
    "micro_gradients_dropped",
    "accumulation_differs",
    first=1,
)
def zero_grad_at_each_micro_batch(script: Script, faulty: bool) -> Tensor:
    model = mlp()
    optimizer = Adam(model.parameters(), lr=1e-2)
    log = script.log(accumulate=4)
    log.watch(model, optimizer, accumulate=4)
    for number, batch in enumerate(batches(96), start=1):
        if faulty or number % 4 == 1:
            optimizer.zero_grad()
        loss = loss_of(model, batch) / 4
        loss.backward()
        if number % 4 == 0:
            optimizer.step()
            log.step(loss=loss * 4)
    return weights(model)


@error(
    "huggingface/transformers/issues/34191",
    "the mean of the micro-batches' means, though they hold different numbers of tokens",
    "microbatch_weights",
    "micro_*",
    first=1,
)
def mean_of_means(script: Script, faulty: bool) -> Tensor:
    model = mlp()
    optimizer = SGD(model.parameters(), lr=0.1)
    log = script.log(accumulate=2)
    log.watch(model, optimizer, accumulate=2)
    for step in range(24):
        sizes = (3 + step % 4, 11)
        optimizer.zero_grad()
        for part, size in enumerate(sizes):
            x, y = points(size, 10 * step + part)
            share = 1 / 2 if faulty else size / sum(sizes)
            loss = log.micro(F.cross_entropy(model(x), y), items=size)
            (loss * share).backward()
        optimizer.step()
        log.step(loss=loss)
    return weights(model)


@error(
    "Lightning-AI/pytorch-lightning/issues/9330",
    "the norm is clipped before the gradients are unscaled",
    "clip_before_unscale",
    "clip_*",
    first=1,
)
def clip_before_unscale(script: Script, faulty: bool) -> Tensor:
    model = mlp()
    optimizer = SGD(model.parameters(), lr=0.1)
    scaler = torch.amp.GradScaler("cpu", init_scale=4096.0)
    log = script.log()
    log.watch(model, optimizer, clip=0.5, scaler=scaler)
    for batch in batches(24):
        optimizer.zero_grad()
        loss = loss_of(model, batch)
        scaler.scale(loss).backward()
        if not faulty:
            scaler.unscale_(optimizer)
        clip_grad_norm_(model.parameters(), 0.5)
        scaler.step(optimizer)
        scaler.update()
        log.step(loss=loss)
    return weights(model)


@error(
    "pytorch/torchtitan/pull/1258",
    "the parameters are a generator that is exhausted when it is clipped: nothing is",
    "clip_missing",
    "clip_*",
    first=1,
)
def clip_of_an_exhausted_generator(script: Script, faulty: bool) -> Tensor:
    model = mlp()
    optimizer = SGD(model.parameters(), lr=0.2)
    log = script.log()
    log.watch(model, optimizer, clip=0.05)
    trained = (p for p in model.parameters() if p.requires_grad)
    if not faulty:
        trained = list(trained)  # type: ignore[assignment]
    norm_type = {p.dtype for p in trained}  # the first pass over the generator, for a check
    assert norm_type == {torch.float32}
    for batch in batches(24):
        optimizer.zero_grad()
        loss = loss_of(model, batch)
        loss.backward()
        clip_grad_norm_(trained, 0.05)
        optimizer.step()
        log.step(loss=loss)
    return weights(model)


@error(
    "VGraphRNN/VGRNN/issues/4",
    "clip_grad_norm_ after optimizer.step(): it changes nothing",
    "clip_missing",
    "clip_*",
    first=1,
)
def clip_after_the_step(script: Script, faulty: bool) -> Tensor:
    model = mlp()
    optimizer = Adam(model.parameters(), lr=1e-2, eps=1e-2)
    log = script.log()
    log.watch(model, optimizer, clip=0.1)
    for batch in batches(24):
        optimizer.zero_grad()
        loss = loss_of(model, batch)
        loss.backward()
        if not faulty:
            clip_grad_norm_(model.parameters(), 0.1)
        optimizer.step()
        if faulty:
            clip_grad_norm_(model.parameters(), 0.1)
        log.step(loss=loss)
    return weights(model)
