"""A series of seeds: one run after another over one split, killed, stopped and continued like any run."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from eegwatch.cli import main
from eegwatch.run.folder import runs
from eegwatch.run.seed_series import members, next_seed
from eegwatch.scores.predictions import Predictions
from tests.e2e.processes import Daemon, whole_lines


def test_a_series_is_killed_stopped_and_continued_and_every_seed_is_run_once(
    daemon: Daemon, config_file: Callable[..., Path], capsys: Any
) -> None:
    experiment = {"name": "tiny", "seed": 5, "seeds": 3}
    path = config_file(top={"experiment": experiment}, max_epochs=2, pace_steps_per_s=12.0)
    daemon.start(path)
    daemon.wait_for_step(3)
    first = daemon.run
    assert first.name.endswith("-tiny-seed5") and next_seed(first) == 6
    daemon.kill()
    daemon.cli("start", "--no-check", "--continue")
    daemon.wait(lambda: daemon.run != first)  # the end of one seed begins the next
    second = daemon.run
    assert daemon.records("end", first)[-1]["reason"] == "completed"
    daemon.wait_for_step(3)
    daemon.cli("stop")
    assert daemon.records("end", second)[-1]["reason"] == "stopped" and daemon.run == second
    daemon.begin_idle()
    daemon.cli("resume")
    daemon.wait(lambda: daemon.run != second)
    third = daemon.run
    assert daemon.wait_for_end()["reason"] == "completed"
    daemon.wait(lambda: daemon.states()[-1] == "idle")
    daemon.cli("stop")

    assert runs(daemon.logs) == [first, second, third] and next_seed(third) is None
    assert members(second) == {5: first, 6: second, 7: third}
    for number, (seed, folder) in enumerate(members(first).items(), 1):
        config = yaml.safe_load((folder / "config.yaml").read_text())
        assert config["experiment"] | {"seeds": [5, 6, 7], "series": first.name, "seed": seed} == config["experiment"]
        assert config["data"]["split_seed"] == 5
        record = daemon.records("run", folder)[0]
        assert record["seed"] == seed
        assert f"seed {seed}: {number} of 3 of the series {first.name}" in record["notes"]
        steps = {r["step"] for r in daemon.records("step", folder)}
        assert steps == set(range(1, record["total_steps"] + 1))
    validation = [Predictions.load(folder / "predictions-val.npz") for folder in (first, second, third)]
    assert len({one.corpus for one in validation}) == 1
    assert len({one.logits.tobytes() for one in validation}) == 3
    said = [r for r in whole_lines(daemon.logs / "daemon.jsonl") if r.get("state") == "restarting" and r.get("reason")]
    assert any("seed 6 of the series follows" in r["reason"] for r in said)
    assert json.loads((first / "series.json").read_text())["seeds"] == [5, 6, 7]
    capsys.readouterr()
    assert main(["compare", str(first), str(third), "--seeds", "--split", "val", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [run["seeds"] for run in found["runs"]] == [[5, 6, 7], [5, 6, 7]]
    assert found["comparisons"][0]["differences"]["window"]["auroc"]["value"] == 0
