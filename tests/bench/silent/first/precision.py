"""Errors of precision and of layers that do not do in evaluation what they should."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import SGD, Adam

from tests.bench.silent.case import error
from tests.bench.silent.script import Script
from tests.bench.silent.toy import CLASSES, FEATURES, batches, loss_of, mlp, points, update, weights


@error(
    "Lightning-AI/lightning-thunder/issues/725",
    "autocast is left out: the layers compute in float32 (TrainCheck: lightning-thunder-725)",
    "autocast_*",
    first=1,
    note="the compiled function that dropped it is a layer that leaves the autocast region here",
)
def autocast_left_out(script: Script, faulty: bool) -> Tensor:
    class Traced(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = mlp()

        def forward(self, x: Tensor) -> Tensor:
            with torch.autocast("cpu", enabled=not faulty, dtype=torch.bfloat16):
                return self.inner(x)

    model = Traced()
    optimizer = SGD(model.parameters(), lr=0.1)
    log = script.log()
    log.watch(model, optimizer)
    for batch in batches(24):
        optimizer.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = loss_of(model, batch)
        loss.backward()
        optimizer.step()
        log.step(loss=loss)
    return weights(model)


@error(
    "huggingface/transformers/issues/33844",
    "a functional dropout is active in evaluation (TrainCheck: transformers-33844)",
    "evaluation_*",
    first=8,
)
def dropout_in_evaluation(script: Script, faulty: bool) -> Tensor:
    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner, self.head = nn.Linear(FEATURES, 16), nn.Linear(16, CLASSES)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(F.dropout(self.inner(x).relu(), 0.3, training=True if faulty else self.training))

    model = Attention()
    optimizer = Adam(model.parameters(), lr=1e-2)
    log = script.log()
    log.watch(model, optimizer)
    seen = []
    for epoch in range(3):
        model.train()
        for batch in batches(8, seed=epoch):
            log.step(loss=update(model, optimizer, batch))
        model.eval()
        with torch.no_grad(), log.evaluating():
            seen.append(loss_of(model, points(64, 7777)))
        log.eval(loss=seen[-1])
    return torch.cat([weights(model), torch.stack(seen).double()])
