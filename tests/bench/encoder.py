"""The frozen encoder on this device: float32, bfloat16 autocast, torch.compile; each window by itself and each patch once.

    python -m tests.bench.encoder [--preset large] [--windows 32]

"each patch once" is what the feature cache does: with 2 s stride of 4 s windows half of the patches are shared. The
relative error is that of the pooled features against float32. The device is CUDA or MPS where there is one.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import torch
from torch import Tensor

from eegpt_daemon.data.dataset import best_device
from eegpt_daemon.model.encoder import PATCH, TUAB_CHANNELS, Encoder

PATCHES_A_BATCH = 256


def seconds_of(work: Callable[[], Tensor], device: torch.device, rounds: int) -> float:
    best = float("inf")
    for _ in range(rounds):
        began = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        best = min(best, time.perf_counter() - began)
    return best


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--preset", choices=("large", "small"), default="large")
    parser.add_argument("--windows", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    n, device = arguments.windows, best_device()
    encoder = Encoder.preset(arguments.preset, TUAB_CHANNELS, 1).to(device)
    torch.manual_seed(0)
    signal = torch.randn(len(TUAB_CHANNELS), (n + 1) * 512, device=device) * 0.05  # n windows of 4 s, every 2 s
    windows = signal.unfold(1, 1024, 512).permute(1, 0, 2).contiguous()
    patches = signal.view(len(TUAB_CHANNELS), -1, PATCH).permute(1, 0, 2).contiguous()

    def by_window(bf16: bool) -> Tensor:
        with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            return torch.cat([encoder(part).float().mean(dim=1).flatten(1) for part in windows.split(16)])

    def by_patch(bf16: bool) -> Tensor:
        with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            encoded = torch.cat([encoder(part)[:, 0].float() for part in patches.split(PATCHES_A_BATCH)])
        return encoded.unfold(0, 16, 8).mean(dim=-1).flatten(1)

    exact = by_window(False)
    print(f"{arguments.preset}, {n} windows of 20 x 1024, {device}, best of {arguments.rounds}")

    def line(name: str, work: Callable[[], Tensor]) -> None:
        got = work()
        error = float((got - exact).pow(2).mean().sqrt() / exact.std())
        seconds = seconds_of(work, device, arguments.rounds)
        print(f"{name:34} {n / seconds:9.1f} windows/s   relative error {error:.1e}")

    line("float32, each window", lambda: by_window(False))
    line("float32, each patch once", lambda: by_patch(False))
    line("bfloat16, each window", lambda: by_window(True))
    line("bfloat16, each patch once", lambda: by_patch(True))
    began = time.perf_counter()
    encoder.compile()
    by_patch(False)
    print(f"torch.compile: {time.perf_counter() - began:.0f} s for the first call")
    line("float32 compiled, each patch once", lambda: by_patch(False))
    line("bfloat16 compiled, each patch once", lambda: by_patch(True))


if __name__ == "__main__":
    main()
