"""Errors of frozen parts, of resumes, of evaluations and of averaged weights."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam, AdamW

from tests.bench.silent.case import error
from tests.bench.silent.script import Script
from tests.bench.silent.toy import Probe, batches, loss_of, mlp, scored, update, weights


@error(
    "neuralmagic/sparseml/pull/966",
    "a layer is frozen while its gradient of the last step is still there: Adam goes on with it",
    "frozen_moves",
    "frozen_changed",
    first=9,
)
def frozen_with_a_gradient_left(script: Script, faulty: bool) -> Tensor:
    model = mlp()
    optimizer = Adam(model.parameters(), lr=1e-2)
    log = script.log()
    log.watch(model, optimizer)
    for step, batch in enumerate(batches(24), start=1):
        if step == 9:
            for p in model[0].parameters():
                p.requires_grad_(False)
                if not faulty:
                    p.grad = None
        optimizer.zero_grad(set_to_none=False)
        loss = loss_of(model, batch)
        loss.backward()
        optimizer.step()
        log.step(loss=loss)
    return weights(model)


@error(
    "open-mmlab/mmpretrain/issues/702",
    "frozen_stages is configured and applied to nothing (TrainCheck: mmpretrain-702)",
    "frozen_changed",
    "frozen_moves",
    first=1,
)
def frozen_stages_not_applied(script: Script, faulty: bool) -> Tensor:
    model = Probe()
    if not faulty:
        model.backbone.requires_grad_(False).eval()
    optimizer = AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    log = script.log()
    log.watch(model, optimizer, frozen=["backbone"])
    for batch in batches(24):
        log.step(loss=update(model, optimizer, batch))
    return weights(model)


@error(
    "lightly-ai/lightly/issues/1438",
    "a frozen backbone is left in train mode: its batch statistics go on moving",
    "frozen_changed",
    "frozen_batchnorm_moves",
    "frozen_moves",
    first=1,
)
def batchnorm_of_a_frozen_backbone(script: Script, faulty: bool) -> Tensor:
    model = Probe()
    model.backbone.requires_grad_(False)
    optimizer = SGD(model.head.parameters(), lr=0.1)
    log = script.log()
    log.watch(model, optimizer)
    model.train()
    if not faulty:
        model.backbone.eval()
    for batch in batches(24):
        log.step(loss=update(model, optimizer, batch))
    return weights(model)


def _first_half(script: Script, model: nn.Module, optimizer: Any, steps: int = 12) -> dict[str, Any]:
    """Twelve steps and a checkpoint, as every case of a resume begins. Returns what the checkpoint holds."""
    log = script.log(total_steps=24)
    log.watch(model, optimizer)
    for batch in batches(steps):
        log.step(loss=update(model, optimizer, batch))
    kept = {"model": copy.deepcopy(model.state_dict()), "optimizer": copy.deepcopy(optimizer.state_dict())}
    torch.save(kept, script.path("last.pt"))
    log.checkpoint(script.path("last.pt"))
    return torch.load(script.path("last.pt"))


@error(
    "NVlabs/stylegan2-ada-pytorch/issues/108",
    "the weights are restored, the state of Adam is not",
    "optimizer_state_lost",
    "optimizer_state_*",
    first=13,
)
def adam_state_not_restored(script: Script, faulty: bool) -> Tensor:
    model = mlp()
    kept = _first_half(script, model, Adam(model.parameters(), lr=1e-2))
    model = mlp()
    model.load_state_dict(kept["model"])
    optimizer = Adam(model.parameters(), lr=1e-2)
    if not faulty:
        optimizer.load_state_dict(kept["optimizer"])
    log = script.log(resume=True, step=12, total_steps=24)
    log.watch(model, optimizer)
    for batch in batches(12, seed=1):
        log.step(loss=update(model, optimizer, batch))
    return weights(model)


@error(
    "OpenNMT/OpenNMT-py/issues/38",
    "the optimizer is made anew after its state was loaded",
    "optimizer_state_lost",
    "optimizer_state_*",
    first=13,
)
def optimizer_made_anew_after_the_load(script: Script, faulty: bool) -> Tensor:
    model = mlp()
    kept = _first_half(script, model, SGD(model.parameters(), lr=0.05, momentum=0.9))
    model.load_state_dict(kept["model"])
    optimizer = SGD(model.parameters(), lr=0.05, momentum=0.9)
    optimizer.load_state_dict(kept["optimizer"])
    if faulty:
        optimizer = SGD(model.parameters(), lr=0.05, momentum=0.9)  # set_parameters(model.parameters())
    log = script.log(resume=True, step=12, total_steps=24)
    log.watch(model, optimizer)
    for batch in batches(12, seed=1):
        log.step(loss=update(model, optimizer, batch))
    return weights(model)


@error(
    "pytorch/pytorch/pull/6031",
    "the parameters come from a set: on resume each gets another one's moments",
    "optimizer_state_differs",
    "optimizer_state_*",
    first=13,
    note="four layers of one shape; the other order of a set is a reversed list here",
)
def moments_of_other_parameters(script: Script, faulty: bool) -> Tensor:
    def deep() -> nn.Sequential:
        return nn.Sequential(*(nn.Linear(6, 6) for _ in range(4)), nn.Linear(6, 3))

    model = deep()
    kept = _first_half(script, model, Adam([p for p in model.parameters() if p.shape == (6, 6)], lr=1e-2))
    model = deep()
    model.load_state_dict(kept["model"])
    held = [p for p in model.parameters() if p.shape == (6, 6)]
    optimizer = Adam(held[::-1] if faulty else held, lr=1e-2)
    optimizer.load_state_dict(kept["optimizer"])
    log = script.log(resume=True, step=12, total_steps=24)
    log.watch(model, optimizer)
    for batch in batches(12, seed=1):
        log.step(loss=update(model, optimizer, batch))
    return weights(model)


@error(
    "pytorch/examples/issues/1029",
    "the checkpoint's keys have a prefix and strict=False loads none of them",
    "weights_not_restored",
    first=13,
)
def weights_behind_a_prefix(script: Script, faulty: bool) -> Tensor:
    model = mlp()
    kept = _first_half(script, model, Adam(model.parameters(), lr=1e-2))
    saved = {f"model.{name}": value for name, value in kept["model"].items()}
    torch.manual_seed(1)
    model = mlp()
    if not faulty:
        saved = {name.removeprefix("model."): value for name, value in saved.items()}
    model.load_state_dict(saved, strict=False)
    optimizer = Adam(model.parameters(), lr=1e-2)
    optimizer.load_state_dict(kept["optimizer"])
    log = script.log(resume=True, step=12, total_steps=24)
    log.watch(model, optimizer)
    for batch in batches(12, seed=1):
        log.step(loss=update(model, optimizer, batch))
    return weights(model)


@error(
    "tk-rusch/coRNN/issues/1",
    "model.train() is not called again after the first validation",
    "train_mode_lost",
    first=9,
)
def train_not_called_after_validation(script: Script, faulty: bool) -> Tensor:
    model = mlp(dropout=0.5)
    optimizer = Adam(model.parameters(), lr=1e-2)
    log = script.log()
    log.watch(model, optimizer)
    model.train()
    for epoch in range(3):
        if not faulty:
            model.train()
        for batch in batches(8, seed=epoch):
            log.step(loss=update(model, optimizer, batch))
        model.eval()
        with log.evaluating():
            loss = scored(model)
        log.eval(loss=loss)
    return weights(model)


@error(
    "wolny/pytorch-3dunet/issues/53",
    "the model is evaluated in train mode: batch statistics and dropout are those of training",
    "evaluation_in_train_mode",
    "evaluation_changed_model",
    first=8,
)
def evaluated_in_train_mode(script: Script, faulty: bool) -> Tensor:
    model = Probe()
    optimizer = Adam(model.parameters(), lr=1e-2)
    log = script.log()
    log.watch(model, optimizer)
    for epoch in range(3):
        model.train()
        for batch in batches(8, seed=epoch):
            log.step(loss=update(model, optimizer, batch))
        if not faulty:
            model.eval()
        with log.evaluating():
            loss = scored(model)
        log.eval(loss=loss)
    return weights(model)


@error(
    "PKU-YuanGroup/Open-Sora-Plan/issues/186",
    "the averaged weights are copied in for the validation and not taken out again",
    "evaluation_changed_model",
    first=8,
)
def averaged_weights_left_in(script: Script, faulty: bool) -> Tensor:
    model = mlp()
    averaged = copy.deepcopy(model).requires_grad_(False)
    optimizer = Adam(model.parameters(), lr=1e-2)
    log = script.log()
    log.watch(model, optimizer)
    for epoch in range(3):
        for batch in batches(8, seed=epoch):
            loss = update(model, optimizer, batch)
            with torch.no_grad():
                for a, p in zip(averaged.parameters(), model.parameters()):
                    a.lerp_(p, 0.1)
            log.step(loss=loss)
        with log.evaluating():
            kept = copy.deepcopy(model.state_dict())
            model.load_state_dict(averaged.state_dict())
            value = scored(model)
            if not faulty:
                model.load_state_dict(kept)
        log.eval(loss=value)
    return weights(model)


@error(
    "MultimediaTechLab/YOLO/issues/97",
    "the averaged model is never updated",
    "ema_*",
    first=1,
)
def averaged_model_never_updated(script: Script, faulty: bool) -> Tensor:
    model = mlp()
    averaged = copy.deepcopy(model).requires_grad_(False)
    optimizer = SGD(model.parameters(), lr=0.1)
    log = script.log()
    log.watch(model, optimizer)
    log.ema(averaged, 0.9)
    for batch in batches(24):
        loss = update(model, optimizer, batch)
        if not faulty:
            with torch.no_grad():
                for a, p in zip(averaged.parameters(), model.parameters()):
                    a.mul_(0.9).add_(p, alpha=0.1)
        log.step(loss=loss)
    return weights(averaged)


@error(
    "open-mmlab/mmengine/pull/266",
    "the averaged weights are the model's own tensors: a state_dict is no copy",
    "ema_*",
    first=0,
)
def averaged_model_is_the_model(script: Script, faulty: bool) -> Tensor:
    model, averaged = mlp(), mlp().requires_grad_(False)
    kept = model.state_dict()
    averaged.load_state_dict(kept, assign=faulty)
    optimizer = SGD(model.parameters(), lr=0.1)
    log = script.log()
    log.watch(model, optimizer)
    log.ema(averaged, 0.9)
    for batch in batches(24):
        loss = update(model, optimizer, batch)
        with torch.no_grad():
            for name, value in averaged.state_dict().items():
                value.mul_(0.9).add_(model.state_dict()[name], alpha=0.1)
        log.step(loss=loss)
    return weights(averaged)
