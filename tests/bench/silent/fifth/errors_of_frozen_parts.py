"""Errors of parts that should be frozen, or should be frozen no more."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import SGD, Adam, AdamW

from tests.bench.silent.case import error
from tests.bench.silent.script import Script
from tests.bench.silent.toy import CLASSES, FEATURES, Probe, batches, update, weights


@error(
    "CSCYQJ/MICCAI23-ProtoContra-SFDA/issues/18",
    "model.outc.requires_grad = False is set on the module: the last layer is adapted too",
    "frozen_changed",
    "frozen_moves",
    first=1,
    again=True,
)
def last_layer_is_adapted_too(script: Script, faulty: bool) -> Tensor:
    model: Any = nn.Sequential()
    model.body, model.outc = nn.Linear(FEATURES, 12), nn.Linear(12, CLASSES)
    model.outc.requires_grad = False
    if not faulty:
        model.outc.requires_grad_(False)
    optimizer = Adam(model.parameters(), lr=1e-3, betas=(0.9, 0.99))
    log = script.log()
    log.watch(model, optimizer, frozen=["outc"])
    for x, _ in batches(24):
        optimizer.zero_grad()
        probability = model(x).softmax(1)
        loss = -(probability * (probability + 1e-5).log()).sum(1).mean()
        loss.backward()
        optimizer.step()
        log.step(loss=loss)
    return weights(model)


@error(
    "intel/ipex-llm/issues/4846",
    "an accelerator's optimize() makes the weights of some layers anew, as trainable ones: what was frozen trains",
    "frozen_changed",
    "frozen_moves",
    first=1,
    again=True,
    note="a function that sets the weights anew stands for ipex.optimize() of 1.10",
)
def optimize_makes_weights_trainable(script: Script, faulty: bool) -> Tensor:
    model = nn.Sequential(nn.Conv1d(FEATURES, 8, 1), nn.ReLU(), nn.Flatten(), nn.Linear(8, CLASSES))
    model[0].requires_grad_(False)

    def optimize(model: nn.Module) -> None:
        for module in model.modules():
            if isinstance(module, nn.Conv1d | nn.Linear):
                held = module.weight
                module.weight = nn.Parameter(held.detach().clone(), requires_grad=faulty or held.requires_grad)

    optimize(model)
    optimizer = SGD(model.parameters(), lr=0.1, momentum=0.9)
    log = script.log()
    log.watch(model, optimizer, frozen=["0"])
    for x, y in batches(24):
        log.step(loss=update(model, optimizer, (x[..., None], y)))
    return weights(model)


@error(
    "facebookresearch/detectron2/issues/2486",
    "the box head is unfrozen in the middle of the run; the optimizer was built of what was trainable at its beginning",
    "not_in_optimizer",
    "no_gradient",
    first=13,
    again=True,
)
def unfrozen_and_held_by_no_optimizer(script: Script, faulty: bool) -> Tensor:
    model: Any = nn.Sequential()
    model.backbone, model.box_head = nn.Linear(FEATURES, 8), nn.Sequential(nn.Tanh(), nn.Linear(8, 8), nn.Tanh())
    model.predictor = nn.Linear(8, CLASSES)
    model.box_head.requires_grad_(False)
    optimizer = SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    log = script.log()
    log.watch(model, optimizer)
    for step, batch in enumerate(batches(30)):
        if step == 12:
            model.box_head.requires_grad_(True)
            if not faulty:
                optimizer.add_param_group({"params": list(model.box_head.parameters())})
        log.step(loss=update(model, optimizer, batch))
    return weights(model)


@error(
    "ByteDance-Seed/Bagel/issues/233",
    "freeze_vae=False has no effect: the VAE is trainable, and its parameters are handed to no optimizer",
    "not_in_optimizer",
    first=1,
    again=True,
)
def vae_is_in_no_optimizer(script: Script, faulty: bool) -> Tensor:
    vae, model = nn.Linear(FEATURES, 4), nn.Sequential(nn.Linear(4, 12), nn.SiLU(), nn.Linear(12, 4))
    held = [*model.parameters(), *([] if faulty else vae.parameters())]
    optimizer = AdamW(held, lr=1e-2)
    log = script.log()
    log.watch([model, vae], optimizer)
    for x, _ in batches(24):
        model.zero_grad()
        vae.zero_grad()
        latent, noise = vae(x), torch.randn(len(x), 4)
        t = torch.rand(len(x), 1)
        loss = F.mse_loss(model((1 - t) * latent + t * noise), noise - latent) + 0.1 * latent.square().mean()
        loss.backward()
        optimizer.step()
        log.step(loss=loss)
    return weights(model, vae)


class Detector:
    """A model whose encoder is frozen when it is built; what `train()` is told comes too late."""

    def __init__(self, freeze_encoder: bool) -> None:
        self.net: Any = nn.Sequential()
        self.net.encoder, self.net.head = nn.Sequential(nn.Linear(FEATURES, 12), nn.GELU()), nn.Linear(12, CLASSES)
        if freeze_encoder:
            self.net.encoder.requires_grad_(False)

    def train(self, script: Script, **settings: Any) -> Tensor:
        optimizer = AdamW([p for p in self.net.parameters() if p.requires_grad], lr=settings["lr"])
        log = script.log(config=settings)
        log.watch(self.net, optimizer, frozen=["encoder"] if settings["freeze_encoder"] else [])
        for batch in batches(24):
            log.step(loss=update(self.net, optimizer, batch))
        return weights(self.net)


@error(
    "roboflow/rf-detr/issues/357",
    "freeze_encoder=True is given to train(), where it has no effect",
    "frozen_changed",
    "frozen_moves",
    first=1,
    again=True,
)
def freeze_that_train_ignores(script: Script, faulty: bool) -> Tensor:
    return Detector(freeze_encoder=not faulty).train(script, freeze_encoder=True, lr=5e-3)


@error(
    "NVIDIA-NeMo/Speech/pull/3540",
    "the pretrained language model behind a few trainable vectors is frozen and in train mode: its dropout drops",
    "frozen_draws",
    "encoder_in_train_mode",
    first=1,
    again=True,
)
def dropout_of_the_frozen_model(script: Script, faulty: bool) -> Tensor:
    class Prompted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.prompt = nn.Parameter(torch.zeros(2, 8))
            self.inp = nn.Linear(FEATURES, 8)
            layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.2, batch_first=True)
            self.language_model = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)
            self.out = nn.Linear(8, CLASSES)

        def forward(self, x: Tensor) -> Tensor:
            tokens = torch.cat([self.prompt.expand(len(x), -1, -1), self.inp(x)[:, None]], 1)
            return self.out(self.language_model(tokens).mean(1))

    model = Prompted()
    model.language_model.requires_grad_(False)
    optimizer = Adam([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    log = script.log()
    log.watch(model, optimizer, frozen=["language_model"])
    for batch in batches(24):
        model.train()
        if not faulty:
            model.language_model.eval()
        log.step(loss=update(model, optimizer, batch))
    return weights(model)


@error(
    "LTH14/targeted-supcon/issues/16",
    "the linear classifier on top of a frozen encoder is trained with the whole model in train mode",
    "frozen_changed",
    "frozen_batchnorm_moves",
    "encoder_in_train_mode",
    first=1,
    again=True,
)
def linear_classifier_in_train_mode(script: Script, faulty: bool) -> Tensor:
    model = Probe()
    for name, p in model.named_parameters():
        if not name.startswith("head."):
            p.requires_grad = False
    nn.init.normal_(model.head.weight, 0, 0.01)
    nn.init.zeros_(model.head.bias)
    optimizer = SGD([p for p in model.parameters() if p.requires_grad], lr=1.0, momentum=0.9)
    log = script.log(steps_per_epoch=8)
    log.watch(model, optimizer, frozen=["backbone"])
    for epoch in range(3):
        model.train() if faulty else model.eval()
        for batch in batches(8, seed=epoch):
            log.step(loss=update(model, optimizer, batch))
    return weights(model)
