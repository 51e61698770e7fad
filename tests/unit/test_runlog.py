"""RunLog: from a training script's own loop to a log that the monitor reads; real torch schedulers, real frameworks."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.optim import lr_scheduler as S

from eegwatch import RunLog
from eegwatch.check import open_run
from eegwatch.schedule import ScheduleError, from_torch, parse

TOTAL = 300


def sgd(lr: float = 0.01) -> torch.optim.Optimizer:
    return torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=lr)


def warm(o: Any, rest: Callable[[Any], Any]) -> Any:
    return S.SequentialLR(o, [S.LinearLR(o, 0.1, total_iters=30), rest(o)], milestones=[30])


def hf(name: str) -> Callable[[Any], Any]:
    def make(o: Any) -> Any:
        from transformers import optimization

        given = {} if "constant" in name else {"num_training_steps": TOTAL}
        return getattr(optimization, name)(o, num_warmup_steps=30, **given)

    return make


MAKERS: dict[str, Callable[[Any], Any]] = {
    "one_cycle": lambda o: S.OneCycleLR(o, 3e-3, total_steps=TOTAL, pct_start=0.1, final_div_factor=40),
    "one_cycle, linear, three phases": lambda o: S.OneCycleLR(
        o, 3e-3, total_steps=TOTAL, anneal_strategy="linear", three_phase=True
    ),
    "cosine": lambda o: S.CosineAnnealingLR(o, TOTAL, eta_min=1e-5),
    "restarts": lambda o: S.CosineAnnealingWarmRestarts(o, 20, 2),
    "linear": lambda o: S.LinearLR(o, 1.0, 0.1, total_iters=TOTAL),
    "warm-up": lambda o: S.LinearLR(o, 0.1, 1.0, total_iters=40),
    "polynomial": lambda o: S.PolynomialLR(o, TOTAL, 2.0),
    "exponential": lambda o: S.ExponentialLR(o, 0.99),
    "step": lambda o: S.StepLR(o, 50, 0.5),
    "multistep": lambda o: S.MultiStepLR(o, [40, 80], 0.3),
    "constant": lambda o: S.ConstantLR(o, 1.0),
    "warm-up, cosine": lambda o: warm(o, lambda o: S.CosineAnnealingLR(o, TOTAL - 30, 1e-6)),
    "warm-up, linear": lambda o: warm(o, lambda o: S.LinearLR(o, 1.0, 0.0, total_iters=TOTAL - 30)),
    "transformers cosine": hf("get_cosine_schedule_with_warmup"),
    "transformers linear": hf("get_linear_schedule_with_warmup"),
    "transformers constant": hf("get_constant_schedule_with_warmup"),
}


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("late", [False, True], ids=["before scheduler.step", "after scheduler.step"])
@pytest.mark.parametrize("kind", MAKERS)
def test_a_torch_scheduler_is_read_and_followed(tmp_path: Path, kind: str, late: bool) -> None:
    optimizer = sgd()
    scheduler = MAKERS[kind](optimizer)
    log = RunLog(tmp_path, kind, schedule=scheduler, total_steps=TOTAL, steps_per_epoch=60)
    used = []
    for _ in range(TOTAL - 1):
        used.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        if late:
            scheduler.step()
        log.step(loss=0.5)
        if not late:
            scheduler.step()
    log.end()
    history = log.history
    assert history.lr.tolist() == used
    assert history.run is not None and history.run.schedule is not None
    expected = parse(history.run.schedule).rate(np.arange(TOTAL - 1))
    np.testing.assert_allclose(used, expected, rtol=1e-9, atol=1e-15)
    outcome = open_run(log.folder, None, None).read_to_end()
    assert not [f for f in outcome.findings if f.family == "rate"], outcome.text()


@pytest.mark.parametrize("late", [False, True])
def test_the_incident_in_a_script_of_ones_own_is_found_by_name(tmp_path: Path, late: bool) -> None:
    optimizer = sgd()
    scheduler = S.OneCycleLR(optimizer, 3e-3, total_steps=TOTAL, pct_start=0.1)
    log = RunLog(tmp_path, schedule=scheduler, steps_per_epoch=30, total_steps=TOTAL)
    for n in range(90):
        optimizer.step()
        if late and n % 30 == 29:
            scheduler.step()
        log.step(loss=0.6)
        if not late and n % 30 == 29:
            scheduler.step()
    (finding,) = [f for f in open_run(log.folder, None, None).read_to_end().findings if f.rule == "lr_stuck"]
    assert finding.cause is not None and "once per epoch" in finding.message


def test_what_cannot_be_read_is_said_and_nothing_is_guessed(tmp_path: Path) -> None:
    optimizer = sgd()
    with pytest.warns(UserWarning, match="reads no schedule off this LambdaLR"):
        log = RunLog(tmp_path, schedule=S.LambdaLR(optimizer, lambda n: 1 / (n + 1)))
    log.step(loss=1.0)
    log.end()
    assert log.history.run is not None and log.history.run.schedule is None and log.history.lr.tolist() == [0.01]
    assert from_torch.read(S.StepLR(optimizer, 5), None) is None
    with pytest.raises(ScheduleError):
        RunLog(tmp_path, schedule={"name": "one_cycle", "total_steps": 10, "max_lr": -1.0})
    with pytest.raises(ValueError, match="unit"):
        RunLog(tmp_path, unit="batch")


def test_records_attempts_and_ends(tmp_path: Path) -> None:
    with RunLog(tmp_path, "mine", total_steps=20, steps_per_epoch=10, batch_size=4) as log:
        for _ in range(12):
            log.step(torch.tensor(0.25), lr=1e-3, grad_norm=torch.tensor(float("nan")))
        log.eval(loss=0.4, auroc=0.8)
        log.checkpoint("model.pt", best=True)
        with pytest.warns(UserWarning, match="going back is a new attempt"):
            log.step(0.1, step=5)  # said once, not written, and the training goes on
    with pytest.raises(RuntimeError), RunLog(resume=log.folder, step=10, total_steps=20, steps_per_epoch=10) as again:
        again.step(0.3, lr=1e-3)
        raise RuntimeError("out of memory")
    records = [json.loads(line) for line in (log.folder / "run.jsonl").read_text().splitlines()]
    assert [r["attempt"] for r in records if r["type"] == "run"] == [1, 2]
    ends = [(r["reason"], r["error"]) for r in records if r["type"] == "end"]
    assert ends == [("completed", None), ("failed", "RuntimeError: out of memory")]
    steps = [r for r in records if r["type"] == "step"]
    assert steps[0]["loss"] == 0.25 and steps[0]["grad_norm"] == "nan"
    assert (steps[10]["epoch"], steps[10]["batch"]) == (1, 1) and steps[-1]["step"] == 11
    assert (log.folder / "run.jsonl").stat().st_mode & 0o777 == 0o600


def test_a_killed_script_leaves_every_step_it_wrote(tmp_path: Path) -> None:
    script = f"""
import os, signal
from eegwatch import RunLog
log = RunLog({str(tmp_path)!r}, total_steps=1000)
for n in range(500):
    log.step(loss=0.5, lr=1e-3)
os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run([sys.executable, "-c", script], env=os.environ | {"PYTHONPATH": "."})
    assert done.returncode == -signal.SIGKILL
    (run,) = tmp_path.iterdir()
    lines = (run / "run.jsonl").read_text().splitlines()
    assert len(lines) == 501 and json.loads(lines[-1])["step"] == 500


def test_metrics_of_any_name_and_goals_and_intervals(tmp_path: Path) -> None:
    with RunLog(tmp_path, goals={"f1": "max", "wer": "min"}) as log:
        log.step(loss=0.5, lr=1e-3, metrics={"acc": torch.tensor(0.75), "nothing": None, "bits": np.float32(0.5)})
        log.step(loss=0.4, lr=1e-3, metrics={"acc": float("inf")})
        log.eval({"f1": 0.5, "loss": 0.9, "auroc": torch.tensor(0.25)}, split="val", ci95={"f1": (0.4, 0.6)})
        log.eval(loss=0.3, balanced_accuracy=0.5)
    records = [json.loads(line) for line in (log.folder / "run.jsonl").read_text().splitlines()]
    assert records[0]["metric_goals"] == {"f1": "max", "wer": "min"} and records[0]["v"] == 2
    assert records[1]["metrics"] == {"acc": 0.75, "bits": 0.5} and records[2]["metrics"] == {"acc": "inf"}
    first, second = log.history.evals
    assert first.values() == {"loss": 0.9, "auroc": 0.25, "f1": 0.5} and first.ci95 == {"f1": [0.4, 0.6]}
    assert second.values() == {"loss": 0.3, "balanced_accuracy": 0.5}
    with pytest.raises(ValueError, match="goals: f1"):
        RunLog(tmp_path, goals={"f1": "up"})


@pytest.mark.filterwarnings("error")
def test_a_loss_that_requires_its_gradient_warns_of_nothing(tmp_path: Path) -> None:
    loss = (torch.ones(3, requires_grad=True) * 2).sum()
    with RunLog(tmp_path) as log:
        log.step(loss=loss, lr=1e-3, grad_norm=loss, metrics={"also": loss})
    assert log.history.loss.tolist() == [6.0]


def test_what_is_no_number_is_said_once_and_left_out(tmp_path: Path) -> None:
    log = RunLog(tmp_path)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        for _ in range(5):
            log.step(loss=torch.ones(3), lr=1e-3, metrics={"word": "high"})
    log.end()
    with pytest.warns(UserWarning, match="after end"):
        log.step(loss=1.0)
    assert len(said) == 2 and log.history.step.tolist() == [1, 2, 3, 4, 5] and np.isnan(log.history.loss).all()


@pytest.mark.parametrize(("total", "per_epoch"), [(5, 10), (105, 10), (100, 10), (1, 1000)])
def test_epochs_that_are_cut_short_count_as_epochs(tmp_path: Path, total: int, per_epoch: int) -> None:
    optimizer = sgd(1e-2)
    epochs = -(-total // per_epoch)
    scheduler = S.CosineAnnealingLR(optimizer, epochs, 1e-6)
    log = RunLog(tmp_path, schedule=scheduler, unit="epoch", total_steps=total, steps_per_epoch=per_epoch)
    for n in range(1, total + 1):
        optimizer.step()
        log.step(loss=0.5)
        if n % per_epoch == 0:
            scheduler.step()
    log.end()
    run = log.history.run
    assert run is not None and run.schedule is not None
    assert (run.schedule["unit"], run.schedule["total_steps"]) == ("epoch", epochs)
    outcome = open_run(log.folder, None, None).read_to_end()
    assert not [f for f in outcome.findings if f.rule.startswith("lr_")], outcome.text()


class Odd:
    """Objects that somebody may hand over as a scheduler: none may end the training that is to be logged."""

    no_groups = type("NoGroups", (), {"optimizer": object(), "last_epoch": 0})()
    text_groups = type("Text", (), {"optimizer": type("O", (), {"param_groups": "abc"})(), "last_epoch": 0})()
    empty = type("Empty", (), {"optimizer": type("O", (), {"param_groups": []})(), "last_epoch": 0})()
    raising = type("Raising", (), {"optimizer": property(lambda _: 1 / 0)})()
    word = "cosine"
    number = 3.5
    function = staticmethod(lambda _: 1.0)


@pytest.mark.parametrize("name", [name for name in vars(Odd) if not name.startswith("__")])
def test_an_odd_schedule_object_is_said_once_and_the_steps_are_logged(tmp_path: Path, name: str) -> None:
    with pytest.warns(UserWarning, match="eegwatch reads no"):
        log = RunLog(tmp_path, schedule=getattr(Odd, name), total_steps=10)
    for _ in range(10):
        log.step(loss=0.5)
    log.end()
    assert log.history.step.tolist() == list(range(1, 11))


def test_a_rate_that_follows_a_metric_has_no_schedule_and_is_logged(tmp_path: Path) -> None:
    optimizer = sgd(0.1)
    scheduler = S.ReduceLROnPlateau(optimizer, patience=1)
    with pytest.warns(UserWarning, match="ReduceLROnPlateau: its rate follows a metric") as said:
        log = RunLog(tmp_path, schedule=scheduler, total_steps=40, steps_per_epoch=4)
    for n in range(1, 41):
        optimizer.step()
        log.step(loss=0.5)
        if n % 4 == 0:
            scheduler.step(1.0)
    log.end()
    assert len(said) == 1 and len(set(log.history.lr)) > 2
    outcome = open_run(log.folder, None, None).read_to_end()
    assert not [f for f in outcome.findings if f.severity == "error"], outcome.text()


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_schedulers_without_a_position_of_their_own_are_followed(tmp_path: Path) -> None:
    optimizer = sgd(0.1)
    chain = S.ChainedScheduler([S.LinearLR(optimizer, 0.1, total_iters=10), S.ExponentialLR(optimizer, 0.99)])
    log = RunLog(tmp_path, schedule=chain, total_steps=50)
    for _ in range(50):
        optimizer.step()
        chain.step()
        log.step(loss=0.5)
    log.end()
    run = log.history.run
    assert run is not None and run.schedule is not None and run.schedule["name"] == "product"
    outcome = open_run(log.folder, None, None).read_to_end()
    assert not [f for f in outcome.findings if f.rule.startswith("lr_")], outcome.text()


def test_a_disk_that_is_full_ends_nothing_and_loses_nothing(tmp_path: Path) -> None:
    script = f"""
import resource, signal, warnings
from eegwatch import RunLog
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
log = RunLog({str(tmp_path)!r}, total_steps=1000)
with warnings.catch_warnings(record=True) as said:
    warnings.simplefilter("always")
    resource.setrlimit(resource.RLIMIT_FSIZE, (4000, resource.RLIM_INFINITY))
    for n in range(200):
        log.step(loss=0.5, lr=1e-3)
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    for n in range(10):
        log.step(loss=0.5, lr=1e-3)
    log.end()
print([str(w.message)[:40] for w in said])
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, env=os.environ | {"PYTHONPATH": "."}
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("the log cannot be written") == 1
    checked = open_run(next(tmp_path.iterdir()), None, None)
    checked.read_to_end()
    assert checked.history.step.tolist() == list(range(1, 211)) and checked.history.end is not None


def test_importing_runlog_loads_neither_torch_nor_textual() -> None:
    code = (
        "import sys; from eegwatch import RunLog; print([m for m in ('torch', 'mne', 'textual') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


# ---- frameworks ------------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("interval", ["step", "epoch"])
def test_lightning_writes_every_step_and_its_default_interval_is_found(tmp_path: Path, interval: str) -> None:
    """Lightning's own trap: OneCycleLR with the interval "epoch", while the author means every step."""
    import lightning.pytorch as pl

    from eegwatch.integrations.lightning import EegwatchCallback

    class Model(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net = torch.nn.Linear(4, 2)

        def training_step(self, batch: Any, _: int) -> Any:
            return torch.nn.functional.cross_entropy(self.net(batch[0]), batch[1])

        def validation_step(self, batch: Any, _: int) -> None:
            self.log("val_loss", torch.nn.functional.cross_entropy(self.net(batch[0]), batch[1]))

        def configure_optimizers(self) -> Any:
            optimizer = torch.optim.AdamW(self.parameters(), lr=1e-3)
            scheduler = S.OneCycleLR(optimizer, 3e-3, total_steps=90, pct_start=0.1)
            return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": interval}}

    data = torch.utils.data.TensorDataset(torch.randn(120, 4), torch.randint(0, 2, (120,)))
    loader = torch.utils.data.DataLoader(data, batch_size=4)
    pl.Trainer(
        max_epochs=3, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, callbacks=[EegwatchCallback(tmp_path / "logs")],
    ).fit(Model(), loader, loader)  # fmt: skip
    (run,) = (tmp_path / "logs").iterdir()
    checked = open_run(run, None, None)
    outcome = checked.read_to_end()
    assert checked.history.step.tolist() == list(range(1, 91)) and np.isfinite(checked.history.loss).all()
    assert len(checked.history.evals) == 3 and checked.history.end is not None
    wrong = [f for f in outcome.findings if f.rule == "lr_stuck"]
    if interval == "step":
        assert not wrong
    else:
        assert "once per epoch" in wrong[0].message


@pytest.mark.filterwarnings("ignore")
def test_transformers_writes_every_step_with_the_rate_that_it_used(tmp_path: Path) -> None:
    from tests.unit.frameworks import train

    train(tmp_path, warmup_steps=6, lr_scheduler_type="cosine", eval_strategy="epoch")
    (run,) = (tmp_path / "logs").iterdir()
    checked = open_run(run, None, None)
    outcome = checked.read_to_end()
    history = checked.history
    assert history.step.tolist() == list(range(1, 37)) and history.run is not None and history.run.schedule is not None
    np.testing.assert_allclose(history.lr, parse(history.run.schedule).rate(np.arange(36)), atol=1e-12)
    assert np.isfinite(history.loss).sum() == 9 and len(history.evals) == 3
    assert not outcome.wrong, outcome.text()


def test_a_warning_names_the_line_of_the_script_that_it_is_about(tmp_path: Path) -> None:
    """Whatever the depth inside the package: the constructor, a step, a change of schedule."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        log = RunLog(tmp_path, name="unread", schedule=S.LambdaLR(optimizer, float))
        log.step(loss="a word")  # type: ignore[arg-type]
        log.step(loss=1.0, step=1)
        log.schedule_changed(S.ReduceLROnPlateau(optimizer))
        log.end()
    assert len(warned) == 4
    assert {one.filename for one in warned} == {__file__}
