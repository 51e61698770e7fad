"""Other people's logs: written by the real libraries, or line by line as their scripts print them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from eegwatch.check import CheckedRun, open_run
from eegwatch.cli import main
from eegwatch.formats import PatternError, compile_patterns, find, foreign_log
from eegwatch.formats.names import meaning
from eegwatch.run.follow import RunFollower
from eegwatch.run.history import History
from eegwatch.schedule import parse

CONFIG = """
data: {batch_size: 32}
training:
  max_epochs: 50
  scheduler: {name: OneCycleLR, max_lr: 3.0e-3, pct_start: 0.2, div_factor: 25, final_div_factor: 1000}
"""
INCIDENT = {"name": "one_cycle", "total_steps": 50 * 58285, "max_lr": 3e-3, "pct_start": 0.2, "div_factor": 25.0, "final_div_factor": 1000.0}  # fmt: skip


def read(path: Path, **given: Any) -> CheckedRun:
    run = open_run(path, given.get("config"), given.get("steps_per_epoch"), given.get("patterns", ()))
    run.read_to_end()
    return run


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("lr", ("train", "lr")),
        ("lr-AdamW", ("train", "lr")),
        ("learning_rate", ("train", "lr")),
        ("train/loss", ("train", "loss")),
        ("Train Loss", ("train", "loss")),
        ("Grad norm", ("train", "grad_norm")),
        ("val_auroc", ("val", "auroc")),
        ("Val - Loss", ("val", "loss")),
        ("eval_loss", ("val", "loss")),  # transformers calls its validation "eval"
        ("optim/learning_rate", ("train", "lr")),
        ("val/head/loss", None),
        ("test/auc", ("eval", "auroc")),
        ("global_step", ("at", "step")),
        ("temperature", None),
        ("eval_runtime", None),
    ],
)
def test_names_mean_what_people_mean(name: str, expected: tuple[str, str] | None) -> None:
    assert meaning(name) == expected


# ---- text ------------------------------------------------------------------------------------------------------------


def incident_log(folder: Path, frozen: bool) -> Path:
    """As the incident's script printed it: epoch 17 of 50, a line every 50 batches, three digits."""
    schedule = parse(INCIDENT)
    lines = ["2025-08-06 13:27:43,123 - INFO - Resumed from epoch 15", "Epoch 17/50"]
    for batch in range(50, 58251, 50):
        step = 16 * 58285 + batch
        lr = float(schedule.rate(16 * 58285 if frozen else step - 1))
        lines.append(f"Batch {batch}/58285 - Loss: {0.55 + 0.1 * np.sin(batch):.4f} - LR: {lr:.2e}")
    lines.append("Val - Loss: 0.5412, AUROC: 0.7916, Balanced accuracy: 0.7120")
    path = folder / "train.log"
    path.write_text("\n".join(lines) + "\n")
    return path


def test_the_incidents_own_log_is_read_and_the_frozen_rate_proved(tmp_path: Path) -> None:
    config = tmp_path / "users.yaml"
    config.write_text(CONFIG)
    run = read(incident_log(tmp_path, frozen=True), config=config)
    history = run.history
    assert history.step[0] == 16 * 58285 + 50 and history.step[-1] == 16 * 58285 + 58250
    assert history.run is not None and history.run.total_steps == 50 * 58285 and history.run.batch_size == 32
    assert history.evals[0].auroc == 0.7916 and history.evals[0].balanced_accuracy == 0.7120
    (stuck,) = [f for f in run.outcome().findings if f.rule == "lr_stuck"]
    assert "LR stuck at 2.84e-3" in stuck.message
    healthy = read(incident_log(tmp_path, frozen=False), config=config)
    assert not [f for f in healthy.outcome().findings if f.family == "rate"], healthy.outcome().text()


def test_steps_of_the_other_kind_and_a_banner(tmp_path: Path) -> None:
    path = tmp_path / "log.txt"
    path.write_text(
        "Config: LR: 0.003, Loss: cross-entropy\nbest loss: 0.31\n"
        + "".join(
            f"Step {n} - Loss: {0.7 - n / 1e4:.4f} - LR: {n * 1e-6:.2e} - Grad norm: {n / 100:.3f}\n"
            for n in (50, 100, 150)
        )
    )
    history = read(path).history
    assert history.step.tolist() == [50, 100, 150] and history.grad_norm.tolist() == [0.5, 1.0, 1.5]
    assert history.lr.tolist() == [5e-05, 1e-4, 1.5e-4]


def test_progress_bars_with_carriage_returns(tmp_path: Path) -> None:
    import io

    from tqdm import tqdm

    out = io.StringIO()
    for epoch in range(2):
        with tqdm(range(20), desc=f"Epoch {epoch}", file=out, mininterval=0, ncols=100) as bar:
            for n in bar:
                bar.set_postfix(loss=0.5 + n / 100, lr=1e-3 / (epoch + 1))
    path = tmp_path / "stdout.txt"
    path.write_text(out.getvalue())
    history = read(path).history
    assert history.run is not None and history.run.steps_per_epoch == 20
    assert history.step.max() > 30 and (np.diff(history.step) > 0).all()
    assert history.lr[0] == 1e-3 and history.lr[-1] == 5e-4


def test_a_pattern_of_ones_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "weird.log"
    path.write_text("".join(f"<<{n};{1e-3 * n};{0.5}>>\n" for n in range(1, 30)))
    pattern = r"<<(?P<step>\d+);(?P<lr>[^;]+);(?P<loss>[^>]+)>>"
    assert read(path, patterns=compile_patterns([pattern])).history.step.tolist() == list(range(1, 30))
    assert main(["check", str(path)]) == 2 and "nothing in it is a step" in capsys.readouterr().err
    assert main(["check", str(path), "--pattern", pattern]) in (0, 1)
    for wrong, words in [
        ("(", "not a regular expression"),
        (r"(?P<speed>\d)", "not a name that is known"),
        (r"\d", "names no group"),
    ]:
        with pytest.raises(PatternError, match=words):
            compile_patterns([wrong])
        assert main(["check", str(path), "--pattern", wrong]) == 2


def test_escape_sequences_and_garbage_do_no_harm(tmp_path: Path) -> None:
    path = tmp_path / "garbage.log"
    path.write_bytes(
        b"\x1b[31mstep 1 loss: 0.5 lr: 1e-3\x1b[0m\n" + bytes(range(256)) * 20 + b"\nstep 2 loss=nan lr=2e-3\n" + b"=" * 5000
        + b"\nstep 3, loss: 0.4, lr: 3e-3\n"
    )  # fmt: skip
    history = read(path).history
    assert history.step.tolist() == [1, 2, 3] and np.isnan(history.loss[1])


# ---- what libraries write --------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore")
def test_lightnings_metrics_csv(tmp_path: Path) -> None:
    import lightning.pytorch as pl
    from lightning.pytorch.callbacks import LearningRateMonitor
    from lightning.pytorch.loggers import CSVLogger

    schedule = {"name": "one_cycle", "total_steps": 90, "max_lr": 3e-3, "pct_start": 0.1}

    class Model(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net = torch.nn.Linear(4, 2)

        def training_step(self, batch: Any, _: int) -> Any:
            loss = torch.nn.functional.cross_entropy(self.net(batch[0]), batch[1])
            self.log("train_loss", loss)
            return loss

        def validation_step(self, batch: Any, _: int) -> None:
            self.log("val_loss", torch.nn.functional.cross_entropy(self.net(batch[0]), batch[1]))

        def configure_optimizers(self) -> Any:
            optimizer = torch.optim.AdamW(self.parameters())
            scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=90, pct_start=0.1)
            return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    data = torch.utils.data.TensorDataset(torch.randn(120, 4), torch.randint(0, 2, (120,)))
    loader = torch.utils.data.DataLoader(data, batch_size=4)
    pl.Trainer(
        max_epochs=3, accelerator="cpu", logger=CSVLogger(tmp_path, name="run", flush_logs_every_n_steps=1),
        callbacks=[LearningRateMonitor("step")], enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, log_every_n_steps=1,
    ).fit(Model(), loader, loader)  # fmt: skip
    found = find(tmp_path)
    assert found is not None and found.format == "Lightning CSV" and found.path.name == "metrics.csv"
    history = read(tmp_path).history
    assert history.step.tolist() == list(range(1, 91)) and np.isfinite(history.loss).all()
    np.testing.assert_allclose(history.lr, parse(schedule).rate(np.arange(90)), rtol=1e-6)
    assert len(history.evals) == 3


@pytest.mark.filterwarnings("ignore")
def test_transformers_trainer_state(tmp_path: Path) -> None:
    from transformers import Trainer, TrainingArguments

    class Model(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = torch.nn.Linear(4, 2)

        def forward(self, x: Any, labels: Any) -> Any:
            return {"loss": torch.nn.functional.cross_entropy(self.net(x), labels), "logits": self.net(x)}

    data = [{"x": torch.randn(4), "labels": torch.tensor(i % 2)} for i in range(96)]
    arguments = TrainingArguments(
        output_dir=str(tmp_path / "out"), num_train_epochs=3, per_device_train_batch_size=8, learning_rate=1e-3,
        warmup_steps=6, lr_scheduler_type="cosine", logging_steps=4, report_to=[], save_strategy="epoch", use_cpu=True,
        disable_tqdm=True, eval_strategy="epoch",
    )  # fmt: skip
    Trainer(Model(), arguments, train_dataset=data, eval_dataset=data[:16]).train()
    run = read(tmp_path / "out")
    history = run.history
    assert run.foreign is not None and run.foreign.format == "Hugging Face trainer state"
    assert history.step.tolist() == list(range(4, 37, 4)) and history.run is not None
    assert (history.run.total_steps, history.run.epochs) == (36, 3) and len(history.evals) == 3


def test_tensorboard_event_files(tmp_path: Path) -> None:
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(tmp_path / "tb")
    for n in range(1, 101):
        writer.add_scalar("train/loss", 0.5, n)
        writer.add_scalar("lr-AdamW", 1e-5 * n, n)
    writer.add_scalar("val/auroc", 0.81, 100)
    writer.close()
    run = read(tmp_path)
    assert run.foreign is not None and run.foreign.format == "TensorBoard events"
    assert run.history.step.tolist() == list(range(1, 101)) and len(run.history.evals) == 1
    np.testing.assert_allclose(run.history.lr, 1e-5 * np.arange(1, 101), rtol=1e-6)


def test_json_rows_by_other_names(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    rows = [{"iteration": n, "optim": {"learning_rate": 1e-3}, "Loss": 0.5, "note": "x"} for n in range(1, 20)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows) + "{torn\n")
    run = read(path)
    assert run.history.step.tolist() == list(range(1, 20)) and run.outcome().bad_lines == 1
    assert run.history.lr.tolist() == [1e-3] * 19


def test_our_own_runs_are_not_foreign(log_writer: Any) -> None:
    log_writer.run()
    log_writer.healthy(1, 20)
    assert foreign_log(log_writer.folder) is None and foreign_log(log_writer.folder.parent) is None
    assert foreign_log(log_writer.folder / "run.jsonl") is None
    assert foreign_log(log_writer.folder / "nowhere") is None


# ---- while they grow -------------------------------------------------------------------------------------------------


def test_a_growing_log_is_followed_and_a_replaced_one_read_anew(tmp_path: Path) -> None:
    path = tmp_path / "train.log"
    path.write_text("step 1 loss: 0.5 lr: 1e-3\nstep 2 loss: 0.5 lr: 1e-3\nstep 3 lo")
    foreign = find(path)
    assert foreign is not None
    follower, history = RunFollower(foreign.follow()), History()

    def take() -> list[int]:
        for item in follower.poll(1 << 16):
            history.append(item)
        return [int(n) for n in history.step]

    assert take() == [1, 2]
    with path.open("a") as file:
        file.write("ss: 0.5 lr: 1e-3\n")
    assert take() == [1, 2, 3]
    path.unlink()
    path.write_text("step 1 loss: 0.7 lr: 1e-3\n")
    follower.poll(1 << 16)
    assert follower.reset == "replaced"


def test_a_csv_whose_header_changes_is_read_anew(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    path.write_text("step,train_loss\n0,0.5\n1,0.5\n")
    foreign = find(path)
    assert foreign is not None
    follower = RunFollower(foreign.follow())
    follower.poll(1 << 16)
    path.write_text("step,train_loss,val_loss\n0,0.5,\n1,0.5,\n1,,0.4\n2,0.3,\n3,0.2,\n")
    items = follower.poll(1 << 16)
    assert follower.reset is not None and any(hasattr(item, "split") for item in items)


@pytest.mark.parametrize("make", ["text", "csv"])
def test_the_screen_watches_a_foreign_log(tmp_path: Path, make: str, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "users.yaml"
    config.write_text(CONFIG)
    path = incident_log(tmp_path, frozen=True)
    words = [str(path), "--config", str(config), "--once", "--size", "100x30"]
    if make == "csv":
        path = tmp_path / "metrics.csv"
        path.write_text("step,lr,loss\n" + "".join(f"{n},0.001,0.5\n" for n in range(200)))
        words = [str(path), "--once"]
    assert main(words) == 0
    shown = capsys.readouterr().out
    assert ("LR STUCK at 2.84e-3" in shown and "annealing" in shown) if make == "text" else "LR 1.00e-3" in shown
    assert re.search(r"┤", shown)
