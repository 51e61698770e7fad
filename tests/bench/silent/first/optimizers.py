"""Errors of optimizers: they hold the wrong tensors, lose an update, or miss a value that is scheduled."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam, AdamW
from torch.utils.checkpoint import checkpoint

from tests.bench.silent.case import error
from tests.bench.silent.script import Script
from tests.bench.silent.toy import CLASSES, FEATURES, Probe, batches, loss_of, mlp, points, update, weights


@contextmanager
def kernel(module: Any, name: str, wrong: Callable[..., Any]) -> Iterator[None]:
    """Within it the functional optimizer `module.name` is `wrong`: the effect of a kernel that this machine lacks."""
    right = getattr(module, name)
    setattr(module, name, wrong)
    try:
        yield
    finally:
        setattr(module, name, right)


@error(
    "huggingface/accelerate/issues/3256",
    "the optimizer was built before the model was replaced by its wrapped copy (TrainCheck's own report)",
    "optimizer_holds_strangers",
    "not_in_optimizer",
    first=1,
    note="the wrapper is a copy of the model, as FSDP's flat parameters are other tensors",
)
def optimizer_built_before_the_copy(script: Script, faulty: bool) -> Tensor:
    model = mlp()
    optimizer = AdamW(model.parameters(), lr=1e-2)
    model = copy.deepcopy(model)
    if not faulty:
        optimizer = AdamW(model.parameters(), lr=1e-2)
    log = script.log()
    log.watch(model, optimizer)
    for batch in batches(24):
        log.step(loss=update(model, optimizer, batch))
    return weights(model)


@error(
    "zjunlp/HVPNeT/issues/5",
    "a layer of the model is in no parameter group",
    "not_in_optimizer",
    first=1,
)
def head_in_no_group(script: Script, faulty: bool) -> Tensor:
    model = Probe()
    held = [*model.backbone.parameters()] if faulty else [*model.parameters()]
    optimizer = AdamW(held, lr=1e-2)
    log = script.log()
    log.watch(model, optimizer)
    for batch in batches(24):
        model.zero_grad()
        loss = loss_of(model, batch)
        loss.backward()
        optimizer.step()
        log.step(loss=loss)
    return weights(model)


@error(
    "https://discuss.pytorch.org/t/84911",
    "everything that the optimizer holds is frozen; what trains is the part that it does not hold",
    "nothing_to_train",
    "not_in_optimizer",
    "no_gradient",
    "optimizer_holds_*",
    first=1,
)
def optimizer_holds_the_frozen_part(script: Script, faulty: bool) -> Tensor:
    model = Probe()
    for p in model.backbone.parameters():
        p.requires_grad_(False)
    held = model.backbone if faulty else model.head
    optimizer = SGD(held.parameters(), lr=0.1)
    log = script.log()
    log.watch(model, optimizer)
    for batch in batches(24):
        log.step(loss=update(model, optimizer, batch))
    return weights(model)


@error(
    "huggingface/transformers/issues/21381",
    "a reentrant checkpoint over an input without a gradient: the block inside never gets one",
    "no_gradient",
    first=1,
)
def reentrant_checkpoint_over_a_frozen_input(script: Script, faulty: bool) -> Tensor:
    embedding = nn.Linear(FEATURES, 8).requires_grad_(False)
    block, head = nn.Sequential(nn.Linear(8, 8), nn.Tanh()), nn.Linear(8, CLASSES)
    model = nn.ModuleDict({"embedding": embedding, "block": block, "head": head})
    optimizer = Adam([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    log = script.log()
    log.watch(model, optimizer)
    for x, y in batches(24):
        optimizer.zero_grad()
        hidden = embedding(x)
        if not faulty:
            hidden.requires_grad_(True)
        hidden = checkpoint(block, hidden, use_reentrant=True)
        loss = nn.functional.cross_entropy(head(hidden), y)
        loss.backward()
        optimizer.step()
        log.step(loss=loss)
    return weights(model)


@error(
    "pytorch/pytorch/issues/115607",
    "the compiled optimizer drops updates after gradients were set to None (TrainCheck: pytorch-115607)",
    "update_lost",
    "update_differs",
    "step_not_taken",
    first=2,
    note="torch.optim.adam.adam is patched to return without an update from the second call on",
)
def compiled_step_drops_updates(script: Script, faulty: bool) -> Tensor:
    import torch.optim.adam as kernels

    right, calls = kernels.adam, 0

    def wrong(*arguments: Any, **options: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == 1 or not faulty:
            right(*arguments, **options)

    model = mlp()
    optimizer = Adam(model.parameters(), lr=1e-2)
    log = script.log()
    log.watch(model, optimizer)
    with kernel(kernels, "adam", wrong):
        for batch in batches(24):
            log.step(loss=update(model, optimizer, batch))
    return weights(model)


@error(
    "pytorch/pytorch/issues/78807",
    "an in-place kernel writes nothing into weights that are not contiguous",
    "update_lost",
    "update_differs",
    first=1,
    note="torch.optim.adam.adam is patched to leave non-contiguous parameters out, as the MPS kernel did",
)
def weights_that_are_not_contiguous(script: Script, faulty: bool) -> Tensor:
    import torch.optim.adam as kernels

    right = kernels.adam

    def wrong(params: list[Tensor], grads: list[Tensor], *states: list[Tensor], **options: Any) -> None:
        kept = [i for i, p in enumerate(params) if p.is_contiguous() or not faulty]
        # a state that this Adam does not use is an empty list
        right(*([each[i] for i in kept] if each else each for each in (params, grads, *states)), **options)

    model = mlp()
    first = model[0]
    first.weight = nn.Parameter(first.weight.detach().t().contiguous().t())
    optimizer = Adam(model.parameters(), lr=1e-2)
    log = script.log()
    log.watch(model, optimizer)
    with kernel(kernels, "adam", wrong):
        for batch in batches(24):
            log.step(loss=update(model, optimizer, batch))
    return weights(model)


@error(
    "deepspeedai/DeepSpeed/issues/8589",
    "the momentum of a one-cycle schedule goes on rising after the cycle, past 1",
    "off_schedule",
    first=22,
)
def momentum_grows_past_one(script: Script, faulty: bool) -> Tensor:
    def meant(step: int, group: int) -> float:
        """Down from 0.95 to 0.85 at step 11, up to 0.95 at step 21, 0.95 from there on."""
        at = min(step - 1, 20)
        return 0.95 - 0.01 * min(at, 20 - at)

    model = mlp()
    optimizer = SGD(model.parameters(), lr=0.01, momentum=0.95)
    log = script.log(total_steps=36)
    log.watch(model, optimizer, scheduled={"momentum": meant})
    for step, batch in enumerate(batches(36), start=1):
        rises_on = 0.95 + 0.01 * max(0, step - 21)
        optimizer.param_groups[0]["momentum"] = rises_on if faulty and step > 21 else meant(step, 0)
        log.step(loss=update(model, optimizer, batch))
    return weights(model)


@error(
    "BR-IDL/PaddleViT/issues/155",
    "the weight decay of DINO's schedule is computed and never set",
    "off_schedule",
    first=2,
)
def decay_schedule_never_applied(script: Script, faulty: bool) -> Tensor:
    def meant(step: int, group: int) -> float:
        return 0.4 + 0.5 * (0.04 - 0.4) * (1 + math.cos(math.pi * (step - 1) / 30)) if group == 0 else 0.0

    model = mlp()
    matrices = [p for p in model.parameters() if p.ndim > 1]
    vectors = [p for p in model.parameters() if p.ndim == 1]
    groups = [{"params": matrices, "weight_decay": 0.04}, {"params": vectors, "weight_decay": 0.0}]
    optimizer = AdamW(groups, lr=1e-2)
    log = script.log(total_steps=30)
    log.watch(model, optimizer, scheduled={"weight_decay": meant})
    for step, batch in enumerate(batches(30), start=1):
        decay = meant(step, 0)
        if not faulty:
            optimizer.param_groups[0]["weight_decay"] = decay
        log.step(loss=update(model, optimizer, batch))
    return weights(model)


@error(
    "pytorch/ignite/issues/856",
    "the scheduler sets the rate of the first parameter group alone",
    "off_schedule",
    "lr_*",
    "group_lr_overwritten",
    first=2,
)
def only_the_first_group_is_scheduled(script: Script, faulty: bool) -> Tensor:
    def meant(step: int, group: int) -> float:
        return (1e-2, 1e-1)[group] * (1 - (step - 1) / 30)

    model = Probe()
    groups = [{"params": model.backbone.parameters(), "lr": 1e-2}, {"params": model.head.parameters(), "lr": 1e-1}]
    optimizer = SGD(groups, lr=1e-2)
    log = script.log(total_steps=30, optimizer=optimizer)
    log.watch(model, optimizer, scheduled={"lr": meant})
    for step, batch in enumerate(batches(30), start=1):
        for number, group in enumerate(optimizer.param_groups):
            if number == 0 or not faulty:
                group["lr"] = meant(step, number)
        log.step(loss=update(model, optimizer, batch))
    return weights(model)


@error(
    "facebookresearch/lingua/issues/74",
    "the output layer is declared tied to the embedding and is a tensor of its own",
    "tying_lost",
    "*tied*",
    first=13,
    note="the tie is there when the run begins and is lost when the weights are loaded with assign=True",
)
def tying_lost(script: Script, faulty: bool) -> Tensor:
    class Language(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding, self.mix, self.output = nn.Embedding(12, 8), nn.Linear(8, 8), nn.Linear(8, 12, bias=False)
            self.output.weight = self.embedding.weight

        def forward(self, tokens: Tensor) -> Tensor:
            return self.output(torch.tanh(self.mix(self.embedding(tokens))))

    model = Language()
    optimizer = SGD(model.parameters(), lr=0.1)
    log = script.log()
    log.watch(model, optimizer)
    for step in range(1, 25):
        if step == 13:  # a rollback to the weights of a moment ago
            kept = {name: value.clone() for name, value in model.state_dict().items()}
            model.load_state_dict(kept, assign=faulty)
            if faulty:
                optimizer = SGD(model.parameters(), lr=0.1)
                log.watch(model, optimizer)
        tokens = torch.randint(0, 12, (8,), generator=torch.Generator().manual_seed(step))
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(tokens), (tokens + 1) % 12)
        loss.backward()
        optimizer.step()
        log.step(loss=loss)
    return weights(model)


@error(
    "hirofumi0810/neural_sp/issues/168",
    "the accumulated loss is not divided by the number of micro-batches",
    "microbatch_weights",
    "micro_*",
    first=1,
)
def loss_not_divided(script: Script, faulty: bool) -> Tensor:
    model = mlp()
    optimizer = SGD(model.parameters(), lr=0.05)
    log = script.log(accumulate=4)
    log.watch(model, optimizer, accumulate=4)
    for step in range(24):
        optimizer.zero_grad()
        for part in range(4):
            loss = log.micro(loss_of(model, points(8, 10 * step + part)), items=8)
            (loss if faulty else loss / 4).backward()
        optimizer.step()
        log.step(loss=loss)
    return weights(model)
