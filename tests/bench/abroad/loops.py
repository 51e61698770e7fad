"""Loops of one's own: plain torch, accelerate, timm and ignite, with the faults of docs/detection.md injected into the loop."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.optim import lr_scheduler as S

from eegwatch import RunLog

TOTAL, PER_EPOCH = 120, 20
Make = Callable[[Any], Any]


def model_and_optimizer(groups: tuple[float, ...] = (1e-2,), kind: str = "AdamW", tensor: bool = False) -> Any:
    torch.manual_seed(0)
    nets = [torch.nn.Linear(4, 2) for _ in groups]
    rates = [torch.tensor(lr) if tensor else lr for lr in groups]
    parts = [{"params": list(net.parameters()), "lr": lr} for net, lr in zip(nets, rates)]
    return nets, getattr(torch.optim, kind)(parts, lr=rates[0])


def loss_of(nets: Any) -> Any:
    x = torch.randn(4, 4)
    return sum(net(x).square().mean() for net in nets)


def torch_loop(
    folder: Path,
    make: Make,
    *,
    order: str = "step, schedule, log",
    fault: str = "",
    groups: tuple[float, ...] = (1e-2,),
    total: int = TOTAL,
    per_epoch: int = PER_EPOCH,
    unit: str | None = None,
    accumulate: int = 1,
    tensor: bool = False,
    skips: tuple[int, ...] = (),
    resume_at: int | None = None,
    declare: Any = None,
) -> Path:
    """Train `total` optimizer steps; `fault` names what the loop does wrong. Returns the run's folder."""
    nets, optimizer = model_and_optimizer(groups, tensor=tensor)
    scheduler = make(optimizer)
    given = {"total_steps": total, "steps_per_epoch": per_epoch, "unit": unit, "accumulate": accumulate}
    log = RunLog(folder, schedule=declare or scheduler, optimizer=optimizer, **given)
    scaler = torch.amp.GradScaler("cpu", enabled=bool(skips))
    stepping = scheduler
    frozen_rate = 0.0
    n = 0
    while n < total:
        n += 1
        if resume_at is not None and n == resume_at + 1:
            log.end("stopped")
            states = optimizer.state_dict(), scheduler.state_dict()
            _, optimizer_ = model_and_optimizer(groups, tensor=tensor)
            for fresh, old in zip(optimizer_.param_groups, optimizer.param_groups):
                fresh["params"] = old["params"]
            optimizer = optimizer_
            scheduler = stepping = make(optimizer)
            if fault != "nothing restored":
                optimizer.load_state_dict(states[0])
            if fault not in ("scheduler lost", "nothing restored"):
                scheduler.load_state_dict(states[1])
            if fault == "frozen on resume":
                stepping = make(model_and_optimizer(groups)[1])  # it moves an optimizer that trains nothing
            log = RunLog(folder, schedule=scheduler, optimizer=optimizer, resume=log.folder, step=resume_at, **given)
        optimizer.zero_grad()
        for micro in range(accumulate):
            loss = loss_of(nets) / accumulate
            scaler.scale(loss).backward()
            if fault == "per micro-batch" and micro < accumulate - 1:
                try:
                    scheduler.step()
                except ValueError as error:  # OneCycleLR stepped beyond its end ends the script
                    log.end("failed", str(error))
                    return log.folder
        if n in skips:
            nets[0].weight.grad.fill_(float("inf"))
        if fault == "a group frozen" and n > total // 3:
            optimizer.param_groups[1]["lr"] = frozen_rate
        if fault == "a group scaled":
            optimizer.param_groups[1]["lr"] = 2.0 * scheduler.get_last_lr()[1]
        if fault == "scaled":
            for group in optimizer.param_groups:
                group["lr"] = 4.0 * scheduler.get_last_lr()[0]

        def step() -> None:
            scaler.step(optimizer)
            scaler.update()

        def schedule(n: int = n) -> None:
            nonlocal scheduler, stepping
            if fault == "never":
                return
            if fault == "per epoch" and n % per_epoch:
                return
            if unit == "epoch" and fault != "every batch" and n % per_epoch:
                return
            if fault == "frozen from the middle" and n > total // 3:
                return
            if fault == "new scheduler each epoch" and n % per_epoch == 0:
                for group, lr in zip(optimizer.param_groups, groups):
                    group["lr"] = lr
                    group.pop("initial_lr", None)
                scheduler = stepping = make(optimizer)
                return
            stepping.step()
            if fault == "batch and epoch" and n % per_epoch == 0:
                stepping.step()
            if fault == "in every process":
                for _ in range(3):
                    stepping.step()

        try:
            for call in order.split(", "):
                {"step": step, "schedule": schedule, "log": lambda: log.step(loss=loss)}[call]()
        except ValueError as error:  # OneCycleLR stepped beyond its end ends the script
            log.end("failed", str(error))
            break
        if fault == "a group frozen":
            frozen_rate = optimizer.param_groups[1]["lr"] if n <= total // 3 else frozen_rate
    log.end()
    return log.folder


def accelerate_loop(folder: Path, make: Make, *, accumulate: int = 1, total: int = 60, fault: str = "") -> Path:
    from accelerate import Accelerator

    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=accumulate)
    nets, optimizer = model_and_optimizer()
    net, prepared, scheduler = accelerator.prepare(nets[0], optimizer, make(optimizer))
    log = RunLog(folder, schedule=scheduler, total_steps=total, steps_per_epoch=20, accumulate=accumulate)
    for n in range(1, total * accumulate + 1):
        with accelerator.accumulate(net):
            loss = loss_of([net])
            accelerator.backward(loss)
            prepared.step()
            if fault == "per epoch":
                if n % (20 * accumulate) == 0:
                    scheduler.step()
            elif fault != "never":
                scheduler.step()
            if fault == "inner too" and accelerator.sync_gradients:
                scheduler.scheduler.step()
            prepared.zero_grad()
        if accelerator.sync_gradients:
            log.step(loss=loss)
    log.end()
    return log.folder


def timm_loop(folder: Path, make: Make, *, epochs: int = 12, per_epoch: int = 10, fault: str = "") -> Path:
    """As timm's train.py: step_update at every update, step at every epoch's end."""
    nets, optimizer = model_and_optimizer()
    scheduler = make(optimizer)
    total = epochs * per_epoch
    log = RunLog(folder, schedule=scheduler, total_steps=total, steps_per_epoch=per_epoch, epochs=epochs)
    updates = 0
    for epoch in range(epochs):
        for _ in range(per_epoch):
            optimizer.zero_grad()
            loss = loss_of(nets)
            loss.backward()
            optimizer.step()
            updates += 1
            if fault != "never":
                scheduler.step_update(num_updates=epoch if fault == "epochs for updates" else updates)
            log.step(loss=loss)
        if fault not in ("never", "no step at the epoch"):
            scheduler.step(epoch + 1 if fault != "an epoch behind" else epoch)
    log.end()
    return log.folder


def ignite_loop(folder: Path, make: Make, *, total: int = TOTAL, event: str = "ITERATION_STARTED") -> Path:
    from ignite.engine import Engine, Events

    nets, optimizer = model_and_optimizer()
    scheduler = make(optimizer)
    log = RunLog(folder, schedule=scheduler, total_steps=total, steps_per_epoch=total // 4)

    def update(engine: Any, _: Any) -> float:
        optimizer.zero_grad()
        loss = loss_of(nets)
        loss.backward()
        optimizer.step()
        log.step(loss=loss)
        return float(loss)

    engine = Engine(update)
    engine.add_event_handler(getattr(Events, event), scheduler)
    engine.run(range(total // 4), max_epochs=4)
    log.end()
    return log.folder


def without_a_scheduler(folder: Path, which: str) -> Path:
    """schedule-free and Prodigy: the optimizer is its own schedule."""
    nets, optimizer = model_and_optimizer()
    parameters = nets[0].parameters()
    if which == "schedule-free":
        import schedulefree

        optimizer = schedulefree.AdamWScheduleFree(parameters, lr=1e-2, warmup_steps=10)
        optimizer.train()
    else:
        import prodigyopt

        optimizer = prodigyopt.Prodigy(parameters, lr=1.0)
    log = RunLog(folder, optimizer=optimizer, total_steps=TOTAL, steps_per_epoch=PER_EPOCH)
    for _ in range(TOTAL):
        optimizer.zero_grad()
        loss = loss_of(nets)
        loss.backward()
        optimizer.step()
        log.step(loss=loss)
    log.end()
    return log.folder


def warmed(rest: Make, warm: int = 15) -> Make:
    return lambda o: S.SequentialLR(o, [S.LinearLR(o, 0.1, total_iters=warm), rest(o)], milestones=[warm])


def transformers(name: str, total: int = TOTAL, **given: Any) -> Make:
    def make(optimizer: Any) -> Any:
        from transformers import get_scheduler

        return get_scheduler(name, optimizer, 12, total, scheduler_specific_kwargs=given)

    return make
