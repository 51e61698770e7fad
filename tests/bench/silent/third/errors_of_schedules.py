"""Errors of schedules: of the rate and of other values, stepped too often, never, or out of place after a resume."""

from __future__ import annotations

import logging
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.optim import SGD, Adam, AdamW
from torch.optim.lr_scheduler import CosineAnnealingLR, ExponentialLR, LambdaLR, StepLR
from torch.utils.data import ConcatDataset, DataLoader, Dataset

from tests.bench.silent.case import error
from tests.bench.silent.script import Script
from tests.bench.silent.toy import Points, batches, loss_of, mlp, points, update, weights


@error(
    "ScrollPrize/villa/pull/1495",
    "the scheduler is stepped each iteration, its horizon is the number of epochs: the cosine falls and rises again",
    "off_schedule",
    "lr_*",
    "schedule_*",
    "wrong_total_steps",
    first=2,
)
def horizon_in_epochs(script: Script, faulty: bool) -> Tensor:
    epochs, iterations = 6, 6
    model = mlp()
    optimizer = SGD(model.parameters(), lr=0.1)
    scheduler = CosineAnnealingLR(optimizer, T_max=epochs if faulty else epochs * iterations)
    log = script.log(schedule=scheduler, total_steps=epochs * iterations, steps_per_epoch=iterations, epochs=epochs)
    log.watch(model, optimizer)
    for epoch in range(epochs):
        for batch in batches(iterations, seed=epoch):
            loss = update(model, optimizer, batch)
            scheduler.step()
            log.step(loss=loss)
    return weights(model)


@error(
    "ivadomed/ivadomed/pull/55",
    "scheduler.step() stands in the loop over batches in place of the loop over epochs",
    "off_schedule",
    "lr_*",
    first=2,
)
def scheduler_stepped_each_batch(script: Script, faulty: bool) -> Tensor:
    model = mlp()
    optimizer = Adam(model.parameters(), lr=1e-2)
    scheduler = ExponentialLR(optimizer, gamma=0.8)
    meant = lambda step, group: 1e-2 * 0.8 ** ((step - 1) // 8)  # noqa: E731, ARG005
    log = script.log(steps_per_epoch=8, epochs=3)
    log.watch(model, optimizer, scheduled={"lr": meant})
    for epoch in range(3):
        for batch in batches(8, seed=epoch):
            loss = update(model, optimizer, batch)
            if faulty:
                scheduler.step()
            log.step(loss=loss)
        if not faulty:
            scheduler.step()
    return weights(model)


@error(
    "idiap/coqui-ai-Trainer/issues/23",
    "with mixed precision the optimizer is never marked as stepped: the scheduler that follows it never moves",
    "off_schedule",
    "lr_*",
    first=9,
)
def scheduler_waits_for_a_mark(script: Script, faulty: bool) -> Tensor:
    model = mlp()
    optimizer = AdamW(model.parameters(), lr=1e-2)
    scheduler = StepLR(optimizer, step_size=1, gamma=0.5)
    scaler = torch.amp.GradScaler("cpu", init_scale=256.0)
    log = script.log(schedule=scheduler, unit="epoch", steps_per_epoch=8, epochs=4, total_steps=32)
    log.watch(model, optimizer, scaler=scaler)
    for epoch in range(4):
        stepped = False
        for batch in batches(8, seed=epoch):
            optimizer.zero_grad()
            loss = loss_of(model, batch)
            scaler.scale(loss).backward()
            scale = scaler.get_scale()
            scaler.step(optimizer)
            scaler.update()
            if not faulty:
                stepped = stepped or scaler.get_scale() >= scale
            log.step(loss=loss)
        if stepped:
            scheduler.step()
    return weights(model)


@error(
    "Lightning-AI/pytorch-lightning/issues/1476",
    "the scheduler is stepped after each of four micro-batches: the warm-up ends after a quarter of its steps",
    "off_schedule",
    "lr_*",
    first=2,
)
def scheduler_stepped_each_micro_batch(script: Script, faulty: bool) -> Tensor:
    law = {"name": "linear", "total_steps": 32, "max_lr": 1e-2, "warmup_steps": 16, "initial_lr": 0.0}
    model = mlp()
    optimizer = Adam(model.parameters(), lr=1e-2)
    scheduler = LambdaLR(optimizer, lambda p: p / 16 if p < 16 else max(0.0, (32 - p) / 16))
    log = script.log(schedule=law, optimizer=optimizer, total_steps=32, accumulate=4)
    log.watch(model, optimizer, accumulate=4)
    for step in range(32):
        optimizer.zero_grad()
        for part in range(4):
            loss = loss_of(model, points(8, 10 * step + part)) / 4
            loss.backward()
            if part == 3:
                optimizer.step()
            if faulty or part == 3:
                scheduler.step()
        log.step(loss=loss * 4)
    return weights(model)


@error(
    "Lightning-AI/pytorch-lightning/issues/21808",
    "an epoch has fewer batches than the accumulation: Lightning steps at the end of each epoch",
    "accumulation_differs",
    "micro_*",
    first=2,
)
def accumulation_longer_than_the_epoch(script: Script, faulty: bool) -> Tensor:
    import lightning

    from eegwatch.integrations.lightning import EegwatchCallback

    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)

    class Module(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net = mlp()

        def training_step(self, batch: Any, number: int) -> Tensor:
            return F.cross_entropy(self.net(batch[0]), batch[1])

        def configure_optimizers(self) -> Any:
            return SGD(self.parameters(), lr=0.1)

    data: Dataset[Any] = Points(24) if faulty else ConcatDataset([Points(24)] * 24)
    model = Module()
    trainer = lightning.Trainer(
        max_epochs=24 if faulty else 1,
        accumulate_grad_batches=6,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=script.root,
        callbacks=[EegwatchCallback(script.logs)] if script.watched else [],
    )
    trainer.fit(model, DataLoader(data, batch_size=8, shuffle=True))
    return weights(model)


@error(
    "valdersoul/bn-vae/issues/1",
    "the restart of the KL weight stands in the loop over batches: for a whole epoch the weight is its first value",
    "off_schedule",
    first=1,
)
def kl_weight_restarts_each_batch(script: Script, faulty: bool) -> Tensor:
    encoder, decoder = mlp(), torch.nn.Linear(1, 6)
    optimizer = Adam([*encoder.parameters(), *decoder.parameters()], lr=1e-2)
    log = script.log(steps_per_epoch=8)
    log.watch([encoder, decoder], optimizer)
    weight, cycle = 0.0, 2
    for epoch in range(4):
        if epoch % cycle == 0 and not faulty:
            weight = 0.0
        for x, _ in batches(8, seed=epoch):
            weight = min(1.0, weight + 0.05)
            if epoch % cycle == 0 and faulty:
                weight = 0.0
            mean, spread, _ = encoder(x).chunk(3, dim=1)
            drawn = mean + spread.exp() * torch.randn_like(mean)
            divergence = 0.5 * (mean**2 + (2 * spread).exp() - 2 * spread - 1).mean()
            optimizer.zero_grad()
            loss = F.mse_loss(decoder(drawn), x) + weight * divergence
            loss.backward()
            optimizer.step()
            log.step(loss=loss, metrics={"kl_weight": weight})
    return weights(encoder, decoder)


@error(
    "Curt-Park/rainbow-is-all-you-need/issues/73",
    "the exponent of prioritised replay is annealed from its own last value: it reaches 1 much too early",
    "off_schedule",
    first=3,
)
def beta_annealed_from_itself(script: Script, faulty: bool) -> Tensor:
    model = mlp()
    optimizer = Adam(model.parameters(), lr=1e-2)
    log = script.log(total_steps=30)
    log.watch(model, optimizer)
    first = beta = 0.4
    for step, (x, y) in enumerate(batches(30)):
        fraction = step / 30
        beta = beta + fraction * (1 - beta) if faulty else first + fraction * (1 - first)
        chance = torch.arange(1, len(x) + 1) / (len(x) * (len(x) + 1) / 2)
        importance = (len(x) * chance) ** -beta
        optimizer.zero_grad()
        loss = (importance / importance.max() * F.cross_entropy(model(x), y, reduction="none")).mean()
        loss.backward()
        optimizer.step()
        log.step(loss=loss, metrics={"beta": beta})
    return weights(model)


@error(
    "allenai/allennlp/pull/1650",
    "the checkpoint is written before the scheduler moves: after a resume the schedule is an epoch behind",
    "off_schedule",
    "lr_*",
    "schedule_*",
    first=17,
)
def schedule_an_epoch_behind(script: Script, faulty: bool) -> Tensor:
    path, known = script.path("last.pt"), {"unit": "epoch", "steps_per_epoch": 8, "epochs": 4, "total_steps": 32}
    model = mlp()
    optimizer = SGD(model.parameters(), lr=0.1, momentum=0.9)
    scheduler = CosineAnnealingLR(optimizer, T_max=4)

    def save(epoch: int) -> None:
        parts = {"model": model, "optimizer": optimizer, "scheduler": scheduler}
        torch.save({name: part.state_dict() for name, part in parts.items()} | {"epoch": epoch}, path)
        log.checkpoint(path)

    def train(epochs: range) -> None:
        for epoch in epochs:
            for batch in batches(8, seed=epoch):
                log.step(loss=update(model, optimizer, batch))
            if faulty:
                save(epoch)
            scheduler.step()
            if not faulty:
                save(epoch)

    log = script.log(schedule=scheduler, **known)
    log.watch(model, optimizer)
    train(range(2))
    kept = torch.load(path)
    model = mlp()
    optimizer = SGD(model.parameters(), lr=0.1, momentum=0.9)
    scheduler = CosineAnnealingLR(optimizer, T_max=4)
    model.load_state_dict(kept["model"])
    optimizer.load_state_dict(kept["optimizer"])
    scheduler.load_state_dict(kept["scheduler"])
    log = script.log(schedule=scheduler, resume=True, step=16, **known)
    log.watch(model, optimizer)
    train(range(2, 4))
    return weights(model)
