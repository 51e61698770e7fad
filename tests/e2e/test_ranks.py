"""Two processes with DistributedDataParallel over gloo, steered while they train: all of them, at the same step."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from eegwatch.run.control import send
from eegwatch.run.log import read_all, run_decoder
from eegwatch.run.records import Run
from eegwatch.schedule import parse, rate_at
from tests.e2e.processes import PATIENCE, whole_lines

SCRIPT = Path(__file__).with_name("ddp_script.py")
SPAWNED = """
import sys, torch.distributed as dist, torch.multiprocessing as mp
from tests.e2e.ddp_script import train
def one(rank, logs, out):
    dist.init_process_group("gloo", init_method=f"file://{out}/meeting", rank=rank, world_size=2)
    train(logs, out)
    dist.destroy_process_group()
if __name__ == "__main__":
    mp.spawn(one, sys.argv[1:3], nprocs=2)
"""


def wait(until: Callable[[], Any], process: subprocess.Popen[bytes]) -> Any:
    end = time.monotonic() + PATIENCE
    while not (value := until()):
        assert time.monotonic() < end and process.poll() is None
        time.sleep(0.02)
    return value


@pytest.mark.parametrize("launcher", ["torchrun", "mp.spawn"])
def test_a_job_takes_rates_a_rejoin_requests_and_a_stop_in_both_replicas(tmp_path: Path, launcher: str) -> None:
    logs, out = tmp_path / "logs", tmp_path / "out"
    out.mkdir()
    run = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", str(SCRIPT)]
    if launcher == "mp.spawn":
        (tmp_path / "spawned.py").write_text(SPAWNED)
        run = [sys.executable, str(tmp_path / "spawned.py")]
    with (out / "printed").open("wb") as printed:
        process = subprocess.Popen([*run, str(logs), str(out)], stdout=printed, stderr=printed)
    try:
        wait(lambda: list(logs.glob(".ranks-*/*/rank-1")), process)
        (folder,) = [path.parent for path in logs.glob("*/run.jsonl")]

        def ask(name: str, **fields: Any) -> dict[str, Any]:
            command = send(logs, name, folder.name, **fields)

            def last() -> list[dict[str, Any]]:
                lines = whole_lines(logs / "daemon.jsonl")
                return [a for a in lines if a["id"] == command and a["status"] != "accepted"]

            word = wait(last, process)[0]
            assert word["status"] == "done", word
            return dict(word)

        held = ask("resume", lr=3e-4, then="hold")
        rejoined = ask("resume")
        ask("checkpoint")
        ask("evaluate")
        released = ask("release")
        stop = send(logs, "stop", folder.name)
        assert process.wait(PATIENCE) == 0, (out / "printed").read_text()
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
    here, there = (json.loads((out / f"rank-{rank}.json").read_text()) for rank in (0, 1))
    assert here["weights"] == there["weights"]  # bit for bit
    for what in ("steps", "checkpoints", "evaluations", "folder"):
        assert here[what] == there[what]
    assert here["folder"] == str(folder) and len(here["checkpoints"]) == len(here["evaluations"]) == 1
    assert [a["status"] for a in whole_lines(logs / "daemon.jsonl") if a["id"] == stop] == ["accepted", "done"]
    (record,) = [r for r in read_all(folder / "run.jsonl", run_decoder()) if isinstance(r, Run)]
    assert record.groups is not None
    laws = [parse(group["schedule"]) for group in record.groups]
    for seen in (here, there):
        # a float32 weight that moves by 1e-4 times its gradient tells the rate to some parts in a thousand
        used = {int(step): rates for step, rates in seen["rates"].items()}
        np.testing.assert_allclose(used[held["step"] - 1], [1e-3, 1e-4], rtol=1e-2)
        np.testing.assert_allclose(used[held["step"]], [3e-4, 3e-5], rtol=1e-2)
        expected = [float(rate_at(law, rejoined["step"])) for law in laws]
        np.testing.assert_allclose(used[rejoined["step"]], expected, rtol=1e-2)
        np.testing.assert_allclose(used[released["step"]], [1e-3, 1e-4], rtol=1e-2)
