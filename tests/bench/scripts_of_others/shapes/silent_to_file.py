"""Prints nothing: logs into a file of its own with a step in each line; saves slowly and not atomically."""

import argparse
import io
import logging
import os
import time

import torch

p = argparse.ArgumentParser()
p.add_argument("--out", required=True)
p.add_argument("--resume", default="")
p.add_argument("--lr", type=float, default=None)
p.add_argument("--steps", type=int, default=20000)
a = p.parse_args()
os.makedirs(a.out, exist_ok=True)
logging.basicConfig(
    filename=os.path.join(a.out, "train.log"), format="%(asctime)s [%(levelname)s] %(message)s", level=20
)
net = torch.nn.Linear(4, 1)
opt = torch.optim.Adam(net.parameters(), 1e-3)
first = 0
if a.resume:
    blob = torch.load(a.resume)
    net.load_state_dict(blob["net"])
    opt.load_state_dict(blob["opt"])
    first = blob["step"]
for step in range(first + 1, a.steps + 1):
    lr = a.lr or 1e-3 * (1 - (step - 1) / a.steps)
    opt.param_groups[0]["lr"] = lr
    x = torch.randn(8, 4)
    loss = (net(x) - x.sum(1, keepdim=True)).abs().mean()
    opt.zero_grad()
    loss.backward()
    opt.step()
    if step % 5 == 0:
        logging.info("step %d/%d loss %.6f lr %.8f", step, a.steps, loss.item(), lr)
    if step % 50 == 0:
        buffer = io.BytesIO()
        torch.save({"net": net.state_dict(), "opt": opt.state_dict(), "step": step}, buffer)
        data = buffer.getvalue()
        with open(os.path.join(a.out, "checkpoint.pt"), "wb") as f:
            for i in range(0, len(data), 512):
                f.write(data[i : i + 512])
                f.flush()
                time.sleep(0.02)
    time.sleep(0.02)
