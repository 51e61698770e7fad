"""`guard: {twin: true}`: the cost of a fault is computed when a run has ended, and gives way to the next one."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import psutil

from eegpt_daemon.link import Attempt
from eegpt_daemon.supervisor.twin import TwinProcess
from eegwatch.run.results.cost import read
from tests.e2e.processes import Daemon, whole_lines
from tests.e2e.trainers import Zygote, new_run

ConfigFile = Callable[..., Path]


def test_the_cost_is_computed_when_the_run_has_ended_and_gives_way_to_a_new_one(
    zygote: Zygote, config_file: ConfigFile, tmp_path: Path
) -> None:
    run = new_run(tmp_path, "20261126-000000-run", config_file({"inject": "scheduler_stepped_per_epoch"}, max_epochs=2))
    assert zygote.train(run, Attempt(), None) == 0
    notes: list[str] = []
    twin = TwinProcess(notes.append, seeds=2)
    twin.begin(run)
    process = psutil.Process(twin._process.pid)  # type: ignore[union-attr]
    while not list((run / "twin").glob("*/config.yaml")):
        assert process.is_running() and process.status() != psutil.STATUS_ZOMBIE, (run / "cost.log").read_text()
        time.sleep(0.05)
    assert process.nice() == 19
    twin.give_way()
    assert not process.is_running() and "is interrupted" in notes[-1] and read(run) is None
    twin.begin(run)
    while twin._process is not None:
        twin.look()
        time.sleep(0.05)
    cost = read(run)
    assert "done" in notes[-1] and cost is not None and len(cost.seeds) == 2, (run / "cost.log").read_text()


def test_a_run_without_a_fault_costs_one_look(zygote: Zygote, config_file: ConfigFile, tmp_path: Path) -> None:
    run = new_run(tmp_path, "20261126-000000-run", config_file(max_epochs=1))
    assert zygote.train(run, Attempt(), None) == 0
    twin = TwinProcess(print)
    twin.begin(run)
    while twin._process is not None:
        twin.look()
        time.sleep(0.05)
    cost = read(run)
    assert cost is not None and "was the declared one" in (cost.reason or "") and not (run / "twin").exists()


def test_the_daemon_begins_it_when_told_to_and_takes_it_along_when_it_ends(
    daemon: Daemon, config_file: ConfigFile
) -> None:
    daemon.start(config_file({"guard": {"twin": True}, "inject": "scheduler_stepped_per_epoch"}, max_epochs=2))
    daemon.wait(lambda: (daemon.run / "cost.log").exists())
    assert daemon.records("end")  # a finding of the last steps may come after it

    def costs() -> list[psutil.Process]:
        return [
            p
            for p in psutil.process_iter(["cmdline"])
            if {"cost", str(daemon.run), "--seeds", "5"} <= set(p.info["cmdline"] or ())
        ]

    daemon.wait(costs)
    daemon.cli("stop")
    assert costs() == [] and not (daemon.run / "cost.json").exists()
    assert any("is interrupted" in (line.get("reason") or "") for line in whole_lines(daemon.logs / "daemon.jsonl"))


def test_nothing_to_give_way_is_no_error() -> None:
    twin = TwinProcess(print)
    twin.look()
    twin.give_way()
