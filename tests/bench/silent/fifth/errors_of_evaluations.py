"""Errors of evaluations: in the wrong mode, on weights that they change, and of what is kept as the best."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import SGD, Adam, RMSprop
from torch.utils.checkpoint import checkpoint

from tests.bench.silent.case import error
from tests.bench.silent.script import Script
from tests.bench.silent.toy import CLASSES, FEATURES, Points, Probe, batches, loss_of, points, scored, update, weights


class Score(nn.Module):
    """A score network with dropout and normalisation."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(FEATURES, 16), nn.BatchNorm1d(16), nn.ELU(), nn.Dropout(0.2), nn.Linear(16, FEATURES)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


def denoising(model: nn.Module, x: Tensor, noise: Tensor) -> Tensor:
    return (model(x + 0.3 * noise) + noise).square().mean()


@error(
    "ermongroup/ncsn/issues/2",
    "every fourth step the loss of the test set is logged in eval mode, and train() is never called again",
    "train_mode_lost",
    first=5,
    again=True,
)
def evaluated_for_ever(script: Script, faulty: bool) -> Tensor:
    score = Score()
    optimizer = Adam(score.parameters(), lr=1e-2)
    log = script.log()
    log.watch(score, optimizer)
    test, _ = points(32, 555)
    noise = torch.randn(32, FEATURES, generator=torch.Generator().manual_seed(5))
    score.train()
    for step, (x, _) in enumerate(batches(28), start=1):
        loss = denoising(score, x, torch.randn_like(x))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        log.step(loss=loss)
        if step % 4 == 0:
            score.eval()
            with torch.no_grad(), log.evaluating():
                value = denoising(score, test, noise)
            log.eval(loss=value)
            if not faulty:
                score.train()
    return weights(score)


@error(
    "pliang279/MultiBench/issues/26",
    "the validation calls model.eval(), and a few lines later, in its loop, model.train()",
    "evaluation_*",
    first=8,
    again=True,
)
def trained_again_within_the_validation(script: Script, faulty: bool) -> Tensor:
    first, second, head = nn.Linear(3, 8), nn.Linear(3, 8), nn.Sequential(nn.Dropout(0.4), nn.Linear(16, CLASSES))
    model = nn.ModuleList([first, second, head])

    def both(x: Tensor) -> Tensor:
        return head(torch.cat([first(x[:, :3]), second(x[:, 3:])], 1).relu())

    optimizer = RMSprop(model.parameters(), lr=3e-3)
    log = script.log(steps_per_epoch=8)
    log.watch(model, optimizer)
    seen = []
    for epoch in range(3):
        model.train()
        for x, y in batches(8, seed=epoch):
            optimizer.zero_grad()
            loss = F.cross_entropy(both(x), y)
            loss.backward()
            optimizer.step()
            log.step(loss=loss)
        model.eval()
        total = 0.0
        with torch.no_grad(), log.evaluating():
            for x, y in batches(3, seed=90):
                if faulty:
                    model.train()
                total += float(F.cross_entropy(both(x), y))
        seen.append(total / 3)
        log.eval(loss=total / 3)
    return torch.cat([weights(model), torch.tensor(seen, dtype=torch.float64)])


@error(
    "facebookresearch/ELF/pull/110",
    "the script that evaluates a policy against the last one leaves it in train mode",
    "evaluation_*",
    first=6,
    again=True,
)
def policy_evaluated_in_train_mode(script: Script, faulty: bool) -> Tensor:
    trunk = nn.Sequential(nn.Linear(FEATURES, 16), nn.BatchNorm1d(16), nn.ReLU())
    policy, value = nn.Linear(16, CLASSES), nn.Linear(16, 1)
    model = nn.ModuleDict({"trunk": trunk, "policy": policy, "value": value})
    optimizer = SGD(model.parameters(), lr=0.1, momentum=0.9)
    log = script.log()
    log.watch(model, optimizer)
    games = []
    for turn in range(4):
        for x, y in batches(6, seed=turn):
            optimizer.zero_grad()
            hidden = trunk(x)
            loss = F.cross_entropy(policy(hidden), y) + F.mse_loss(value(hidden).squeeze(1), y.float() - 1)
            loss.backward()
            optimizer.step()
            log.step(loss=loss)
        if not faulty:
            model.eval()
        with torch.no_grad(), log.evaluating():
            x, y = points(64, 888)
            games.append(float((policy(trunk(x)).argmax(1) == y).float().mean()))
        log.eval(metrics={"wins": games[-1]})
        model.train()
    return torch.cat([weights(model), torch.tensor(games, dtype=torch.float64)])


@error(
    "fxia22/pointnet.pytorch/pull/19",
    "a batch of the test set is evaluated every tenth step as the classifier stands: in train mode",
    "evaluation_*",
    first=10,
    again=True,
)
def test_batch_within_the_loop(script: Script, faulty: bool) -> Tensor:
    model = nn.Sequential(
        nn.Linear(FEATURES, 12), nn.BatchNorm1d(12), nn.ReLU(), nn.Dropout(0.3), nn.Linear(12, CLASSES)
    )
    optimizer = Adam(model.parameters(), lr=1e-2)
    log = script.log()
    log.watch(model, optimizer)
    seen = []
    for step, batch in enumerate(batches(30), start=1):
        log.step(loss=update(model, optimizer, batch))
        if step % 10 == 0:
            model.train(faulty)
            with log.evaluating():
                seen.append(scored(model, 16))
            log.eval(loss=seen[-1])
            model.train()
    return torch.cat([weights(model), torch.tensor(seen, dtype=torch.float64)])


@error(
    "princeton-vl/pose-ae-train/issues/11",
    "one function for both phases, which looks at none: the validation set is trained on too",
    "evaluation_*",
    "splits_overlap",
    first=6,
    again=True,
)
def both_phases_are_trained(script: Script, faulty: bool) -> Tensor:
    model = Probe()
    optimizer = Adam(model.parameters(), lr=5e-3)
    log = script.log(steps_per_epoch=6)
    log.watch(model, optimizer)
    log.split("train", [f"image{i:03}" for i in range(48)])
    log.split("val", [f"image{i:03}" for i in range(48, 72)])
    seen = []

    def step(batch: Any, phase: str) -> Tensor:
        if phase == "train" or faulty:
            return update(model, optimizer, batch)
        model.eval()
        with torch.no_grad():
            loss = loss_of(model, batch)
        model.train()
        return loss

    for epoch in range(4):
        for batch in batches(6, seed=epoch):
            log.step(loss=step(batch, "train"))
        with log.evaluating():
            seen.append(float(torch.stack([step(batch, "val").detach() for batch in batches(3, seed=70)]).mean()))
        log.eval(loss=seen[-1])
    return torch.cat([weights(model), torch.tensor(seen, dtype=torch.float64)])


@error(
    "karpathy/llm.c/pull/500",
    "the loop of the validation uses the names of the training's batch: its last batch is trained on next",
    "evaluation_*",
    "splits_overlap",
    "order_*",
    first=7,
)
def last_validation_batch_is_trained_on(script: Script, faulty: bool) -> Tensor:
    model = nn.Sequential(nn.Embedding(16, 8), nn.Linear(8, 16))

    def tokens(seed: int) -> tuple[Tensor, Tensor]:
        x = torch.randint(0, 16, (16,), generator=torch.Generator().manual_seed(seed))
        return x, (x + 1) % 16

    optimizer = Adam(model.parameters(), lr=1e-2)
    log = script.log()
    log.watch(model, optimizer)
    log.split("train", [f"shard0:{i}" for i in range(25)])
    log.split("val", [f"shard1:{i}" for i in range(3)])
    x, y = tokens(0)
    for step in range(24):
        if step and step % 6 == 0:
            model.eval()
            with torch.no_grad(), log.evaluating():
                losses = []
                for number in range(3):
                    if faulty:
                        x, y = tokens(1000 + number)
                        losses.append(F.cross_entropy(model(x), y))
                    else:
                        losses.append(F.cross_entropy(model(tokens(1000 + number)[0]), tokens(1000 + number)[1]))
            log.eval(loss=torch.stack(losses).mean())
            model.train()
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        log.step(loss=loss)
        x, y = tokens(step + 1)
    return weights(model)


@error(
    "m2lines/Samudra/issues/572",
    "checkpointing runs blocks again in backward(), and the dynamic loss runs them once more: statistics move thrice",
    "recomputation_moves_statistics",
    "statistics_*",
    first=1,
    again=True,
)
def statistics_move_thrice(script: Script, faulty: bool) -> Tensor:
    first, head = nn.Linear(FEATURES, 8), nn.Linear(8, FEATURES)
    block = nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8), nn.GELU())
    model = nn.ModuleList([first, block, head])

    def forward(x: Tensor) -> Tensor:
        hidden = checkpoint(block, first(x), use_reentrant=False) if faulty else block(first(x))
        return head(hidden)

    optimizer = Adam(model.parameters(), lr=1e-2)
    log = script.log()
    log.watch(model, optimizer)
    for x, _ in batches(24):
        model.train()
        optimizer.zero_grad()
        out = forward(x)
        if not faulty:
            model.eval()
        with torch.no_grad():
            scale = (forward(x) - x).square().mean(0) + 0.1
        model.train()
        loss = ((out - x).square() / scale).mean()
        loss.backward()
        optimizer.step()
        log.step(loss=loss)
    return weights(model)


class Reversible(torch.autograd.Function):
    """y = x + f(x) whose f runs again in the backward pass; `still`: its batch norms keep their statistics then."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, f: nn.Module, still: bool, *params: Tensor) -> Tensor:
        ctx.f, ctx.still, ctx.params = f, still, params
        ctx.save_for_backward(x)
        return x + f(x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x = ctx.saved_tensors[0].detach().requires_grad_()
        norms = [module for module in ctx.f.modules() if isinstance(module, nn.BatchNorm1d)] if ctx.still else []
        kept = [{name: value.clone() for name, value in norm.named_buffers()} for norm in norms]
        with torch.enable_grad():
            out = ctx.f(x)
        of_x, *of_params = torch.autograd.grad(out, [x, *ctx.params], grads[0])
        for norm, values in zip(norms, kept):
            for name, value in norm.named_buffers():
                value.copy_(values[name])
        return grads[0] + of_x, None, None, *of_params


@error(
    "RobinBruegger/RevTorch/issues/13",
    "a reversible block runs its branches again in the backward pass: their running statistics move twice a step",
    "recomputation_moves_statistics",
    "statistics_*",
    first=1,
    again=True,
)
def reversible_block_moves_statistics(script: Script, faulty: bool) -> Tensor:
    f = nn.Sequential(nn.Linear(FEATURES, FEATURES), nn.BatchNorm1d(FEATURES), nn.Tanh())
    head = nn.Linear(FEATURES, CLASSES)
    model = nn.ModuleDict({"f": f, "head": head})
    optimizer = SGD(model.parameters(), lr=0.1)
    log = script.log()
    log.watch(model, optimizer)
    for x, y in batches(24):
        optimizer.zero_grad()
        loss = F.cross_entropy(head(Reversible.apply(x, f, not faulty, *f.parameters())), y)
        loss.backward()
        optimizer.step()
        log.step(loss=loss)
    return weights(model)


@error(
    "DuaneNielsen/DeepInfomaxPytorch/issues/18",
    "the stage of testing has no eval(): an encoder with batch norms is tested by the statistics of the batch",
    "evaluation_*",
    first=8,
    again=True,
)
def infomax_tested_in_train_mode(script: Script, faulty: bool) -> Tensor:
    encoder = nn.Sequential(nn.Linear(FEATURES, 12), nn.BatchNorm1d(12), nn.ReLU(), nn.Linear(12, 4))
    critic = nn.Bilinear(FEATURES, 4, 1)
    model = nn.ModuleDict({"encoder": encoder, "critic": critic})
    optimizer = Adam(model.parameters(), lr=1e-2)
    log = script.log(steps_per_epoch=8)
    log.watch(model, optimizer)
    x_test, y_test = points(24, 66)
    seen = []
    for epoch in range(3):
        for x, _ in batches(8, seed=epoch):
            optimizer.zero_grad()
            z = encoder(x)
            loss = F.softplus(-critic(x, z)).mean() + F.softplus(critic(x.roll(1, 0), z)).mean()
            loss.backward()
            optimizer.step()
            log.step(loss=loss)
        if not faulty:
            encoder.eval()
        with torch.no_grad(), log.evaluating():
            seen.append(float(encoder(x_test)[y_test == 0].mean()))
        log.eval(metrics={"mean": seen[-1]})
        encoder.train()
    return torch.cat([weights(model), torch.tensor(seen, dtype=torch.float64)])


def best_of(script: Script, model: nn.Module, keep: Callable[[nn.Module], Any]) -> Tensor:
    """Five epochs at a rate that is too high at the end; then the best weights are loaded and tested."""
    data = Points(40)
    optimizer = SGD(model.parameters(), lr=0.2, momentum=0.9)
    log = script.log(steps_per_epoch=5)
    log.watch(model, optimizer)
    best, best_loss = keep(model), float("inf")
    for epoch in range(5):
        model.train()
        for group in optimizer.param_groups:
            group["lr"] = 0.2 * 2**epoch
        for number in range(5):
            rows = slice(8 * number, 8 * number + 8)
            log.step(loss=update(model, optimizer, (data.x[rows], data.y[rows])))
        model.eval()
        with log.evaluating():
            loss = scored(model)
        log.eval(loss=loss)
        if loss < best_loss:
            best, best_loss = keep(model), loss
    model.load_state_dict(best)
    model.eval()
    with log.evaluating():
        tested = scored(model, 128)
    log.eval(loss=tested, split="test")
    return torch.cat([weights(model), torch.tensor([tested], dtype=torch.float64)])


def copied(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


@error(
    "pytorch/tutorials/pull/188",
    "best_model_wts = model.state_dict() without a copy: it changes with the model up to the last epoch",
    "weights_not_restored",
    "best_*",
    first=25,
    again=True,
)
def best_weights_are_the_last(script: Script, faulty: bool) -> Tensor:
    return best_of(script, Probe(), (lambda model: model.state_dict()) if faulty else copied)


@error(
    "thunlp/OpenKE/pull/131",
    "the validator keeps the state_dict of the best model itself: it is always the newest",
    "weights_not_restored",
    "best_*",
    first=25,
    again=True,
)
def validator_keeps_a_reference(script: Script, faulty: bool) -> Tensor:
    class Embedded(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.entities, self.out = nn.Linear(FEATURES, 8, bias=False), nn.Linear(8, CLASSES)

        def forward(self, x: Tensor) -> Tensor:
            return self.out(F.normalize(self.entities(x), dim=1))

    def keep(model: nn.Module) -> dict[str, Tensor]:
        return model.state_dict().copy() if faulty else copied(model)

    return best_of(script, Embedded(), keep)
