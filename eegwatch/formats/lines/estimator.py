"""An evaluation of tf.estimator and of the BERT scripts: a heading, then one `name = value` a line.

    Saving dict for global step 5468: eval_accuracy = 0.85, eval_loss = 0.72, global_step = 5468, loss = 0.72
    ***** Eval results *****
      eval_accuracy = 0.85
      global_step = 5468
      loss = 0.72

`loss` is the evaluation's, or the mean of the training's so far where `eval_loss` stands beside it: no step's loss.
Read in tensorflow_estimator/python/estimator/estimator.py (_write_dict_to_summary) and in run_classifier.py of BERT.
"""

from __future__ import annotations

import re

from eegwatch.formats.names import TEST, VAL
from eegwatch.formats.row_reader import RowReader
from eegwatch.formats.rows import Row

_SAVED = re.compile(r"Saving dict for global step (\d{1,15}): (.+)")
_HEADING = re.compile(r"\*+ *(Eval|Test|Dev|Validation) results\b.*\*", re.IGNORECASE)
_VALUE = re.compile(r"(?:^|[\s,:])([A-Za-z][\w/@.-]*) = ([-+]?(?:\d+\.?\d*(?:e[-+]?\d+)?|nan|inf))(?=\s*(?:,|$))", re.I)


class EstimatorResults:
    """The lines below the heading belong to the evaluation, its step among them."""

    name = "tf.estimator"
    marks = ("Saving dict for global step", "results")

    def __init__(self) -> None:
        self._split: str | None = None  # of the evaluation whose lines are read
        self._step: float | None = None
        self._own_loss = self._saved = False

    @property
    def active(self) -> bool:
        return self._split is not None

    def take(self, line: str, reader: RowReader) -> list[Row] | None:
        if (match := _SAVED.search(line)) is not None:
            self._saved, self._own_loss = True, False
            return self._rows(_VALUE.findall(match[2]), VAL, float(match[1]))
        if (match := _HEADING.search(line)) is not None:
            self._split, self._step, self._own_loss = TEST if match[1].lower() == "test" else VAL, None, False
            return None  # for the others too, a heading
        if self._split is None:
            return None
        found = _VALUE.findall(line)
        if len(found) != 1 or line.count(" = ") != 1:
            self._split, self._saved = None, False
            return None
        return [] if self._saved else self._rows(found, self._split, self._step)  # the same values once more

    def _rows(self, found: list[tuple[str, str]], split: str, step: float | None) -> list[Row]:
        values = {name: float(text) for name, text in found}
        self._step = step = values.pop("global_step", step)
        self._own_loss = self._own_loss or "eval_loss" in values
        if self._own_loss:
            values.pop("loss", None)
        named = {name.removeprefix("eval_").removeprefix("test_"): value for name, value in values.items()}
        if not named:
            return []
        row = Row(evals={split: named})
        row.at.step = step
        return [row]
