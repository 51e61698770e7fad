"""detectron2's results in its text log: names and values on two lines, both after `copypaste:`.

    copypaste: Task: bbox
    copypaste: AP,AP50,AP75,APs,APm,APl
    copypaste: 3.0706,6.8876,2.2430,0.3698,1.2776,3.5768

Its training lines (`eta: … iter: 19  total_loss: 2.1 … lr: 1.6e-05`) are read by the general reader. Read in
detectron2.evaluation.testing.print_csv_format.
"""

from __future__ import annotations

from eegwatch.formats.numerals import number
from eegwatch.formats.row_reader import RowReader
from eegwatch.formats.rows import Row


class Detectron2:
    """Results of one task; several tasks of one evaluation are told apart by the task's name."""

    name = "detectron2"
    marks = ("copypaste: ",)
    active = False

    def __init__(self) -> None:
        self._task = ""
        self._names: list[str] = []

    def take(self, line: str, reader: RowReader) -> list[Row] | None:
        _, mark, text = line.partition("copypaste: ")
        if not mark:
            return None
        text = text.strip()
        if text.startswith("Task:"):
            self._task, self._names = text[5:].strip(), []
            return []
        cells = text.split(",")
        values = [number(cell) for cell in cells]
        if None in values:
            self._names = cells
            return []
        if len(values) != len(self._names):
            return []
        numbers = {
            f"{self._task}/{name}": value for name, value in zip(self._names, values, strict=True) if value is not None
        }
        return [Row(evals={"val": numbers})]
