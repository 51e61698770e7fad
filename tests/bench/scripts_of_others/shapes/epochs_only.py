"""Prints one line an epoch and no step; on Ctrl-C saves what it has and leaves with 130."""

import argparse
import os
import sys
import time

import torch

parser = argparse.ArgumentParser()
parser.add_argument("--save_dir", required=True)
parser.add_argument("--epochs", type=int, required=True)
parser.add_argument("--ckpt")
parser.add_argument("--learning_rate", type=float)
parser.add_argument("--pause", type=float, default=0.05)
args = parser.parse_args()
model = torch.nn.Linear(4, 1)
opt = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
sched = torch.optim.lr_scheduler.CosineAnnealingLR(opt, args.epochs)
start = 1
os.makedirs(args.save_dir, exist_ok=True)
if args.ckpt:
    state = torch.load(args.ckpt)
    model.load_state_dict(state["net"])
    opt.load_state_dict(state["opt"])
    sched.load_state_dict(state["sched"])
    start = state["epoch"] + 1


def save(epoch, name):
    state = {"net": model.state_dict(), "opt": opt.state_dict(), "sched": sched.state_dict(), "epoch": epoch}
    torch.save(state, f"{args.save_dir}/{name}", _use_new_zipfile_serialization=False)


epoch = start
try:
    for epoch in range(start, args.epochs + 1):
        if args.learning_rate:
            opt.param_groups[0]["lr"] = args.learning_rate
        rate = opt.param_groups[0]["lr"]
        for _ in range(5):
            x = torch.randn(8, 4)
            loss = (model(x) - x.sum(1, keepdim=True)).pow(2).mean()
            opt.zero_grad()
            loss.backward()
            opt.step()
            time.sleep(args.pause)
        sched.step()
        print(
            f"Epoch: {epoch:03d}/{args.epochs} | train loss: {loss:.5f} | val acc: {50 + epoch / 10:.2f}% | lr {rate:.5f}"
        )
        if epoch % 20 == 0:
            save(epoch, "last.pth")
except KeyboardInterrupt:
    print("Interrupted by the user, saving a checkpoint")
    save(epoch - 1, "interrupted.pth")
    sys.exit(130)
