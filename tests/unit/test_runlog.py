"""RunLog: from a training script's own loop to a log that the monitor reads; real torch schedulers, real frameworks."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
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
    assert from_torch.read(S.CosineAnnealingLR(optimizer, 50), 100) is None  # it would rise again
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
        with pytest.raises(ValueError, match="going back is a new attempt"):
            log.step(0.1, step=5)
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
    from transformers import Trainer, TrainingArguments

    from eegwatch.integrations.huggingface import EegwatchCallback

    class Model(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = torch.nn.Linear(4, 2)

        def forward(self, x: Any, labels: Any) -> Any:
            logits = self.net(x)
            return {"loss": torch.nn.functional.cross_entropy(logits, labels), "logits": logits}

    data = [{"x": torch.randn(4), "labels": torch.tensor(i % 2)} for i in range(96)]
    arguments = TrainingArguments(
        output_dir=str(tmp_path / "out"), num_train_epochs=3, per_device_train_batch_size=8, learning_rate=1e-3,
        warmup_steps=6, lr_scheduler_type="cosine", logging_steps=4, report_to=[], save_strategy="no", use_cpu=True,
        disable_tqdm=True, eval_strategy="epoch",
    )  # fmt: skip
    callback = EegwatchCallback(tmp_path / "logs")
    Trainer(Model(), arguments, train_dataset=data, eval_dataset=data[:16], callbacks=[callback]).train()
    (run,) = (tmp_path / "logs").iterdir()
    checked = open_run(run, None, None)
    outcome = checked.read_to_end()
    history = checked.history
    assert history.step.tolist() == list(range(1, 37)) and history.run is not None and history.run.schedule is not None
    np.testing.assert_allclose(history.lr, parse(history.run.schedule).rate(np.arange(36)), atol=1e-12)
    assert np.isfinite(history.loss).sum() == 9 and len(history.evals) == 3
    assert not outcome.wrong, outcome.text()
