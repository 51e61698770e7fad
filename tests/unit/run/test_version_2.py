"""Version 2 of the run log: rates of parameter groups, named metrics, records that a later version adds."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from eegwatch.run.columns import block_of
from eegwatch.run.follow import OwnLog, RunFollower, history_of
from eegwatch.run.history import History, StepBlock
from eegwatch.run.items import ItemReader
from eegwatch.run.log import AppendLog, run_decoder
from eegwatch.run.records import Eval, Intent, Run, RunRecord, ScheduleChange, Step, Watch, encode
from eegwatch.run.sidefile import SideFile

GROUPS = [{"name": "body", "schedule": None}, {"name": "head", "schedule": None}]


def history(records: list[RunRecord]) -> History:
    read = History()
    for item in ItemReader().items(records):
        read.append(item)
    return read


def steps(first: int, last: int, **fields: object) -> list[RunRecord]:
    return [Step(step=n, time=float(n), lr=n * 1e-3, **fields) for n in range(first, last + 1)]  # type: ignore[arg-type]


def test_version_1_is_read_as_ever() -> None:
    line = b'{"type":"run","time":1.0,"v":1,"run_id":"a","step":0}\n{"type":"step","time":2.0,"step":1,"lr":0.1}\n'
    decoder = run_decoder()
    run, step = decoder.decode(line)
    assert isinstance(run, Run) and run.v == 1 and run.groups is None and run.lr_precision is None
    assert isinstance(step, Step) and step.lr == 0.1 and decoder.bad == 0


def test_records_and_fields_of_a_later_version_are_read_past_and_not_counted_as_bad() -> None:
    decoder = run_decoder()
    lines = [
        b'{"type":"run","time":1,"v":7,"run_id":"a","lr_precision":"posit16","shape_of_things":[1,{"a":2}]}',
        b'{"type":"hologram","time":1,"step":{"not":"even a number"}}',
        b'{"type":"step","time":1,"step":1,"lr":0.1,"flavour":"up"}',
        b'{"type":"step","time":1,"step":"three"}',
        b"not json",
    ]
    records = decoder.decode(b"\n".join(lines) + b"\n")
    assert [type(r) for r in records] == [Run, Step]
    assert decoder.bad == 2  # a step that is no number, and what is no JSON


@pytest.mark.parametrize("field", ["step", "skipped"])
@pytest.mark.parametrize("value", [1 << 63, -(1 << 63) - 1, 10**25])
def test_a_number_that_no_column_holds_makes_its_record_a_bad_line(field: str, value: int) -> None:
    decoder = run_decoder()
    line = '{"type":"step","time":1,"step":1}\n'.replace('"step":1', f'"step":1,"{field}":{value}')
    assert decoder.decode(line.encode()) == [] and decoder.bad == 1


def test_the_rates_of_all_groups_come_back_and_are_lr_where_they_were_left_out() -> None:
    records = [Run(groups=GROUPS), *steps(1, 3), *steps(4, 5, lrs=[0.5, 0.25]), *steps(6, 6)]
    lrs = history(records).lrs
    assert lrs is not None
    np.testing.assert_array_equal(lrs[:3], [[0.001, 0.001], [0.002, 0.002], [0.003, 0.003]])
    np.testing.assert_array_equal(lrs[3:5], [[0.5, 0.25]] * 2)
    np.testing.assert_array_equal(lrs[5], [0.006, 0.006])


def test_a_group_that_is_added_later_is_not_known_before() -> None:
    read = History()
    for part in ([Run(groups=GROUPS), *steps(1, 2)], steps(3, 3, lrs=[0.1, 0.2, 0.3]), steps(4, 4, lrs=[0.1, 0.2])):
        for item in ItemReader.at(0, None, None, read.step_done).items(part):
            read.append(item)
    assert read.lrs is not None
    np.testing.assert_array_equal(np.isnan(read.lrs), [[0, 0, 1], [0, 0, 1], [0, 0, 0], [0, 0, 1]])


def test_metrics_cost_what_is_logged_and_a_resume_supersedes_them() -> None:
    logged = [
        Step(step=n, time=float(n), metrics={"acc": n / 10} if n % 5 == 0 else {"f1": math.nan}) for n in range(1, 21)
    ]
    read = history([Run(), *logged, Run(attempt=2, step=12), Step(step=13, metrics={"acc": 9.0})])
    np.testing.assert_array_equal(read.metrics["acc"].step, [5, 10, 13])
    np.testing.assert_array_equal(read.metrics["acc"].value, [0.5, 1.0, 9.0])
    assert read.metrics["f1"].length == 10 and np.isnan(read.metrics["f1"].value).all()


def test_a_part_of_a_block_keeps_its_metrics_with_their_rows() -> None:
    block = block_of([Step(step=n, metrics={"acc": float(n)} if n % 2 else {"ppl": 1.0}) for n in range(1, 9)])
    part = block[2:5]
    assert part.metrics["acc"][0].tolist() == [0, 2] and part.metrics["acc"][1].tolist() == [3.0, 5.0]
    mask = block[block.step > 6]
    assert mask.metrics["acc"][0].tolist() == [0] and mask.metrics["ppl"][0].tolist() == [1]
    whole = StepBlock.joined(block[:3], block[3:])
    assert whole.metrics["acc"][1].tolist() == [1.0, 3.0, 5.0, 7.0] and whole.metrics["acc"][0].tolist() == [0, 2, 4, 6]


def test_an_evaluation_gives_each_result_under_its_own_name() -> None:
    line = encode(Eval(step=3, auroc=0.8, metrics={"f1": 0.5, "wer": math.inf}, ci95={"auroc": [0.7, 0.9]}))
    assert b'"inf"' in line
    (read,) = run_decoder().decode(line)
    assert isinstance(read, Eval) and read.ci95 == {"auroc": [0.7, 0.9]}
    assert read.values() == {"auroc": 0.8, "f1": 0.5, "wer": math.inf}


def test_other_records_keep_their_place_among_the_steps() -> None:
    change = ScheduleChange(step=2, schedule={"name": "constant", "lr": 0.1, "total_steps": 9}, command="x")
    seen = Watch(step=2, look="update", values={"got": [0.1]})
    meant = Intent(step=3, rule="lr_stuck", since_step=2)
    records = [Run(), *steps(1, 2), change, seen, *steps(3, 4), meant]
    items = list(ItemReader().items(run_decoder().decode(b"".join(encode(r) for r in records))))
    assert [type(i) for i in items] == [Run, StepBlock, ScheduleChange, Watch, StepBlock, Intent]
    read = history(records)
    assert read.schedules == [change] and read.watched == [seen] and read.intents == [meant]
    assert history([*records, Run(attempt=2, step=1)]).schedules == []


def test_the_side_file_holds_groups_and_metrics_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EEGWATCH_CACHE", str(tmp_path / "cache"))
    log = AppendLog(tmp_path / "run.jsonl")
    log.append(Run(groups=GROUPS))
    for n in range(1, 5001):
        log.append(Step(step=n, lr=0.1, lrs=[0.1, 0.2], metrics={"acc": n / 7} if n % 3 == 0 else {}))
    log.close()
    for _ in range(2):  # written by the first reading, read by the second
        follower, read = RunFollower(OwnLog(tmp_path), side=SideFile(tmp_path / "run.jsonl")), History()
        while follower.behind:
            for item in follower.poll(1 << 16):
                read.append(item)
        follower.close()
        assert read.lrs is not None and (read.lrs == [0.1, 0.2]).all() and len(read.lrs) == 5000
        np.testing.assert_array_equal(read.metrics["acc"].value, np.arange(3, 5001, 3) / 7)
    np.testing.assert_array_equal(history_of(tmp_path).metrics["acc"].step, np.arange(3, 5001, 3))
