"""Where a row stands: counters that begin again as an epoch, a resume or a new run, from 0 or from 1."""

from __future__ import annotations

from pathlib import Path

from tests.unit.formats.samples import jsonl, read


def steps_and_notes(tmp_path: Path, text: str, name: str = "a.log") -> tuple[list[int], list[str]]:
    path = tmp_path / name
    path.write_text(text)
    _, follower, history = read(path)
    assert follower.reader.disorder == 0
    return history.step.tolist(), [note for run in history.attempts for note in run.notes]


def test_epochs_whose_batches_begin_again_are_one_run(tmp_path: Path) -> None:
    text = "".join(f"Epoch {e} [{b}/300] loss: 0.5\n" for e in (1, 2, 3) for b in (100, 200, 300))
    assert steps_and_notes(tmp_path, text) == ([100, 200, 300, 400, 500, 600, 700, 800, 900], [])


def test_epochs_that_no_line_announces(tmp_path: Path) -> None:
    text = "".join(f"Batch {b}/300 loss: 0.5\n" for _ in (1, 2) for b in (100, 200, 300))
    assert steps_and_notes(tmp_path, text) == ([100, 200, 300, 400, 500, 600], [])


def test_a_new_run_in_the_same_file_is_shown_and_said(tmp_path: Path) -> None:
    text = "".join(f"step {n} loss: 0.5\n" for n in (10, 20, 30, 10, 20))
    steps, notes = steps_and_notes(tmp_path, text)
    assert steps == [10, 20] and len(notes) == 1 and "a new run begins in the same file after step 30" in notes[0]


def test_a_resume_supersedes_what_was_done_twice(tmp_path: Path) -> None:
    text = "".join(f"step {n} loss: 0.5\n" for n in (10, 20, 30, 40, 30, 40, 50))
    steps, notes = steps_and_notes(tmp_path, text)
    assert steps == [10, 20, 30, 40, 50] and "the run was resumed" in notes[0]


def test_folds_of_a_cross_validation_are_runs_of_their_own(tmp_path: Path) -> None:
    text = "".join(f"Epoch {e}/40 | Loss: 0.{fold}{e} | Val Acc: 0.9\n" for fold in (1, 2, 3) for e in (1, 2, 3))
    steps, notes = steps_and_notes(tmp_path, text)
    assert steps == [1, 2, 3] and len(notes) == 2


def test_an_epoch_that_is_done_again_is_a_resume(tmp_path: Path) -> None:
    rows = [(1, 100), (1, 200), (2, 100), (2, 200), (3, 100), (3, 200), (2, 100), (2, 200)]
    text = "".join(f"Epoch {e}/9 [{b}/200] loss: 0.5\n" for e, b in rows)
    steps, notes = steps_and_notes(tmp_path, text)
    assert steps == [100, 200, 300, 400] and "epoch 2 follows epoch 3" in notes[0]


def test_steps_and_epochs_from_0(tmp_path: Path) -> None:
    assert steps_and_notes(tmp_path, "step 0 loss 0.5\nstep 1 loss 0.4\nstep 2 loss 0.3\n")[0] == [1, 2, 3]
    assert steps_and_notes(tmp_path, "Epoch: 0 loss 0.5\nEpoch: 1 loss 0.4\n")[0] == [1, 2]
    assert steps_and_notes(tmp_path, "Epoch: 5 loss 0.5\nEpoch: 6 loss 0.4\n")[0] == [5, 6]
    assert steps_and_notes(tmp_path, "Train: [0/9][0/50] loss 0.5\nTrain: [1/9][0/50] loss 0.4\n")[0] == [1, 51]


def test_step_and_epoch_of_one_row_of_json(tmp_path: Path) -> None:
    local = jsonl(*({"epoch": e, "step": s, "loss": 0.5} for e in (0, 1) for s in (0, 10, 20)))
    assert steps_and_notes(tmp_path, local, "a.jsonl") == ([1, 11, 21, 31, 41, 51], [])
    through = jsonl(*({"epoch": e, "step": 30 * e + s, "loss": 0.5} for e in (0, 1) for s in (0, 10, 20)))
    assert steps_and_notes(tmp_path, through, "a.jsonl") == ([1, 11, 21, 31, 41, 51], [])


def test_the_mean_of_an_epoch_is_no_step_where_steps_are_logged(tmp_path: Path) -> None:
    text = (
        "Epoch[1/9], Step[0/50], Loss: 0.5\nEpoch[1/9], Step[25/50], Loss: 0.4\n----- Epoch[1/9], Train Loss: 0.45, time: 3\n"
        "Epoch[2/9], Step[0/50], Loss: 0.3\n"
    )
    assert steps_and_notes(tmp_path, text)[0] == [1, 26, 51]


def test_the_total_is_that_of_the_log(tmp_path: Path) -> None:
    for text, total in (
        ("step 1/500 loss 0.5\n", 500),
        ("Epoch 3/20 [10/50] loss 0.5\n", 1000),
        ("Epoch 3/20 loss 0.5\n", 20),
        ("Epoch 3 iter 10 loss 0.5\n", None),
    ):
        path = tmp_path / "a.log"
        path.write_text(text)
        history = read(path)[2]
        assert history.run is not None and history.run.total_steps == total
