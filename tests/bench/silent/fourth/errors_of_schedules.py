"""Errors of schedules, of evaluations, and of parts that should be frozen."""

from __future__ import annotations

import logging
import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel
from torch.optim import SGD, Adam, AdamW
from torch.optim.lr_scheduler import LambdaLR, StepLR
from torch.utils.data import DataLoader

from tests.bench.silent.case import error
from tests.bench.silent.script import Script
from tests.bench.silent.toy import (
    CLASSES,
    FEATURES,
    Points,
    Probe,
    batches,
    loss_of,
    mlp,
    points,
    scored,
    update,
    weights,
)

RATES = ("off_schedule", "lr_*", "schedule_*", "wrong_total_steps", "no_warmup")


@error(
    "LINCellularNeuroscience/VAME/issues/26",
    "with the scheduler turned off the rate is multiplied by gamma=0 after some epochs",
    *RATES,
    "update_lost",
    first=19,
)
def scheduler_turned_off_ends_at_zero(script: Script, faulty: bool) -> Tensor:
    model = mlp()
    optimizer = Adam(model.parameters(), lr=5e-3, amsgrad=True)
    scheduler = StepLR(optimizer, step_size=3, gamma=0 if faulty else 1, last_epoch=-1)
    log = script.log(steps_per_epoch=6, epochs=5)
    log.watch(model, optimizer)
    for epoch in range(5):
        for batch in batches(6, seed=epoch):
            log.step(loss=update(model, optimizer, batch))
        scheduler.step()
    return weights(model)


class Pair:
    """An optimizer and its scheduler behind one call; `only`: the call steps the scheduler alone."""

    def __init__(self, optimizer: torch.optim.Optimizer, only: bool) -> None:
        self.optimizer, self.only = optimizer, only
        self.scheduler = LambdaLR(optimizer, lambda p: 0.95**p)

    def __call__(self) -> None:
        if not self.only:
            self.optimizer.step()
        self.scheduler.step()


@error(
    "pyro-ppl/pyro/pull/1241",
    "the wrapper of optimizer and scheduler steps the scheduler alone: the rate falls, and nothing is optimised",
    "step_not_taken",
    "update_lost",
    "nothing_to_train",
    first=1,
    again=True,
)
def wrapper_steps_the_scheduler_alone(script: Script, faulty: bool) -> Tensor:
    mean, spread = nn.Parameter(torch.zeros(FEATURES)), nn.Parameter(torch.zeros(FEATURES))
    guide = nn.ParameterDict({"mean": mean, "spread": spread})
    optimizer = SGD(guide.parameters(), lr=0.05)
    step = Pair(optimizer, only=faulty)
    log = script.log()
    log.watch(guide, optimizer)
    for x, _ in batches(24):
        optimizer.zero_grad()
        drawn = mean + spread.exp() * torch.randn(FEATURES)
        loss = (drawn - x.mean(0) - 1).pow(2).mean() - spread.mean()
        loss.backward()
        step()
        log.step(loss=loss)
    return weights(guide)


def cosine(total: int, warm: int = 0) -> Any:
    return lambda p: (p / warm) if p < warm else max(0.0, 0.5 * (1 + math.cos(math.pi * (p - warm) / (total - warm))))


@error(
    "huggingface/diffusers/issues/4387",
    "the schedule's length is multiplied by the accumulation, it is stepped once a step: the rate never reaches zero",
    *RATES,
    first=2,
    again=True,
)
def length_multiplied_by_the_accumulation(script: Script, faulty: bool) -> Tensor:
    from transformers import get_scheduler

    steps, parts = 24, 4
    model = mlp()
    optimizer = AdamW(model.parameters(), lr=1e-2)
    length = steps * parts if faulty else steps
    scheduler = get_scheduler("cosine", optimizer, num_warmup_steps=0, num_training_steps=length)
    log = script.log(schedule=scheduler, total_steps=steps, accumulate=parts)
    log.watch(model, optimizer, accumulate=parts)
    for step in range(steps):
        for part in range(parts):
            loss = loss_of(model, points(8, 10 * step + part)) / parts
            loss.backward()
        optimizer.step()
        scheduler.step()
        optimizer.zero_grad()
        log.step(loss=loss * parts)
    return weights(model)


@error(
    "huggingface/accelerate/issues/963",
    "under accelerate's accumulation the scheduler moves at each batch, steps or not",
    *RATES,
    first=2,
    again=True,
    note="the scheduler is left unprepared; since 0.16 a prepared one waits for the step",
)
def scheduler_moves_at_each_batch(script: Script, faulty: bool) -> Tensor:
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState, GradientState
    from transformers import get_cosine_schedule_with_warmup

    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=5)
    bare = mlp()
    model, optimizer, loader = accelerator.prepare(
        bare, AdamW(bare.parameters(), lr=1e-2), DataLoader(Points(120), batch_size=8)
    )
    scheduler = get_cosine_schedule_with_warmup(optimizer.optimizer, 4, 24)
    log = script.log(schedule=scheduler, total_steps=24, accumulate=5)
    log.watch(model, optimizer, accumulate=5)
    for _ in range(8):
        for batch in loader:
            with accelerator.accumulate(model):
                loss = loss_of(model, batch)
                accelerator.backward(loss)
                optimizer.step()
                if faulty or accelerator.sync_gradients:
                    scheduler.step()
                optimizer.zero_grad()
            if accelerator.sync_gradients:
                log.step(loss=loss)
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()
    return weights(bare)


@error(
    "ViperEkura/AstrAI/pull/66",
    "the schedule's length does not regard the number of ranks: it is twice as long as the run",
    *RATES,
    first=2,
    again=True,
)
def length_without_the_ranks(script: Script, faulty: bool) -> Tensor:
    def play(script: Script) -> Tensor:
        samples, size, epochs = 96, 4, 2
        steps = epochs * samples // (size * script.world)
        wrapped = DistributedDataParallel(mlp())
        optimizer = AdamW(wrapped.parameters(), lr=1e-2)
        scheduler = LambdaLR(optimizer, cosine(steps * script.world if faulty else steps, 3))
        log = script.log(world_size=script.world, schedule=scheduler, total_steps=steps, epochs=epochs)
        log.watch(wrapped, optimizer, rank=script.rank, world=script.world)
        for batch in batches(steps, seed=1 + script.rank):
            loss = update(wrapped, optimizer, batch)
            scheduler.step()
            log.step(loss=loss)
        return weights(wrapped)

    return script.on_ranks(play)


@error(
    "huggingface/diffusers/pull/8312",
    "a prepared scheduler is stepped once for each process: with two of them the rate is zero after half of the run",
    *RATES,
    first=2,
    again=True,
)
def stepped_once_for_each_process(script: Script, faulty: bool) -> Tensor:
    from accelerate import Accelerator
    from transformers import get_scheduler

    def play(script: Script) -> Tensor:
        accelerator = Accelerator(cpu=True)
        bare = mlp()
        optimizer = AdamW(bare.parameters(), lr=1e-2)
        length = 24 if faulty else 24 * accelerator.num_processes
        scheduler = get_scheduler("cosine", optimizer, num_warmup_steps=0, num_training_steps=length)
        model, optimizer, scheduler = accelerator.prepare(bare, optimizer, scheduler)
        log = script.log(world_size=script.world, schedule=scheduler, total_steps=24)
        log.watch(model, optimizer, rank=script.rank, world=script.world)
        for batch in batches(24, seed=1 + script.rank):
            loss = loss_of(model, batch)
            accelerator.backward(loss)
            optimizer.step()
            scheduler.step()
            optimizer.zero_grad()
            log.step(loss=loss)
        return weights(bare)

    return script.on_ranks(play)


def with_evaluations(script: Script, model: nn.Module, before: Any, after: Any) -> Tensor:
    """Three epochs of 8 steps, each with an evaluation between `before()` and `after()`."""
    optimizer = Adam(model.parameters(), lr=1e-2)
    log = script.log()
    log.watch(model, optimizer)
    seen = []
    for epoch in range(3):
        for batch in batches(8, seed=epoch):
            log.step(loss=update(model, optimizer, batch))
        before()
        with log.evaluating():
            seen.append(scored(model))
        log.eval(loss=seen[-1])
        after()
    return torch.cat([weights(model), torch.tensor(seen, dtype=torch.float64)])


@error(
    "eecn/Hyperspectral-Classification/issues/21",
    "the validation has torch.no_grad() and no model.eval(): dropout and batch statistics are those of training",
    "evaluation_*",
    first=8,
    again=True,
)
def validation_under_no_grad_alone(script: Script, faulty: bool) -> Tensor:
    model = nn.Sequential(
        nn.Linear(FEATURES, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.3), nn.Linear(16, CLASSES)
    )
    return with_evaluations(script, model, (lambda: None) if faulty else model.eval, model.train)


@error(
    "princeton-vl/pytorch_stacked_hourglass/issues/44",
    "model.train() is called for the validation phase too",
    "evaluation_*",
    first=8,
    again=True,
)
def train_in_both_phases(script: Script, faulty: bool) -> Tensor:
    model = Probe()
    return with_evaluations(script, model, model.train if faulty else model.eval, model.train)


class Attention(nn.Module):
    """Attention over the features by torch's own kernel, with dropout."""

    def __init__(self, always: bool) -> None:
        super().__init__()
        self.qkv, self.head, self.always = nn.Linear(1, 12), nn.Linear(4 * FEATURES, CLASSES), always

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x[..., None]).chunk(3, dim=-1)
        rate = 0.4 if self.always or self.training else 0.0
        return self.head(F.scaled_dot_product_attention(q, k, v, dropout_p=rate).flatten(1))


@error(
    "colehurwitz/IBL_MtM_model/pull/13",
    "scaled_dot_product_attention is given its dropout in evaluations too",
    "evaluation_*",
    first=8,
    again=True,
)
def attention_drops_in_evaluations(script: Script, faulty: bool) -> Tensor:
    model = Attention(always=faulty)
    return with_evaluations(script, model, model.eval, model.train)


@error(
    "shubhamagarwal92/mmd/issues/14",
    "evaluate() calls model.eval() and nobody calls model.train() again",
    "train_mode_lost",
    first=9,
    again=True,
)
def nobody_calls_train_again(script: Script, faulty: bool) -> Tensor:
    model = nn.Sequential(nn.Linear(FEATURES, 16), nn.Tanh(), nn.Dropout(0.4), nn.Linear(16, CLASSES))
    return with_evaluations(script, model, model.eval, (lambda: None) if faulty else model.train)


class OldBatchNorm(nn.BatchNorm1d):
    """The forward pass of torch 1.5: buffers that are there are moved, whatever `track_running_stats` says."""

    def forward(self, x: Tensor) -> Tensor:
        own = self.training or not self.track_running_stats
        return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, own, 0.1, self.eps)


@error(
    "pytorch/pytorch/pull/38084",
    "track_running_stats=False, set to keep the statistics of a frozen backbone, does not keep them",
    "frozen_changed",
    "frozen_batchnorm_moves",
    first=1,
    again=True,
    note="a subclass has the forward pass of torch 1.5",
)
def statistics_not_to_be_tracked_move(script: Script, faulty: bool) -> Tensor:
    model = Probe()
    norm = (OldBatchNorm if faulty else nn.BatchNorm1d)(16)
    model.backbone[1] = norm
    model.backbone.requires_grad_(False)
    norm.track_running_stats = False
    optimizer = SGD(model.head.parameters(), lr=0.1)
    log = script.log()
    log.watch(model, optimizer, frozen=["backbone"])
    for batch in batches(24):
        log.step(loss=update(model, optimizer, batch))
    norm.track_running_stats = True
    model.eval()
    return torch.cat([weights(model.head), torch.tensor([scored(model)], dtype=torch.float64)])


@error(
    "kdexd/virtex/issues/16",
    "linear evaluation: model.train() lets the statistics of the frozen backbone move",
    "frozen_changed",
    "frozen_batchnorm_moves",
    first=1,
    again=True,
)
def linear_evaluation_in_train_mode(script: Script, faulty: bool) -> Tensor:
    model = nn.ModuleDict({"visual": nn.Sequential(nn.Linear(FEATURES, 8), nn.BatchNorm1d(8)), "fc": nn.Linear(8, 3)})
    model["visual"].requires_grad_(False)
    optimizer = SGD(model["fc"].parameters(), lr=0.3, momentum=0.9, weight_decay=1e-4)
    log = script.log()
    log.watch(model, optimizer, frozen=["visual"])
    for x, y in batches(24):
        model.train()
        if not faulty:
            model["visual"].eval()
        optimizer.zero_grad()
        loss = F.cross_entropy(model["fc"](model["visual"](x)), y)
        loss.backward()
        optimizer.step()
        log.step(loss=loss)
    return weights(model)


@error(
    "eora-ai/torchok/issues/150",
    "a callback of Lightning freezes the backbone for an epoch and leaves its batch norms in train mode",
    "frozen_changed",
    "frozen_batchnorm_moves",
    first=1,
    again=True,
)
def callback_freezes_no_batch_norm(script: Script, faulty: bool) -> Tensor:
    import lightning

    from eegwatch.integrations.lightning import EegwatchCallback

    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)

    class Module(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net = Probe()

        def training_step(self, batch: Any, number: int) -> Tensor:
            return F.cross_entropy(self.net(batch[0]), batch[1])

        def configure_optimizers(self) -> Any:
            return Adam(self.parameters(), lr=1e-2)

    class FreezeUnfreeze(lightning.Callback):
        def on_train_batch_start(self, trainer: Any, module: Any, batch: Any, number: int) -> None:
            frozen = trainer.current_epoch == 0
            module.net.backbone.requires_grad_(not frozen)
            if not faulty:
                module.net.backbone[1].train(not frozen)

    model = Module()
    trainer = lightning.Trainer(
        max_epochs=2,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=script.root,
        callbacks=[FreezeUnfreeze(), *([EegwatchCallback(script.logs)] if script.watched else [])],
    )
    trainer.fit(model, DataLoader(Points(96), batch_size=8, shuffle=True))
    return weights(model)


@error(
    "pytorch/torchtitan/pull/3886",
    "parallelising makes the parameters anew without their requires_grad: what was frozen trains",
    "frozen_changed",
    "frozen_moves",
    first=1,
    again=True,
)
def parameters_made_anew_unfrozen(script: Script, faulty: bool) -> Tensor:
    model = nn.Sequential()
    model.embed, model.body, model.out = nn.Linear(FEATURES, 8), nn.Linear(8, 8), nn.Linear(8, CLASSES)
    model.embed.requires_grad_(False)
    for module in model.modules():
        for name, p in list(module.named_parameters(recurse=False)):
            kept = {} if faulty else {"requires_grad": p.requires_grad}
            module.register_parameter(name, nn.Parameter(p.data.clone(), **kept))
    optimizer = AdamW(model.parameters(), lr=1e-2)
    log = script.log()
    log.watch(model, optimizer, frozen=["embed"])
    for batch in batches(24):
        log.step(loss=update(model, optimizer, batch))
    return weights(model)


@error(
    "ultralytics/yolov5/issues/1213",
    "the layers to freeze are frozen, and the loop that makes the groups sets requires_grad=True for all",
    "frozen_changed",
    "frozen_moves",
    first=1,
    again=True,
)
def unfrozen_by_the_loop_over_groups(script: Script, faulty: bool) -> Tensor:
    model = nn.Sequential(nn.Linear(FEATURES, 12), nn.SiLU(), nn.Linear(12, 8), nn.SiLU(), nn.Linear(8, CLASSES))
    for name, p in model.named_parameters():
        if name.startswith("0."):
            p.requires_grad = False
    plain, decayed, biases = [], [], []
    for name, p in model.named_parameters():
        if faulty:
            p.requires_grad = True
        (biases if name.endswith("bias") else decayed if name.startswith("0") else plain).append(p)
    optimizer = SGD(plain, lr=0.05, momentum=0.9, nesterov=True)
    optimizer.add_param_group({"params": decayed, "weight_decay": 5e-4})
    optimizer.add_param_group({"params": biases})
    log = script.log()
    log.watch(model, optimizer, frozen=["0"])
    for batch in batches(24):
        log.step(loss=update(model, optimizer, batch))
    return weights(model)


@error(
    "p3i0t/SimCLR-CIFAR10/issues/1",
    "model.enc.requires_grad = False is set on the module: the linear probe trains the encoder too",
    "frozen_changed",
    "frozen_moves",
    first=1,
    again=True,
)
def probe_trains_its_encoder(script: Script, faulty: bool) -> Tensor:
    model = nn.Module()
    model.enc, model.lin = nn.Sequential(nn.Linear(FEATURES, 12), nn.ReLU()), nn.Linear(12, CLASSES)
    model.enc.requires_grad = False
    if not faulty:
        model.enc.requires_grad_(False)
    optimizer = Adam([p for p in model.parameters() if p.requires_grad is True], lr=1e-2, weight_decay=1e-4)
    log = script.log()
    log.watch(model, optimizer, frozen=["enc"])
    for x, y in batches(24):
        optimizer.zero_grad()
        loss = F.cross_entropy(model.lin(model.enc(x)), y)
        loss.backward()
        optimizer.step()
        log.step(loss=loss)
    return weights(model)
