"""An ordinary training script: a linear probe on the demo's features, with torch's own OneCycleLR and prints.

It knows nothing of eegwatch's run log; it only borrows the demo's features. `configs/script_example.yaml` runs it.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch
from scipy.stats import mannwhitneyu
from torch.utils.data import DataLoader, TensorDataset

from eegpt_daemon.data.dataset import build_encoder, plan, store_for, windows
from eegwatch.run.config import load


def features(config_path: Path) -> tuple[TensorDataset, torch.Tensor, torch.Tensor]:
    """The demo's windows: (training set, validation features, validation labels)."""
    config = load(config_path)
    encoder, _ = build_encoder(config)
    store = store_for(config, encoder, torch.device("cpu"))

    def report(what: str, done: int, total: int) -> None:
        if done % 50 == 0:
            print(f"{what} {done}/{total}")

    data = windows(config, store, plan(config, store, report), report, print)
    assert data.val is not None and data.mean is not None and data.std is not None
    mean, std = torch.from_numpy(data.mean), torch.from_numpy(data.std)
    train = TensorDataset((torch.from_numpy(data.train.x[:]).float() - mean) / std, torch.from_numpy(data.train.y))
    return train, (torch.from_numpy(data.val.x[:]).float() - mean) / std, torch.from_numpy(data.val.y)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--features", type=Path, default=Path(__file__).with_name("demo.yaml"))
    parser.add_argument("--output_dir", type=Path, required=True)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--resume", type=Path)
    parser.add_argument("--manual_lr", type=float)
    parser.add_argument("--pause", type=float, default=0.05, help="seconds after each step, to watch it")
    given = parser.parse_args()
    torch.manual_seed(0)
    train, val_x, val_y = features(given.features)
    loader = DataLoader(train, batch_size=32, shuffle=True, drop_last=True)
    model = torch.nn.Linear(val_x.shape[1], 2)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1.2e-4)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, 3e-3, total_steps=given.epochs * len(loader), pct_start=0.1, final_div_factor=40
    )
    first = 0
    if given.resume:
        saved = torch.load(given.resume)
        model.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        scheduler.load_state_dict(saved["scheduler"])
        first = saved["epoch"] + 1
    given.output_dir.mkdir(parents=True, exist_ok=True)
    for epoch in range(first, given.epochs):
        for batch, (x, y) in enumerate(loader, 1):
            if given.manual_lr:
                optimizer.param_groups[0]["lr"] = given.manual_lr
            rate = optimizer.param_groups[0]["lr"]
            loss = torch.nn.functional.cross_entropy(model(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            scheduler.step()
            print(f"Epoch {epoch + 1}/{given.epochs} Batch {batch}/{len(loader)} - Loss: {loss:.4f} - LR: {rate:.6e}")
            time.sleep(given.pause)
        with torch.no_grad():
            scores = model(val_x).diff().squeeze(1).numpy()
        positive = val_y.numpy() == 1
        auroc = mannwhitneyu(scores[positive], scores[~positive]).statistic / (positive.sum() * (~positive).sum())
        print(f"Validation - AUROC: {auroc:.4f}")
        states = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "scheduler": scheduler.state_dict()}
        torch.save(states | {"epoch": epoch}, given.output_dir / f"epoch_{epoch + 1:02d}.pt")


if __name__ == "__main__":
    main()
