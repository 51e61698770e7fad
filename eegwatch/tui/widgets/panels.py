"""The checklist and the table at the side (or as one line of ticks), the load of the machine, the events."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from rich.text import Text

from eegwatch.diagnosis.checklist import FAIL, PASS, WAIT, WARN, Tick, checklist, table
from eegwatch.tui.session import Session
from eegwatch.tui.widgets.lines import TextLines, hanging, whole_words
from eegwatch.wording import clock, significant, size

EVENT_INDENT = 2  # cells by which the second row of an event is set in
NOT_YET = 10_000  # cells: before a panel has its size, lines are left whole and wrapped by the layout
MARK_STYLE = {PASS: "green", FAIL: "bold red", WAIT: "dim", WARN: "yellow", "": ""}


class Panel(TextLines):
    """Lines that fill the width at hand: made anew when that changes, by a scrollbar for instance."""

    session: Session | None = None

    def show(self, session: Session) -> None:
        self.session = session
        self.put(self.lines_of(session))

    def on_resize(self) -> None:
        if self.session is not None:
            self.show(self.session)

    def lines_of(self, session: Session) -> list[Text]:
        raise NotImplementedError


class Checklist(Panel):
    """The mission's questions, answered: one a line in a panel."""

    DEFAULT_CSS = "Checklist { height: auto; border: round $panel; border-title-color: $text; padding: 0 1; }"
    BORDER_TITLE = "checklist"

    def lines_of(self, session: Session) -> list[Text]:
        width = max(10, self.content_size.width - 2) if self.content_size.width else NOT_YET
        lines = []
        for tick in checklist(session.history, session.diagnosis):
            first, *more = Text(tick.text).wrap(self.app.console, width)
            lines.append(Text.assemble((tick.mark, MARK_STYLE[tick.mark]), " ", first))
            lines += [Text.assemble("  ", line) for line in more]  # under the words, not under the mark
        return lines


class Ticks(TextLines):
    """The same checklist folded into one line, for 80 columns."""

    DEFAULT_CSS = "Ticks { height: auto; max-height: 2; padding: 0 1; }"

    def show(self, session: Session) -> None:
        ticks = checklist(session.history, session.diagnosis)
        line = self._line(ticks, score=True)
        if line.cell_len > self.app.size.width - 2:  # a second row is the chart's
            line = self._line(ticks, score=False)
        self.put([line])

    def _line(self, ticks: list[Tick], *, score: bool) -> Text:
        """`score`: with the figures of the AUROC."""
        line = Text()
        for tick in ticks:
            words = tick.text if score and tick.short == "AUROC" else tick.short
            line.append(f"{tick.mark} ", MARK_STYLE[tick.mark])
            line.append(f"{words}   ")
        line.rstrip()
        return line


class ExpectedTable(Panel):
    """Expected against observed."""

    DEFAULT_CSS = "ExpectedTable { height: auto; border: round $panel; border-title-color: $text; padding: 0 1; }"
    BORDER_TITLE = "expected / observed"

    def lines_of(self, session: Session) -> list[Text]:
        rows = table(session.history, session.diagnosis)
        widths = [max(len(getattr(row, name)) for row in rows) for name in ("metric", "expected", "observed")]
        room = max(0, self.content_size.width - sum(widths) - 4)
        lines = []
        for row in rows:
            head = f"{row.metric:<{widths[0] + room // 2}} {row.expected:>{widths[1]}}"
            line = Text(f"{head} {row.observed:>{widths[2] + room - room // 2}} ", no_wrap=True)
            lines.append(line.append(row.mark, MARK_STYLE[row.mark]))
        return lines


class System(Panel):
    """Load of the trainer's machine: the newest figure, and the course of the last minutes as a sparkline.

    Below it stands what the watcher of silent errors takes of a step's time, where one is at work.
    """

    DEFAULT_CSS = "System { height: auto; border: round $panel; border-title-color: $text; padding: 0 1; }"
    BORDER_TITLE = "system"

    def show(self, session: Session) -> None:
        super().show(session)
        self.display = bool(session.history.system) or "share" in session.diagnosis.silent.cost

    def lines_of(self, session: Session) -> list[Text]:
        records = session.history.system
        silent, cost = session.diagnosis.silent, session.diagnosis.silent.cost
        watching = []
        if "share" in cost:
            looks = f"{significant(cost['per_1000'])} looks/1,000 steps"
            detail = f"in {int(cost['steps']):,} steps so far" if silent.settling else looks
            watching = [
                Text(f"watcher {100 * cost['share']:.1f} %".ljust(16) + detail, no_wrap=True, overflow="ellipsis")
            ]
        if not records:
            return watching
        newest = records[-1]
        figures: list[tuple[str, Sequence[float | None], Callable[[float], str]]] = [
            ("cpu", [r.cpu_percent for r in records], percent),
            ("rss", [r.rss_bytes for r in records], size),
        ]
        for i in range(len(newest.gpu)):
            each = [r.gpu[i] if i < len(r.gpu) else {} for r in records]
            figures.append((f"gpu{i}", [g.get("util_percent") for g in each], percent))
            figures.append((f"gpu{i} mem", [g.get("memory_bytes") for g in each], size))
            figures.append((f"gpu{i} °C", [g.get("temperature_c") for g in each], "{:.0f}".format))
        lines = []
        for name, values, say in figures:
            known = [float(v) for v in values if v is not None]
            if known:
                head = f"{name} {say(known[-1])}  ".ljust(16)
                room = max(0, self.content_size.width - len(head))
                lines.append(Text.assemble(head, (sparkline(known, room), "cyan"), no_wrap=True))
        return lines + watching


BLOCKS = "▁▂▃▄▅▆▇█"


def percent(value: float) -> str:
    return f"{value:.0f} %"


def sparkline(values: list[float], width: int) -> str:
    """The last `width` values as blocks from 0 (or the least, if negative) to the most."""
    shown = values[-width:] if width else []
    low, high = min([0.0, *shown]), max([0.0, *shown])
    scale = (len(BLOCKS) - 1) / (high - low) if high > low else 0.0
    return "".join(BLOCKS[round((v - low) * scale)] for v in shown)


class Events(TextLines):
    """What happened, the newest first; the answer to a command of ours stands above all, for a while."""

    DEFAULT_CSS = "Events { height: 4; padding: 0 1; }"
    BORDER_TITLE = "events"

    def show(self, session: Session) -> None:
        lines: list[Text] = []
        sent = session.sent
        if sent is not None and not sent.faded(time.time()):
            done = sent.answer.status if sent.answer else ""
            style = {"done": "bold green", "failed": "bold red", "rejected": "bold red", "expired": "bold red"}
            colour = "bold red" if sent.differs else style.get(done, "bold yellow")
            lines.append(Text(f"» {sent.text()}", colour))
        room = max(1, self.content_size.height or 4)
        above = sent.id if lines and sent is not None else None
        for event in session.newest_events(room + 1):
            if event.command is not None and event.command == above:
                continue  # it stands above already
            lines.append(Text.assemble((f"{clock(event.time)} ", "dim"), event.text))
        width = max(20, self.content_size.width)
        if self.has_class("aside"):  # there a long one may take several lines
            lines = [row for line in lines for row in hanging(line, self.app.console, width, EVENT_INDENT)]
        else:
            lines = [whole_words(line, width) for line in lines]
        self.put(lines[:room])
