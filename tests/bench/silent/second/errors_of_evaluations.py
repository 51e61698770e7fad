"""Errors of evaluations, of averaged weights and of frozen parts."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import SGD, Adam, AdamW

from tests.bench.silent.case import error
from tests.bench.silent.script import Script
from tests.bench.silent.toy import Probe, batches, loss_of, mlp, scored, update, weights


@error(
    "SKrisanski/FSCT/issues/12",
    "optimizer.step() in the validation loop: the model trains on the validation data",
    "evaluation_changed_model",
    "evaluation_*",
    "step_not_taken",
    first=8,
)
def step_in_the_validation(script: Script, faulty: bool) -> Tensor:
    model = mlp(dropout=0.2)
    optimizer = Adam(model.parameters(), lr=1e-2)
    log = script.log()
    log.watch(model, optimizer)
    for epoch in range(3):
        model.train()
        for batch in batches(8, seed=epoch):
            log.step(loss=update(model, optimizer, batch))
        model.eval()
        with log.evaluating():
            for batch in batches(2, seed=77):
                value = update(model, optimizer, batch) if faulty else loss_of(model, batch)
        log.eval(loss=value)
    return weights(model)


@error(
    "nshaud/DeepHyperX/issues/51",
    "the validation never calls model.eval(): it runs on batch statistics and moves the running ones",
    "evaluation_in_train_mode",
    "evaluation_changed_model",
    first=8,
)
def validation_moves_batch_statistics(script: Script, faulty: bool) -> Tensor:
    model = Probe()
    optimizer = SGD(model.parameters(), lr=0.1)
    log = script.log()
    log.watch(model, optimizer)
    for epoch in range(3):
        model.train()
        for batch in batches(8, seed=epoch):
            log.step(loss=update(model, optimizer, batch))
        model.train(faulty)
        with torch.no_grad(), log.evaluating():
            value = sum(float(loss_of(model, batch)) for batch in batches(3, seed=88)) / 3
        log.eval(loss=value)
    return weights(model)


@error(
    "fartashf/vsepp/issues/4",
    "after a validation only one of the two encoders goes back to train mode",
    "train_mode_lost",
    first=9,
)
def one_encoder_stays_in_eval_mode(script: Script, faulty: bool) -> Tensor:
    class Pair(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.image, self.text = mlp(dropout=0.3), mlp(dropout=0.3)

        def forward(self, x: Tensor) -> Tensor:
            return self.image(x) + self.text(x.flip(1))

    model = Pair()
    optimizer = Adam(model.parameters(), lr=1e-2)
    log = script.log()
    log.watch(model, optimizer)
    for epoch in range(3):
        model.image.train()
        if epoch == 0 or not faulty:
            model.text.train()
        for batch in batches(8, seed=epoch):
            log.step(loss=update(model, optimizer, batch))
        model.eval()
        with log.evaluating():
            value = scored(model)
        log.eval(loss=value)
    return weights(model)


@error(
    "huggingface/diffusers/issues/1864",
    "the average overwrites its own decay at each step: it ends at 0.5 instead of 0.99",
    "ema_*",
    first=1,
)
def average_overwrites_its_decay(script: Script, faulty: bool) -> Tensor:
    model = mlp()
    averaged = copy.deepcopy(model).requires_grad_(False)
    optimizer = SGD(model.parameters(), lr=0.1)
    log = script.log()
    log.watch(model, optimizer)
    log.ema(averaged, 0.99)
    decay = 0.99
    for i, batch in enumerate(batches(24)):
        loss = update(model, optimizer, batch)
        if faulty:
            decay = 1 - min(decay, (1 + i) / (10 + i))
        with torch.no_grad():
            for a, p in zip(averaged.parameters(), model.parameters()):
                a.mul_(decay).add_(p, alpha=1 - decay)
        log.step(loss=loss)
    return weights(averaged)


@error(
    "AlibabaResearch/efficientteacher/issues/126",
    "the average is updated once an epoch, its decay is meant for every step",
    "ema_*",
    first=1,
)
def average_updated_once_an_epoch(script: Script, faulty: bool) -> Tensor:
    model = mlp()
    averaged = copy.deepcopy(model).requires_grad_(False)
    optimizer = SGD(model.parameters(), lr=0.1)
    log = script.log()
    log.watch(model, optimizer)
    log.ema(averaged, 0.95)
    for step, batch in enumerate(batches(24), start=1):
        loss = update(model, optimizer, batch)
        if not faulty or step % 6 == 0:
            with torch.no_grad():
                for a, p in zip(averaged.parameters(), model.parameters()):
                    a.mul_(0.95).add_(p, alpha=0.05)
        log.step(loss=loss)
    return weights(averaged)


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.mix, self.output = nn.Embedding(20, 8), nn.Linear(8, 8), nn.Linear(8, 20, bias=False)
        self.output.weight = self.embedding.weight

    def forward(self, tokens: Tensor) -> Tensor:
        return self.output(torch.tanh(self.mix(self.embedding(tokens))))


@error(
    "CarperAI/trlx/pull/543",
    "the embedding is declared frozen and moves: it is tied to the output layer, which is not frozen",
    "frozen_changed",
    "frozen_moves",
    first=1,
)
def frozen_embedding_tied_to_the_output(script: Script, faulty: bool) -> Tensor:
    model = Tied()
    if not faulty:
        model.embedding.requires_grad_(False)
    optimizer = AdamW([p for name, p in model.named_parameters() if p.requires_grad], lr=1e-2)
    log = script.log()
    log.watch(model, optimizer, frozen=["embedding"])
    for step in range(24):
        tokens = torch.randint(0, 20, (8,), generator=torch.Generator().manual_seed(step))
        optimizer.zero_grad()
        loss = F.cross_entropy(model(tokens), (tokens + 1) % 20)
        loss.backward()
        optimizer.step()
        log.step(loss=loss)
    return weights(model)


@error(
    "kohjingyu/fromage/issues/18",
    "resizing the vocabulary makes new tensors that require gradients: the frozen output layer trains",
    "frozen_changed",
    "frozen_moves",
    first=1,
)
def resized_layer_is_not_frozen(script: Script, faulty: bool) -> Tensor:
    body, output = nn.Embedding(20, 8), nn.Linear(8, 20, bias=False)
    body.requires_grad_(False)
    output.requires_grad_(False)
    grown = nn.Linear(8, 21, bias=False).requires_grad_(faulty)
    with torch.no_grad():
        grown.weight[:20] = output.weight
    model = nn.ModuleDict({"body": body, "mix": nn.Linear(8, 8), "output": grown})
    optimizer = Adam([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    log = script.log()
    log.watch(model, optimizer, frozen=["body", "output"])
    for step in range(24):
        tokens = torch.randint(0, 20, (8,), generator=torch.Generator().manual_seed(step))
        optimizer.zero_grad()
        loss = F.cross_entropy(grown(torch.tanh(model["mix"](body(tokens)))), (tokens + 1) % 21)
        loss.backward()
        optimizer.step()
        log.step(loss=loss)
    return weights(model)
