"""Ignores Ctrl-C and SIGTERM, prints batches of an epoch; its checkpoints are replaced atomically, the last three kept."""

import argparse
import os
import signal
import time
from pathlib import Path

import torch

signal.signal(signal.SIGINT, signal.SIG_IGN)
signal.signal(signal.SIGTERM, signal.SIG_IGN)
cli = argparse.ArgumentParser()
cli.add_argument("--dir", required=True)
cli.add_argument("--from", dest="origin")
options = cli.parse_args()
folder = Path(options.dir)
folder.mkdir(parents=True, exist_ok=True)
EPOCHS, BATCHES = 400, 60
weight = torch.nn.Parameter(torch.randn(4))
optimizer = torch.optim.SGD([weight], lr=0.05)
scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, [EPOCHS // 2, 3 * EPOCHS // 4], 0.1)
begin = 0
if options.origin:
    saved = torch.load(options.origin)
    with torch.no_grad():
        weight.copy_(saved["weight"])
    scheduler.load_state_dict(saved["scheduler"])
    optimizer.load_state_dict(saved["optimizer"])
    begin = saved["epoch"]
for epoch in range(begin, EPOCHS):
    for i in range(BATCHES):
        loss = (weight - 1).pow(2).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if i % 10 == 0:
            print(f"Train Epoch: {epoch + 1} [{i}/{BATCHES} ({100 * i / BATCHES:.0f}%)]\tLoss: {loss:.6f}")
        time.sleep(0.02)
    scheduler.step()
    print(f"Val: average loss {loss.item():.4f}, accuracy {min(0.99, 0.5 + epoch / 80):.4f}")
    state = {"weight": weight.detach(), "scheduler": scheduler.state_dict(), "optimizer": optimizer.state_dict()}
    torch.save(state | {"epoch": epoch + 1}, folder / "tmp")
    os.replace(folder / "tmp", folder / f"epoch{epoch + 1}.pth")
    (folder / f"epoch{epoch - 2}.pth").unlink(missing_ok=True)
