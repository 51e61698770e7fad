"""What the callbacks of Lightning and transformers have the watcher see of an evaluation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from eegwatch.check import open_run

pytestmark = pytest.mark.filterwarnings("ignore")


def judged(root: Path) -> tuple[set[str], list[str]]:
    """(rules that found something, rules that could judge) of the one run below a folder."""
    (run,) = (root / "logs").iterdir()
    outcome = open_run(run, None, None).read_to_end()
    return {f.rule for f in (*outcome.findings, *outcome.past) if f.bad}, outcome.checked


def layers() -> nn.Sequential:
    return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 2))


@pytest.mark.parametrize("kind", ["right", "train mode", "averaged", "its own way"])
def test_an_evaluation_of_lightning_is_watched(tmp_path: Path, kind: str) -> None:
    from lightning.pytorch.callbacks import Callback

    from eegwatch.integrations.lightning import EegwatchCallback
    from tests.unit.frameworks import Model, fit

    class Net(Model):
        def __init__(self) -> None:
            super().__init__()
            self.net = layers()  # type: ignore[assignment]

        def on_validation_epoch_start(self) -> None:
            if kind == "train mode":
                self.train()

    class Sampling(Net):
        def on_validation_model_eval(self) -> None:
            """It is evaluated as it trains, on purpose."""

    class Averaged(Callback):
        """Other weights for the evaluation, and the trained ones again behind it."""

        def on_validation_start(self, trainer: Any, pl_module: Any) -> None:
            self.kept = [p.detach().clone() for p in pl_module.parameters()]
            with torch.no_grad():
                [p.mul_(0.5) for p in pl_module.parameters()]

        def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
            with torch.no_grad():
                [p.copy_(k) for p, k in zip(pl_module.parameters(), self.kept)]

    own = Sampling() if kind == "its own way" else Net()
    for before in (True, False):
        root = tmp_path / str(before)
        callback = EegwatchCallback(root / "logs")
        callbacks = [Averaged()] if kind == "averaged" else []
        fit(root, own, callbacks[0] if before and callbacks else callback, callbacks=[callback] if before and callbacks else callbacks)  # fmt: skip
        found, checked = judged(root)
        wrong = {"evaluation_in_train_mode", "evaluation_changed_model"}
        assert found & wrong == (wrong if kind == "train mode" else set())
        assert ("evaluation_in_train_mode" in checked) == (kind != "its own way")
        if not callbacks:
            break


@pytest.mark.parametrize("training", [False, True])
def test_an_evaluation_of_transformers_is_watched(tmp_path: Path, training: bool) -> None:
    from transformers import Trainer, TrainingArguments

    from eegwatch.integrations.huggingface import EegwatchCallback

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = layers()

        def eval(self) -> Any:
            return self if training else super().eval()

        def forward(self, x: Any, labels: Any) -> Any:
            logits = self.net(x)
            return {"loss": nn.functional.cross_entropy(logits, labels), "logits": logits}

    data = [{"x": torch.randn(4), "labels": torch.tensor(i % 2)} for i in range(48)]
    arguments = TrainingArguments(
        output_dir=str(tmp_path / "out"), num_train_epochs=2, per_device_train_batch_size=8, logging_steps=2, report_to=[],
        save_strategy="no", use_cpu=True, disable_tqdm=True, eval_strategy="epoch", per_device_eval_batch_size=8,
    )  # fmt: skip
    callback = EegwatchCallback(tmp_path / "logs")
    Trainer(Net(), arguments, train_dataset=data, eval_dataset=data[:24], callbacks=[callback]).train()
    found, checked = judged(tmp_path)
    wrong = {"evaluation_in_train_mode", "evaluation_changed_model"}
    assert found & wrong == (wrong if training else set())
    assert "evaluation_changed_model" in checked
