"""Parts of the watcher and of its rules by themselves: sums of samples, fingerprints of data sets, counts over looks."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from eegwatch.diagnosis.silent.processes import streams_overlap
from eegwatch.diagnosis.silent.rule import (
    Attempt,
    Violation,
    in_consecutive_steps,
    names,
    seen_in_a_row,
    steps_of_epoch,
)
from eegwatch.run.records import Watch
from eegwatch.watching.dataset_identity import fingerprint
from eegwatch.watching.streams import KEPT, SampleSums
from tests.unit.watching.loops import Loop


def test_looks_that_show_something_are_counted_until_one_does_not() -> None:
    attempt, record = Attempt(), Watch(step=1, look="step", values={"opt": 2})
    counts = [seen_in_a_row(attempt, "a_rule", record, shown) for shown in (True, True, False, True)]
    assert counts == [1, 2, 0, 1]
    assert seen_in_a_row(attempt, "a_rule", Watch(step=1, look="step", values={"opt": 3}), True) == 1


def test_steps_that_show_something_are_counted_as_long_as_one_follows_the_other() -> None:
    attempt = Attempt()
    steps = [Watch(step=n, look="step", values={"opt": 0, "count": n}) for n in (1, 2, 3, 7, 8)]
    assert [in_consecutive_steps(attempt, "a_rule", step, True) for step in steps] == [1, 2, 3, 1, 2]


def test_the_steps_of_an_epoch_are_those_given_or_what_its_batches_make() -> None:
    assert steps_of_epoch({"n": 10, "batch": 4}, None) == 3
    assert steps_of_epoch({"n": 10}, None) == steps_of_epoch({"n": 10, "batch": 0}, None) == 10
    assert steps_of_epoch({"n": 10, "batch": 4}, 7) == 7


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"n": 3, "names": []}, "3 tensors"),
        ({"n": 1, "names": ["a"]}, "a"),
        ({"names": ["a", "b"]}, "a and b"),
        ({"n": 3, "names": ["a", "b", "c"]}, "a, b and c"),
        ({"n": 1_500, "names": ["a", "b"]}, "a, b and 1,498 more"),
    ],
)
def test_tensors_are_named_as_in_a_sentence(values: dict[str, Any], words: str) -> None:
    assert names(values) == words


def test_samples_of_which_one_cannot_be_read_are_not_compared() -> None:
    sums = SampleSums()
    assert sums.values() is None
    sums.add([torch.zeros(4), torch.ones(4), torch.zeros(4)])
    values = sums.values()
    assert values is not None and (values["seen"], values["repeats"], values["every"]) == (3, 1, 1)
    sums.add([object()])
    assert sums.values() is None


def test_of_many_samples_a_share_is_kept_by_the_value_of_its_sum() -> None:
    sums = SampleSums()
    for number in range(3 * KEPT):
        sums.add([number])
    values = sums.values()
    assert values is not None and values["every"] >= 4 and len(values["some"]) <= KEPT
    assert not any(one % values["every"] for one in values["some"])


def data_set(**parts: Any) -> Any:
    return SimpleNamespace(signals=torch.arange(100.0), files=["a.edf", "b.edf"], rate=np.full(3, 256), **parts)


def test_a_data_set_is_known_by_what_it_holds_and_not_by_its_functions() -> None:
    same = fingerprint(data_set(transform=lambda x: x, limit=3))
    assert same is not None
    assert fingerprint(data_set(transform=lambda x: -x, limit=3)) == same
    assert fingerprint(data_set(transform=lambda x: x, limit=4)) != same
    assert fingerprint(data_set(limit=3, labels=[0, 1])) != same


def told_of_rank(rank: int, samples: range, repeats: int = 0) -> Watch:
    values = {"loader": 0, "epoch": 1, "rank": rank, "some": list(samples), "every": 1, "seen": 64, "repeats": repeats}
    return Watch(step=8, look="stream", values=values)


@pytest.mark.parametrize(
    ("other", "repeats", "overlap"), [(range(32, 96), 0, True), (range(64, 128), 0, False), (range(32, 96), 5, False)]
)
def test_ranks_that_read_the_same_samples_of_a_stream_are_told_unless_it_holds_samples_twice(
    other: range, repeats: int, overlap: bool
) -> None:
    attempt = Attempt(attached={"declared": {"world": 2}})
    assert streams_overlap(told_of_rank(0, range(64), repeats), attempt) is None  # one rank alone
    judged = streams_overlap(told_of_rank(1, other), attempt)
    assert isinstance(judged, Violation) == overlap
    assert (judged is None) == bool(repeats)


@pytest.mark.parametrize(("factor", "why"), [(float("nan"), "are not finite"), (1.0, "add up")])
def test_steps_that_never_come_are_told_with_what_their_gradients_are(tmp_path: Path, factor: float, why: str) -> None:
    loop = Loop(tmp_path)
    found = loop.run(70, lambda _: (loop.model(torch.ones(4, 8)).mean() * factor).backward())
    assert [why in one.message for one in found if one.rule == "step_not_taken"] == [True]
