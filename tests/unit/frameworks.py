"""Training loops of Lightning and transformers with the callbacks in them, small enough to run in a second."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from torch.optim import lr_scheduler as S
from torch.utils.data import DataLoader, TensorDataset
from transformers import Trainer, TrainingArguments

from eegwatch.integrations.huggingface import EegwatchCallback as HuggingFace
from eegwatch.integrations.lightning import EegwatchCallback as Lightning

SAMPLES, BATCH = 96, 8


class Model(pl.LightningModule):
    """A small classifier; `schedulers` builds what configure_optimizers returns."""

    def __init__(self, schedulers: Callable[[Any], Any] | None = None, loss: Callable[[Any, int], Any] | None = None):
        super().__init__()
        self.net = torch.nn.Linear(4, 2)
        self.schedulers, self.of_loss = schedulers, loss
        self.losses: list[float] = []

    def training_step(self, batch: Any, index: int) -> Any:
        loss = torch.nn.functional.cross_entropy(self.net(batch[0]), batch[1])
        self.losses.append(float(loss.detach()))
        self.log("train_loss", loss)
        return loss if self.of_loss is None else self.of_loss(loss, index)

    def validation_step(self, batch: Any, _: int) -> None:
        loss = torch.nn.functional.cross_entropy(self.net(batch[0]), batch[1])
        self.log_dict({"val_loss": loss, "val_f1": 0.5, "kappa": 0.25})

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.AdamW(self.parameters(), lr=1e-3)
        return optimizer if self.schedulers is None else ([optimizer], [self.schedulers(optimizer)])


def fit(tmp_path: Path, model: pl.LightningModule, callback: Lightning | None = None, **given: Any) -> pl.Trainer:
    torch.manual_seed(0)
    data = TensorDataset(torch.randn(SAMPLES, 4), torch.randint(0, 2, (SAMPLES,)))
    loader = DataLoader(data, batch_size=BATCH)
    settings: dict[str, Any] = {"max_epochs": 3, "enable_checkpointing": False} | given
    resumed = settings.pop("ckpt_path", None)
    callbacks = [callback or Lightning(tmp_path / "logs"), *settings.pop("callbacks", [])]
    trainer = pl.Trainer(
        accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False, callbacks=callbacks,
        default_root_dir=tmp_path, **settings,
    )  # fmt: skip
    trainer.fit(model, loader, loader, ckpt_path=resumed)
    return trainer


class Gan(pl.LightningModule):
    """Manual optimisation with two optimizers, each with its scheduler."""

    def __init__(self, returns: Any = None) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.a, self.b = torch.nn.Linear(4, 1), torch.nn.Linear(4, 1)
        self.returns = returns

    def training_step(self, batch: Any, _: int) -> Any:
        for net, optimizer, scheduler in zip((self.a, self.b), self.optimizers(), self.lr_schedulers()):
            optimizer.zero_grad()
            self.manual_backward(net(batch[0]).square().mean())
            optimizer.step()
            scheduler.step()
        return self.returns

    def configure_optimizers(self) -> Any:
        a, b = torch.optim.Adam(self.a.parameters(), lr=1e-3), torch.optim.Adam(self.b.parameters(), lr=4e-3)
        return [a, b], [S.CosineAnnealingLR(a, 36), S.ExponentialLR(b, 0.9)]


def train(tmp_path: Path, callback: Any = None, resume: bool = False, model: Any = None, **given: Any) -> Any:
    class Net(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = torch.nn.Linear(4, 2)

        def forward(self, x: Any, labels: Any) -> Any:
            logits = self.net(x)
            return {"loss": torch.nn.functional.cross_entropy(logits, labels), "logits": logits}

    torch.manual_seed(0)
    data = [{"x": torch.randn(4), "labels": torch.tensor(i % 2)} for i in range(SAMPLES)]
    settings: dict[str, Any] = {
        "output_dir": str(tmp_path / "out"), "num_train_epochs": 3, "per_device_train_batch_size": BATCH,
        "learning_rate": 1e-3, "logging_steps": 4, "report_to": [], "save_strategy": "no", "use_cpu": True,
        "disable_tqdm": True,
    }  # fmt: skip
    trainer = Trainer(
        model or Net(), TrainingArguments(**(settings | given)), train_dataset=data, eval_dataset=data[:16],
        callbacks=[callback or HuggingFace(tmp_path / "logs")],
        compute_metrics=lambda _: {"accuracy": 0.75, "auroc": 0.5},
    )  # fmt: skip
    trainer.train(resume_from_checkpoint=resume or None)
    return trainer
