"""The daemon's guard hears of what other ranks wrote beside the run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from eegpt_daemon.supervisor.watched_run import WatchedRun
from eegwatch.run.folder import RUN_LOG
from eegwatch.run.log import AppendLog
from eegwatch.run.ranks import rank_log
from eegwatch.run.records import Run, Watch


def replica(crc: str, **of_rank: Any) -> Watch:
    values = {"nth": "step 1", "n": 1, "crc": crc, "parts": {"weight": crc}} | of_rank
    return Watch(step=3, look="replica", values=values)


def test_copies_that_differ_are_an_error_for_the_guard(tmp_path: Path) -> None:
    log, beside = AppendLog(tmp_path / RUN_LOG), AppendLog(rank_log(tmp_path, 1))
    log.append(Run(total_steps=4))
    log.append(Watch(step=0, look="attached", values={"optimizers": [], "declared": {"world": 2}}))
    log.append(replica("aa"))
    run = WatchedRun(tmp_path, say=print)
    assert run.poll() == []
    run.close()
    beside.append(replica("bb", rank=1, attempt=1))
    run = WatchedRun(tmp_path, say=print)
    assert [finding.rule for finding in run.poll()] == ["replicas_differ"]
    run.close()
    log.close()
    beside.close()
