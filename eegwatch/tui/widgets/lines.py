"""Lines of text that are painted again only when they changed, and laid out again only when their number did."""

from __future__ import annotations

from rich.console import Console
from rich.text import Text
from textual.widgets import Static


def hanging(line: Text, console: Console, width: int, indent: int) -> list[Text]:
    """A line as rows of at most `width` cells: those after the first stand below its words, not below its head."""
    if line.cell_len <= width or width < indent + 12:
        return [line]
    head, rest = line[:indent], line[indent:]
    first, *more = rest.wrap(console, width - indent)
    return [Text.assemble(head, first), *(Text.assemble(" " * indent, row) for row in more)]


def whole_words(line: Text, width: int) -> Text:
    """A line that is too long, cut behind a word: a word that is cut is read as another one."""
    if line.cell_len <= width:
        return line
    kept = line.plain[: max(1, width - 1)]
    at = kept.rfind(" ")
    if at <= width // 2:
        return Text.assemble(line[: len(kept) - 1], "…")  # one long word, a path
    shown = line[: len(kept[:at].rstrip())]
    return Text.assemble(shown, " …")


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
