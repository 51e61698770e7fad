"""The first picture of a long run, before the framework of the screen is loaded: name, learning rate, loss.

Textual takes half a second to import. A log with a side file of up to two million steps is read in a fraction of that,
every record of it; of another long one its skeleton (`run.skeleton`) comes first, and up to some three million records,
or what its side file has, all of them next. The charts are drawn in the places where the application, which goes on
with what was read, draws them again when it takes over. The terminal is set raw first: keys that are typed meanwhile
neither echo nor vanish, the application reads them.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from eegwatch.run.history import History
    from eegwatch.run.opening import OpenedLog

PLAIN_WORDS = ("watch", "--read-only")  # with other options the application begins by itself
HOME, TO_END = "\x1b[H", "\x1b[K"
ENTER, LEAVE = "\x1b[?1049h\x1b[?25l\x1b[H\x1b[2J", "\x1b[?25h\x1b[?1049l"
RESET = "\x1b[0m"
COLOURS = {"observed": (0x56, 0xB4, 0xE9), "expected": (0xE6, 0x9F, 0x00), "band": (0x2B, 0x58, 0x76),
           "mark": (0xF0, 0xE4, 0x42), "past": (0x8F, 0x7F, 0x9F), "axis": (0xA0, 0xA0, 0xA0),
           "phase": (0xA0, 0xA0, 0xA0)}  # fmt: skip
_state = {"taken over": False}


def hand_over() -> None:
    """The application draws from now on, and leaves the alternate screen itself."""
    _state["taken over"] = True


@contextmanager
def first_frame(words: Sequence[str]) -> Iterator[None]:
    """Draw the first frame where `eegwatch WORDS` watches a long run in a terminal, and restore the terminal after."""
    if not _interactive(words):
        yield
        return
    import termios

    keyboard = sys.stdin.fileno()
    before = termios.tcgetattr(keyboard)
    raw = termios.tcgetattr(keyboard)
    raw[0] &= ~termios.ICRNL  # Enter as the application reads it
    raw[3] &= ~(termios.ECHO | termios.ICANON)  # Ctrl-C still ends the start
    termios.tcsetattr(keyboard, termios.TCSANOW, raw)
    drawn = False
    try:
        folder = _run_to_draw(words)
        for lines in _frames(folder, *os.get_terminal_size()) if folder is not None else ():
            sys.stdout.write((HOME if drawn else ENTER) + f"{TO_END}\r\n".join(lines) + RESET)
            sys.stdout.flush()
            drawn = True
        yield
    finally:
        if drawn and not _state["taken over"]:
            sys.stdout.write(LEAVE)
            sys.stdout.flush()
        termios.tcsetattr(keyboard, termios.TCSADRAIN, before)


def _paths(words: Sequence[str]) -> list[str]:
    return [word for word in words if word not in PLAIN_WORDS]


def _interactive(words: Sequence[str]) -> bool:
    """Do these words open the screen, by nothing but a path, in a terminal?"""
    paths = _paths(words)
    if len(paths) > 1 or any(word.startswith("-") for word in paths) or "TEXTUAL_DRIVER" in os.environ:
        return False
    from eegwatch.commands import COMMANDS

    if paths and paths[0] in COMMANDS:
        return False
    return sys.stdin.isatty() and sys.stdout.isatty()


def _run_to_draw(words: Sequence[str]) -> Path | None:
    """The run of ours that these words watch, where the terminal has colours and Unicode."""
    if "NO_COLOR" in os.environ or os.environ.get("TERM") == "linux":
        return None
    if (sys.stdout.encoding or "").lower().replace("-", "") != "utf8":
        return None
    paths = _paths(words)
    from eegwatch.run.folder import RUN_LOG, newest_run

    given = Path(paths[0] if paths else os.environ.get("EEGWATCH_LOGS") or "logs")
    folder = given if (given / RUN_LOG).is_file() else given.parent if given.name == RUN_LOG else None
    try:
        return folder or newest_run(given)
    except OSError:  # the command says what is wrong with the path
        return None


def _frames(folder: Path, width: int, height: int) -> Iterator[list[str]]:
    """The frame as lines with colours; once more where every record of it is read soon after.

    None for a short log, or a size at which the application draws otherwise.
    """
    from eegwatch.run.opening import keep

    if width < 60 or height < 20:
        return
    log = keep(folder)
    if log is None:
        return
    for _ in range(1 + log.soon):
        history = log.sketch or log.history
        if history.length:
            yield _lines(folder, history, width, height, _what_goes_on(log))
        if log.soon:
            log.read_on()


def _lines(folder: Path, history: History, width: int, height: int, goes_on: str) -> list[str]:
    from eegwatch.charts.kinds.learning_rate import lr_chart
    from eegwatch.charts.kinds.loss import LOSS
    from eegwatch.charts.model import ChartStyle
    from eegwatch.charts.plot import plot

    style = ChartStyle()
    chart_width, chart_height, beside, aside = _place(history, width, height)
    lr = [_coloured(row) for row in plot(lr_chart(history, style), chart_width, chart_height)]
    loss = [_coloured(row) for row in plot(LOSS.draw(history, style), chart_width, chart_height)]
    lines = _head(folder, history, width, goes_on)
    if beside:
        gap = " " * (2 * aside)
        return [*lines, "", *(f"{' ' * aside}{a}{gap}{b}" for a, b in zip(lr, loss, strict=True))][:height]
    return [*lines, "", *(" " * aside + a for a in lr), *[""] * (1 + aside), *(" " * aside + b for b in loss)][:height]


def _place(history: History, width: int, height: int) -> tuple[int, int, bool, int]:
    """(columns and rows of one chart, whether the two stand side by side, cells of a border) as in the application."""
    roomy = width >= 110 and height >= 30
    room = width - 44 if roomy else width  # the panels at the side
    columns = max(1, room // 70)
    border = 1 if roomy else 0
    events = 0 if height >= 55 and roomy else (5 if height >= 40 else 3) if roomy else 2 if height >= 22 else 1
    rows_left = height - 2 - events - 1 - (0 if roomy else 2) - (8 if height >= 55 else 0)
    rows = max(1, (rows_left + 2) // 12) if columns > 1 else 2
    rows = min(rows, 3) if columns > 1 else rows  # a log has some five charts
    top = 1
    return room // columns - 2 * border, rows_left // rows - top - border, columns > 1, border


def _what_goes_on(log: OpenedLog) -> str:
    """The verdict where it is known, else what is being done."""
    return log.verdict or ("checking it …" if log.complete else "reading the log …")


def _head(folder: Path, history: History, width: int, goes_on: str) -> list[str]:
    """The two lines of the status, as far as what was read knows."""
    from eegwatch.wording import plain, rate

    run, step = history.run, history.step_done
    of = run.total_steps if run is not None else None
    total = f" / {of:,}  {100 * step / of:5.1f} %" if of else ""
    lr = f"   LR {rate(float(history.lr[-1]))}" if history.length else ""
    status = f" step {step:,}{total}{lr}   {plain(goes_on)}"
    return [f" \x1b[1m{plain(folder.name)[: width - 2]}{RESET}", status[: width - 1]]


def _coloured(row: list[tuple[str, str]]) -> str:
    parts = []
    for text, name in row:
        colour = COLOURS.get(name)
        parts.append(f"\x1b[38;2;{colour[0]};{colour[1]};{colour[2]}m{text}" if colour else f"{RESET}{text}")
    return "".join(parts) + RESET
