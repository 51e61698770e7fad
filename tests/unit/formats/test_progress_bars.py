"""Progress bars as tqdm draws them: each step is read with the values of that step, whatever the script's order."""

from __future__ import annotations

import io

import pytest
from tqdm import tqdm

from eegwatch.formats.row_reader import RowReader
from eegwatch.formats.text import TextDecoder
from eegwatch.run.records import Eval, Step

STEPS = 30


def drawn(style: str, interval: int) -> list[Step]:
    """The steps that are read from two epochs of a bar that moves every `interval` counts; the loss is the step."""
    out = io.StringIO()
    for epoch in range(2):
        by_hand = style in ("values, then update", "update, then values")
        given = {"total": STEPS} if by_hand else {"iterable": range(STEPS)}
        bar = tqdm(desc=f"Epoch {epoch + 1}/2", file=out, mininterval=0, miniters=interval, ncols=150, **given)
        for n in range(STEPS) if by_hand else bar:
            step = epoch * STEPS + n + 1
            values = {"loss": f"{step:.1f}", "lr": f"{step * 1e-3:.3f}"}
            if style == "update, then values":
                bar.update(1)
            if style == "description":
                bar.set_description(f"Epoch {epoch + 1}/2 loss {step:.1f} lr {step * 1e-3:.3f}")
            elif style == "every third step":
                if n % 3 == 0:
                    bar.set_postfix(values)
            else:
                bar.set_postfix(values, refresh=style != "without a redraw")
            if style == "values, then update":
                bar.update(1)
            if style == "with a line between" and step % 7 == 0:
                bar.write("saved a checkpoint", file=out)
        bar.close()
    decoder = TextDecoder(RowReader("bars"), lambda: 0.0)
    records = [*decoder.decode(out.getvalue().encode()), *decoder.reader.flush()]
    return [record for record in records if isinstance(record, Step)]


@pytest.mark.parametrize("interval", [1, 2, 5])
@pytest.mark.parametrize(
    "style",
    [
        "values in the loop",
        "without a redraw",
        "description",
        "values, then update",
        "update, then values",
        "with a line between",
    ],
)
def test_each_step_has_its_own_values(style: str, interval: int) -> None:
    steps = drawn(style, interval)
    assert len(steps) >= 2 * STEPS // 5
    assert [step.step for step in steps] == [step.loss for step in steps]
    assert all(step.lr == pytest.approx(step.step * 1e-3) for step in steps)


def test_values_of_every_third_step_are_read_once() -> None:
    steps = drawn("every third step", 1)
    assert [step.step for step in steps] == [step.loss for step in steps] == list(range(1, 2 * STEPS, 3))


def test_values_that_stand_still_are_read_in_the_end() -> None:
    decoder = TextDecoder(RowReader("bars"), lambda: 0.0)
    lines = [f"Epoch 1/1: {n // 4}%|#| {n}/400 [00:01<00:09, 9.1it/s, loss=nan, lr=3.00e-03]" for n in range(400)]
    records = [*decoder.decode(("\r".join(lines) + "\n").encode()), *decoder.reader.flush()]
    steps = [record.step for record in records if isinstance(record, Step)]
    assert steps[0] == 1 and steps[-1] == 400 and len(steps) > 340


def test_a_bar_of_rich_has_no_step_at_count_0() -> None:
    text = "".join(f"Epoch 0/2 ━━━╸  {n}/80 loss={n / 10:.4f} lr={n * 1e-3:.3f} 0:00:03\n" for n in (0, 2, 5, 9))
    decoder = TextDecoder(RowReader("bars"), lambda: 0.0)
    records = [*decoder.decode(text.encode()), *decoder.reader.flush()]
    assert [(r.step, r.lr) for r in records if isinstance(r, Step)] == [(2, 2e-3), (5, 5e-3), (9, 9e-3)]


def test_an_evaluation_that_a_bar_goes_on_showing_is_one() -> None:
    lines = [
        f"Epoch {e}/3 ━━━╸ {n}/4 train_loss: {0.9 - e / 10 - n / 100:.3f} val_loss: {0.8 - e / 10:.3f}\n"
        for e in range(1, 4)
        for n in range(1, 5)
    ]
    decoder = TextDecoder(RowReader("bars"), lambda: 0.0)
    records = [*decoder.decode("".join(lines).encode()), *decoder.reader.flush()]
    assert [r.loss for r in records if isinstance(r, Eval)] == [0.7, 0.6, 0.5]


def test_an_evaluation_with_the_result_of_the_last_one_is_another_one() -> None:
    begin = "10/10 [==============================] - 2s 15ms/step"
    keras = "".join(
        f"Epoch {e}/3\n 5/10 [======>.......................] - ETA: 1s - loss: {1 / e:.4f}\r"
        f"{begin} - loss: {1 / e:.4f} - val_loss: 0.7500\n"
        for e in range(1, 4)
    )
    plain = "".join(f"epoch {e} train loss {1 / e:.3f}\nepoch {e} val loss 0.75 val acc 0.5\n" for e in range(1, 4))
    for text in (keras, plain):
        decoder = TextDecoder(RowReader("bars"), lambda: 0.0)
        records = [*decoder.decode(text.encode()), *decoder.reader.flush()]
        assert [(r.loss, r.epoch) for r in records if isinstance(r, Eval)] == [(0.75, 0), (0.75, 1), (0.75, 2)]


def test_a_step_counter_that_goes_on_over_an_epoch_says_the_length_of_the_run() -> None:
    text = "".join(f"step {n}/400 | epoch {n // 50} | loss 0.5 | lr 1e-3\n" for n in range(10, 200, 10))
    reader = RowReader("steps")
    TextDecoder(reader, lambda: 0.0).decode(text.encode())
    reader.flush()
    assert reader.total_steps == 400
    within = "".join(f"step {n % 50 + 10}/60 | epoch {n // 50} | loss 0.5\n" for n in range(0, 200, 10))
    reader = RowReader("steps")
    TextDecoder(reader, lambda: 0.0).decode(within.encode())
    reader.flush()
    assert reader.total_steps != 60


def test_a_line_without_a_time_has_that_of_the_last_line_with_one() -> None:
    lines = ["2025-11-19 11:17:07,709 - INFO - step 10: loss 0.5", "Validation results:", "\taccuracy:0.95"]
    decoder = TextDecoder(RowReader("times"), lambda: 4e9)
    records = [*decoder.decode("\n".join(lines).encode()), *decoder.reader.flush()]
    step, result = (next(r for r in records if isinstance(r, kind)) for kind in (Step, Eval))
    assert step.time == result.time < 4e9
