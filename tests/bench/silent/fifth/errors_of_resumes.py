"""Errors of a resume: what a checkpoint lacks, what is loaded into the wrong place, and where the data go on."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import SGD, Adam, AdamW
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader, Sampler

from tests.bench.silent.case import error
from tests.bench.silent.script import Script
from tests.bench.silent.toy import CLASSES, FEATURES, Points, Probe, batches, loss_of, mlp, update, weights


def saved(script: Script, log: Any, **parts: Any) -> None:
    """The checkpoint "last.pt" of this script: the states of its parts, or what they are themselves."""
    content = {name: part.state_dict() if hasattr(part, "state_dict") else part for name, part in parts.items()}
    torch.save(content, script.path("last.pt"))
    log.checkpoint(script.path("last.pt"))


@error(
    "kevinzakka/recurrent-visual-attention/issues/8",
    "load_checkpoint() restores the model and not the optimizer: SGD's momentum begins at zero",
    "optimizer_state_*",
    first=13,
    again=True,
)
def momentum_not_loaded(script: Script, faulty: bool) -> Tensor:
    for attempt in range(2):
        model = nn.Sequential(nn.Linear(FEATURES, 8), nn.ReLU(), nn.Linear(8, CLASSES))
        optimizer = SGD(model.parameters(), lr=0.05, momentum=0.9, nesterov=True)
        if attempt:
            last = torch.load(script.path("last.pt"))
            model.load_state_dict(last["model"])
            if not faulty:
                optimizer.load_state_dict(last["optimizer"])
        log = script.log(resume=attempt > 0, step=12 * attempt, total_steps=24)
        log.watch(model, optimizer)
        for batch in batches(12, seed=attempt):
            log.step(loss=update(model, optimizer, batch))
        saved(script, log, model=model, optimizer=optimizer)
    return weights(model)


@error(
    "NM512/dreamerv3-torch/issues/38",
    "the agent's state is saved, none of its three optimizers: each resume begins with empty moments",
    "optimizer_state_*",
    first=13,
    again=True,
)
def agent_saved_without_optimizers(script: Script, faulty: bool) -> Tensor:
    for attempt in range(2):
        world, actor, critic = nn.Linear(FEATURES, 8), nn.Linear(8, CLASSES), nn.Linear(8, 1)
        agent = nn.ModuleDict({"world": world, "actor": actor, "critic": critic})
        optimizers = [Adam(part.parameters(), lr=1e-2, eps=1e-5) for part in agent.values()]
        if attempt:
            last = torch.load(script.path("last.pt"))
            agent.load_state_dict(last["agent"])
            for optimizer, state in zip(optimizers, last.get("optimizers", [])):
                optimizer.load_state_dict(state)
        log = script.log(resume=attempt > 0, step=12 * attempt, total_steps=24)
        log.watch(agent, optimizers)
        for x, y in batches(12, seed=attempt):
            agent.zero_grad()
            hidden = torch.tanh(world(x))
            value = critic(hidden.detach()).squeeze(1)
            loss = F.mse_loss(hidden[:, :FEATURES], x) + F.cross_entropy(actor(hidden.detach()), y)
            (loss + F.mse_loss(value, y.float())).backward()
            for optimizer in optimizers:
                optimizer.step()
            log.step(loss=loss)
        kept = {} if faulty else {"optimizers": [optimizer.state_dict() for optimizer in optimizers]}
        saved(script, log, agent=agent, **kept)
    return weights(agent)


def with_a_scaler(script: Script, model_of: Any, kept: bool) -> Tensor:
    """Two attempts of ten steps with a scale that begins too high; `kept`: the checkpoint has it."""
    for attempt in range(2):
        model = model_of()
        optimizer = SGD(model.parameters(), lr=0.02, momentum=0.9)
        scaler = torch.amp.GradScaler("cpu", init_scale=2.0**127, growth_interval=1000)
        if attempt:
            last = torch.load(script.path("last.pt"))
            model.load_state_dict(last["model"])
            optimizer.load_state_dict(last["optimizer"])
            if "scaler" in last:
                scaler.load_state_dict(last["scaler"])
        log = script.log(resume=attempt > 0, step=10 * attempt, total_steps=20)
        log.watch(model, optimizer, scaler=scaler)
        for batch in batches(10, seed=attempt):
            optimizer.zero_grad()
            loss = 8 * loss_of(model, batch)
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
            log.step(loss=loss)
        saved(script, log, model=model, optimizer=optimizer, **({"scaler": scaler} if kept else {}))
    return weights(model)


@error(
    "facebookresearch/co-tracker/pull/101",
    "the checkpoint of a training in mixed precision has no state of the gradient scaler",
    "scaler_*",
    first=11,
    again=True,
)
def tracker_forgets_its_scale(script: Script, faulty: bool) -> Tensor:
    return with_a_scaler(script, Probe, kept=not faulty)


@error(
    "facebookresearch/detectron2/pull/3686",
    "AMPTrainer has a state_dict() with the scaler, and the checkpointer does not ask for it",
    "scaler_*",
    first=11,
    again=True,
)
def checkpointer_does_not_ask_for_the_scaler(script: Script, faulty: bool) -> Tensor:
    class Trainer:
        def __init__(self, scaler: Any) -> None:
            self.grad_scaler = scaler

        def state_dict(self) -> dict[str, Any]:
            return {"grad_scaler": self.grad_scaler.state_dict()}

    for attempt in range(2):
        model = mlp()
        optimizer = AdamW(model.parameters(), lr=5e-3, eps=1e-4)
        trainer = Trainer(torch.amp.GradScaler("cpu", init_scale=2.0**126, growth_interval=500))
        checkpointables = {"model": model, "optimizer": optimizer} | ({} if faulty else {"trainer": trainer})
        if attempt:
            last = torch.load(script.path("last.pt"))
            model.load_state_dict(last["model"])
            optimizer.load_state_dict(last["optimizer"])
            if "trainer" in last:
                trainer.grad_scaler.load_state_dict(last["trainer"]["grad_scaler"])
        log = script.log(resume=attempt > 0, step=10 * attempt, total_steps=20)
        log.watch(model, optimizer, scaler=trainer.grad_scaler)
        for batch in batches(10, seed=attempt):
            optimizer.zero_grad()
            loss = 16 * loss_of(model, batch)
            trainer.grad_scaler.scale(loss).backward()
            trainer.grad_scaler.step(optimizer)
            trainer.grad_scaler.update()
            log.step(loss=loss)
        saved(script, log, **checkpointables)
    return weights(model)


@error(
    "facebookresearch/fairchem/pull/146",
    "the epoch of the checkpoint is not loaded: the schedule of the rate begins anew",
    "off_schedule",
    "lr_*",
    "schedule_*",
    first=13,
    again=True,
)
def epoch_of_the_checkpoint_not_loaded(script: Script, faulty: bool) -> Tensor:
    def rate(step: int, group: int) -> float:
        return 1e-2 * 0.5 ** ((step - 1) // 4)

    for attempt in range(2):
        model = mlp()
        optimizer = AdamW(model.parameters(), lr=1e-2)
        epoch = 0
        if attempt:
            last = torch.load(script.path("last.pt"))
            model.load_state_dict(last["model"])
            optimizer.load_state_dict(last["optimizer"])
            if not faulty:
                epoch = last["epoch"]
        for group in optimizer.param_groups:
            group["initial_lr"] = 1e-2
        scheduler = LambdaLR(optimizer, lambda e: 0.5**e, last_epoch=epoch - 1)
        log = script.log(resume=attempt > 0, step=12 * attempt, total_steps=24, steps_per_epoch=4)
        log.watch(model, optimizer, scheduled={"lr": rate})
        for turn in range(3):
            for batch in batches(4, seed=3 * attempt + turn):
                log.step(loss=update(model, optimizer, batch))
            scheduler.step()
            epoch += 1
        saved(script, log, model=model, optimizer=optimizer, epoch=epoch)
    return weights(model)


class Permutations(Sampler[int]):
    """A permutation by the epoch; `begin`: how many of the first are left out, once."""

    def __init__(self, n: int) -> None:
        self.n, self.epoch, self.begin = n, 0, 0

    def __len__(self) -> int:
        return self.n

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        order = torch.randperm(self.n, generator=torch.Generator().manual_seed(self.epoch)).tolist()
        begin, self.begin = self.begin, 0
        return iter(order[begin:])


class Stateful(DataLoader[Any]):
    """A loader with a state; `counted`: what an attempt yields is counted from where it began, not from zero."""

    def __init__(self, sampler: Permutations, counted: bool = True) -> None:
        super().__init__(Points(96), batch_size=8, sampler=sampler)
        self.order, self.counted, self.yielded = sampler, counted, 0

    def state_dict(self) -> dict[str, int]:
        return {"batches_yielded": self.yielded}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.order.begin = 8 * state["batches_yielded"]
        self.yielded = state["batches_yielded"] if self.counted else 0

    def __iter__(self) -> Iterator[Any]:
        for batch in super().__iter__():
            self.yielded += 1
            yield batch


def in_parts(script: Script, ends: tuple[int, ...], counted: bool, restored: bool) -> Tensor:
    """One epoch of 12 batches in several attempts that end at `ends`; the loader's state goes over where `restored`."""
    done = 0
    for attempt, end in enumerate(ends):
        model = mlp()
        optimizer = Adam(model.parameters(), lr=1e-2)
        loader = Stateful(Permutations(96), counted)
        if attempt:
            last = torch.load(script.path("last.pt"))
            model.load_state_dict(last["model"])
            optimizer.load_state_dict(last["optimizer"])
            if restored:
                loader.load_state_dict(last["loader"])
        log = script.log(resume=attempt > 0, step=done, steps_per_epoch=12, total_steps=12)
        log.watch(model, optimizer, loader=loader)
        for batch in loader:
            log.step(loss=update(model, optimizer, batch))
            done += 1
            if done == end:
                break
        saved(script, log, model=model, optimizer=optimizer, loader=loader)
    return weights(model)


@error(
    "mosaicml/streaming/issues/437",
    "the loader's state is loaded and has no effect: the epoch begins again at its first sample",
    "order_*",
    first=6,
    again=True,
)
def state_of_the_loader_has_no_effect(script: Script, faulty: bool) -> Tensor:
    return in_parts(script, (5, 12), counted=True, restored=not faulty)


@error(
    "KempnerInstitute/KempnerForge/pull/58",
    "the second resume within an epoch skips what the attempt before it had yielded, and not what was skipped then",
    "order_*",
    first=9,
    again=True,
)
def second_resume_skips_too_little(script: Script, faulty: bool) -> Tensor:
    return in_parts(script, (5, 8, 12), counted=not faulty, restored=True)


def averaged(script: Script, decay: Any, restore: Any) -> Tensor:
    """Two attempts with an average of the weights; `restore(model, average, checkpoint)` loads at a resume."""
    for attempt in range(2):
        model = Probe()
        average = copy.deepcopy(model).requires_grad_(False).eval()
        optimizer = SGD(model.parameters(), lr=0.1, momentum=0.9)
        began = 0
        if attempt:
            last = torch.load(script.path("last.pt"))
            optimizer.load_state_dict(last["optimizer"])
            began = restore(model, average, last)
        log = script.log(resume=attempt > 0, step=12 * attempt, total_steps=24)
        log.watch(model, optimizer)
        log.ema(average, decay)
        for number, batch in enumerate(batches(12, seed=attempt), start=1):
            loss = update(model, optimizer, batch)
            d = decay(began + number) if callable(decay) else decay
            with torch.no_grad():
                for a, p in zip(average.state_dict().values(), model.state_dict().values()):
                    a.lerp_(p, 1 - d) if a.is_floating_point() else a.copy_(p)
            log.step(loss=loss)
        saved(script, log, model=model, average=average, optimizer=optimizer, updates=began + 12)
    return weights(model, average)


def whole(model: nn.Module, average: nn.Module, last: dict[str, Any]) -> int:
    model.load_state_dict(last["model"])
    average.load_state_dict(last["average"])
    return int(last["updates"])


@error(
    "Megvii-BaseDetection/YOLOX/issues/1318",
    "the weights of the average alone are kept: on resume the model goes on from them too",
    "weights_not_restored",
    "ema_*",
    first=13,
    again=True,
    note="the checkpoint has the model too, and the resume does not look at it",
)
def resumed_from_the_average(script: Script, faulty: bool) -> Tensor:
    def restore(model: nn.Module, average: nn.Module, last: dict[str, Any]) -> int:
        if not faulty:
            return whole(model, average, last)
        model.load_state_dict(last["average"])
        average.load_state_dict(last["average"])
        return int(last["updates"])

    return averaged(script, 0.9, restore)


@error(
    "ultralytics/yolov5/issues/310",
    "on resume the average becomes the model, and the average's own count of updates begins at zero",
    "weights_not_restored",
    "ema_*",
    first=13,
    again=True,
)
def average_and_its_count_begin_anew(script: Script, faulty: bool) -> Tensor:
    def restore(model: nn.Module, average: nn.Module, last: dict[str, Any]) -> int:
        if not faulty:
            return whole(model, average, last)
        model.load_state_dict(last["average"])
        average.load_state_dict(model.state_dict())
        return 0

    return averaged(script, lambda step: 0.98 * (1 - math.exp(-step / 20)), restore)


@error(
    "TensorAuto/OpenTau/issues/185",
    "the optimizer's float32 copies are not in the checkpoint: a resume makes them of the bfloat16 weights",
    "weights_not_restored",
    "optimizer_state_*",
    "masters_*",
    first=13,
)
def masters_made_of_rounded_weights(script: Script, faulty: bool) -> Tensor:
    for attempt in range(2):
        model = mlp().bfloat16()
        if attempt:
            last = torch.load(script.path("last.pt"))
            model.load_state_dict(last["model"])
        masters = [p.detach().float().clone().requires_grad_() for p in model.parameters()]
        optimizer = AdamW(masters, lr=1e-3)
        if attempt:
            optimizer.load_state_dict(last["optimizer"])
            for master, kept in zip(masters, [] if faulty else last["masters"]):
                master.data.copy_(kept)
        log = script.log(resume=attempt > 0, step=12 * attempt, total_steps=24)
        log.watch(model, optimizer)
        for x, y in batches(12, seed=attempt):
            model.zero_grad()
            loss = F.cross_entropy(model(x.bfloat16()).float(), y)
            loss.backward()
            for master, p in zip(masters, model.parameters()):
                master.grad = p.grad.float()
            optimizer.step()
            with torch.no_grad():
                for master, p in zip(masters, model.parameters()):
                    p.copy_(master)
            log.step(loss=loss)
        saved(script, log, model=model, optimizer=optimizer, masters=[m.detach().clone() for m in masters])
    return torch.cat([m.detach().reshape(-1).double() for m in masters])


class Language(nn.Module):
    """An embedding and a head of the same shape, which share their weight or not."""

    def __init__(self, tied: bool) -> None:
        super().__init__()
        self.embed_tokens, self.lm_head = nn.Embedding(16, 8), nn.Linear(8, 16, bias=False)
        if tied:
            self.lm_head.weight = self.embed_tokens.weight

    def forward(self, tokens: Tensor) -> Tensor:
        return self.lm_head(torch.tanh(self.embed_tokens(tokens)))


def next_tokens(model: nn.Module, seed: int) -> Tensor:
    tokens = torch.randint(0, 16, (24,), generator=torch.Generator().manual_seed(seed))
    return F.cross_entropy(model(tokens), (tokens + 1) % 16)


@error(
    "NVIDIA-NeMo/Automodel/pull/2511",
    "lm_head counts as tied and is left out of the checkpoint, though it is not: a resume overwrites its weights",
    "weights_not_restored",
    "tying_lost",
    first=13,
)
def head_left_out_as_if_it_were_tied(script: Script, faulty: bool) -> Tensor:
    for attempt in range(2):
        model = Language(tied=not faulty)
        optimizer = AdamW(model.parameters(), lr=1e-2)
        if attempt:
            last = torch.load(script.path("last.pt"))
            state = last["model"]
            model.load_state_dict(state | {"lm_head.weight": state["embed_tokens.weight"]})
            optimizer.load_state_dict(last["optimizer"])
        log = script.log(resume=attempt > 0, step=12 * attempt, total_steps=24)
        log.watch(model, optimizer)
        for step in range(12):
            optimizer.zero_grad()
            loss = next_tokens(model, 100 * attempt + step)
            loss.backward()
            optimizer.step()
            log.step(loss=loss)
        kept = {name: value for name, value in model.state_dict().items() if not name.startswith("lm_head")}
        saved(script, log, model=kept, optimizer=optimizer)
    return weights(model)


@error(
    "vec2text/vec2text/pull/94",
    "the wrapper around a pretrained model does not tie its weights on loading: the head begins at zero, on its own",
    "tying_lost",
    first=1,
)
def wrapper_does_not_tie(script: Script, faulty: bool) -> Tensor:
    torch.save({"embed_tokens.weight": Language(tied=True).embed_tokens.weight.detach()}, script.path("pretrained.pt"))
    model = Language(tied=not faulty)
    if faulty:
        nn.init.zeros_(model.lm_head.weight)
    model.load_state_dict(torch.load(script.path("pretrained.pt")), strict=False)
    optimizer = AdamW(model.parameters(), lr=1e-2)
    log = script.log()
    log.watch(model, optimizer)
    for step in range(24):
        optimizer.zero_grad()
        loss = next_tokens(model, step)
        loss.backward()
        optimizer.step()
        log.step(loss=loss)
    return weights(model)
