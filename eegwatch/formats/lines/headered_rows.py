"""Rows of numbers under a printed line of column names: what the line kinds of such tables share."""

from __future__ import annotations

from eegwatch.formats.rows import RowMaker


class HeaderedRows:
    """The names of the header that was read last; a table is active from its header on."""

    def __init__(self) -> None:
        self._names: list[str] = []
        self._maker = RowMaker()

    @property
    def active(self) -> bool:
        return bool(self._names)
