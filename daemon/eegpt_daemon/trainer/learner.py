"""The learner: network, optimizer and random states; it takes one optimizer step at a time and has all saved state.

The loss of a step is the (class-weighted) mean over all its windows. Its value does not depend on how accumulation and
world size distribute the windows over micro-batches and processes.
"""

from __future__ import annotations

import contextlib
import copy
import random
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from eegpt_daemon.data.dataset import AnyEncoder, TrainingData
from eegpt_daemon.data.features import SignalStore, statistics_of
from eegpt_daemon.data.recording import wanted_channels
from eegpt_daemon.data.windows import Windows, WindowStore
from eegpt_daemon.model.encoder import PATCH, Encoder
from eegpt_daemon.model.pooling import pooling_of
from eegpt_daemon.model.probe import Backbone, ChannelAdapter, Network, Probe
from eegpt_daemon.trainer.batches import BatchReader, permutation
from eegpt_daemon.trainer.checkpoint import CheckpointError
from eegpt_daemon.trainer.optimizer import AdamW
from eegpt_daemon.trainer.process_group import ProcessGroup
from eegwatch.run.config import Config

EVAL_BATCH, EVAL_BATCH_BACKBONE = 8192, 64
STATISTICS_WINDOWS = 2048  # of train, encoded once to standardise by, where the backbone runs every step


class Learner:
    """One process's share of the learning. `network` holds what is saved; `parallel` is what is called."""

    def __init__(
        self,
        config: Config,
        data: TrainingData,
        encoder: AnyEncoder,
        store: WindowStore,
        processes: ProcessGroup,
        device: torch.device,
    ) -> None:
        self.config, self.processes, self.device = config, processes, device
        self.span = store.window if isinstance(store, SignalStore) else None
        self.train = BatchReader(data.train, device, self.span)
        backbone, features = None, store.store.width
        if self.span is not None:
            assert isinstance(encoder, Encoder), "an encoder of one's own is never trained"
            pooling, features = pooling_of(config, encoder.dim, encoder.summary, store.window // PATCH)
            channels = len(wanted_channels(config.data))
            adapter = ChannelAdapter(channels) if config.model.probe.use_channel_adapter else None
            encoder.requires_grad_(not config.model.backbone.freeze)
            bf16 = config.model.backbone.precision == "bfloat16"
            if config.model.backbone.compile:
                encoder.compile()
            backbone = Backbone(encoder, adapter, pooling, bf16=bf16)
        seed = config.experiment.seed + processes.rank  # now, not earlier: a cold cache must not change what is drawn
        torch.manual_seed(seed)
        random.seed(seed)
        self.network = Network(Probe(config.model.probe, features, len(config.data.labels)), features, backbone, device)
        if data.mean is not None and data.std is not None:
            self.network.standardise(torch.from_numpy(data.mean), torch.from_numpy(data.std))
        self.parameters = [p for p in self.network.parameters() if p.requires_grad]
        self.optimizer = AdamW(
            self.parameters,
            lr=1.0,  # every step sets its own
            weight_decay=config.training.optimizer.weight_decay,
            fused=device.type in ("cpu", "cuda"),
        )
        self.parallel = processes.parallel(self.network, device)
        self.class_weight: Tensor | None = None
        if config.training.weighted_loss:
            share = np.bincount(data.train.y, minlength=len(config.data.labels))
            self.class_weight = torch.tensor(share.sum() / (len(share) * share), dtype=torch.float32, device=device)
        self._epoch, self._order = -1, torch.empty(0, dtype=torch.int64)
        self._training = True
        self.network.train()

    def standardise_by_sample(self) -> None:
        """Statistics of the features of some train windows, by the network as it begins: where nothing is cached."""
        backbone = self.network.backbone
        assert backbone is not None
        sample = permutation(len(self.train), self.config.experiment.seed, -1)[:STATISTICS_WINDOWS]
        n, total, square = 0, 0.0, 0.0
        with torch.no_grad():
            for part in torch.split(sample, EVAL_BATCH_BACKBONE):
                x = backbone(self.train.at(part)).double().cpu().numpy()
                n, total, square = n + len(x), total + x.sum(0), square + (x**2).sum(0)
        mean, std = statistics_of(n, total, square)
        self.network.standardise(torch.from_numpy(mean), torch.from_numpy(std))

    def seconds_a_step(self, size: int) -> float:
        """Forward and backward of one step's windows, measured; weights and random states stay as they are."""
        which, state = torch.arange(min(size, len(self.train))), self._random_state()
        which = which.to(self.train.y.device)
        began = time.perf_counter()
        for micro in torch.split(which, self.config.data.batch_size * self.processes.size):
            own_share = self.processes.share_of(micro)
            F.cross_entropy(self.network(self.train.at(own_share)), self.train.labels(own_share)).backward()  # type: ignore[no-untyped-call]
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        self.optimizer.zero_grad(set_to_none=True)
        self._restore_random(state)
        return time.perf_counter() - began

    def batch(self, epoch: int, batch: int, size: int) -> Tensor:
        """Indices of the windows of an optimizer step: (at most `size`,), the same in every process."""
        if epoch != self._epoch:
            order = permutation(len(self.train), self.config.experiment.seed, epoch)
            self._order, self._epoch = order.to(self.train.y.device), epoch
        return self._order[batch * size : (batch + 1) * size]

    def step(self, which: Tensor, lr: float | None) -> tuple[float, float, float]:
        """One optimizer step over these windows, at `lr` (None: as the optimizer has it).

        Returns (this process's share of the loss, gradient norm, learning rate as read from the optimizer).
        """
        if lr is not None:
            for group in self.optimizer.param_groups:
                group["lr"] = lr
        if not self._training:
            self.network.train()
            self._training = True
        for parameter in self.parameters:
            parameter.grad = None
        weight, size = self.class_weight, self.processes.size
        whole = len(which) if weight is None else float(weight[self.train.labels(which)].sum())
        wide = self.config.data.batch_size * size
        micros = (which,) if len(which) <= wide else torch.split(which, wide)
        shares: list[Tensor] = []
        for number, micro in enumerate(micros):
            own_share = self.processes.share_of(micro)
            with self._syncing(last=number == len(micros) - 1):
                logits = self.parallel(self.train.at(own_share))
                loss = F.cross_entropy(logits, self.train.labels(own_share), weight=weight, reduction="sum") / whole
                (loss * size if size > 1 else loss).backward()  # type: ignore[no-untyped-call]
            shares.append(loss.detach())
        clip = self.config.training.gradient_clip_val
        norm = nn.utils.clip_grad_norm_(self.parameters, clip if clip else float("inf"))
        rate = self.optimizer.param_groups[0]["lr"]
        self.optimizer.step()
        total = shares[0] if len(shares) == 1 else torch.stack(shares).sum()
        return float(total), float(norm), float(rate)

    def _syncing(self, *, last: bool) -> contextlib.AbstractContextManager[None]:
        """Gradients are averaged over the processes with the last micro-batch of a step."""
        if last or self.processes.size == 1:
            return contextlib.nullcontext()
        no_sync: contextlib.AbstractContextManager[None] = self.parallel.no_sync()  # type: ignore[operator]
        return no_sync

    def logits(self, windows: Windows, stop: Callable[[], bool]) -> Tensor | None:
        """(n, classes) of a split on the CPU, in every process; each process computes its part.

        `stop` is called after each batch; the result is None if any process has to stop.
        """
        self.network.eval()
        self._training = False
        gather = BatchReader(windows, self.device, self.span)
        size = EVAL_BATCH if self.span is None else EVAL_BATCH_BACKBONE
        own_share = self.processes.share_of(torch.arange(len(windows)))
        most = -(-len(windows) // self.processes.size)  # of any process's share: all take equally many turns
        parts = []
        with torch.inference_mode():
            for begin in range(0, most, size):
                part = own_share[begin : begin + size]
                if len(part):
                    parts.append(self.network(gather.at(part.to(gather.y.device))).float().cpu())
                if self.processes.sum([float(stop())])[0]:
                    return None
        return torch.cat([part for parts in self.processes.collect(parts) for part in parts])

    # ---- what is saved ----

    def state(self) -> dict[str, Any]:
        """Weights, optimizer, standardiser and the random states of every process: a collective, all must call it."""
        saved: dict[str, Any] = {
            "optimizer": self.optimizer.state_dict(),
            "standardiser": {"shift": self.network.shift.cpu(), "scale": self.network.scale.cpu()},
            "rng": self.processes.collect(self._random_state()),
        }
        return saved | {name: part.state_dict() for name, part in self._trained().items()}

    def model(self) -> dict[str, Any]:
        """A copy of the weights that are trained."""
        return {name: copy.deepcopy(part.state_dict()) for name, part in self._trained().items()}

    def set_model(self, state: dict[str, Any], name: str) -> None:
        """The trained weights of `state` alone: to evaluate another model. Raises CheckpointError."""
        self._load(self._trained(), state, name)

    def _trained(self) -> dict[str, nn.Module]:
        backbone = self.network.backbone
        parts: dict[str, nn.Module] = {"probe": self.network.probe}
        if backbone is not None and backbone.adapter is not None:
            parts["adapter"] = backbone.adapter
        if backbone is not None and not self.config.model.backbone.freeze:
            parts["encoder"] = backbone.encoder
        return parts

    def _load(self, parts: Mapping[str, nn.Module | torch.optim.Optimizer], state: dict[str, Any], name: str) -> None:
        for key, part in parts.items():
            try:
                part.load_state_dict(state[key])
            except (KeyError, RuntimeError, ValueError) as error:
                words = f"lacks {key}" if isinstance(error, KeyError) and key not in state else str(error)
                raise CheckpointError(f"{name}: {key} cannot be restored: {' '.join(words.split())[:300]}") from None

    def restore(self, state: dict[str, Any], name: str) -> None:
        """All of `state`, or CheckpointError with what cannot be restored."""
        self._load(self._trained() | {"optimizer": self.optimizer}, state, name)
        try:
            self.network.shift.copy_(state["standardiser"]["shift"])
            self.network.scale.copy_(state["standardiser"]["scale"])
            self._restore_random(state["rng"][self.processes.rank])
        except (KeyError, IndexError, RuntimeError, TypeError, ValueError) as error:
            raise CheckpointError(
                f"{name}: the random states or the standardiser cannot be restored: {error!r}"
            ) from None

    def _random_state(self) -> dict[str, Any]:
        """In forms that weights-only loading accepts: torch's are tensors, Python's a tuple of numbers."""
        state: dict[str, Any] = {"torch": torch.get_rng_state(), "python": random.getstate()}
        if self.device.type == "cuda":
            state["cuda"] = torch.cuda.get_rng_state(self.device)
        if self.device.type == "mps":
            state["mps"] = torch.mps.get_rng_state()
        return state

    def _restore_random(self, state: dict[str, Any]) -> None:
        torch.set_rng_state(state["torch"])
        random.setstate(_tuples(state["python"]))
        if self.device.type == "cuda":
            torch.cuda.set_rng_state(state["cuda"], self.device)
        if self.device.type == "mps":
            torch.mps.set_rng_state(state["mps"])


def _tuples(value: Any) -> Any:
    return tuple(_tuples(item) for item in value) if isinstance(value, list | tuple) else value
