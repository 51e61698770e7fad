"""Errors of single steps: gradients, clips, optimizers, schedules."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import clip_grad_norm_
from torch.optim import SGD, Adam, AdamW, Optimizer
from torch.utils.checkpoint import checkpoint

from tests.bench.silent.case import error
from tests.bench.silent.script import Script
from tests.bench.silent.toy import CLASSES, FEATURES, Probe, batches, loss_of, mlp, points, update, weights


class Adapter(nn.Module):
    """A frozen linear layer with a trainable low-rank path beside it."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.base = nn.Linear(inputs, outputs).requires_grad_(False)
        self.lora_a, self.lora_b = nn.Linear(inputs, 2, bias=False), nn.Linear(2, outputs, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x) + self.lora_b(self.lora_a(x))


@error(
    "tenstorrent/tt-blacksmith/pull/711",
    "fine-tuning of LoRA without zero_grad()",
    "gradients_not_cleared",
    first=2,
)
def lora_without_zero_grad(script: Script, faulty: bool) -> Tensor:
    model = nn.Sequential(Adapter(FEATURES, 12), nn.ReLU(), Adapter(12, CLASSES))
    optimizer = AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    log = script.log()
    log.watch(model, optimizer)
    for batch in batches(24):
        loss = loss_of(model, batch)
        loss.backward()
        optimizer.step()
        if not faulty:
            optimizer.zero_grad()
        log.step(loss=loss)
    return weights(model)


@error(
    "ultralytics/ultralytics/pull/11217",
    "zero_grad() at the beginning of each epoch throws away the unfinished window of the last one",
    "micro_gradients_dropped",
    "accumulation_differs",
    first=2,
)
def tail_of_the_epoch_thrown_away(script: Script, faulty: bool) -> Tensor:
    model = mlp()
    optimizer = SGD(model.parameters(), lr=0.1)
    log = script.log(accumulate=4)
    log.watch(model, optimizer, accumulate=4)
    number = 0
    optimizer.zero_grad()
    for epoch in range(12):
        if faulty:
            optimizer.zero_grad()
        for batch in batches(6, seed=epoch):
            number += 1
            loss = loss_of(model, batch) / 4
            loss.backward()
            if number % 4 == 0:
                optimizer.step()
                optimizer.zero_grad()
                log.step(loss=loss * 4)
    return weights(model)


@error(
    "fengxinjie/Transformer-OCR/issues/7",
    "the validation calls backward(): its gradients are part of the next training step",
    "gradients_not_cleared",
    "evaluation_*",
    first=9,
)
def validation_leaves_gradients(script: Script, faulty: bool) -> Tensor:
    model = mlp()
    optimizer = Adam(model.parameters(), lr=1e-2)
    log = script.log()
    log.watch(model, optimizer)
    for epoch in range(3):
        model.train()
        for batch in batches(8, seed=epoch):
            loss = loss_of(model, batch)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            log.step(loss=loss)
        model.eval()
        with log.evaluating():
            held = loss_of(model, points(32, 7777))
            if faulty:
                held.backward()
        log.eval(loss=held)
    return weights(model)


@error(
    "huggingface/transformers/issues/1563",
    "clipped after every micro-batch instead of once a step: what is there already shrinks before more is added",
    "micro_*",
    "clip_*",
    first=1,
)
def clipped_at_each_micro_batch(script: Script, faulty: bool) -> Tensor:
    model = mlp()
    optimizer = SGD(model.parameters(), lr=0.5)
    log = script.log(accumulate=4)
    log.watch(model, optimizer, accumulate=4, clip=0.05)
    for step in range(24):
        optimizer.zero_grad()
        for part in range(4):
            loss = loss_of(model, points(8, 10 * step + part)) / 4
            loss.backward()
            if faulty:
                clip_grad_norm_(model.parameters(), 0.05)
        if not faulty:
            clip_grad_norm_(model.parameters(), 0.05)
        optimizer.step()
        log.step(loss=loss * 4)
    return weights(model)


@error(
    "simchowitzlabpublic/nano-world-model/pull/22",
    "the norm is clipped in training_step, before backward(): there is nothing to clip yet",
    "clip_missing",
    "clip_*",
    first=1,
)
def clipped_before_backward(script: Script, faulty: bool) -> Tensor:
    model = mlp()
    optimizer = SGD(model.parameters(), lr=0.5)
    log = script.log()
    log.watch(model, optimizer, clip=0.1)
    for batch in batches(24):
        optimizer.zero_grad()
        loss = loss_of(model, batch)
        if faulty:
            clip_grad_norm_(model.parameters(), 0.1)
        loss.backward()
        if not faulty:
            clip_grad_norm_(model.parameters(), 0.1)
        optimizer.step()
        log.step(loss=loss)
    return weights(model)


@error(
    "zhaoyuzhi/deepfillv2/issues/6",
    "the discriminator's optimizer is never stepped",
    "step_not_taken",
    "update_lost",
    "ceased_to_train",
    "nothing_to_train",
    first=1,
)
def discriminator_never_stepped(script: Script, faulty: bool) -> Tensor:
    generator, critic = nn.Linear(4, 6), nn.Sequential(nn.Linear(6, 8), nn.LeakyReLU(0.2), nn.Linear(8, 1))
    of_g, of_d = Adam(generator.parameters(), lr=1e-3), Adam(critic.parameters(), lr=1e-3)
    log = script.log()
    log.watch([generator, critic], [of_g, of_d])
    for x, _ in batches(24):
        fake = generator(torch.randn(len(x), 4))
        of_d.zero_grad()
        (F.softplus(-critic(x)).mean() + F.softplus(critic(fake.detach())).mean()).backward()
        if not faulty:
            of_d.step()
        of_g.zero_grad()
        loss = F.softplus(-critic(fake)).mean()
        loss.backward()
        of_g.step()
        log.step(loss=loss)
    return weights(generator, critic)


@error(
    "alan-turing-institute/deepsensor/issues/47",
    "train_epoch() makes a new Adam each time: its moments begin at zero in every epoch",
    "optimizer_state_*",
    "step_not_taken",
    "optimizer_holds_*",
    first=9,
)
def optimizer_made_anew_each_epoch(script: Script, faulty: bool) -> Tensor:
    model = mlp()
    optimizer = Adam(model.parameters(), lr=1e-2)
    log = script.log(steps_per_epoch=8)
    log.watch(model, optimizer)
    for epoch in range(3):
        if faulty and epoch:
            optimizer = Adam(model.parameters(), lr=1e-2)
        for batch in batches(8, seed=epoch):
            log.step(loss=update(model, optimizer, batch))
    return weights(model)


@error(
    "ikostrikov/pytorch-meta-optimizer/issues/11",
    "layers in a Python list are no part of the module: no optimizer gets them",
    "not_in_optimizer",
    first=1,
)
def layers_in_a_python_list(script: Script, faulty: bool) -> Tensor:
    class Deep(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            layers = [nn.Linear(FEATURES, FEATURES) for _ in range(3)]
            self.layers: Any = layers if faulty else nn.ModuleList(layers)
            self.head = nn.Linear(FEATURES, CLASSES)

        def forward(self, x: Tensor) -> Tensor:
            for layer in self.layers:
                x = torch.tanh(layer(x))
            return self.head(x)

    model = Deep()
    optimizer = SGD(model.parameters(), lr=0.1)
    log = script.log()
    log.watch(model, optimizer)
    for batch in batches(24):
        log.step(loss=update(model, optimizer, batch))
    return torch.cat(
        [weights(model.head), *(p.detach().reshape(-1).double() for each in model.layers for p in each.parameters())]
    )


@error(
    "lucidrains/CoCa-pytorch/issues/6",
    "the extractor detaches what it returns: the image encoder gets no gradient",
    "no_gradient",
    first=1,
)
def extractor_detaches(script: Script, faulty: bool) -> Tensor:
    encoder, head = nn.Sequential(nn.Linear(FEATURES, 8), nn.GELU()), nn.Linear(8, CLASSES)
    model = nn.ModuleDict({"encoder": encoder, "head": head})
    optimizer = AdamW(model.parameters(), lr=1e-2)
    log = script.log()
    log.watch(model, optimizer)
    for x, y in batches(24):
        optimizer.zero_grad()
        features = encoder(x)
        loss = F.cross_entropy(head(features.clone().detach() if faulty else features), y)
        loss.backward()
        optimizer.step()
        log.step(loss=loss)
    return weights(model)


@error(
    "cloneofsimo/lora/issues/26",
    "gradient checkpointing cuts the gradients of the adapters inside: their input requires none",
    "no_gradient",
    first=1,
)
def checkpointing_blocks_the_adapters(script: Script, faulty: bool) -> Tensor:
    first, second, head = Adapter(FEATURES, 8), Adapter(8, 8), nn.Linear(8, CLASSES)
    model = nn.ModuleList([first, second, head])
    optimizer = AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    log = script.log()
    log.watch(model, optimizer)
    for x, y in batches(24):
        optimizer.zero_grad()
        hidden = checkpoint(lambda h: second(torch.tanh(first(h))), x, use_reentrant=faulty)
        loss = F.cross_entropy(head(hidden), y)
        loss.backward()
        optimizer.step()
        log.step(loss=loss)
    return weights(model)


@error(
    "microsoft/LoRA/pull/125",
    "the whole model was frozen before: marking all but LoRA as frozen leaves LoRA frozen too",
    "nothing_to_train",
    "no_gradient",
    "optimizer_holds_*",
    first=1,
)
def adapters_left_frozen(script: Script, faulty: bool) -> Tensor:
    model = nn.ModuleDict({"body": nn.Sequential(Adapter(FEATURES, 8), nn.ReLU()), "head": nn.Linear(8, CLASSES)})
    model["body"].requires_grad_(False)
    for name, p in model["body"].named_parameters():
        if "lora_" not in name:
            p.requires_grad_(False)
        elif not faulty:
            p.requires_grad_(True)
    optimizer = SGD(model["body"].parameters(), lr=0.1)
    log = script.log()
    log.watch(model["body"], optimizer)
    for x, y in batches(24):
        optimizer.zero_grad()
        loss = F.cross_entropy(model["head"](model["body"](x)), y)
        loss.backward()
        optimizer.step()
        log.step(loss=loss)
    return weights(model["body"])


class DecaysEverything(Optimizer):
    """SGD whose decay also goes to parameters that have no gradient."""

    def __init__(self, params: Any, lr: float, decay: float, everything: bool) -> None:
        super().__init__(params, {"lr": lr, "decay": decay, "everything": everything})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None or group["everything"]:
                    p.mul_(1 - group["lr"] * group["decay"])
                if p.grad is not None:
                    p.add_(p.grad, alpha=-group["lr"])


@error(
    "KellerJordan/Muon/issues/54",
    "the optimizer decays parameters that are frozen and have no gradient",
    "frozen_moves",
    "frozen_changed",
    first=1,
)
def frozen_parameters_decay(script: Script, faulty: bool) -> Tensor:
    model = Probe()
    model.backbone.requires_grad_(False).eval()
    optimizer = DecaysEverything(model.parameters(), lr=0.1, decay=0.1, everything=faulty)
    log = script.log()
    log.watch(model, optimizer)
    for batch in batches(24):
        log.step(loss=update(model, optimizer, batch))
    return weights(model)


@error(
    "ServiceNow/Fast-LLM/issues/542",
    "norms and biases are decayed since a refactoring",
    "off_schedule",
    first=1,
)
def norms_and_biases_decayed(script: Script, faulty: bool) -> Tensor:
    model = Probe()
    matrices = [p for p in model.parameters() if p.ndim > 1]
    vectors = [p for p in model.parameters() if p.ndim == 1]
    groups = [{"params": matrices}, {"params": vectors} | ({} if faulty else {"weight_decay": 0.0})]
    optimizer = AdamW(groups, lr=1e-2, weight_decay=0.1)
    log = script.log()
    log.watch(model, optimizer, scheduled={"weight_decay": lambda step, group: (0.1, 0.0)[group]})  # noqa: ARG005
    for batch in batches(24):
        log.step(loss=update(model, optimizer, batch))
    return weights(model)


@error(
    "namisan/mt-dnn/pull/37",
    "the decay is given under a name that the optimizer does not know: all groups have the default",
    "off_schedule",
    first=1,
)
def decay_under_another_name(script: Script, faulty: bool) -> Tensor:
    model = Probe()
    key = "weight_decay_rate" if faulty else "weight_decay"
    matrices = [p for p in model.parameters() if p.ndim > 1]
    vectors = [p for p in model.parameters() if p.ndim == 1]
    optimizer = AdamW([{"params": matrices, key: 0.2}, {"params": vectors, key: 0.0}], lr=1e-2)
    log = script.log()
    log.watch(model, optimizer, scheduled={"weight_decay": lambda step, group: 0.2 if group == 0 else 0.0})  # noqa: ARG005
    for batch in batches(24):
        log.step(loss=update(model, optimizer, batch))
    return weights(model)


@error(
    "huggingface/pytorch-image-models/issues/2532",
    "layer-wise decay of the rate: the groups' scale is ignored",
    "off_schedule",
    "lr_*",
    first=1,
)
def layer_decay_ignored(script: Script, faulty: bool) -> Tensor:
    model = nn.Sequential(nn.Linear(FEATURES, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, CLASSES))
    groups = [{"params": model[i].parameters(), "lr_scale": 0.5 ** (2 - n)} for n, i in enumerate((0, 2, 4))]
    optimizer = AdamW(groups, lr=1e-2)
    scales = (0.25, 0.5, 1.0)
    log = script.log(total_steps=24)
    log.watch(model, optimizer, scheduled={"lr": lambda step, group: 1e-2 * (1 - (step - 1) / 24) * scales[group]})
    for step, batch in enumerate(batches(24), start=1):
        for group in optimizer.param_groups:
            group["lr"] = 1e-2 * (1 - (step - 1) / 24) * (1.0 if faulty else group["lr_scale"])
        log.step(loss=update(model, optimizer, batch))
    return weights(model)
