"""Loads through forked DataLoader workers, counts global steps over epochs, traps SIGINT for a clean end."""

import argparse
import signal
import time
from pathlib import Path

import torch
from torch.utils.data import DataLoader, Dataset

stop = False


def asked(number, frame):
    global stop
    stop = True
    print("Received signal, finishing the current step", flush=True)


class Noise(Dataset):
    def __len__(self):
        return 1600

    def __getitem__(self, i):
        g = torch.Generator().manual_seed(i)
        x = torch.randn(8, generator=g)
        return x, int(x.sum() > 0)


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("--workdir", type=Path, required=True)
    ap.add_argument("--load", type=Path)
    ap.add_argument("--max-steps", type=int, default=30000)
    args = ap.parse_args()
    signal.signal(signal.SIGINT, asked)
    args.workdir.mkdir(parents=True, exist_ok=True)
    loader = DataLoader(Noise(), batch_size=16, shuffle=True, num_workers=2)
    model = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.ReLU(), torch.nn.Linear(16, 2))
    optim = torch.optim.AdamW(model.parameters(), 3e-3)
    warm = torch.optim.lr_scheduler.LambdaLR(optim, lambda s: min(1.0, (s + 1) / 300))
    step = 0
    if args.load:
        state = torch.load(args.load)
        model.load_state_dict(state["model"])
        optim.load_state_dict(state["optim"])
        warm.load_state_dict(state["warm"])
        step = state["step"]
        print(f"loaded {args.load} at step {step}")

    def save(name):
        state = {"model": model.state_dict(), "optim": optim.state_dict(), "warm": warm.state_dict(), "step": step}
        torch.save(state, args.workdir / name)

    while step < args.max_steps and not stop:
        for x, y in loader:
            loss = torch.nn.functional.cross_entropy(model(x), y)
            optim.zero_grad()
            loss.backward()
            optim.step()
            warm.step()
            step += 1
            if step % 10 == 0:
                print(
                    f"[{time.strftime('%H:%M:%S')}] step={step} loss={loss.item():.4f} lr={warm.get_last_lr()[0]:.3e}"
                )
            if step % 100 == 0:
                save(f"ckpt_{step:06d}.pt")
            if stop or step >= args.max_steps:
                break
            time.sleep(0.02)
    save("final.pt")
    print("done")


if __name__ == "__main__":
    main()
