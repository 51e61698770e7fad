"""What the watcher says as a fact: true, and it may be meant, so it is a warning."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from eegwatch import RunLog
from eegwatch.diagnosis.findings import EQUALITY, FACT, FAMILIES, Finding
from eegwatch.diagnosis.silent.watch import FACTS, PROVED
from tests.unit.watching.loops import Loop, rules, silent, small


def test_every_rule_of_the_watcher_has_a_family() -> None:
    assert {rule for rule in PROVED if FAMILIES.get(rule) != EQUALITY} == set()
    assert {rule for rule in FACTS if FAMILIES.get(rule) != FACT} == set()


def pair(folder: Path, rests_from: int, calls: int) -> list[Finding]:
    """Two models with an optimizer each; from a call on the second one's is not stepped."""
    first, second = nn.Linear(8, 8), nn.Linear(8, 2)
    optimizers = [torch.optim.Adam(one.parameters(), lr=1e-3) for one in (first, second)]
    log = RunLog(folder, control=False)
    log.watch([first, second], optimizers)
    for number in range(1, calls + 1):
        for optimizer in optimizers:
            optimizer.zero_grad()
        second(first(torch.randn(4, 8))).pow(2).mean().backward()
        for optimizer in optimizers[: 1 if number >= rests_from else 2]:
            optimizer.step()
        log.step()
    log.end()
    return silent(log.folder)


def test_one_of_several_optimizers_that_rests_is_a_fact(tmp_path: Path) -> None:
    assert pair(tmp_path / "steps", 99, 30) == []
    (never,) = pair(tmp_path / "never", 1, 24)
    assert (never.rule, never.severity) == ("step_not_taken", "warning") and "optimizer 1 (Adam)" in never.message
    (later,) = pair(tmp_path / "later", 10, 40)
    assert later.rule == "step_not_taken" and "has stepped 9 times before" in later.message


def test_an_optimizer_of_which_nothing_is_trainable_is_a_fact(tmp_path: Path) -> None:
    loop = Loop(tmp_path, model=small().requires_grad_(False))
    found = loop.run(2, lambda _: loop.optimizer.step())
    assert "nothing_to_train" in rules(found) and all(finding.severity == "warning" for finding in found)


def accumulated(folder: Path, between: Any) -> set[str]:
    loop = Loop(folder, accumulate=3)

    def step(number: int) -> None:
        loop.optimizer.zero_grad()
        for micro in range(3):
            if micro:
                between(loop.model, micro)
            loop.backward()
        loop.optimizer.step()

    return rules(loop.run(3, step))


def test_gradients_that_are_clipped_between_micro_batches_are_a_fact(tmp_path: Path) -> None:
    def clip(model: nn.Module, _: int) -> None:
        nn.utils.clip_grad_norm_(model.parameters(), 1e-3)

    def running_mean(model: nn.Module, micro: int) -> None:
        for parameter in model.parameters():
            assert parameter.grad is not None
            parameter.grad.mul_(micro / (micro + 1))

    assert accumulated(tmp_path / "clip", clip) == {"micro_gradients_shrunk"}
    assert accumulated(tmp_path / "mean", running_mean) == set()
    assert accumulated(tmp_path / "none", lambda *_: None) == set()


def resumed_order(folder: Path, seeds: tuple[int, int], skip: int = 0) -> set[str]:
    """An epoch, and a resume after it that reads another one; `skip`: epochs that it reads first and does not use."""
    log: RunLog | None = None
    for attempt in range(2):
        generator = torch.Generator().manual_seed(seeds[attempt])
        loader = DataLoader(TensorDataset(torch.randn(48, 8)), batch_size=8, shuffle=True, generator=generator)
        loop = Loop(folder, watch=False, resume=log.folder if log is not None else None, step=6 * attempt)
        loop.log.watch(loop.model, loop.optimizer, loader=loader, fresh_optimizer=True)
        for _ in range(skip if attempt else 0):
            list(loader)
        for (x,) in loader:
            loop.optimizer.zero_grad()
            loop.model(x).pow(2).mean().backward()
            loop.optimizer.step()
            loop.log.step()
        loop.log.end()
        log = loop.log
    assert log is not None
    return rules(silent(log.folder))


def test_a_resume_that_replays_the_order_of_an_epoch_that_was_over_is_a_fact(tmp_path: Path) -> None:
    assert resumed_order(tmp_path / "again", (1, 1)) == {"order_repeated"}
    assert resumed_order(tmp_path / "other", (1, 2)) == set()
    assert resumed_order(tmp_path / "skipped", (1, 1), skip=1) == set()


def resumed(folder: Path, lost: str) -> set[str]:
    """A resume that restores all but the scale or the average."""
    scalers = [torch.amp.GradScaler("cpu", init_scale=2.0**10, growth_interval=2) for _ in range(2)]
    model, log = small(), None
    average = copy.deepcopy(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for attempt, scaler in enumerate(scalers):
        if attempt and lost != "scale":
            scaler.load_state_dict(scalers[0].state_dict())
        if attempt and lost == "average":
            average = copy.deepcopy(model)
        log = RunLog(folder, control=False, resume=log.folder if log is not None else None, step=4 * attempt)
        log.watch(model, optimizer, scaler=scaler)
        log.ema(average, 0.9)
        for _ in range(4):
            optimizer.zero_grad()
            scaler.scale(model(torch.randn(4, 8)).pow(2).mean()).backward()
            scaler.step(optimizer)
            scaler.update()
            with torch.no_grad():
                for a, p in zip(average.parameters(), model.parameters()):
                    a.mul_(0.9).add_(p, alpha=0.1)
            log.step()
        log.checkpoint("c.pt")
        log.end()
    assert log is not None
    return rules(silent(log.folder))


def test_a_scale_and_an_average_that_a_resume_does_not_restore_are_facts(tmp_path: Path) -> None:
    assert resumed(tmp_path / "none", "nothing") == set()
    assert resumed(tmp_path / "scale", "scale") == {"scaler_state_lost"}
    assert resumed(tmp_path / "average", "average") == {"ema_not_restored"}


def test_dropouts_alone_in_training_mode_are_a_fact_of_an_evaluation(tmp_path: Path) -> None:
    def judged(*layers: nn.Module) -> list[tuple[str, str]]:
        loop = Loop(tmp_path, model=nn.Sequential(nn.Linear(8, 8), *layers, nn.Linear(8, 2)))

        def step(number: int) -> None:
            loop.step(number)
            with loop.log.evaluating(), torch.no_grad():
                loop.model(torch.randn(4, 8))

        return [(f.rule, f.severity) for f in loop.run(2, step) if f.rule == "evaluation_in_train_mode"]

    assert judged(nn.Dropout(0.1)) == [("evaluation_in_train_mode", "warning")]
    assert judged(nn.Dropout(0.1), nn.BatchNorm1d(8)) == [("evaluation_in_train_mode", "error")]


class Adapted(nn.Module):
    """A frozen layer with an adapter beside it, a frozen embedding and a frozen table of positions."""

    def __init__(self, adapts: bool) -> None:
        super().__init__()
        self.first, self.head = nn.Linear(8, 8), nn.Linear(8, 2)
        self.first.requires_grad_(not adapts)
        if adapts:
            self.lora_A, self.lora_B = nn.Linear(8, 2, bias=False), nn.Linear(2, 8, bias=False)
        else:
            self.table = nn.Embedding.from_pretrained(torch.randn(3, 8))
            self.pos_embed = nn.Parameter(torch.randn(1, 8), requires_grad=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = self.first(x)
        if hasattr(self, "table"):
            hidden = hidden + self.table.weight[1] + self.pos_embed
        else:
            hidden = hidden + self.lora_B(self.lora_A(x))
        made: torch.Tensor = self.head(torch.tanh(hidden))
        return made


@pytest.mark.parametrize("adapts", [True, False])
def test_adapters_in_a_frozen_model_and_fixed_tables_of_positions_are_no_fact(tmp_path: Path, adapts: bool) -> None:
    assert Loop(tmp_path, model=Adapted(adapts)).run(22) == []


def test_what_is_declared_frozen_need_not_be_held_by_an_optimizer(tmp_path: Path) -> None:
    model = small()
    optimizer = torch.optim.Adam(model[2].parameters(), lr=1e-3)  # type: ignore[index]
    log = RunLog(tmp_path, control=False)
    log.watch(model, optimizer, frozen=[model[0]])  # type: ignore[index]
    for _ in range(3):
        with torch.no_grad():
            features = model[:2](torch.randn(4, 8))  # type: ignore[index]
        optimizer.zero_grad()
        model[2](features).pow(2).mean().backward()  # type: ignore[index]
        optimizer.step()
        log.step()
    log.end()
    assert silent(log.folder) == []


def test_batch_norms_of_an_adversary_that_is_frozen_in_turn_may_move(tmp_path: Path) -> None:
    made = [nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8)) for _ in range(2)]
    optimizers = [torch.optim.Adam(one.parameters(), lr=1e-3) for one in made]
    log = RunLog(tmp_path, control=False)
    log.watch(made, optimizers)
    for _ in range(3):
        for turn, optimizer in enumerate(optimizers):
            made[turn].requires_grad_(True)
            made[1 - turn].requires_grad_(False)
            optimizer.zero_grad()
            made[1](made[0](torch.randn(4, 8))).pow(2).mean().backward()
            optimizer.step()
        log.step()
    log.end()
    assert silent(log.folder) == []


class Student(nn.Module):
    """A student, and a teacher that is its average."""

    def __init__(self) -> None:
        super().__init__()
        self.student = nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8))
        self.teacher = copy.deepcopy(self.student).requires_grad_(False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        made: torch.Tensor = self.student(x) - self.teacher(x)
        return made


@pytest.mark.parametrize(("follows", "now"), [(True, set()), (False, {"frozen_batchnorm_moves"})])
def test_batch_norms_of_a_teacher_that_follows_its_student_may_move(
    tmp_path: Path, follows: bool, now: set[str]
) -> None:
    model = Student()
    optimizer = torch.optim.Adam(model.student.parameters(), lr=1e-2)
    log = RunLog(tmp_path, control=False)
    log.watch(model, optimizer)
    for _ in range(4):
        optimizer.zero_grad()
        (model(torch.randn(4, 8)) - 1).pow(2).mean().backward()
        optimizer.step()
        with torch.no_grad():
            for teacher, student in zip(model.teacher.parameters(), model.student.parameters()):
                teacher.lerp_(student, 0.1 if follows else 0.0)
        log.step()
    log.end()
    assert {one.rule for one in silent(log.folder) if one.until_step is None} == now
