"""Trains from a YAML file, logs through `logging`, shows tqdm; overwrites best_model.pt, saves what DataParallel holds."""

import argparse
import logging
import time
from datetime import datetime
from pathlib import Path

import torch
import yaml
from torch import nn
from tqdm import tqdm

log = logging.getLogger("train")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--config", required=True)
    parser.add_argument("--resume")
    parser.add_argument("--manual_lr", type=float)
    given = parser.parse_args()
    config = yaml.safe_load(Path(given.config).read_text())
    torch.manual_seed(0)
    out = Path("output") / f"{config['name']}_{datetime.now():%Y%m%d_%H%M%S}"
    out.mkdir(parents=True)
    handlers = [logging.StreamHandler(), logging.FileHandler(out / "training.log")]
    logging.basicConfig(level=logging.INFO, format="%(asctime)s - %(levelname)s - %(message)s", handlers=handlers)
    epochs, batches = config["epochs"], config["batches"]
    model = nn.DataParallel(nn.Linear(8, 2))
    optimizer = torch.optim.AdamW(model.parameters(), lr=config["max_lr"])
    scheduler = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=config["max_lr"], epochs=epochs, steps_per_epoch=batches, pct_start=0.1
    )
    first, best = 0, 0.0
    if given.resume:
        saved = torch.load(given.resume)
        model.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        scheduler.load_state_dict(saved["scheduler"])
        first, best = saved["epoch"] + 1, saved["best"]
        log.info("Resumed from %s (epoch %d)", given.resume, first)
    for epoch in range(first, epochs):
        bar = tqdm(range(batches), desc=f"Epoch {epoch + 1}/{epochs}")
        for _ in bar:
            x = torch.randn(16, 8)
            if given.manual_lr:
                for group in optimizer.param_groups:
                    group["lr"] = given.manual_lr
            loss = nn.functional.cross_entropy(model(x), (x.sum(1) > 0).long())
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            rate = optimizer.param_groups[0]["lr"]
            optimizer.step()
            if not config.get("stuck"):
                scheduler.step()
            bar.set_postfix(loss=f"{loss.item():.4f}", lr=f"{rate:.2e}")
            time.sleep(config["pause"])
        if config.get("stuck"):
            scheduler.step()
        auroc = 0.5 + 0.4 * (1 - 1 / (epoch + 2))
        log.info("Epoch %d: train_loss=%.4f, val_auroc=%.4f, LR: %.6f", epoch + 1, loss.item(), auroc, rate)
        if auroc > best:
            best = auroc
            states = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
            states |= {"scheduler": scheduler.state_dict(), "epoch": epoch, "best": best}
            torch.save(states, out / "best_model.pt")
            log.info("Saved best model with AUROC %.4f", auroc)


if __name__ == "__main__":
    main()
