"""Errors of what an optimizer holds, of its groups, and of its state over a resume."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import SGD, Adam, AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR, StepLR

from tests.bench.silent.case import error
from tests.bench.silent.script import Script
from tests.bench.silent.toy import CLASSES, FEATURES, Probe, batches, loss_of, mlp, update, weights


class Language(nn.Module):
    """An embedding that can be resized, and a head."""

    def __init__(self, tokens: int) -> None:
        super().__init__()
        self.embedding, self.head = nn.Embedding(tokens, 8), nn.Linear(8, CLASSES)

    def resize(self, tokens: int) -> None:
        old, self.embedding = self.embedding, nn.Embedding(tokens, 8)
        with torch.no_grad():
            self.embedding.weight[: len(old.weight)] = old.weight

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.embedding(tokens).mean(1))


@error(
    "huggingface/transformers/pull/3519",
    "the embedding is resized for new tokens after the optimizer was built: it holds the old table",
    "not_in_optimizer",
    "optimizer_holds_strangers",
    "no_gradient",
    first=1,
    again=True,
)
def embedding_resized_after_the_optimizer(script: Script, faulty: bool) -> Tensor:
    model = Language(12)
    if not faulty:
        model.resize(16)
    optimizer = AdamW(model.parameters(), lr=1e-2)
    if faulty:
        model.resize(16)
    log = script.log()
    log.watch(model, optimizer)
    for step in range(24):
        tokens = torch.randint(0, 16, (8, 5), generator=torch.Generator().manual_seed(step))
        optimizer.zero_grad()
        loss = F.cross_entropy(model(tokens), tokens[:, 0] % CLASSES)
        loss.backward()
        optimizer.step()
        log.step(loss=loss)
    return weights(model)


class Potential(nn.Module):
    """Submodules of an interatomic potential; those that the option function does not know are optional."""

    def __init__(self) -> None:
        super().__init__()
        self.node_embedding, self.interactions = nn.Linear(FEATURES, 8), nn.Linear(8, 8)
        self.readouts, self.fukui_source_map = nn.Linear(8, CLASSES), nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.tanh(self.node_embedding(x))
        return self.readouts(torch.tanh(self.interactions(x)) + self.fukui_source_map(x))


@error(
    "ACEsuit/mace/pull/1529",
    "the groups are made of submodules by name: one that the list does not name stays at its initial values",
    "not_in_optimizer",
    first=1,
    again=True,
)
def submodule_that_no_group_names(script: Script, faulty: bool) -> Tensor:
    model = Potential()
    names = ["node_embedding", "interactions", "readouts"] + ([] if faulty else ["fukui_source_map"])
    groups = [
        {"name": name, "params": list(getattr(model, name).parameters()), "weight_decay": 1e-3 * (name == names[1])}
        for name in names
    ]
    optimizer = Adam(groups, lr=1e-2, amsgrad=True)
    log = script.log()
    log.watch(model, optimizer)
    for batch in batches(24):
        log.step(loss=update(model, optimizer, batch))
    return weights(model)


class Fusion(nn.Module):
    """Attention over two inputs with an embedding of positions that is a bare parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.pos_emb = nn.Parameter(torch.zeros(2, FEATURES))
        self.mix, self.bn, self.head = nn.Linear(FEATURES, 8), nn.BatchNorm1d(8), nn.Linear(8, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        pair = torch.stack([x, x.flip(1)], 1) + self.pos_emb
        return self.head(self.bn(torch.tanh(self.mix(pair)).mean(1)))


@error(
    "DocF/multispectral-object-detection/issues/77",
    "groups of batch norms, weights and biases: a bare parameter (pos_emb) is in none of them",
    "not_in_optimizer",
    first=1,
    again=True,
)
def bare_parameter_in_no_group(script: Script, faulty: bool) -> Tensor:
    model = Fusion()
    norms, matrices, biases = [], [], []
    for module in model.modules():
        if isinstance(getattr(module, "bias", None), nn.Parameter):
            biases.append(module.bias)
        if isinstance(module, nn.BatchNorm1d):
            norms.append(module.weight)
        elif isinstance(getattr(module, "weight", None), nn.Parameter):
            matrices.append(module.weight)
    optimizer = SGD(norms, lr=0.05, momentum=0.9, nesterov=True)
    optimizer.add_param_group({"params": matrices, "weight_decay": 5e-4})
    optimizer.add_param_group({"params": biases if faulty else [*biases, model.pos_emb]})
    log = script.log()
    log.watch(model, optimizer)
    for batch in batches(24):
        log.step(loss=update(model, optimizer, batch))
    return weights(model)


@error(
    "NVIDIA/Megatron-LM/pull/882",
    "the loop over parameters overwrites lr_mult with 1 at the first that is not scaled: the head has the full rate",
    "off_schedule",
    "lr_*",
    first=1,
    again=True,
)
def multiplier_overwritten_in_the_loop(script: Script, faulty: bool) -> Tensor:
    model = Probe()
    given = 0.1
    grouped: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, p in model.named_parameters():
        scaled = name.startswith("head")
        lr_mult = given if scaled else 1.0
        if faulty:
            if not scaled:
                given = 1.0
            lr_mult = given
        grouped.setdefault((0.1 if p.ndim > 1 else 0.0, lr_mult), []).append(p)
    groups = [{"params": members, "weight_decay": wd, "lr": 1e-2 * mult} for (wd, mult), members in grouped.items()]
    optimizer = AdamW(groups, lr=1e-2)
    rates = (1e-2, 1e-2, 1e-3, 1e-3)
    log = script.log()
    log.watch(model, optimizer, scheduled={"lr": lambda step, group: rates[group]})  # noqa: ARG005
    for batch in batches(24):
        log.step(loss=update(model, optimizer, batch))
    return weights(model)


@error(
    "msight-tech/research-ms-loss/issues/27",
    "the groups give lr_mul, which torch.optim does not know: the backbone trains at the rate of the head",
    "off_schedule",
    "lr_*",
    first=1,
    again=True,
)
def lr_mul_that_torch_does_not_know(script: Script, faulty: bool) -> Tensor:
    model = Probe()
    groups = []
    for name, p in model.named_parameters():
        multiplier = 0.1 if "backbone" in name else 1.0
        groups.append({"params": [p], "lr_mul": multiplier} | ({} if faulty else {"lr": 3e-2 * multiplier}))
    optimizer = Adam(groups, lr=3e-2, weight_decay=5e-4)
    log = script.log()
    log.watch(model, optimizer, scheduled={"lr": lambda step, group: 3e-3 if group < 4 else 3e-2})  # noqa: ARG005
    for batch in batches(24):
        log.step(loss=update(model, optimizer, batch))
    return weights(model)


@error(
    "gregorbachmann/Next-Token-Failures/issues/5",
    "the decay of the command line is not handed to AdamW: zero is written there",
    "off_schedule",
    "update_differs",
    first=1,
    again=True,
)
def decay_of_the_command_line_is_zero(script: Script, faulty: bool) -> Tensor:
    arguments = {"lr": 1e-2, "weight_decay": 0.1}
    model = mlp()
    optimizer = AdamW(
        model.parameters(),
        lr=arguments["lr"],
        weight_decay=0 if faulty else arguments["weight_decay"],
        betas=(0.9, 0.95),
    )
    log = script.log(config=arguments)
    log.watch(model, optimizer, scheduled={"weight_decay": lambda step, group: arguments["weight_decay"]})  # noqa: ARG005
    for batch in batches(24):
        log.step(loss=update(model, optimizer, batch))
    return weights(model)


@error(
    "rwth-i6/returnn/issues/1439",
    "the decay that a parameter carries is ignored: all have the optimizer's",
    "off_schedule",
    first=1,
    again=True,
)
def decay_that_a_parameter_carries(script: Script, faulty: bool) -> Tensor:
    model = mlp()
    model[2].weight.weight_decay = 0.3
    by_decay: dict[float, list[nn.Parameter]] = {}
    for p in model.parameters():
        by_decay.setdefault(0.01 if faulty else getattr(p, "weight_decay", 0.01), []).append(p)
    optimizer = AdamW([{"params": held, "weight_decay": decay} for decay, held in by_decay.items()], lr=1e-2)
    log = script.log()
    log.watch(model, optimizer, scheduled={"weight_decay": lambda step, group: (0.01, 0.3)[group]})  # noqa: ARG005
    for batch in batches(24):
        log.step(loss=update(model, optimizer, batch))
    return weights(model)


class Sharpness(Optimizer):
    """Sharpness-aware minimisation around a base optimizer; `whole`: its load reaches the base's state."""

    def __init__(self, params: Iterable[Tensor], whole: bool) -> None:
        super().__init__(params, {"rho": 0.05})
        self.base = SGD(self.param_groups, lr=0.1, momentum=0.9)
        self.param_groups, self.whole = self.base.param_groups, whole

    def state_dict(self) -> dict[str, Any]:
        return self.base.state_dict() if self.whole else super().state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        if self.whole:
            self.base.load_state_dict(state_dict)
        else:
            super().load_state_dict(state_dict)
            self.base.param_groups = self.param_groups

    @torch.no_grad()
    def ascend(self) -> None:
        held = [p for group in self.param_groups for p in group["params"]]
        norm = torch.stack([p.grad.norm() for p in held]).norm() + 1e-12
        for p in held:
            self.state[p]["moved"] = 0.05 * p.grad / norm
            p.add_(self.state[p]["moved"])

    @torch.no_grad()
    def descend(self) -> None:
        for group in self.param_groups:
            for p in group["params"]:
                p.sub_(self.state[p]["moved"])
        self.base.step()


def resumed(script: Script, make: Any, train: Any, kept: Any) -> Tensor:
    """Two attempts of 12 steps: `make() -> (model, optimizer)`, `train(model, optimizer, batch)`, `kept(optimizer)`."""
    for attempt in range(2):
        model, optimizer, watched = make()
        if attempt:
            last = torch.load(script.path("last.pt"))
            model.load_state_dict(last["model"])
            optimizer = kept.load(model, optimizer, last)
            watched = getattr(optimizer, "base", optimizer)
        log = script.log(resume=attempt > 0, step=12 * attempt, total_steps=24)
        log.watch(model, watched)
        for batch in batches(12, seed=attempt):
            log.step(loss=train(model, optimizer, batch))
        torch.save({"model": model.state_dict()} | kept.save(optimizer), script.path("last.pt"))
        log.checkpoint(script.path("last.pt"))
    return weights(model)


class Whole:
    """A checkpoint that has the optimizer's state."""

    def save(self, optimizer: Any) -> dict[str, Any]:
        return {"optimizer": optimizer.state_dict()}

    def load(self, model: nn.Module, optimizer: Any, last: dict[str, Any]) -> Any:
        optimizer.load_state_dict(last["optimizer"])
        return optimizer


class Nothing(Whole):
    """A checkpoint of the weights alone."""

    def save(self, optimizer: Any) -> dict[str, Any]:
        return {}

    def load(self, model: nn.Module, optimizer: Any, last: dict[str, Any]) -> Any:
        return optimizer


class Erased(Whole):
    """The state is loaded; setting the parameters makes the optimizer anew."""

    def load(self, model: nn.Module, optimizer: Any, last: dict[str, Any]) -> Any:
        super().load(model, optimizer, last)
        return Adam([p for _, p in model.named_parameters() if p.requires_grad], lr=1e-2)


@error(
    "davda54/sam/pull/39",
    "the checkpoint of a wrapper around an optimizer does not reach the state of the one inside",
    "optimizer_state_*",
    first=13,
    again=True,
)
def wrapper_does_not_load_its_base(script: Script, faulty: bool) -> Tensor:
    def make() -> Any:
        model = mlp()
        optimizer = Sharpness(model.parameters(), whole=not faulty)
        return model, optimizer, optimizer.base

    def train(model: nn.Module, optimizer: Any, batch: Any) -> Tensor:
        loss_of(model, batch).backward()
        optimizer.ascend()
        optimizer.zero_grad()
        loss = loss_of(model, batch)
        loss.backward()
        optimizer.descend()
        optimizer.zero_grad()
        return loss

    return resumed(script, make, train, Whole())


@error(
    "OpenNMT/OpenNMT-py/issues/617",
    "set_parameters() builds the optimizer anew after the checkpoint's state was loaded into it",
    "optimizer_state_*",
    first=13,
    again=True,
)
def set_parameters_erases_the_state(script: Script, faulty: bool) -> Tensor:
    def make() -> Any:
        model = mlp()
        optimizer = Adam(model.parameters(), lr=1e-2)
        return model, optimizer, optimizer

    return resumed(script, make, update, Erased() if faulty else Whole())


@error(
    "EvolvingLMMs-Lab/OneVision-Encoder/pull/65",
    "the checkpoint holds backbone and scheduler, and no state of AdamW",
    "optimizer_state_*",
    first=13,
    again=True,
)
def checkpoint_without_the_optimizer(script: Script, faulty: bool) -> Tensor:
    def make() -> Any:
        model = Probe()
        optimizer = AdamW(model.parameters(), lr=5e-3, weight_decay=0.05)
        return model, optimizer, optimizer

    return resumed(script, make, update, Nothing() if faulty else Whole())


@error(
    "MTG/omar-rq/pull/34",
    "the last_epoch of a scheduler of one's own is not in the checkpoint: on resume its warm-up is made again",
    "off_schedule",
    "lr_*",
    "schedule_*",
    first=17,
    again=True,
)
def count_of_the_schedule_not_kept(script: Script, faulty: bool) -> Tensor:
    law = {"name": "linear", "total_steps": 32, "max_lr": 1e-2, "warmup_steps": 8, "initial_lr": 0.0}
    for attempt in range(2):
        model = mlp()
        optimizer = AdamW(model.parameters(), lr=1e-2)
        scheduler = LambdaLR(optimizer, lambda p: p / 8 if p < 8 else max(0.0, (32 - p) / 24))
        if attempt:
            last = torch.load(script.path("last.pt"))
            model.load_state_dict(last["model"])
            optimizer.load_state_dict(last["optimizer"])
            if not faulty:
                scheduler.load_state_dict(last["scheduler"])
        log = script.log(resume=attempt > 0, step=16 * attempt, schedule=law, optimizer=optimizer, total_steps=32)
        log.watch(model, optimizer)
        for batch in batches(16, seed=attempt):
            loss = update(model, optimizer, batch)
            scheduler.step()
            log.step(loss=loss)
        parts = {"model": model, "optimizer": optimizer, "scheduler": scheduler}
        torch.save({name: part.state_dict() for name, part in parts.items()}, script.path("last.pt"))
        log.checkpoint(script.path("last.pt"))
    return weights(model)


@error(
    "victoresque/pytorch-template/issues/68",
    "the scheduler counts its epochs from nought after a resume: the next decay comes too late",
    "off_schedule",
    "lr_*",
    "schedule_*",
    first=25,
    again=True,
)
def epochs_counted_from_nought_on_resume(script: Script, faulty: bool) -> Tensor:
    known = {"unit": "epoch", "steps_per_epoch": 8, "epochs": 5, "total_steps": 40}
    meant = lambda step, group: 1e-2 * 0.1 ** ((step - 1) // 24)  # noqa: E731, ARG005
    for attempt in range(2):
        model = mlp()
        optimizer = Adam(model.parameters(), lr=1e-2, amsgrad=True)
        scheduler = StepLR(optimizer, step_size=3, gamma=0.1)
        if attempt:
            last = torch.load(script.path("last.pt"))
            model.load_state_dict(last["model"])
            optimizer.load_state_dict(last["optimizer"])
            if not faulty:
                scheduler.load_state_dict(last["scheduler"])
        log = script.log(resume=attempt > 0, step=16 * attempt, **known)
        log.watch(model, optimizer, scheduled={"lr": meant})
        for epoch in ((0, 1), (2, 3, 4))[attempt]:
            for batch in batches(8, seed=epoch):
                log.step(loss=update(model, optimizer, batch))
            scheduler.step()
        parts = {"model": model, "optimizer": optimizer, "scheduler": scheduler}
        torch.save({name: part.state_dict() for name, part in parts.items()}, script.path("last.pt"))
        log.checkpoint(script.path("last.pt"))
    return weights(model)
