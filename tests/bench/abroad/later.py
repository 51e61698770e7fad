"""Faults of rates that were thought of after the rules: each is set into a loop whose healthy form is a case as well."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch.optim import lr_scheduler as S

from eegwatch import RunLog
from tests.bench.abroad.judge import Case
from tests.bench.abroad.loops import TOTAL, Make, loss_of, model_and_optimizer
from tests.bench.abroad.trainers import transformers_run

EPOCH = 20
Meddle = Callable[[int, Any, Any], None]  # step, optimizer, scheduler


def own_loop(folder: Path, make: Make, meddle: Meddle, steps_after: Callable[[int], int]) -> Path:
    """`meddle` comes before each update; `steps_after(n)`: how often the scheduler is stepped after update n."""
    nets, optimizer = model_and_optimizer()
    scheduler = make(optimizer)
    log = RunLog(folder, schedule=scheduler, optimizer=optimizer, total_steps=TOTAL, steps_per_epoch=EPOCH)
    for n in range(1, TOTAL + 1):
        meddle(n, optimizer, scheduler)
        optimizer.zero_grad()
        loss = loss_of(nets)
        loss.backward()
        optimizer.step()
        for _ in range(steps_after(n)):
            scheduler.step()
        log.step(loss=loss)
    log.end()
    return log.folder


def ignite_evaluator(folder: Path, *, evaluator: bool) -> Path:
    """The handler that steps the scheduler is attached to the evaluator too, by mistake."""
    from ignite.engine import Engine, Events

    nets, optimizer = model_and_optimizer()
    scheduler = S.CosineAnnealingLR(optimizer, TOTAL)
    log = RunLog(folder, schedule=scheduler, total_steps=TOTAL, steps_per_epoch=EPOCH)

    def update(_engine: Any, _batch: Any) -> None:
        optimizer.zero_grad()
        loss = loss_of(nets)
        loss.backward()
        optimizer.step()
        log.step(loss=loss)

    trainer, tester = Engine(update), Engine(lambda _engine, _batch: None)
    for engine in (trainer, tester) if evaluator else (trainer,):
        engine.add_event_handler(Events.ITERATION_COMPLETED, lambda: scheduler.step())
    trainer.add_event_handler(Events.EPOCH_COMPLETED, lambda: tester.run(range(6)))
    trainer.run(range(EPOCH), max_epochs=TOTAL // EPOCH)
    log.end()
    return log.folder


def rate(optimizer: Any, change: Callable[[float], float]) -> None:
    for group in optimizer.param_groups:
        group["lr"] = change(group["lr"])


def nothing(_n: int, _optimizer: Any, _scheduler: Any) -> None:
    """A healthy loop."""


def reset_each_epoch(n: int, optimizer: Any, _scheduler: Any) -> None:
    if n > 1 and n % EPOCH == 1:
        rate(optimizer, lambda _: 4e-3)


def halved_each_epoch(n: int, optimizer: Any, _scheduler: Any) -> None:
    if n > 1 and n % EPOCH == 1:
        rate(optimizer, lambda lr: lr / 2)


def floor_by_hand(_n: int, optimizer: Any, _scheduler: Any) -> None:
    rate(optimizer, lambda lr: max(lr, 2e-3))


def first_rate_restored(n: int, optimizer: Any, scheduler: Any) -> None:
    if n == 61:
        rate(optimizer, lambda _: scheduler.base_lrs[0])


def another_optimizers(optimizer: Any) -> Any:
    ghost = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=optimizer.param_groups[0]["lr"])
    return S.CosineAnnealingLR(ghost, 36)


def once(_n: int) -> int:
    return 1


def cases() -> Iterator[Case]:
    """Healthy loops first."""
    cosine = partial(S.CosineAnnealingLR, T_max=TOTAL, eta_min=1e-5)
    cycle = partial(S.OneCycleLR, max_lr=1e-2, total_steps=TOTAL)

    def own(name: str, make: Make, meddle: Meddle = nothing, after: Callable[[int], int] = once, fault: str = "",
            *causes: str) -> Case:  # fmt: skip
        run = partial(own_loop, make=make, meddle=meddle, steps_after=after)
        return Case("torch", f"{name}, {fault}" if fault else name, run, causes or (("any",) if fault else ()), fault)

    yield own("cosine to a floor", cosine)
    yield own("one cycle with 20 an epoch", cycle)
    for name, make in (("cosine", cosine), ("one cycle", cycle)):
        yield own(name, make, reset_each_epoch, once, "set to a constant at each epoch's begin")
        yield own(name, make, halved_each_epoch, once, "halved by hand at each epoch")
        yield own(name, make, first_rate_restored, once, "the first rate restored at 61")
        yield own(name, make, nothing, lambda n: int(n > EPOCH), "not stepped in the first epoch")
        yield own(name, make, nothing, lambda n: int(n <= 70), "not stepped after 70")
        yield own(name, make, nothing, lambda n: int(n % 2 == 0), "stepped at every second update")
    yield own("cosine", cosine, floor_by_hand, once, "held at a floor by hand")
    yield own(
        "cosine", cosine, nothing, lambda n: 1 + 5 * (n % EPOCH == 0), "stepped in the validation loop too",
        "scheduler_stepped_per_batch_and_epoch",
    )  # fmt: skip
    yield own("cosine", cosine, nothing, lambda _: 2, "stepped twice", "scheduler_stepped_per_process")
    yield Case("transformers", "own cosine", partial(transformers_run, scheduler=lambda o: S.CosineAnnealingLR(o, 36)))
    yield Case(
        "transformers", "own cosine, the scheduler of another optimizer",
        partial(transformers_run, scheduler=another_optimizers), ("scheduler_of_another_optimizer",),
        "the scheduler of another optimizer",
    )  # fmt: skip
    yield Case("ignite", "cosine, an evaluator beside it", partial(ignite_evaluator, evaluator=False))
    yield Case(
        "ignite", "cosine, the evaluator steps it too", partial(ignite_evaluator, evaluator=True),
        ("scheduler_stepped_per_batch_and_epoch",), "the evaluator steps it too",
    )  # fmt: skip
