"""Lines of text that are painted again only when they changed, and laid out again only when their number did."""

from __future__ import annotations

from rich.text import Text
from textual.widgets import Static


class TextLines(Static):
    """The base of every text on the screen that is shown anew ten times a second."""

    def __init__(self) -> None:
        super().__init__()
        self._put: list[Text] | None = None
        self._rows = -1

    def put(self, lines: list[Text]) -> None:
        """Show these. A layout costs more than the rest of a frame: it is asked for only if the height moves."""
        if lines == self._put:
            return
        self._put = lines
        width = self.content_size.width
        rows = sum(1 if line.cell_len <= width else len(line.wrap(self.app.console, max(width, 1))) for line in lines)
        self.update(Text("\n").join(lines), layout=rows != self._rows or not width)
        self._rows = rows
