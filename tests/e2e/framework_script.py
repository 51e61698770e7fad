"""Two processes of a framework's trainer with our callback, for tests/e2e/test_ranks.py: `torchrun … KIND LOGS OUT`.

The training has no end of its own: it is stopped by a command. Each rank writes where it stopped and its weights.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader, TensorDataset

EPOCHS = 1_000_000


def with_lightning(logs: str, out: Path) -> dict[str, Any]:
    import lightning.pytorch as pl

    from eegwatch.integrations.lightning import EegwatchCallback

    class Model(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net = torch.nn.Linear(4, 2)

        def training_step(self, batch: Any, _: int) -> Any:
            time.sleep(0.002)
            return torch.nn.functional.cross_entropy(self.net(batch[0]), batch[1])

        def configure_optimizers(self) -> Any:
            optimizer = torch.optim.SGD(self.parameters(), lr=1e-3)
            schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, EPOCHS)
            return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    torch.manual_seed(0)
    model = Model()
    data = TensorDataset(torch.randn(96, 4), torch.randint(0, 2, (96,)))
    trainer = pl.Trainer(
        accelerator="cpu", devices=2, strategy="ddp", logger=False, enable_progress_bar=False, default_root_dir=out,
        enable_model_summary=False, enable_checkpointing=False, max_epochs=EPOCHS,
        callbacks=[EegwatchCallback(logs, interval="step")],
    )  # fmt: skip
    trainer.fit(model, DataLoader(data, batch_size=8))
    return {"rank": trainer.global_rank, "step": trainer.global_step, "weights": model.net.weight.tolist()}


def with_transformers(logs: str, out: Path) -> dict[str, Any]:
    from transformers import Trainer, TrainingArguments

    from eegwatch.integrations.huggingface import EegwatchCallback

    class Net(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = torch.nn.Linear(4, 2)

        def forward(self, x: Any, labels: Any) -> dict[str, Any]:
            time.sleep(0.002)
            scores = self.net(x)
            return {"loss": torch.nn.functional.cross_entropy(scores, labels), "logits": scores}

    torch.manual_seed(0)
    rows = [{"x": torch.randn(4), "labels": torch.tensor(n % 2)} for n in range(96)]
    arguments = TrainingArguments(
        str(out), per_device_train_batch_size=8, num_train_epochs=10_000, learning_rate=1e-3, use_cpu=True,
        lr_scheduler_type="cosine", logging_steps=50, save_strategy="no", eval_strategy="no", report_to=[], seed=1,
        disable_tqdm=True,
    )  # fmt: skip
    model = Net()
    trainer = Trainer(model, arguments, train_dataset=rows, eval_dataset=rows[:16], callbacks=[EegwatchCallback(logs)])
    trainer.train()
    state = trainer.state
    return {"rank": arguments.process_index, "step": state.global_step, "weights": model.net.weight.tolist()}


if __name__ == "__main__":
    kind, logs, out = sys.argv[1:4]
    seen = {"lightning": with_lightning, "transformers": with_transformers}[kind](logs, Path(out))
    (Path(out) / f"rank-{seen['rank']}.json").write_text(json.dumps(seen))
    torch.distributed.destroy_process_group()
