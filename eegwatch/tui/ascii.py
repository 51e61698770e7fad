"""Filters the text for the terminal: no control characters, and only ASCII on a terminal without Unicode."""

from __future__ import annotations

import os
import sys

from rich.segment import Segment
from textual.color import Color
from textual.filter import LineFilter

from eegwatch.wording import plain

_STAND_INS = {
    "✔": "v", "✖": "X", "…": ".", "●": "*", "◔": "o", "○": "o", "◆": "#", "▲": "^", "━": "-", "┄": ".", "░": ":",
    "─": "-", "│": "|", "┤": "+", "├": "+", "┼": "+", "└": "+", "┘": "+", "┌": "+", "┐": "+", "╭": "+", "╮": "+",
    "╰": "+", "╯": "+", "┊": ":", "╳": "x", "→": ">", "←": "<", "↑": "^", "↓": "v", "⇧": "^", "–": "-", "—": "-",
    "·": ".", "»": ">", "“": '"', "”": '"', "’": "'", "×": "x", "−": "-", "▎": "|", "▊": "|", "▔": "-", "▁": "_",
    "▂": "_", "▃": "-", "▄": "-", "▅": "=", "▆": "=", "▇": "#", "█": "#", "▌": "|", "▐": "|",
    "\N{REPLACEMENT CHARACTER}": "?", "°": "o", "≥": ">", "≤": "<", "⭘": "O", "▼": "v", "▶": ">", "▸": ">", "◉": "*",
}  # fmt: skip
UPPER, LOWER = 0x01 | 0x02 | 0x08 | 0x10, 0x04 | 0x40 | 0x20 | 0x80  # dots of the upper and lower half of a cell


def _braille(dots: int) -> str:
    """A cell's dots by where they lie: ' above, . below, : both, # full."""
    if dots == 0:
        return " "
    if dots.bit_count() >= 6:
        return "#"
    return ":" if dots & UPPER and dots & LOWER else "'" if dots & UPPER else "."


TABLE = {0x2800 + dots: _braille(dots) for dots in range(256)} | {ord(k): v for k, v in _STAND_INS.items()}


class Ascii(LineFilter):
    """Replaces characters that are not ASCII; one without a replacement becomes a question mark."""

    def apply(self, segments: list[Segment], background: Color) -> list[Segment]:
        return [Segment(to_ascii(text), style, control) for text, style, control in segments]


class Harmless(LineFilter):
    """The last filter before the terminal: removes control characters that were not removed at their source."""

    def apply(self, segments: list[Segment], background: Color) -> list[Segment]:
        if all(text.isprintable() or control for text, _, control in segments):
            return segments
        return [segment if segment.control else Segment(plain(segment.text), segment.style) for segment in segments]


def to_ascii(text: str) -> str:
    """Text of the same number of characters."""
    if text.isascii():
        return text
    return text.translate(TABLE).encode("ascii", "replace").decode()


def needed() -> bool:
    """Whether the terminal cannot show the glyphs: another encoding than UTF-8, or the Linux console's font."""
    encoding = (sys.stdout.encoding or "").lower().replace("-", "")
    return encoding != "utf8" or os.environ.get("TERM") == "linux"
