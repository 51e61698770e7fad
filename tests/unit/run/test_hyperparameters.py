"""Schedules from other people's hyperparameters and from one line: right, or refused in one line; nothing is executed."""

from __future__ import annotations

import json
import pickle
import zipfile
from pathlib import Path
from typing import Any

import pytest
import yaml

from eegwatch.check import open_run
from eegwatch.run.config import ConfigError
from eegwatch.run.declaration import hyperparameter_files
from eegwatch.run.declaration.apply import source_of
from eegwatch.run.declaration.hyperparameters import interpret
from eegwatch.run.declaration.schedule_line import ScheduleLine
from eegwatch.run.records import Run
from eegwatch.schedule import parse

RUN = Run(time=0.0, run_id="r", total_steps=1000)
FILES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "transformers": (
        {"learning_rate": 5e-5, "lr_scheduler_type": "cosine", "warmup_ratio": 0.1, "num_train_epochs": 3},
        {"name": "cosine", "max_lr": 5e-5, "warmup_steps": 100, "total_steps": 1000},
    ),
    "transformers' default": (
        {"learning_rate": 5e-5, "max_steps": 800, "warmup_steps": 50},
        {"name": "linear", "max_lr": 5e-5, "warmup_steps": 50, "total_steps": 800},
    ),
    "a floor": (
        {"learning_rate": 1e-4, "lr_scheduler_type": "cosine_with_min_lr", "lr_scheduler_kwargs": {"min_lr_rate": 0.1},
         "max_steps": 500},
        {"name": "cosine", "max_lr": 1e-4, "final_lr": 1e-5, "total_steps": 500},
    ),
    "fairseq": (
        {"lr": [5e-4], "lr_scheduler": "inverse_sqrt", "warmup_updates": 400, "warmup_init_lr": 1e-7, "max_update": 9000},
        {"name": "inverse_sqrt", "max_lr": 5e-4, "warmup_steps": 400, "initial_lr": 1e-7, "total_steps": 1000},
    ),
    "fairseq's hydra": (
        {"lr_scheduler": {"_name": "polynomial_decay", "warmup_updates": 100, "total_num_update": 1000},
         "optimization": {"lr": [1e-3]}},
        {"name": "polynomial", "max_lr": 1e-3, "warmup_steps": 100, "power": 1.0, "total_steps": 1000},
    ),
    "detectron2": (
        {"SOLVER": {"BASE_LR": 2.5e-4, "MAX_ITER": 1000, "STEPS": [600, 900], "WARMUP_ITERS": 100}},
        {"name": "multistep", "milestones": [600, 900], "warmup_mode": "join", "warmup_steps": 100, "initial_lr": 2.5e-7},
    ),
    "mmengine": (
        {"optim_wrapper": {"optimizer": {"type": "SGD", "lr": 0.01}}, "train_cfg": {"max_iters": 1000},
         "param_scheduler": [
             {"type": "LinearLR", "start_factor": 0.001, "by_epoch": False, "begin": 0, "end": 50},
             {"type": "MultiStepLR", "milestones": [600, 900], "gamma": 0.1, "by_epoch": False}]},
        {"name": "multistep", "max_lr": 0.01, "warmup_mode": "multiply", "warmup_steps": 50, "milestones": [600, 900]},
    ),
    "nanoGPT": (
        {"learning_rate": 6e-4, "warmup_iters": 100, "lr_decay_iters": 900, "min_lr": 6e-5, "max_iters": 1000},
        {"name": "cosine", "max_lr": 6e-4, "final_lr": 6e-5, "warmup_steps": 100, "total_steps": 900},
    ),
    "timm": (
        {"sched": "cosine", "lr": 1e-3, "epochs": 30, "warmup_epochs": 5, "warmup_lr": 1e-6, "min_lr": 1e-5},
        {"name": "cosine", "unit": "epoch", "total_steps": 30, "warmup_steps": 5, "warmup_mode": "overlay"},
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", FILES)
@pytest.mark.parametrize("suffix", [".yaml", ".json"])
def test_the_names_of_others_are_understood(kind: str, suffix: str, tmp_path: Path) -> None:
    given, wanted = FILES[kind]
    path = tmp_path / f"config{suffix}"
    path.write_text(json.dumps(given) if suffix == ".json" else yaml.safe_dump(given))
    source = source_of(path)
    assert source is not None and not isinstance(source, ScheduleLine)
    declared = source.declare(RUN, None)  # type: ignore[union-attr]
    assert {
        key: pytest.approx(declared[key]) if isinstance(declared[key], float) else declared[key] for key in wanted
    } == wanted
    parse(declared)


@pytest.mark.parametrize(
    "tree",
    [
        {"learning_rate": 1e-4, "lr_scheduler_type": "reduce_lr_on_plateau", "max_steps": 100},
        {"learning_rate": 1e-4, "lr_scheduler_type": "cosine", "lr_scheduler_kwargs": {"unheard": 1}, "max_steps": 100},
        {"learning_rate": "a lot", "lr_scheduler_type": "cosine", "max_steps": 100},
        {"lr": [1e-3], "lr_scheduler": "tri_stage", "warmup_updates": 10},
        {"sched": "step", "lr": 0.1, "epochs": 3},
    ],
)
def test_what_is_not_understood_is_refused_in_one_line(tree: dict[str, Any]) -> None:
    known = interpret(tree, "args.json")
    assert known is not None
    with pytest.raises(ConfigError) as refused:
        known.declare(RUN, None)
    assert str(refused.value).startswith("args.json: ") and "\n" not in str(refused.value)


class Bomb:
    def __reduce__(self) -> Any:
        return (Path.touch, (Path("/tmp/eegwatch-was-executed"),))


class TrainingArguments:
    """Stands for transformers' class of that name."""


def test_a_pickle_is_read_and_never_executed(tmp_path: Path) -> None:
    args = TrainingArguments()
    args.__dict__ |= {"learning_rate": 5e-5, "max_steps": 800, "warmup_steps": 50, "lr_scheduler_type": "linear"}
    args.__dict__ |= {"bomb": Bomb(), "per_device_train_batch_size": 4}
    marker = Path("/tmp/eegwatch-was-executed")
    marker.unlink(missing_ok=True)
    path = tmp_path / "training_args.bin"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("training_args/data.pkl", pickle.dumps(args))
    source = source_of(path)
    assert source is not None and source.declare(RUN, None)["warmup_steps"] == 50  # type: ignore[union-attr]
    assert not marker.exists()
    path.write_bytes(pickle.dumps(args)[:-9])
    with pytest.raises(ConfigError, match="cannot be read"):
        source_of(path)


def test_a_python_configuration_is_read_as_literals_with_its_bases(tmp_path: Path) -> None:
    (tmp_path / "base.py").write_text(
        "train_cfg = dict(max_iters=2000)\noptim_wrapper = dict(optimizer=dict(lr=0.02))\n"
    )
    (tmp_path / "mine.py").write_text(
        "_base_ = ['./base.py']\nimport os\nos.abort()\nmax_iters = 10 * 100\ntrain_cfg = dict(max_iters=max_iters)\n"
        "param_scheduler = [dict(type='PolyLR', power=0.9, eta_min=1e-4, by_epoch=False, begin=0, end=max_iters)]\n"
    )
    source = source_of(tmp_path / "mine.py")
    assert source is not None
    declared = source.declare(Run(time=0.0, run_id="r"), None)  # type: ignore[union-attr]
    assert (declared["name"], declared["power"], declared["max_lr"], declared["total_steps"]) == (
        "polynomial",
        0.9,
        0.02,
        1000,
    )
    assert hyperparameter_files.literals(tmp_path / "x.py", "a = open('x')\nb = 3")["b"] == 3


def test_a_schedule_in_one_line() -> None:
    line = ScheduleLine.read("cosine lr=3e-4 warmup=0.1 min_lr=1e-5")
    declared = line.declare(RUN, None)
    assert (declared["max_lr"], declared["warmup_steps"], declared["final_lr"], declared["total_steps"]) == (
        3e-4,
        100,
        1e-5,
        1000,
    )
    assert ScheduleLine.read("multistep lr=0.1 milestones=30,60 total=90").declare(RUN, None)["milestones"] == [30, 60]
    with pytest.raises(ConfigError, match="add total=N"):
        line.declare(Run(time=0.0, run_id="r"), None)


@pytest.mark.parametrize(
    "text, says",
    [
        ("", "begin with the schedule's name"),
        ("max_lr=1", "begin with the schedule's name"),
        ("cosin lr=1e-3", "did you mean cosine"),
        ("cosine power=2", "cosine takes no power"),
        ("cosine lr", "write key=value"),
        ("cosine lr=-1", "must be finite and not negative"),
        ("linear lr=nan", "a finite number is needed"),
    ],
)
def test_a_wrong_line_is_refused_in_one_line(text: str, says: str) -> None:
    with pytest.raises(ConfigError) as refused:
        ScheduleLine.read(text)
    assert says in str(refused.value) and "\n" not in str(refused.value)


def test_a_line_declares_a_log_of_someone_else(tmp_path: Path) -> None:
    rates = parse({"name": "linear", "total_steps": 400, "max_lr": 1e-3}).rate(range(400))
    log = tmp_path / "log.jsonl"
    rows = [{"step": n + 1, "lr": float(rates[min(n, 200)]), "loss": 1.0} for n in range(400)]
    log.write_text("".join(json.dumps(row) + "\n" for row in rows))
    run = open_run(log, ScheduleLine.read("linear lr=1e-3 total=400"), None)
    outcome = run.read_to_end()
    assert [f.rule for f in outcome.findings if f.bad] == ["lr_stuck"]
    assert outcome.schedule is not None and outcome.schedule["source"] == "config"


def paths_of(tree: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The way to each value of a tree."""
    if not isinstance(tree, dict | list):
        return [path]
    items = tree.items() if isinstance(tree, dict) else enumerate(tree)
    return [*([path] if path else []), *(p for key, value in items for p in paths_of(value, (*path, key)))]


def refusal_of(tree: Any) -> str | None:
    """Why no schedule is read off these hyperparameters; None where one is, or where nobody's names are in them."""
    source = interpret(tree, "theirs.json")
    try:
        if source is not None:
            parse(source.declare(RUN, None))
    except ConfigError as error:
        return str(error)
    return None


@pytest.mark.parametrize("name", FILES)
def test_each_value_of_another_shape_or_missing_is_refused_in_one_line(name: str) -> None:
    tree = FILES[name][0]
    tried = 0
    for path in paths_of(tree):
        for other in (None, "a word", [], {}, [[]], -1, float("inf"), float("nan"), 1 << 80, KeyError):
            damaged = json.loads(json.dumps(tree))
            inner = damaged
            for key in path[:-1]:
                inner = inner[key]
            if other is KeyError:
                del inner[path[-1]]
            else:
                inner[path[-1]] = other
            refusal = refusal_of(damaged)
            assert refusal is None or (refusal.startswith("theirs.json: ") and "\n" not in refusal), refusal
            tried += 1
    assert tried >= 30


def test_a_key_that_is_missing_is_named() -> None:
    tree = {"learning_rate": 1e-3, "lr_scheduler_type": "warmup_stable_decay", "max_steps": 100}
    source = interpret(tree, "training_args.json")
    assert source is not None
    with pytest.raises(ConfigError, match="training_args.json: .*: num_decay_steps is missing"):
        source.declare(RUN, None)
