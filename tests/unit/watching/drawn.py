"""A random training that is healthy by construction, declared as a user would, and one fault in it where one is asked for."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from hypothesis import strategies as st
from torch import nn
from torch.optim import Adam, AdamW
from torch.utils.data import DataLoader, RandomSampler, TensorDataset

from eegwatch import RunLog

STEPS, ROWS, EPOCH = 12, 4, 5  # optimizer steps of a training; rows of a micro-batch; steps of an epoch
PEAK = 1e-2


class OutOfMemory(RuntimeError):
    """What a step of these loops raises."""


class Shared(nn.Module):
    """One block that is used twice, and a head whose weight is the first layer's."""

    def __init__(self) -> None:
        super().__init__()
        self.into, self.block, self.out = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 8)
        self.out.weight = self.into.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.tanh(self.into(x))
        return self.out(torch.tanh(self.block(torch.tanh(self.block(x)))))  # type: ignore[no-any-return]


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.GRU(8, 6, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.cell(x.unsqueeze(1))[0]  # type: ignore[no-any-return]


class Adapted(nn.Module):
    """A frozen layer and a product of two small ones beside it, the second of which begins at zero (LoRA)."""

    def __init__(self) -> None:
        super().__init__()
        self.base, self.down, self.up = nn.Linear(8, 8), nn.Linear(8, 2, bias=False), nn.Linear(2, 8, bias=False)
        self.base.requires_grad_(False)
        nn.init.zeros_(self.up.weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.base(x) + self.up(self.down(x))  # type: ignore[no-any-return]


class Experts(nn.Module):
    """Each batch goes through one of three layers: the others have no gradient."""

    def __init__(self) -> None:
        super().__init__()
        self.experts = nn.ModuleList(nn.Linear(8, 4) for _ in range(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.experts[int(x[0, 0] > 0) + int(x[0, 1] > 0)](x)  # type: ignore[no-any-return]


class Attention(nn.Module):
    """A residual block that begins as the identity (ReZero)."""

    def __init__(self) -> None:
        super().__init__()
        self.attention, self.out = nn.MultiheadAttention(8, 2, dropout=0.1, batch_first=True), nn.Linear(8, 2)
        self.scale = nn.Parameter(torch.zeros(()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x.unsqueeze(0)
        return self.out(x + self.scale * self.attention(x, x, x, need_weights=False)[0])  # type: ignore[no-any-return]


class Words(nn.Module):
    """An embedding of which a batch uses a few rows."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.out = nn.Embedding(30, 6), nn.Linear(6, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(self.words((x.abs() * 7).long() % 30).mean(1))  # type: ignore[no-any-return]


MODELS: dict[str, Callable[[], nn.Module]] = {
    "mlp": lambda: nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Dropout(0.2), nn.Linear(16, 2)),
    "conv": lambda: nn.Sequential(
        nn.Unflatten(1, (1, 8)), nn.Conv1d(1, 4, 3), nn.BatchNorm1d(4), nn.Flatten(), nn.Linear(24, 2)
    ),
    "shared": Shared,
    "recurrent": Recurrent,
    "adapted": Adapted,
    "experts": Experts,
    "attention": Attention,
    "words": Words,
    "bfloat16": lambda: nn.Sequential(nn.Linear(8, 16), nn.LayerNorm(16), nn.Linear(16, 2)).bfloat16(),
    "float64": lambda: nn.Sequential(nn.Linear(8, 4), nn.Tanh(), nn.Linear(4, 1)).double(),
    "one element": lambda: nn.Sequential(nn.Linear(8, 1), nn.PReLU()),
    "normed": lambda: nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(8, 8)), nn.ELU(), nn.Linear(8, 2)),
}
ROWS_OF_ONE = ("conv",)  # models whose batch needs several rows

FORMS: dict[str, tuple[dict[str, Any], ...]] = {  # of how an optimizer of torch computes its step
    "as it comes": ({}, {}),
    "foreach": ({"foreach": True}, {"foreach": True}),
    "one by one": ({"foreach": False}, {"foreach": False}),
}
OPTIONS: dict[str, tuple[dict[str, Any], ...]] = {
    "SGD": (
        {},
        {"momentum": 0.9},
        {"momentum": 0.9, "nesterov": True, "weight_decay": 0.01},
        {"momentum": 0.8, "dampening": 0.3, "maximize": True},
        {"fused": True, "momentum": 0.5},
    ),
    "Adam": (
        {},
        {"amsgrad": True, "weight_decay": 0.1},
        {"betas": (0.5, 0.9), "eps": 1e-4},
        {"fused": True},
        {"maximize": True},
        {"weight_decay": 0.1} | ({"decoupled_weight_decay": True} if issubclass(AdamW, Adam) else {}),  # torch 2.7
    ),
    "AdamW": ({}, {"amsgrad": True}, {"betas": (0.0, 0.95), "weight_decay": 0.3}, {"fused": True, "weight_decay": 0.0}),
    "NAdam": ({}, {"decoupled_weight_decay": True, "weight_decay": 0.1}),
    "RAdam": ({}, {"weight_decay": 0.1}),
    "Adamax": ({}, {"weight_decay": 0.1}),
    "Adadelta": ({}, {"weight_decay": 0.1}),
    "Adagrad": ({}, {"lr_decay": 0.1, "initial_accumulator_value": 0.1}),
    "ASGD": ({}, {"t0": 3.0}),
    "RMSprop": ({}, {"centered": True, "momentum": 0.9}),
    "Rprop": ({},),
    "Adafactor": ({}, {"weight_decay": 0.1}),
    "LBFGS": ({"max_iter": 2}, {"max_iter": 2, "history_size": 2}),
}
MOVES_AGAIN = ("LBFGS",)  # its direction is made of earlier gradients: it moves what has none
WITHOUT_FOREACH = ("LBFGS",)
ONE_GROUP = ("LBFGS",)


@dataclass(frozen=True)
class Plan:
    """What a training does. `fault`: what is wrong with it, and `at` which step; None where nothing is."""

    model: str
    optimizer: str
    option: int
    foreach: bool | None
    tensor_rate: bool  # rates are tensors
    accumulate: int
    short: bool  # the last step of an epoch has one micro-batch less
    clip: float | None
    clears: str  # "before", "after", "the model"
    set_to_none: bool
    frozen: str  # "", "declared" from the start, "later", "thaws"
    groups: int  # parameter groups
    closure: bool
    precision: str  # "", "bfloat16", "scaler"
    scheduler: str
    scheduled: bool  # is the decay set by a function of the step?
    average: str  # "", "always", "rests"
    micro: bool
    loader: str  # "", "shuffled", "in order", "replacement"
    second: bool  # a second model with an optimizer of its own
    evaluate: frozenset[int]  # steps after which there is an evaluation
    fails: frozenset[int]  # steps whose forward pass raises
    leaves_out: frozenset[int]  # steps whose loss is not finite: the loop leaves them out
    resume: int | None  # the step after which everything is made anew from a checkpoint
    logs_first: bool
    fault: str | None = None
    at: int = 0


PLANS = st.builds(
    Plan,
    model=st.sampled_from(sorted(MODELS)),
    optimizer=st.sampled_from(sorted(OPTIONS)),
    option=st.integers(0, 5),
    foreach=st.sampled_from([None, True, False]),
    tensor_rate=st.booleans(),
    accumulate=st.integers(1, 3),
    short=st.booleans(),
    clip=st.sampled_from([None, 0.1, 10.0]),
    clears=st.sampled_from(["before", "after", "the model"]),
    set_to_none=st.booleans(),
    frozen=st.sampled_from(["", "", "declared", "later", "thaws"]),
    groups=st.integers(1, 3),
    closure=st.booleans(),
    precision=st.sampled_from(["", "", "bfloat16", "scaler"]),
    scheduler=st.sampled_from(["", "cosine", "one cycle", "warm-up", "epochs"]),
    scheduled=st.booleans(),
    average=st.sampled_from(["", "always", "rests"]),
    micro=st.booleans(),
    loader=st.sampled_from(["", "shuffled", "in order", "replacement"]),
    second=st.booleans(),
    evaluate=st.frozensets(st.integers(1, STEPS - 1), max_size=2),
    fails=st.frozensets(st.integers(1, STEPS), max_size=2),
    leaves_out=st.frozensets(st.integers(1, STEPS), max_size=2),
    resume=st.sampled_from([None, None, 3, 7]),
    logs_first=st.booleans(),
)


class Training:
    """One training by its plan. `log` is None where it runs alone."""

    first_scale = 2.0**126  # of the gradient scaler: it skips steps

    def __init__(self, plan: Plan, folder: Path | None) -> None:
        self.plan, self.folder, self.log = plan, folder, None
        self.by_closure = plan.closure or plan.optimizer == "LBFGS"
        self.scaled = plan.precision == "scaler" and not self.by_closure
        self.taken = 0  # optimizer steps
        self.rows = 0
        torch.manual_seed(1)
        self.build()
        if folder is not None:
            self.log = self.begin(None, 0)
        torch.manual_seed(2)
        self.batches = self.endless()

    # ---- what it is made of ----

    def build(self) -> None:
        plan = self.plan
        self.model = MODELS[plan.model]()
        first = next(self.model.parameters())
        if plan.frozen in ("declared", "thaws"):
            first.requires_grad_(False)
        self.optimizer = self.optimizer_of(list(self.model.parameters()))
        self.scheduler = self.scheduler_of(self.optimizer)
        self.scaler = torch.amp.GradScaler("cpu", init_scale=self.first_scale, growth_interval=4, enabled=self.scaled)
        self.average = None
        if plan.average:
            self.average = torch.optim.swa_utils.AveragedModel(
                self.model, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.9)
            )
            self.average.n_averaged.fill_(1)  # its first update is a copy
        self.other = nn.Linear(4, 2) if plan.second else None
        self.other_optimizer = None if self.other is None else torch.optim.AdamW(self.other.parameters(), lr=1e-3)
        data = torch.randn(EPOCH * plan.accumulate * ROWS, 8)
        self.loader: DataLoader[Any] | None = None
        if plan.loader:
            sampler = RandomSampler(data, replacement=True) if plan.loader == "replacement" else None
            rows = TensorDataset(data)
            self.loader = DataLoader(rows, batch_size=ROWS, sampler=sampler, shuffle=plan.loader == "shuffled")

    def optimizer_of(self, tensors: list[nn.Parameter]) -> torch.optim.Optimizer:
        plan = self.plan
        choices = OPTIONS[plan.optimizer]
        options = dict(choices[plan.option % len(choices)])
        if plan.optimizer == "SGD" and plan.frozen and options.get("fused"):
            del options["fused"]  # torch 2.13's fused SGD with momentum raises where a tensor has no gradient at first
        if plan.foreach is not None and plan.optimizer not in WITHOUT_FOREACH and "fused" not in options:
            options["foreach"] = plan.foreach
        one_rate = plan.tensor_rate and plan.optimizer in ("SGD", "Adam", "AdamW") and not options.get("foreach")
        rate: Any = torch.tensor(PEAK) if one_rate and not self.scheduled_rate else PEAK
        count = 1 if plan.optimizer in ONE_GROUP else min(plan.groups, len(tensors))
        groups: list[dict[str, Any]] = [{"params": tensors[number::count]} for number in range(count)]
        for number, group in enumerate(groups[1:], 1):
            group["lr"] = rate / (number + 1)
        if plan.optimizer in ONE_GROUP:
            return getattr(torch.optim, plan.optimizer)(tensors, lr=0.1, **options)  # type: ignore[no-any-return]
        return getattr(torch.optim, plan.optimizer)(groups, lr=rate, **options)  # type: ignore[no-any-return]

    @property
    def scheduled_rate(self) -> bool:
        return bool(self.plan.scheduler)

    def scheduler_of(self, optimizer: torch.optim.Optimizer) -> Any:
        S = torch.optim.lr_scheduler
        made = {
            "": lambda: None,
            "cosine": lambda: S.CosineAnnealingLR(optimizer, STEPS),
            "one cycle": lambda: S.OneCycleLR(
                optimizer, [g["lr"] for g in optimizer.param_groups], total_steps=STEPS + 1, cycle_momentum=False
            ),
            "warm-up": lambda: S.LambdaLR(optimizer, lambda n: min(1.0, (n + 1) / 4)),
            "epochs": lambda: S.StepLR(optimizer, 1, 0.5),
        }
        return made[self.plan.scheduler]()

    @property
    def decays(self) -> bool:
        """Is the decay of the groups set at each step?"""
        return self.plan.scheduled and "weight_decay" in self.optimizer.param_groups[0]

    @staticmethod
    def decay_at(step: int, group: int) -> float:
        return 0.1 * (1 + group) * (1 + math.cos(math.pi * step / STEPS)) / 2

    def begin(self, resume: Path | None, step: int) -> RunLog:
        """Make the log, and declare what a user would."""
        plan, folder = self.plan, self.folder
        assert folder is not None
        log = RunLog(
            folder, schedule=self.scheduler, optimizer=self.optimizer, accumulate=1, control=False, resume=resume,
            step=step, total_steps=STEPS, steps_per_epoch=EPOCH, unit="epoch" if plan.scheduler == "epochs" else None,
        )  # fmt: skip
        log.watch(
            self.model,
            self.optimizer,
            loader=self.loader,
            accumulate=plan.accumulate if plan.accumulate > 1 and not self.by_closure else None,
            clip=plan.clip,
            scaler=self.scaler if self.scaled else None,
            frozen=[next(n for n, _ in self.model.named_parameters())] if plan.frozen == "declared" else None,
            scheduled={"weight_decay": self.decay_at} if self.decays else None,
        )
        if self.other is not None:
            log.watch(self.other, self.other_optimizer)
        if self.average is not None:
            rests = plan.average == "rests"
            log.ema(self.average, (lambda n: None if n % 2 else 0.9) if rests else 0.9)
        return log

    def endless(self) -> Iterator[torch.Tensor]:
        while True:
            if self.loader is None:
                yield torch.randn(ROWS, 8)
            else:
                for (rows,) in self.loader:
                    yield rows

    # ---- what it does ----

    def run(self) -> list[torch.Tensor]:
        """The bits of all that there is after the last step."""
        plan = self.plan
        for number in range(1, STEPS + 1):
            self.change(number)
            with contextlib.suppress(OutOfMemory):
                self.step(number)
            if number in plan.evaluate:
                self.evaluation()
            if plan.resume == number:
                self.come_back()
        if self.log is not None:
            self.log.end()
        return self.bits()

    def change(self, number: int) -> None:
        first = next(self.model.parameters())
        if number == 5 and self.plan.frozen == "later" and self.plan.optimizer not in MOVES_AGAIN:
            first.requires_grad_(False)
            first.grad = None
        elif number == 5 and self.plan.frozen == "thaws":
            first.requires_grad_(True)

    def step(self, number: int) -> None:
        plan = self.plan
        self.set_decay()
        if self.by_closure:
            self.optimizer.step(lambda: self.gradients(number))  # type: ignore[arg-type]
        else:
            self.gradients(number)
            if number in plan.leaves_out:
                self.clear("after")
                if self.scaled and plan.clip is not None:
                    self.scaler.update()  # forgets that the gradients were unscaled
                return
            self.update(self.optimizer)
            self.clear("after")
        if self.other is not None:
            self.other_step()
        if self.average is not None and (plan.average == "always" or not (self.taken + 1) % 2):
            self.move_average()
        self.taken += 1
        if plan.logs_first and self.log is not None:
            self.log.step()
        if self.scheduler is not None and (plan.scheduler != "epochs" or not self.taken % EPOCH):
            self.scheduler.step()
        if not plan.logs_first and self.log is not None:
            self.log.step()

    def set_decay(self) -> None:
        for place, group in enumerate(self.optimizer.param_groups if self.decays else ()):
            group["weight_decay"] = self.decay_at(self.taken + 1, place)

    def move_average(self) -> None:
        assert self.average is not None
        self.average.update_parameters(self.model)

    def clear(self, when: str) -> None:
        plan = self.plan
        if when == "after" and plan.clears == "after":
            self.optimizer.zero_grad(set_to_none=plan.set_to_none)
        elif when == "before" and plan.clears == "the model":
            self.model.zero_grad(set_to_none=plan.set_to_none)
        elif when == "before" and (plan.clears == "before" or self.by_closure):
            self.optimizer.zero_grad(set_to_none=plan.set_to_none)

    def gradients(self, number: int) -> torch.Tensor:
        """The backward passes of one step; its loss is the mean over all of its rows."""
        plan = self.plan
        self.clear("before")
        count = plan.accumulate - (plan.short and plan.accumulate > 1 and not number % EPOCH)
        batches = [next(self.batches) for _ in range(count)]
        rows = sum(len(batch) for batch in batches)
        kind = next(self.model.parameters()).dtype
        total = torch.zeros(())
        for place, batch in enumerate(batches):
            self.before_micro_batch(place)
            with torch.autocast("cpu", torch.bfloat16, enabled=plan.precision == "bfloat16" and kind == torch.float32):
                made = self.model(batch.to(kind)).float()
            loss = made.pow(2).mean()
            if number in plan.fails and place == count - 1:
                self.clear("after")
                raise OutOfMemory
            if plan.micro and self.log is not None:
                loss = self.log.micro(loss, items=len(batch))
            loss = loss * self.share(len(batch), rows)
            self.scaler.scale(loss).backward()
            total = total + loss.detach()
        if plan.clip is not None:
            self.clip(plan.clip)
        return total

    def before_micro_batch(self, place: int) -> None:
        """Nothing is done before the micro-batches of a step."""

    def share(self, rows: int, of: int) -> float:
        """The weight of a micro-batch's loss."""
        return rows / of

    def clip(self, most: float) -> None:
        if self.scaled:
            self.scaler.unscale_(self.optimizer)
        nn.utils.clip_grad_norm_(list(self.model.parameters()), most)

    def update(self, optimizer: torch.optim.Optimizer) -> None:
        self.scaler.step(optimizer)
        self.scaler.update()

    def other_step(self) -> None:
        assert self.other is not None and self.other_optimizer is not None
        self.other_optimizer.zero_grad()
        self.other(torch.randn(3, 4)).pow(2).mean().backward()
        self.other_optimizer.step()

    def evaluation(self) -> None:
        self.model.eval()
        with contextlib.nullcontext() if self.log is None else self.log.evaluating(), torch.no_grad():
            loss = self.evaluated()
        self.model.train()
        if self.log is not None:
            self.log.eval({"loss": float(loss)})

    def evaluated(self) -> torch.Tensor:
        kind = next(self.model.parameters()).dtype
        return self.model(torch.randn(ROWS, 8, dtype=kind)).float().pow(2).mean()  # type: ignore[no-any-return]

    def come_back(self) -> None:
        """Save, make everything anew, and load it: what another process would do."""
        held = ("model", "optimizer", "scheduler", "scaler", "average", "other", "other_optimizer")
        saved = {name: getattr(self, name).state_dict() for name in held if getattr(self, name) is not None}
        drawn = torch.get_rng_state()
        before = self.log
        if before is not None and self.folder is not None:
            torch.save(saved, self.folder / "checkpoint.pt")
            before.checkpoint(self.folder / "checkpoint.pt")
            before.end("stopped")
        trains = [parameter.requires_grad for parameter in self.model.parameters()]
        self.build()
        for name, state in saved.items():
            self.load(name, state)
        for parameter, one in zip(self.model.parameters(), trains):
            parameter.requires_grad_(one)
        if before is not None:
            self.log = self.begin(before.folder, self.taken)
        torch.set_rng_state(drawn)
        self.batches = self.endless()

    def load(self, name: str, state: dict[str, Any]) -> None:
        getattr(self, name).load_state_dict(state)

    def bits(self) -> list[torch.Tensor]:
        found = [torch.get_rng_state()]
        for module in (self.model, self.average, self.other):
            found += [] if module is None else [value.clone() for value in module.state_dict().values()]
        for state in self.optimizer.state.values():
            found += [value.clone() for value in state.values() if isinstance(value, torch.Tensor)]
        return found + [p.grad.clone() for p in self.model.parameters() if p.grad is not None]
