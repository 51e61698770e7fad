"""Healthy trainings of Lightning and of transformers' Trainer, watched by the callbacks alone."""

from __future__ import annotations

import logging
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import AdamW
from torch.utils.data import DataLoader

from tests.bench.silent.case import healthy
from tests.bench.silent.script import Script
from tests.bench.silent.toy import Points, mlp, weights


@healthy("Lightning with accumulation, clipping, a validation each epoch and a scheduler")
def lightning_accumulates_and_clips(script: Script) -> Tensor:
    import lightning

    from eegwatch.integrations.lightning import EegwatchCallback

    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)

    class Module(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Sequential(mlp(), nn.Dropout(0.1))

        def training_step(self, batch: Any, number: int) -> Tensor:
            return F.cross_entropy(self.net(batch[0]), batch[1])

        def validation_step(self, batch: Any, number: int) -> None:
            self.log("val_loss", F.cross_entropy(self.net(batch[0]), batch[1]))

        def configure_optimizers(self) -> Any:
            optimizer = AdamW(self.parameters(), lr=1e-2)
            scheduler = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.1, total_iters=24)
            return [optimizer], [{"scheduler": scheduler, "interval": "step"}]

    model = Module()
    trainer = lightning.Trainer(
        max_epochs=4,
        accumulate_grad_batches=2,
        gradient_clip_val=0.5,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=script.root,
        callbacks=[EegwatchCallback(script.logs)] if script.watched else [],
    )
    trainer.fit(model, DataLoader(Points(96), batch_size=8, shuffle=True), DataLoader(Points(32, 5), batch_size=16))
    return weights(model)


@healthy("transformers' Trainer with accumulation, gradient checkpointing, decay groups and evaluations")
def trainer_with_gradient_checkpointing(script: Script) -> Tensor:
    import transformers

    from eegwatch.integrations.huggingface import EegwatchCallback

    transformers.logging.set_verbosity_error()
    config = transformers.BertConfig(
        vocab_size=32, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, num_labels=3
    )
    model = transformers.BertForSequenceClassification(config)
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(0, 32, (96, 8), generator=generator)
    rows = [{"input_ids": row, "attention_mask": torch.ones_like(row), "labels": int(row[0]) % 3} for row in tokens]
    arguments = transformers.TrainingArguments(
        output_dir=str(script.path("out")),
        per_device_train_batch_size=8,
        gradient_accumulation_steps=2,
        gradient_checkpointing=True,
        num_train_epochs=3,
        weight_decay=0.1,
        learning_rate=1e-3,
        eval_strategy="epoch",
        save_strategy="no",
        report_to=[],
        logging_steps=1,
        use_cpu=True,
        disable_tqdm=True,
    )
    trainer = transformers.Trainer(
        model,
        arguments,
        train_dataset=rows,
        eval_dataset=rows[:16],
        callbacks=[EegwatchCallback(script.logs)] if script.watched else [],
    )
    trainer.remove_callback(transformers.PrinterCallback)
    trainer.train()
    return weights(model)
