"""The trainers of transformers and Lightning with our callbacks; what the user does wrong is in the given objects."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader, TensorDataset

SAMPLES, BATCH = 96, 8


def only(folder: Path) -> Path:
    (run,) = [p for p in folder.iterdir() if (p / "run.jsonl").is_file()]
    return run


def transformers_run(
    folder: Path, *, scheduler: Callable[[Any], Any] | None = None, groups: bool = False, **given: Any
) -> Path:
    """A Trainer over 96 samples; `scheduler` builds the user's own from the optimizer."""
    from transformers import Trainer, TrainingArguments

    from eegwatch.integrations.huggingface import EegwatchCallback

    class Net(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.head = torch.nn.Linear(4, 4), torch.nn.Linear(4, 2)

        def forward(self, x: Any, labels: Any) -> Any:
            logits = self.head(self.body(x))
            return {"loss": torch.nn.functional.cross_entropy(logits, labels), "logits": logits}

    torch.manual_seed(0)
    net = Net()
    data = [{"x": torch.randn(4), "labels": torch.tensor(i % 2)} for i in range(SAMPLES)]
    settings: dict[str, Any] = {
        "output_dir": str(folder / "out"), "num_train_epochs": 3, "per_device_train_batch_size": BATCH,
        "learning_rate": 1e-3, "logging_steps": 4, "report_to": [], "save_strategy": "no", "use_cpu": True,
        "disable_tqdm": True,
    }  # fmt: skip
    optimizers: Any = (None, None)
    if scheduler is not None:
        parts = [{"params": net.body.parameters(), "lr": 1e-4}] if groups else []
        parts.append({"params": net.head.parameters() if groups else net.parameters(), "lr": 1e-3})
        optimizer = torch.optim.AdamW(parts, lr=1e-3)
        optimizers = (optimizer, scheduler(optimizer))
    Trainer(
        net, TrainingArguments(**(settings | given)), train_dataset=data, eval_dataset=data[:16], optimizers=optimizers,
        callbacks=[EegwatchCallback(folder / "logs")],
    ).train()  # fmt: skip
    return only(folder / "logs")


def lightning_run(
    folder: Path, build: Callable[[Any], Any] | None, *, groups: bool = False, skip: bool = False, **given: Any
) -> Path:
    import logging

    import lightning.pytorch as pl

    from eegwatch.integrations.lightning import EegwatchCallback

    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)

    class Model(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.head = torch.nn.Linear(4, 4), torch.nn.Linear(4, 2)

        def training_step(self, batch: Any, index: int) -> Any:
            if skip and index % 5 == 3:
                return None
            return torch.nn.functional.cross_entropy(self.head(self.body(batch[0])), batch[1])

        def validation_step(self, batch: Any, _: int) -> None:
            self.log("val_loss", torch.nn.functional.cross_entropy(self.head(self.body(batch[0])), batch[1]))

        def configure_optimizers(self) -> Any:
            parts: Any = self.parameters()
            if groups:
                parts = [{"params": self.body.parameters(), "lr": 1e-4}, {"params": self.head.parameters()}]
            optimizer = torch.optim.AdamW(parts, lr=1e-3)
            return optimizer if build is None else ([optimizer], [build(optimizer)])

    torch.manual_seed(0)
    data = TensorDataset(torch.randn(SAMPLES, 4), torch.randint(0, 2, (SAMPLES,)))
    loader = DataLoader(data, batch_size=BATCH)
    callbacks = [EegwatchCallback(folder / "logs"), *given.pop("callbacks", [])]
    settings: dict[str, Any] = {"max_epochs": 3, "enable_checkpointing": False} | given
    pl.Trainer(
        accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False, callbacks=callbacks,
        default_root_dir=folder, **settings,
    ).fit(Model(), loader, loader)  # fmt: skip
    return only(folder / "logs")


def lightning_gan(folder: Path, build: Callable[[Any, Any], Any]) -> Path:
    """Manual optimisation with two optimizers."""
    import lightning.pytorch as pl

    from eegwatch.integrations.lightning import EegwatchCallback

    class Gan(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.automatic_optimization = False
            self.a, self.b = torch.nn.Linear(4, 1), torch.nn.Linear(4, 1)

        def training_step(self, batch: Any, _: int) -> None:
            for net, optimizer in zip((self.a, self.b), self.optimizers()):
                optimizer.zero_grad()
                self.manual_backward(net(batch[0]).square().mean())
                optimizer.step()
            schedulers = self.lr_schedulers() or []
            for scheduler in schedulers if isinstance(schedulers, list) else [schedulers]:
                scheduler.step()

        def configure_optimizers(self) -> Any:
            a, b = torch.optim.Adam(self.a.parameters(), lr=1e-3), torch.optim.Adam(self.b.parameters(), lr=4e-3)
            return [a, b], build(a, b)

    torch.manual_seed(0)
    loader = DataLoader(TensorDataset(torch.randn(SAMPLES, 4)), batch_size=BATCH)
    pl.Trainer(
        accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False, max_epochs=3,
        enable_checkpointing=False, callbacks=[EegwatchCallback(folder / "logs")], default_root_dir=folder,
    ).fit(Gan(), loader)  # fmt: skip
    return only(folder / "logs")
