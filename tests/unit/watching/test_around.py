"""What the watcher proves around the steps: resumes, orders of data, splits, evaluations, micro-batches, averages."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, RandomSampler, SequentialSampler, TensorDataset

from eegwatch import RunLog
from eegwatch.check import open_run
from eegwatch.diagnosis.findings import Finding
from tests.unit.watching.loops import Loop, rules, silent, since

# ---- resumes ----


def resumed(folder: Path, change: str, **declared: Any) -> set[str]:
    """Three steps, a checkpoint, and a resume that restores all of it but for `change`."""
    first = Loop(folder)
    for number in range(1, 4):
        first.step(number)
        first.log.step()
    saved = copy.deepcopy((first.model.state_dict(), first.optimizer.state_dict()))
    first.log.checkpoint("c.pt")
    first.log.end()
    again = Loop(folder, resume=first.log.folder, step=3, **declared)
    if change != "weights":
        again.model.load_state_dict(saved[0])
    if change == "permuted":
        saved[1]["state"][1]["exp_avg"] = saved[1]["state"][1]["exp_avg"].flip(0) + 1
    if change != "optimizer":
        again.optimizer.load_state_dict(saved[1])
    return rules(again.run(2))


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ("nothing", set()),
        ("optimizer", {"optimizer_state_lost"}),
        ("permuted", {"optimizer_state_differs"}),
        ("weights", {"weights_not_restored"}),
    ],
)
def test_a_resume_that_does_not_restore_all_is_found_at_its_first_step(
    tmp_path: Path, change: str, found: set[str]
) -> None:
    # the weights of a fresh start are those of seed 0, which the three steps have changed
    assert resumed(tmp_path, change) == found


@pytest.mark.parametrize(("restores", "found"), [(True, set()), (False, {"optimizer_state_lost"})])
def test_a_checkpoint_may_be_written_before_its_step_is_logged(tmp_path: Path, restores: bool, found: set[str]) -> None:
    first = Loop(tmp_path)
    for number in range(1, 4):
        first.step(number)
        if number == 3:
            saved = copy.deepcopy((first.model.state_dict(), first.optimizer.state_dict()))
            first.log.checkpoint("c.pt")
        first.log.step()
    first.log.end()
    again = Loop(tmp_path, resume=first.log.folder, step=3)  # the script counts the step that it had taken
    again.model.load_state_dict(saved[0])
    if restores:
        again.optimizer.load_state_dict(saved[1])
    assert rules(again.run(2)) == found


def test_a_resume_that_writes_its_checkpoint_again_is_held_against_the_first(tmp_path: Path) -> None:
    first = Loop(tmp_path)
    for number in range(1, 4):
        first.step(number)
        first.log.step()
    saved = copy.deepcopy(first.model.state_dict())
    first.log.checkpoint("c.pt")
    first.log.end()
    again = Loop(tmp_path, resume=first.log.folder, step=3)
    again.model.load_state_dict(saved)
    again.log.checkpoint("c.pt")  # the loop evaluates and saves at the top of every so many iterations
    assert rules(again.run(2)) == {"optimizer_state_lost"}


def test_an_optimizer_that_is_meant_to_be_fresh_is_declared(tmp_path: Path) -> None:
    assert resumed(tmp_path, "optimizer", fresh_optimizer=True) == set()


# ---- data ----


def epochs(folder: Path, sampler: Any, prepare: Any, *, batch: int = 4, leave: int = 0) -> set[str]:
    data = TensorDataset(torch.randn(40, 8))
    loader = DataLoader(data, batch_size=batch, sampler=sampler(data))
    loop = Loop(folder, loader=loader)
    for epoch in range(3):
        prepare(loader, epoch)
        for number, _ in enumerate(loader):
            loop.step(0)
            loop.log.step()
            if leave and number == leave:
                break
    return rules(loop.judged())


def seeded(loader: Any, epoch: int) -> None:
    torch.manual_seed(7)


def nothing(*given: Any) -> None:
    pass


def distributed(data: Any) -> Any:
    from torch.utils.data.distributed import DistributedSampler

    return DistributedSampler(data, num_replicas=2, rank=0)


def test_an_epoch_in_the_order_of_the_last_is_found(tmp_path: Path) -> None:
    assert epochs(tmp_path, RandomSampler, seeded) == {"order_repeated"}
    assert epochs(tmp_path, distributed, nothing) == {"order_repeated"}


def test_orders_that_differ_or_are_meant_to_be_alike_are_clean(tmp_path: Path) -> None:
    assert epochs(tmp_path, RandomSampler, nothing) == set()
    assert epochs(tmp_path, RandomSampler, nothing, leave=2) == set()
    assert epochs(tmp_path, distributed, lambda loader, epoch: loader.sampler.set_epoch(epoch)) == set()
    assert epochs(tmp_path, SequentialSampler, nothing) == {"order_unshuffled"}
    assert epochs(tmp_path, RandomSampler, seeded, batch=40) == set()  # one batch holds all
    assert epochs(tmp_path, lambda data: RandomSampler(data, replacement=True), nothing) == set()


def test_a_sampler_that_is_looked_at_is_of_its_class_and_draws_what_it_drew(tmp_path: Path) -> None:
    data = TensorDataset(torch.randn(40, 8))
    loader = DataLoader(data, sampler=RandomSampler(data))
    torch.manual_seed(3)
    alone = list(iter(loader.batch_sampler))  # type: ignore[arg-type]
    loop = Loop(tmp_path, loader=loader)
    sampler = loader.batch_sampler.sampler  # type: ignore[union-attr]
    assert isinstance(sampler, RandomSampler) and type(copy.deepcopy(sampler)) is RandomSampler
    torch.manual_seed(3)
    assert list(iter(loader.batch_sampler)) == alone  # type: ignore[arg-type]
    loop.log.end()
    assert type(sampler) is RandomSampler


def test_a_loader_that_cannot_be_read_is_said(tmp_path: Path) -> None:
    loop = Loop(tmp_path, loader=[1, 2, 3])
    assert loop.run(2) == []


def test_splits_that_share_subjects_or_overlap_in_time_are_found(tmp_path: Path) -> None:
    def judged(**splits: Any) -> set[str]:
        log = RunLog(tmp_path, control=False)
        for name, ids in splits.items():
            log.split(name, ids)
        log.step(loss=1.0)
        log.end()
        return rules(silent(log.folder))

    assert judged(train=["s1", "s2"], val=["s2", "s3"]) == {"splits_overlap"}
    assert judged(train=["s1", "s2"], val=["s3"]) == set()
    assert judged(train=torch.arange(4), val=torch.arange(4, 8)) == set()
    assert judged(train=[("a", 0, 4), ("b", 0, 4)], val=[("a", 4, 8)]) == set()
    assert judged(train=[("a", 0, 4), ("b", 0, 4)], val=[("a", 3, 7)]) == {"splits_overlap"}
    assert judged(train=[("a", 0, 4)], val=[("b", 0, 4), "x"]) == set()
    assert judged(train=["s1"], val=["s1"], test=["s2"]) == {"splits_overlap"}  # a clean one mends no other
    assert judged(train=[Path("a/1.edf")], val=["a/1.edf"]) == {"splits_overlap"}
    signals = torch.randn(6, 2, 100)
    assert judged(train=signals[:4], val=signals[3:].numpy()) == {"splits_overlap"}  # whatever they are called
    assert judged(train=list(signals[:4]), val=signals[4:]) == set()


def test_splits_of_folds_and_parts_of_one_kind_may_share_ids(tmp_path: Path) -> None:
    log = RunLog(tmp_path, control=False)
    for fold in range(3):  # declared again one after the other: a fold is judged when both of its splits are there
        log.split("train", [one for one in range(9) if one % 3 != fold])
        log.split("val", [one for one in range(9) if one % 3 == fold])
        log.step(loss=1.0)
    for fold in range(3):
        log.split(f"train{fold}", [one for one in range(9) if one % 3 != fold])
        log.split(f"test of fold {fold}", [one for one in range(9) if one % 3 == fold])
        log.step(loss=1.0)
    log.end()
    assert rules(silent(log.folder)) == {"splits_overlap"}  # test of fold 0 is in train, which stands from before

    log = RunLog(tmp_path, control=False)
    log.split("train", ["s1", "s2"])
    log.split("train unlabelled", ["s1", "s2", "s3"])
    log.split("test", ["s4", "s5"])
    log.split("test hard", ["s5"])
    for fold in range(2):
        log.split(f"fit {fold}", [f"t{fold}"])
        log.split(f"dev {fold}", [f"t{1 - fold}"])
    log.end()
    assert silent(log.folder) == []


class Named:
    """An id whose name cannot be told."""

    def __repr__(self) -> str:
        raise ValueError("it has no name")


def test_ids_that_cannot_be_compared_are_said_and_end_no_training(tmp_path: Path) -> None:
    log = RunLog(tmp_path, control=False)
    with pytest.warns(UserWarning, match="log.split: train: TypeError: unhashable"):
        log.split("train", [{}])
    log.split("train", [Named()])
    with pytest.warns(UserWarning, match="log.split: ValueError: it has no name; the splits are not compared"):
        log.step(loss=1.0)
    log.step(loss=1.0)
    log.end()
    assert silent(log.folder) == []


def test_a_split_that_is_declared_again_is_judged_as_it_is_now(tmp_path: Path) -> None:
    log = RunLog(tmp_path, control=False)
    log.split("train", ["s1", "s2"])
    log.split("val", ["s2", "s3"])
    log.step(loss=1.0)
    log.split("train", ["s1"])
    log.step(loss=1.0)
    log.end()
    outcome = open_run(log.folder, None, None).read_to_end()
    assert [f.rule for f in outcome.findings] == [] and [f.rule for f in outcome.past] == ["splits_overlap"]


# ---- evaluations ----


def test_an_evaluation_changes_nothing_and_is_not_in_training_mode(tmp_path: Path) -> None:
    def judged(evaluate: Any) -> set[str]:
        model = nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8), nn.Dropout(0.1), nn.Linear(8, 2))
        loop = Loop(tmp_path, model=model)

        def step(number: int) -> None:
            loop.step(number)
            with loop.log.evaluating():
                evaluate(model)
            model.train()

        return rules(loop.run(2, step))

    def right(model: nn.Module) -> None:
        model.eval()
        with torch.inference_mode():
            model(torch.randn(4, 8))

    def training(model: nn.Module) -> None:
        model(torch.randn(4, 8))

    def swapped(model: nn.Module) -> None:
        model.eval()
        with torch.no_grad():
            model[0].weight.mul_(0.9)  # type: ignore[index, union-attr, operator]

    assert judged(right) == set()
    assert judged(training) == {"evaluation_in_train_mode", "evaluation_changed_model"}
    assert judged(swapped) == {"evaluation_changed_model"}


class Functional(nn.Module):
    """Its dropout is no module, and follows the mode."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(8, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        made: torch.Tensor = self.inner(nn.functional.dropout(x, 0.5, training=self.training))
        return made


@pytest.mark.parametrize(("evaluates", "found"), [(True, set()), (False, {"evaluation_in_train_mode"})])
def test_a_functional_dropout_tells_the_mode_of_an_evaluation(tmp_path: Path, evaluates: bool, found: set[str]) -> None:
    loop = Loop(tmp_path, model=Functional())

    def step(number: int) -> None:
        loop.step(number)
        with loop.log.evaluating(), torch.no_grad():
            loop.model.train(not evaluates)
            loop.model(torch.randn(4, 8))
        loop.model.train()

    made = loop.run(2, step)
    assert rules(made) == found and all(one.severity == "warning" for one in made)


class Codebook(nn.Module):
    """Vectors that follow the inputs in training mode."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(8, 2)
        self.register_buffer("centre", torch.zeros(8))
        self.register_buffer("cache", torch.zeros(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training:
            self.centre = 0.9 * self.centre + 0.1 * x.detach().mean(0)
        else:
            self.cache = x.detach().mean().reshape(1)
        made: torch.Tensor = self.inner(x - self.centre)
        return made


@pytest.mark.parametrize(("evaluates", "found"), [(True, set()), (False, {"evaluation_in_train_mode"})])
def test_a_codebook_that_learns_in_an_evaluation_tells_its_mode(
    tmp_path: Path, evaluates: bool, found: set[str]
) -> None:
    loop = Loop(tmp_path, model=Codebook())

    def step(number: int) -> None:
        loop.step(number)
        with loop.log.evaluating(), torch.no_grad():
            loop.model.train(not evaluates)
            loop.model(torch.randn(4, 8))
        loop.model.train()

    assert rules(loop.run(2, step)) == found


@pytest.mark.parametrize(("gives_back", "found"), [(True, set()), (False, {"train_mode_lost"})])
def test_an_evaluation_before_the_first_step_gives_the_mode_back(
    tmp_path: Path, gives_back: bool, found: set[str]
) -> None:
    loop = Loop(tmp_path, model=nn.Sequential(nn.Linear(8, 8), nn.Dropout(0.1), nn.Linear(8, 2)))
    with loop.log.evaluating(), torch.no_grad():
        loop.model.eval()
        loop.model(torch.randn(4, 8))
    loop.model.train(gives_back)
    assert rules(loop.run(3)) == found


@pytest.mark.parametrize("evaluated_after", [2, 30])  # within the steps that are all looked at, and beyond them
def test_gradients_of_an_evaluation_are_no_part_of_the_next_step(tmp_path: Path, evaluated_after: int) -> None:
    def judged(*, backward: bool, clear: bool) -> list[Finding]:
        loop = Loop(tmp_path)

        def step(number: int) -> None:
            loop.backward()
            loop.optimizer.step()
            loop.optimizer.zero_grad()
            if number == evaluated_after:
                with loop.log.evaluating():
                    loss = loop.model(torch.randn(16, 8)).pow(2).mean()
                    if backward:
                        loss.backward()
                if clear:
                    loop.optimizer.zero_grad()

        return [one for one in loop.run(evaluated_after + 3, step) if one.rule != "evaluation_in_train_mode"]

    (left,) = judged(backward=True, clear=False)
    assert (left.rule, left.since_step, left.severity) == ("gradients_not_cleared", evaluated_after + 1, "error")
    assert "the evaluation" in left.message
    assert judged(backward=True, clear=True) == judged(backward=False, clear=False) == []


def test_a_step_made_of_what_an_evaluation_has_made_is_taken_on_purpose(tmp_path: Path) -> None:
    loop = Loop(tmp_path)
    loop.model.eval()

    def step(number: int) -> None:
        with loop.log.evaluating():
            loop.backward()
        loop.optimizer.step()
        loop.optimizer.zero_grad()

    assert loop.run(30, step) == []


def test_an_evaluation_amid_micro_batches_may_leave_their_gradients(tmp_path: Path) -> None:
    loop = Loop(tmp_path, accumulate=4)

    def step(number: int) -> None:
        for part in range(4):
            loop.backward()
            if part == 1:
                loop.model.eval()
                with loop.log.evaluating(), torch.no_grad():
                    loop.model(torch.randn(16, 8))
                loop.model.train()
        loop.optimizer.step()
        loop.optimizer.zero_grad()

    assert loop.run(30, step) == []


def test_an_error_of_the_evaluation_goes_on_to_the_script(tmp_path: Path) -> None:
    loop = Loop(tmp_path)
    with pytest.raises(ZeroDivisionError), loop.log.evaluating():
        raise ZeroDivisionError
    assert loop.run(2) == []


# ---- micro-batches ----


def test_micro_batches_are_weighed_by_their_items(tmp_path: Path) -> None:
    def judged(weight: Any, mean: bool = True, before: bool = True) -> set[str]:
        loop = Loop(tmp_path)

        def step(number: int) -> None:
            loop.optimizer.zero_grad()
            for items in (4, 4, 2):
                loss = loop.model(torch.randn(items, 8)).pow(2).mean(1)
                loss = loss.mean() if mean else loss.sum()
                if before:
                    (loop.log.micro(loss, items=items) * weight(items)).backward()
                else:
                    loop.log.micro(loss * weight(items), items=items).backward()
            loop.optimizer.step()

        return rules(loop.run(2, step))

    assert judged(lambda items: items / 10) == set()
    assert judged(lambda items: items / 10, before=False) == set()
    assert judged(lambda _: 1 / 10, mean=False) == set()
    assert judged(lambda _: 1 / 10, mean=False, before=False) == set()
    assert judged(lambda items: 1 / items / 3, mean=False) == {"microbatch_weights"}
    assert judged(lambda _: 1 / 3) == {"microbatch_weights"}
    assert judged(lambda _: 1 / 3, before=False) == {"microbatch_weights"}
    assert judged(lambda _: 1.0) == {"microbatch_weights"}


# ---- averages ----


def averaged(folder: Path, update: Any, decay: Any = 0.9, copy_of: Any = copy.deepcopy) -> set[str]:
    loop = Loop(folder, OPT)
    average = copy_of(loop.model)
    loop.log.ema(average, decay)

    def step(number: int) -> None:
        loop.step(number)
        with torch.no_grad():
            update(average, loop.model, number)

    return rules(loop.run(4, step))


OPT = lambda parameters: torch.optim.SGD(parameters, lr=0.1)  # noqa: E731


def lerp(average: Any, model: Any, decay: float) -> None:
    for a, w in zip(average.parameters(), model.parameters()):
        a.mul_(decay).add_(w, alpha=1 - decay)


def once(average: Any, model: Any, number: int) -> None:
    lerp(average, model, 0.9)


def test_an_average_follows_its_decay(tmp_path: Path) -> None:
    assert averaged(tmp_path, once) == set()
    assert averaged(tmp_path, nothing) == {"ema_not_updated"}
    assert averaged(tmp_path, lambda a, m, n: (once(a, m, n), once(a, m, n))) == {"ema_updated_twice"}
    assert averaged(tmp_path, once, decay=0.99) == {"ema_differs"}
    assert "ema_aliased" in averaged(tmp_path, nothing, copy_of=lambda model: model)


def test_torchs_own_average_and_one_that_rests_are_clean(tmp_path: Path) -> None:
    swa = torch.optim.swa_utils
    kind = lambda model: swa.AveragedModel(model, multi_avg_fn=swa.get_ema_multi_avg_fn(0.9))  # noqa: E731
    assert averaged(tmp_path, lambda a, m, _: a.update_parameters(m), copy_of=kind) == set()
    every = lambda a, m, n: lerp(a, m, 0.9) if n % 2 == 0 else None  # noqa: E731
    assert averaged(tmp_path, every, decay=lambda step: 0.9 if step % 2 == 0 else None) == set()


def test_since_is_the_first_step_that_can_show_it(tmp_path: Path) -> None:
    loop = Loop(tmp_path)
    loop.log.ema(copy.deepcopy(loop.model), 0.9)
    assert since(loop.run(3), "ema_not_updated") == 1


def test_an_average_that_is_written_into_the_weights_has_its_arguments_exchanged(tmp_path: Path) -> None:
    def exchanged(average: Any, model: Any, number: int) -> None:
        lerp(model, average, 0.9)

    assert averaged(tmp_path / "ema", exchanged) == {"ema_not_updated"}

    def copied(average: Any, model: Any, number: int) -> None:
        model.load_state_dict(average.state_dict())

    assert averaged(tmp_path / "copy", copied, decay=0.0) == {"ema_not_updated"}

    def decays(average: Any, model: Any, number: int) -> None:
        once(average, model, number)
        for weight in model.parameters():
            weight.mul_(0.99)  # the script's own decay, after the average is made

    assert averaged(tmp_path / "decay", decays) == set()


# ---- frozen parts ----


@pytest.mark.parametrize(
    ("mode", "declared", "found"),
    [("train", True, {"frozen_draws"}), ("eval", True, set()), ("train", False, set())],
)
def test_a_dropout_that_draws_in_what_is_declared_frozen_is_a_fact(
    tmp_path: Path, mode: str, declared: bool, found: set[str]
) -> None:
    backbone = nn.Sequential(nn.Linear(8, 8), nn.Dropout(0.5)).requires_grad_(False)
    model = nn.Sequential(backbone, nn.Dropout(0.1), nn.Linear(8, 2))  # the probe's own dropout is as it should be
    loop = Loop(tmp_path, lambda p: torch.optim.SGD([one for one in p if one.requires_grad], lr=0.1), model)
    if declared:
        loop.log.watch(model, loop.optimizer, frozen=["0"])
    backbone.train(mode == "train")
    assert rules(loop.run(2)) == found
