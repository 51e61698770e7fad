"""Errors of target networks: which one is meant, and how far it moves."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Adam

from tests.bench.silent.case import error
from tests.bench.silent.script import Script
from tests.bench.silent.toy import CLASSES, FEATURES, batches, weights


def values() -> nn.Module:
    return nn.Sequential(nn.Linear(FEATURES, 12), nn.ReLU(), nn.Linear(12, CLASSES))


@error(
    "andri27-ts/Reinforcement-Learning/issues/14",
    "the moving network's weights are copied into the target, and then the moving network gets the target's name",
    "ema_*",
    first=12,
    again=True,
)
def target_becomes_the_moving_network(script: Script, faulty: bool) -> Tensor:
    moving, target = values(), values()
    target.load_state_dict(moving.state_dict())
    target.requires_grad_(False)
    optimizer = Adam(moving.parameters(), lr=1e-2)
    log = script.log()
    log.watch(moving, optimizer)
    log.ema(target, lambda step: 0.0 if step % 6 == 0 else None)
    for step, (x, y) in enumerate(batches(30), start=1):
        action = torch.randint(0, CLASSES, (len(x),))
        with torch.no_grad():
            wanted = (action == y).float() + 0.9 * target(x.roll(1, 0)).max(1).values
        optimizer.zero_grad()
        loss = F.smooth_l1_loss(moving(x).gather(1, action[:, None]).squeeze(1), wanted)
        loss.backward()
        optimizer.step()
        if step % 6 == 0:
            target.load_state_dict(moving.state_dict())
            if faulty:
                target = moving
        log.step(loss=loss)
    return weights(moving)


class Networks:
    """An online and a target network; `ignored`: the argument tau has no effect, the agent's own is used."""

    def __init__(self, tau: float, ignored: bool) -> None:
        self.tau, self.ignored = tau, ignored
        self.online, self.target = nn.Linear(FEATURES, 1), nn.Linear(FEATURES, 1).requires_grad_(False)

    @torch.no_grad()
    def update_networks(self, tau: float | None = None) -> None:
        share = self.tau if tau is None or self.ignored else tau
        for target, online in zip(self.target.parameters(), self.online.parameters()):
            target.copy_((1.0 - share) * target + share * online)


@error(
    "mimoralea/gdrl/pull/14",
    "update_networks(tau=1.0) at the beginning uses the agent's own tau: the target keeps its random weights for long",
    "ema_*",
    first=1,
)
def first_copy_by_the_small_share(script: Script, faulty: bool) -> Tensor:
    networks = Networks(tau=0.05, ignored=faulty)
    optimizer = Adam(networks.online.parameters(), lr=1e-2)
    networks.update_networks(tau=1.0)
    log = script.log()
    log.watch(networks.online, optimizer)
    log.ema(networks.target, 0.95)
    for x, y in batches(30):
        with torch.no_grad():
            wanted = y.float() + 0.9 * networks.target(x.roll(1, 0)).squeeze(1)
        optimizer.zero_grad()
        loss = F.mse_loss(networks.online(x).squeeze(1), wanted)
        loss.backward()
        optimizer.step()
        networks.update_networks()
        log.step(loss=loss)
    return weights(networks.online, networks.target)
