"""The saved output of a Jupyter notebook (.ipynb): what its cells printed, read as text; HF's tables of progress too.

transformers' NotebookProgressCallback writes an HTML table, Step | Training Loss | Validation Loss.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from typing import Any

from eegwatch.formats.files import FollowedJson
from eegwatch.formats.lines import LINE_KINDS
from eegwatch.formats.log_kind import FileHead, LogKind
from eegwatch.formats.numerals import number
from eegwatch.formats.row_reader import RowReader
from eegwatch.formats.rows import RowMaker
from eegwatch.formats.text import TextDecoder
from eegwatch.run.records import RunRecord

_TABLE = re.compile(r"<table[^>]*>(.*?)</table>", re.DOTALL | re.IGNORECASE)
_ROW = re.compile(r"<tr[^>]*>(.*?)</tr>", re.DOTALL | re.IGNORECASE)
_CELL = re.compile(r"<t[hd][^>]*>(.*?)</t[hd]>", re.DOTALL | re.IGNORECASE)
_TAG = re.compile(r"<[^>]+>")


class Notebook(FollowedJson):
    """All outputs of the notebook, in the order of its cells."""

    written_again = "saved anew"

    def records_of(self, document: Any, written: float) -> list[RunRecord]:
        reader = RowReader(self.path.stem)
        decoder = TextDecoder(reader, lambda: written, self.patterns, [make() for make in LINE_KINDS])
        records: list[RunRecord] = []
        for output in outputs(document):
            if isinstance(output, list):
                maker = RowMaker()
                for names, cells in output:
                    pairs = ((name, number(cell)) for name, cell in zip(names, cells, strict=False))
                    row = maker.row((name, value, None) for name, value in pairs if value is not None)
                    records += reader.add(row, written)
            else:
                records += decoder.decode(output.encode())
        records += decoder.drain()
        return records + reader.flush()


def outputs(document: Any) -> Iterator[str | list[tuple[list[str], list[str]]]]:
    """The printed text of each cell, and the tables in its HTML as (names, cells) per row."""
    cells = document.get("cells") if isinstance(document, dict) else None
    if cells is None and isinstance(document, dict):  # format 3
        cells = [cell for sheet in document.get("worksheets") or [] for cell in sheet.get("cells") or []]
    for cell in cells if isinstance(cells, list) else []:
        for output in (cell.get("outputs") or []) if isinstance(cell, dict) else []:
            if not isinstance(output, dict):
                continue
            data = output.get("data") if isinstance(output.get("data"), dict) else {}
            page = _joined(data.get("text/html")) if data else ""
            tables = _tables(page) if "<table" in page else []
            if tables:
                yield tables
            elif text := _joined(output.get("text")) or _joined(data.get("text/plain") if data else None):
                yield text + "\n"


def _joined(text: Any) -> str:
    if isinstance(text, list):
        return "".join(part for part in text if isinstance(part, str))
    return text if isinstance(text, str) else ""


def _tables(page: str) -> list[tuple[list[str], list[str]]]:
    rows: list[tuple[list[str], list[str]]] = []
    for table in _TABLE.findall(page):
        lines = [
            [html.unescape(_TAG.sub("", cell)).strip() for cell in _CELL.findall(row)] for row in _ROW.findall(table)
        ]
        if lines and any("loss" in name.lower() for name in lines[0]):
            rows += [(lines[0], cells) for cells in lines[1:] if len(cells) == len(lines[0])]
    return rows


def _fits(head: FileHead) -> bool:
    return head.name.endswith(".ipynb")


KIND = LogKind("notebook output", "*.ipynb", 1, _fits, Notebook)
