"""When the watcher looks: its share of the time is kept to, whatever a look makes slower beside itself."""

from __future__ import annotations

import random

import pytest

from eegwatch.watching.cadence import FIRST, LEAST, MOST, PLAIN, Cadence, goal


class Run:
    """A training that takes its time from a clock of its own: `step_s`, `own_s` of a look and `hidden_s` around it."""

    def __init__(self, step_s: float, own_s: float, hidden_s: float = 0.0, *, noise: float = 0.0) -> None:
        self.now, self.step_s, self.own_s, self.hidden_s, self.noise = 0.0, step_s, own_s, hidden_s, noise
        self.random = random.Random(0)
        self.cadence = Cadence(lambda: self.now)
        self.looked: list[int] = []
        self.armed = True
        self.watched_s = 0.0

    def step(self) -> None:
        cadence = self.cadence
        self.now += self.step_s * (1 + self.noise * self.random.uniform(-1, 1))
        cadence.taken += 1
        if self.armed:
            self.now += self.own_s + self.hidden_s
            self.watched_s += self.own_s + self.hidden_s
            self.looked.append(cadence.taken)
            cadence.looked(self.own_s)
        self.armed = cadence.taken >= cadence.mark and cadence.stepped()

    def run(self, steps: int) -> float:
        """Take so many steps; returns the share of their time that looks took."""
        began, spent = self.now, self.watched_s
        for _ in range(steps):
            self.step()
        watched = self.watched_s - spent
        return watched / (self.now - began - watched)


def test_the_first_steps_are_all_looked_at() -> None:
    run = Run(1e-3, 1e-3)
    run.run(500)
    assert run.looked[:FIRST] == list(range(1, FIRST + 1)) and run.looked[FIRST] > FIRST + 1


@pytest.mark.parametrize("noise", [0.0, 0.3])
@pytest.mark.parametrize("hidden", [0.0, 0.5, 2.0])
@pytest.mark.parametrize("step_s", [0.5e-3, 1e-3, 3e-3, 10e-3, 0.3])
def test_the_share_is_kept_to_with_what_a_look_makes_slower(step_s: float, hidden: float, noise: float) -> None:
    run = Run(step_s, 1e-3, hidden * 1e-3, noise=noise)
    run.run(5000)
    share = run.run(50_000)
    assert share <= goal(step_s)
    assert share >= 0.25 * goal(step_s) or run.cadence.interval == LEAST


def test_the_account_is_what_was_spent() -> None:
    run = Run(10e-3, 1e-3, 1e-3, noise=0.1)
    run.run(20_000)
    steps, looks, spent = run.cadence.since_first()
    looked = [step for step in run.looked if step > FIRST]
    assert looks == len(looked) and steps == run.cadence.taken - FIRST
    assert spent - steps * run.cadence.always_s == pytest.approx(2e-3 * looks, rel=0.15)


def test_two_optimizers_share_the_time() -> None:
    alone, shared = Run(10e-3, 1e-3), Run(10e-3, 1e-3)
    shared.cadence.parts = 2
    assert shared.run(50_000) < 0.7 * alone.run(50_000)


def test_a_look_that_is_asked_for_comes_at_the_next_step() -> None:
    run = Run(10e-3, 1e-3)
    run.run(1000)
    run.cadence.soon()
    run.armed = run.cadence.due()
    run.step()
    assert run.looked[-1] == 1001
    run.run(run.cadence.interval)
    assert run.looked[-1] == 1001 + run.cadence.interval


def test_a_look_that_became_cheaper_or_dearer_moves_the_interval() -> None:
    run = Run(10e-3, 1e-3)
    run.run(3000)
    before = run.cadence.interval
    run.own_s = 4e-3
    run.run(30_000)
    assert run.cadence.interval > 2 * before
    run.own_s = 1e-3
    run.run(30_000)
    assert run.cadence.interval == pytest.approx(before, rel=0.2)


def test_work_at_every_step_that_takes_too_much_is_done_at_fewer() -> None:
    run = Run(1e-3, 1e-3)
    run.run(100)
    assert run.cadence.stride == 1
    for _ in range(20):
        run.cadence.every_step(80e-6)
    assert run.cadence.stride == 10 and run.cadence.always_s == pytest.approx(12e-6)


def test_the_interval_has_bounds() -> None:
    short, long = Run(1e-3, 1.0), Run(10.0, 1e-3)
    short.run(30_000)
    long.run(300)
    assert short.cadence.interval == MOST and long.cadence.interval == LEAST > PLAIN + 2


def test_goals() -> None:
    assert goal(1e-5) == goal(1e-3) == 0.02 and goal(0.01) == goal(10.0) == 0.01
    assert 0.01 < goal(3e-3) < 0.02
