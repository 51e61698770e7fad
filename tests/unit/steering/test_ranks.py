"""Commands to a job of several processes: every rank applies one at the same step, or none does, whoever dies when."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from eegwatch.run import crash_points
from eegwatch.run.control import send
from eegwatch.run.log import read_all, run_decoder
from eegwatch.run.records import Run, ScheduleChange, Step
from eegwatch.schedule import parse, rate_at
from tests.unit.steering.job import PATIENCE_S, Job

OWN = [1e-3, 1e-4]  # what the script's scheduler, never stepped, leaves in the groups
HELD = [3e-4, 3e-5]
CHOSEN = ("ranks.after_voice", "ranks.before_decision", "ranks.after_decision")


@pytest.fixture
def begin(tmp_path: Path) -> Iterator[Callable[..., Job]]:
    jobs: list[Job] = []

    def made(**given: Any) -> Job:
        jobs.append(Job(tmp_path / "logs", **given))
        return jobs[-1]

    yield made
    for job in jobs:
        job.close()


def answers(logs: Path, command_id: str) -> list[dict[str, Any]]:
    path = logs / "daemon.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    return [a for a in map(json.loads, lines) if a["id"] == command_id]


def last_word(logs: Path, command_id: str) -> dict[str, Any] | None:
    final = [a for a in answers(logs, command_id) if a["status"] != "accepted"]
    assert len(final) <= 1
    return final[0] if final else None


def answered(job: Job, command_id: str) -> dict[str, Any]:
    end = time.monotonic() + PATIENCE_S
    while (word := last_word(job.logs, command_id)) is None:
        assert job.step() and time.monotonic() < end
    return word


def declared(run: Path, step: int) -> list[float]:
    record = next(r for r in read_all(run / "run.jsonl", run_decoder()) if isinstance(r, Run))
    assert record.groups is not None
    return [float(rate_at(parse(group["schedule"]), step)) for group in record.groups]


def changed_at(job: Job) -> dict[int, list[int]]:
    """By rank, the steps at which its rates became others (those of a schedule that moves are one course)."""
    found = {}
    for rank in job.ranks:
        own = {step: np.allclose(used, OWN, rtol=1e-9, atol=0) for step, used in rank.used.items()}
        found[rank.number] = [step for step in own if step - 1 in own and own[step] != own[step - 1]]
    return found


def same_on_all(job: Job) -> None:
    """At every step that two ranks have taken, they used the same rates."""
    first, *others = job.ranks
    for rank in others:
        for step in first.used.keys() & rank.used.keys():
            assert first.used[step] == rank.used[step], f"step {step}: half of the job was steered"


@pytest.mark.parametrize("before", [False, True], ids=["logged after the step", "logged before it"])
def test_a_rate_a_rejoin_and_the_way_back_hold_from_the_same_step_on_in_every_rank(
    begin: Callable[..., Job], before: bool
) -> None:
    job = begin(world=3, before=before)
    job.meet()
    done = answered(job, send(job.logs, "resume", job.run.name, lr=3e-4, then="hold"))
    assert done["status"] == "done" and done["effect"]["lrs"] == pytest.approx(HELD, rel=1e-12)
    job.step()
    assert all(rank.used[rank.done] == pytest.approx(HELD, rel=1e-9) for rank in job.ranks)
    done = answered(job, send(job.logs, "resume", job.run.name))
    assert done["effect"]["lrs"] == pytest.approx(declared(job.run, done["step"]), rel=1e-15)
    done = answered(job, send(job.logs, "release", job.run.name))
    assert done["effect"]["lrs"] == OWN
    job.step()
    same_on_all(job)
    changes = [r for r in read_all(job.run / "run.jsonl", run_decoder()) if isinstance(r, ScheduleChange)]
    steps = changed_at(job)[0]
    assert steps[0] == changes[0].step + 1 and steps[-1] == changes[-1].step + 1
    records = [json.loads(line) for line in (job.run / "run.jsonl").read_text().splitlines()]
    logged = {r["step"]: r for r in records if r["type"] == "step"}
    for step, used in job.ranks[0].used.items():
        if step in logged and step > 1:  # the first position of a scheduler is 0, whoever sets the rate
            assert logged[step].get("lrs", [logged[step]["lr"]] * 2) == pytest.approx(used, rel=1e-9)
            assert (logged[step]["position"] == step - 1) == (changes[0].step < step <= changes[-1].step)
    assert len(list(job.logs.glob("*/run.jsonl"))) == 1
    for rank in job.ranks:
        assert rank.call("folder") == str(job.run)


def test_a_rank_that_is_ahead_waits_for_the_decision_before_the_announced_step(begin: Callable[..., Job]) -> None:
    job = begin()
    job.meet()
    leader, follower = job.ranks
    send(job.logs, "resume", job.run.name, lr=3e-4, then="hold")
    while not list(job.logs.glob(".ranks-*/*/proposal")):
        assert job.step()
    while not follower_waits(follower):
        pass
    follower_step = follower.done + 1
    while leader.done < follower_step:
        leader.begin("step")
        leader.stepped()
    assert follower.stepped()
    same_on_all(job)
    assert follower.used[follower_step] == pytest.approx(HELD, rel=1e-9)


def follower_waits(follower: Any) -> bool:
    """Take one step of the follower alone, slower than the job was; True where it waits in it."""
    time.sleep(0.02)
    follower.begin("step")
    if follower.answers_within(1.0):
        follower.stepped()
        return False
    return True


def test_a_rank_whose_leader_died_goes_on_at_its_own_rates(begin: Callable[..., Job]) -> None:
    job = begin()
    job.meet()
    leader, follower = job.ranks
    send(job.logs, "resume", job.run.name, lr=3e-4, then="hold")
    while not list(job.logs.glob(".ranks-*/*/proposal")):
        assert job.step()
    while not follower_waits(follower):
        pass
    leader.kill()
    assert follower.stepped() and follower.used[follower.done] == OWN


def test_where_only_rank_0_makes_a_log_a_command_is_rejected_in_words(begin: Callable[..., Job]) -> None:
    job = begin(world=3, logging=range(1))
    for name, fields in (("resume", {"lr": 3e-4, "then": "hold"}), ("release", {}), ("stop", {})):
        job.ranks[0].call("look", "stop")
        answer = answered(job, send(job.logs, name, job.run.name, **fields))
        wanted = "rates already" if name == "release" else "ranks 1, 2 of 3 would not follow"
        assert answer["status"] == "rejected" and wanted in answer["reason"]
    assert changed_at(job)[0] == []


def test_ranks_above_0_write_nothing_and_the_folder_of_the_job_goes_with_the_run(begin: Callable[..., Job]) -> None:
    job = begin()
    job.meet()
    records = read_all(job.run / "run.jsonl", run_decoder())
    assert [r.pid for r in records if isinstance(r, Run)] == [job.ranks[0].process.pid]
    assert [r.step for r in records if isinstance(r, Step)] == list(range(1, len(records)))
    for rank in reversed(job.ranks):
        rank.call("log_call", "end")
    assert not list(job.logs.glob(".ranks-*"))


def test_requests_are_true_on_every_rank_after_the_same_step(begin: Callable[..., Job]) -> None:
    job = begin()
    job.meet()
    names = ("stop", "checkpoint", "evaluation")

    def looks() -> list[list[bool]]:
        return [[rank.call("look", name) for name in names] for rank in job.ranks]

    looks()
    job.step()
    sent = {name: send(job.logs, name, job.run.name) for name in ("checkpoint", "evaluate", "stop")}
    seen: list[list[bool]] = []
    end = time.monotonic() + PATIENCE_S
    while not (seen and seen[-1][0]):
        assert job.step() and time.monotonic() < end
        here, there = looks()
        assert here == there
        seen.append(here)
        if here[1]:
            job.ranks[0].call("log_call", "checkpoint", "a.pt")
        if here[2]:
            job.ranks[0].call("log_call", "eval", {"f1": 0.5})
    assert [sum(look[i] for look in seen) for i in (1, 2)] == [1, 1]  # a checkpoint and an evaluation, once each
    job.step()
    assert looks() == [[True, False, False]] * 2
    job.ranks[0].call("log_call", "end", "stopped")
    assert {name: last_word(job.logs, i)["status"] for name, i in sent.items()} == dict.fromkeys(sent, "done")  # type: ignore[index]


def test_a_stop_that_one_rank_does_not_look_at_is_rejected_and_a_checkpoint_of_rank_0_alone_is_its_own(
    begin: Callable[..., Job],
) -> None:
    job = begin()
    job.meet()
    for name in ("stop", "checkpoint"):
        job.ranks[0].call("look", name)
    answer = answered(job, send(job.logs, "stop", job.run.name))
    assert answer["status"] == "rejected" and "on rank 1" in answer["reason"]
    sent = send(job.logs, "checkpoint", job.run.name)
    end = time.monotonic() + PATIENCE_S
    while not job.ranks[0].call("look", "checkpoint"):
        assert job.step() and time.monotonic() < end
    job.ranks[0].call("log_call", "checkpoint", "a.pt")
    assert last_word(job.logs, sent)["status"] == "done"  # type: ignore[index]


def test_a_rank_that_does_not_step_is_named_and_nothing_is_changed(begin: Callable[..., Job]) -> None:
    job = begin()
    job.meet()
    leader = job.ranks[0]
    command = send(job.logs, "resume", job.run.name, lr=3e-4, then="hold")
    end = time.monotonic() + PATIENCE_S
    while (word := last_word(job.logs, command)) is None:
        leader.begin("step")
        assert leader.stepped() and time.monotonic() < end
        time.sleep(0.02)
    assert word["status"] == "rejected" and "rank 1 did not answer in time" in word["reason"]
    assert job.step() and changed_at(job)[0] == []


def test_a_resumed_job_keeps_the_course_in_every_rank(begin: Callable[..., Job]) -> None:
    job = begin()
    job.meet()
    answered(job, send(job.logs, "resume", job.run.name))
    at, run = job.ranks[0].done, job.run
    job.close()
    again = begin(resume=str(run), step=at)
    again.step()
    for rank in again.ranks:
        assert rank.used[at + 1] == pytest.approx(declared(run, at + 1), rel=1e-9)
    same_on_all(again)


@pytest.mark.parametrize("point", [*crash_points.RANKS, *crash_points.LIVE])
def test_a_rank_killed_within_the_agreement_leaves_no_half_applied_command(
    begin: Callable[..., Job], point: str, tmp_path: Path
) -> None:
    if point not in CHOSEN and not os.environ.get("EEGWATCH_FULL"):
        pytest.skip("tried with EEGWATCH_FULL=1")
    armed = tmp_path / "crash-here"
    job = begin(env={crash_points.VARIABLE: str(armed)})
    job.meet()
    armed.write_text(point)
    command = send(job.logs, "resume", job.run.name, lr=3e-4, then="hold")
    end = time.monotonic() + PATIENCE_S
    if point == "ranks.before_step":  # where a rank waits: it has to be ahead of rank 0
        while not list(job.logs.glob(".ranks-*/*/proposal")):
            assert job.step()
        while armed.exists() and not follower_waits(job.ranks[1]):
            assert time.monotonic() < end
    while job.step():
        assert time.monotonic() < end
    assert not armed.exists()
    for rank in job.ranks:  # whoever lives takes a few steps more, as a job of independent ranks would
        for _ in range(3):
            if rank.process.is_alive():
                rank.begin("step")
                rank.stepped()
    same_on_all(job)
    run, at = job.run, min(rank.done for rank in job.ranks)
    job.close()
    again = begin(resume=str(run), step=at)
    word = last_word(job.logs, command)
    assert word is not None and word["status"] in ("done", "failed", "expired"), word
    done = word["status"] == "done"
    effect = word["effect"] if done else {}
    first = max(at + 1, effect.get("from_step", effect.get("step", 0)))  # the resume may lie before the change
    while again.ranks[0].done < first:
        again.step()
    same_on_all(again)
    for rank in again.ranks:  # what the answer says is so
        assert rank.used[first] == pytest.approx(HELD if done else OWN, rel=1e-9), word
