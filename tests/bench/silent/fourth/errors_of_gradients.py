"""Errors of gradients: not cleared, weighed wrongly, clipped where it changes nothing, not unscaled."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import clip_grad_norm_
from torch.optim import SGD, Adam, AdamW, RMSprop
from torch.optim.lr_scheduler import StepLR

from tests.bench.silent.case import error
from tests.bench.silent.script import Script
from tests.bench.silent.toy import CLASSES, FEATURES, batches, loss_of, mlp, points, weights


@error(
    "affaan-m/ECC/pull/3122",
    "the loop of a chapter on pretraining calls backward() and step() and never clears",
    "gradients_not_cleared",
    first=2,
    again=True,
)
def pretraining_chapter_never_clears(script: Script, faulty: bool) -> Tensor:
    model = nn.Sequential(nn.Embedding(16, 8), nn.Linear(8, 16))
    optimizer = AdamW(model.parameters(), lr=4e-3, weight_decay=0.1)
    log = script.log()
    log.watch(model, optimizer)
    for step in range(24):
        tokens = torch.randint(0, 16, (12,), generator=torch.Generator().manual_seed(step))
        if not faulty:
            optimizer.zero_grad()
        loss = F.cross_entropy(model(tokens), (3 * tokens + 1) % 16)
        loss.backward()
        optimizer.step()
        log.step(loss=loss)
    return weights(model)


class Forecaster(nn.Module):
    """A recurrent network that tells the class of a sequence."""

    def __init__(self) -> None:
        super().__init__()
        self.cell, self.head = nn.GRU(FEATURES, 8, batch_first=True), nn.Linear(8, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.cell(x)[0][:, -1])


@error(
    "salesforce/corr_based_prediction/issues/1",
    "zero_grad() stands in front of the training loop",
    "gradients_not_cleared",
    first=2,
    again=True,
)
def cleared_in_front_of_the_loop(script: Script, faulty: bool) -> Tensor:
    model = Forecaster()
    optimizer = RMSprop(model.parameters(), lr=1e-3)
    log = script.log(steps_per_epoch=8)
    log.watch(model, optimizer)
    optimizer.zero_grad()
    for epoch in range(3):
        for x, y in batches(8, seed=epoch):
            loss = F.cross_entropy(model(torch.stack([x, x.flip(1)], 1)), y)
            loss.backward()
            optimizer.step()
            if not faulty:
                optimizer.zero_grad()
            log.step(loss=loss)
    return weights(model)


@error(
    "sotte/pytorch_tutorial/issues/5",
    "loss.backward(loss): the gradient is multiplied by the loss",
    "microbatch_weights",
    "gradient_scale*",
    first=1,
)
def backward_of_the_loss_by_itself(script: Script, faulty: bool) -> Tensor:
    model = nn.Linear(FEATURES, 1)
    optimizer = SGD(model.parameters(), lr=0.05)
    log = script.log()
    log.watch(model, optimizer)
    for x, y in batches(24):
        optimizer.zero_grad()
        loss = F.mse_loss(model(x).squeeze(1), y.float())
        loss.backward(loss.detach() if faulty else None)
        optimizer.step()
        log.step(loss=loss)
    return weights(model)


@error(
    "opendp/smartnoise-sdk/issues/280",
    "of a generator, teachers and a student, the student's optimizer is never cleared",
    "gradients_not_cleared",
    first=2,
    again=True,
)
def student_is_never_cleared(script: Script, faulty: bool) -> Tensor:
    def judge() -> nn.Module:
        return nn.Sequential(nn.Linear(FEATURES, 8), nn.LeakyReLU(0.2), nn.Linear(8, 1))

    generator, student, teachers = nn.Linear(4, FEATURES), judge(), [judge(), judge()]
    models = [generator, student, *teachers]
    of_g, of_s, *of_teachers = [Adam(model.parameters(), lr=1e-3, betas=(0.5, 0.9)) for model in models]
    log = script.log()
    log.watch(models, [of_g, of_s, *of_teachers])
    for x, _ in batches(24):
        fake = generator(torch.randn(len(x), 4)).detach()
        for teacher, optimizer in zip(teachers, of_teachers):
            optimizer.zero_grad()
            (F.softplus(-teacher(x)).mean() + F.softplus(teacher(fake)).mean()).backward()
            optimizer.step()
        with torch.no_grad():
            votes = torch.stack([(teacher(fake) > 0).float() for teacher in teachers]).mean(0)
        if not faulty:
            of_s.zero_grad()
        F.binary_cross_entropy_with_logits(student(fake), votes).backward()
        of_s.step()
        of_g.zero_grad()
        loss = F.softplus(-student(generator(torch.randn(len(x), 4)))).mean()
        given = torch.autograd.grad(loss, list(generator.parameters()))
        for p, g in zip(generator.parameters(), given):
            p.grad = g
        of_g.step()
        log.step(loss=loss)
    return weights(*models)


@error(
    "yastrebksv/TennisCourtDetector/issues/7",
    "the trainer of a convolutional network on heat maps has no zero_grad()",
    "gradients_not_cleared",
    first=2,
    again=True,
)
def heat_map_trainer_never_clears(script: Script, faulty: bool) -> Tensor:
    model = nn.Sequential(nn.Conv1d(1, 4, 3, padding=1), nn.BatchNorm1d(4), nn.ReLU(), nn.Conv1d(4, 1, 3, padding=1))
    optimizer = Adam(model.parameters(), lr=1e-3, betas=(0.9, 0.999), weight_decay=0)
    log = script.log()
    log.watch(model, optimizer)
    for x, _ in batches(24):
        model.train()
        out = model(x[:, None]).sigmoid().squeeze(1)
        loss = F.mse_loss(out, (x > 1).float())
        if not faulty:
            model.zero_grad()
        loss.backward()
        optimizer.step()
        log.step(loss=loss)
    return weights(model)


@error(
    "ApolloResearch/e2e_sae/pull/70",
    "a sparse auto-encoder accumulates over four batches and does not divide its losses, which are means",
    "microbatch_weights",
    "micro_*",
    first=1,
    again=True,
)
def autoencoder_losses_not_divided(script: Script, faulty: bool) -> Tensor:
    torch.manual_seed(4)
    subject = nn.Linear(FEATURES, 8).requires_grad_(False)
    sae = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 8))
    optimizer = SGD(sae.parameters(), lr=0.05)
    log = script.log(accumulate=4)
    log.watch(sae, optimizer, accumulate=4)
    for step in range(20):
        for part in range(4):
            acts = subject(points(8, 10 * step + part)[0])
            codes = sae[1](sae[0](acts))
            loss = log.micro(F.mse_loss(sae[2](codes), acts) + 1e-2 * codes.abs().mean(), items=8)
            (loss if faulty else loss / 4).backward()
        optimizer.step()
        optimizer.zero_grad()
        log.step(loss=loss)
    return weights(sae)


@error(
    "fredzzhang/atlas/pull/26",
    "the loss is not normalised by the number of accumulation steps, under a gradient scaler",
    "microbatch_weights",
    "micro_*",
    first=1,
    again=True,
)
def scaled_losses_not_normalised(script: Script, faulty: bool) -> Tensor:
    model = mlp()
    optimizer = SGD(model.parameters(), lr=0.05, momentum=0.9)
    scaler = torch.amp.GradScaler("cpu", init_scale=256.0)
    log = script.log(accumulate=2)
    log.watch(model, optimizer, accumulate=2, scaler=scaler)
    for number, batch in enumerate(batches(40), start=1):
        loss = log.micro(loss_of(model, batch), items=8)
        scaler.scale(loss if faulty else loss / 2).backward()
        if number % 2 == 0:
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad()
            log.step(loss=loss)
    return weights(model)


@error(
    "tomhosking/torchseq/issues/8",
    "a step is taken once the batches add up to a size: what is left at the end of an epoch is thrown away",
    "micro_gradients_dropped",
    "micro_*",
    first=3,
    again=True,
)
def rest_of_the_epoch_below_the_size(script: Script, faulty: bool) -> Tensor:
    model = mlp()
    optimizer = Adam(model.parameters(), lr=1e-2)
    log = script.log()
    log.watch(model, optimizer)
    for epoch in range(8):
        optimizer.zero_grad()
        size = 0
        for number in range(5):
            loss = loss_of(model, points(8, 10 * epoch + number))
            (loss * 8 / 16).backward()
            size += 8
            if size >= 16 or (number == 4 and not faulty):
                optimizer.step()
                optimizer.zero_grad()
                log.step(loss=loss)
                size = 0
    return weights(model)


@error(
    "timoschick/pet/issues/36",
    "the number of steps is no multiple of the accumulation: the gradients of the last batches never become a step",
    "micro_gradients_dropped",
    "micro_*",
    "accumulation_*",
    first=6,
)
def run_ends_within_a_window(script: Script, faulty: bool) -> Tensor:
    model = mlp()
    optimizer = AdamW(model.parameters(), lr=1e-2)
    scheduler = StepLR(optimizer, step_size=100)
    log = script.log(accumulate=4)
    log.watch(model, optimizer, accumulate=4)
    last = 26
    for step, batch in enumerate(batches(last)):
        loss = loss_of(model, batch) / 4
        loss.backward()
        if (step + 1) % 4 == 0 or (step + 1 == last and not faulty):
            clip_grad_norm_(model.parameters(), 10.0)
            optimizer.step()
            scheduler.step()
            model.zero_grad()
            log.step(loss=loss * 4)
    return weights(model)


@error(
    "verl-project/verl/pull/3332",
    "the losses of the micro-batches are added up without being normalised",
    "microbatch_weights",
    "micro_*",
    first=1,
    again=True,
)
def micro_losses_added_up(script: Script, faulty: bool) -> Tensor:
    model = nn.Sequential(nn.Embedding(16, 8), nn.Linear(8, 16))
    optimizer = AdamW(model.parameters(), lr=1e-3, weight_decay=0.01, eps=1e-2)
    log = script.log(accumulate=2)
    log.watch(model, optimizer, accumulate=2, clip=1.0)
    for step in range(24):
        optimizer.zero_grad()
        rows = torch.randint(0, 16, (4, 6), generator=torch.Generator().manual_seed(step))
        for part in rows.split(2):
            loss = log.micro(F.cross_entropy(model(part).flatten(0, 1), (part.flatten() + 1) % 16), items=12)
            (loss if faulty else loss / 2).backward()
        clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        log.step(loss=loss)
    return weights(model)


@error(
    "ServiceNow/Fast-LLM/pull/426",
    "under a loss mask each micro-batch is averaged over its own valid tokens",
    "microbatch_weights",
    "micro_*",
    first=1,
    again=True,
)
def mean_over_the_valid_tokens_of_each(script: Script, faulty: bool) -> Tensor:
    model = nn.Sequential(nn.Embedding(16, 8), nn.Linear(8, 16))
    optimizer = SGD(model.parameters(), lr=0.5)
    log = script.log(accumulate=2)
    log.watch(model, optimizer, accumulate=2)
    for step in range(20):
        draw = torch.Generator().manual_seed(step)
        rows = torch.randint(0, 16, (2, 24), generator=draw)
        masks = torch.rand((2, 24), generator=draw) < torch.tensor([[0.9], [0.2]])
        masks[:, 0] = True
        optimizer.zero_grad()
        for row, mask in zip(rows, masks):
            valid = int(mask.sum())
            each = F.cross_entropy(model(row), (row + 1) % 16, reduction="none")
            loss = log.micro((each * mask).sum() / valid, items=valid)
            (loss / 2 if faulty else loss * valid / int(masks.sum())).backward()
        optimizer.step()
        log.step(loss=loss)
    return weights(model)


@error(
    "awslabs/graphstorm/issues/1366",
    "--max-grad-norm clips after the optimizer's step",
    "clip_missing",
    "clip_*",
    first=1,
    again=True,
)
def graph_trainer_clips_after_the_step(script: Script, faulty: bool) -> Tensor:
    model, embedding = mlp(), nn.Embedding(8, FEATURES)
    optimizer = Adam([*model.parameters(), *embedding.parameters()], lr=1e-2, eps=1e-3)
    log = script.log()
    log.watch([model, embedding], optimizer, clip=0.1)
    for x, y in batches(24):
        nodes = embedding(torch.arange(len(x)) % 8)
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x + nodes), y)
        loss.backward()
        everything = [*model.parameters(), *embedding.parameters()]
        if not faulty:
            clip_grad_norm_(everything, 0.1, 2.0)
        optimizer.step()
        if faulty:
            clip_grad_norm_(everything, 0.1, 2.0)
        log.step(loss=loss)
    return weights(model, embedding)


@error(
    "jongwook/onsets-and-frames/issues/24",
    "the norm is clipped after the steps of the optimizer and the scheduler",
    "clip_missing",
    "clip_*",
    first=1,
    again=True,
)
def clipped_after_step_and_schedule(script: Script, faulty: bool) -> Tensor:
    model = Forecaster()
    optimizer = SGD(model.parameters(), lr=0.3)
    scheduler = StepLR(optimizer, step_size=10, gamma=0.98)
    log = script.log(schedule=scheduler)
    log.watch(model, optimizer, clip=0.05)
    for x, y in batches(24):
        loss = F.cross_entropy(model(torch.stack([x, x.flip(1)], 1)), y)
        optimizer.zero_grad()
        loss.backward()
        if not faulty:
            clip_grad_norm_(model.parameters(), 0.05)
        optimizer.step()
        scheduler.step()
        if faulty:
            clip_grad_norm_(model.parameters(), 0.05)
        log.step(loss=loss)
    return weights(model)


@error(
    "NCAR/miles-credit/pull/141",
    "with mixed precision the gradients are clipped without being unscaled",
    "clip_before_unscale",
    "clip_*",
    first=1,
    again=True,
)
def clipped_while_scaled(script: Script, faulty: bool) -> Tensor:
    model = mlp()
    optimizer = AdamW(model.parameters(), lr=1e-2, eps=1e-4)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    log = script.log()
    log.watch(model, optimizer, clip=1.0, scaler=scaler)
    for batch in batches(24):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = loss_of(model, batch)
        scaler.scale(loss).backward()
        if not faulty:
            scaler.unscale_(optimizer)
        clip_grad_norm_(model.parameters(), 1.0)
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
        log.step(loss=loss)
    return weights(model)


@error(
    "TorchSSL/TorchSSL/pull/59",
    "semi-supervised training with mixed precision and an average of the weights clips scaled gradients",
    "clip_before_unscale",
    "clip_*",
    first=1,
    again=True,
)
def pseudo_labels_clipped_while_scaled(script: Script, faulty: bool) -> Tensor:
    model = mlp()
    averaged = copy.deepcopy(model).requires_grad_(False)
    optimizer = SGD(model.parameters(), lr=0.1, momentum=0.9, nesterov=True)
    scaler = torch.amp.GradScaler("cpu", init_scale=512.0)
    log = script.log()
    log.watch(model, optimizer, clip=0.2, scaler=scaler)
    log.ema(averaged, 0.9)
    for number, batch in enumerate(batches(24)):
        unlabelled, _ = points(8, 5000 + number)
        with torch.no_grad():
            pseudo = model(unlabelled).argmax(1)
        loss = loss_of(model, batch) + 0.5 * F.cross_entropy(model(unlabelled + 0.1), pseudo)
        scaler.scale(loss).backward()
        if not faulty:
            scaler.unscale_(optimizer)
        clip_grad_norm_(model.parameters(), 0.2)
        scaler.step(optimizer)
        scaler.update()
        with torch.no_grad():
            for a, p in zip(averaged.parameters(), model.parameters()):
                a.lerp_(p, 0.1)
        model.zero_grad()
        log.step(loss=loss)
    return weights(model, averaged)
