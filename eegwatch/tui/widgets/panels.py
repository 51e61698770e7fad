"""The verdict at the top, the checklist and the table at the side (or as one line of ticks), the events below."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from rich.text import Text

from eegwatch.diagnosis.checklist import FAIL, PASS, WAIT, WARN, checklist, table
from eegwatch.diagnosis.findings import ERROR, INFO, RATE, WARNING, Finding
from eegwatch.tui.actions import possible
from eegwatch.tui.session import Session
from eegwatch.tui.widgets.lines import Lines
from eegwatch.wording import clock, size

MARK_STYLE = {PASS: "green", FAIL: "bold red", WAIT: "dim", WARN: "yellow", "": ""}
SIGN = {ERROR: ("✖", "bold white on #a01020"), WARNING: ("!", "bold black on #e0a000"), INFO: ("i", "")}
RATE_KEYS = {
    "app.resume": ("m resume on the planned LR curve, or at an LR of yours", "m resume"),
    "app.restart": ("r restart from step 0", "r restart"),
    "app.stop": ("s stop", "s stop"),
    "app.evidence": ("⏎ evidence", "⏎ evidence"),
}


class Verdict(Lines):
    """What is wrong, the worst first: what and since when, why, what to do. Gone when nothing is wrong."""

    DEFAULT_CSS = "Verdict { height: auto; padding: 0 1; max-height: 9; }"

    def show(self, session: Session, *, compact: bool, read_only: bool = False) -> None:
        findings = [f for f in session.diagnosis.findings if f.bad]
        self.display = bool(findings)
        if not findings:
            return
        width = max(20, self.app.size.width - 2)
        lines = self._finding(session, findings[0], compact, read_only)
        others = findings[1:] if compact else findings[1:3]
        if compact and others:
            lines[-1].append(f"   (+{len(others)} more: e)", "dim")
        elif not compact:
            for other in others:
                sign, style = SIGN[other.severity]
                lines.append(Text.assemble((f" {sign} ", style), " ", other.message))
        if compact:
            for line in lines:
                line.truncate(width, overflow="ellipsis")
        self.put(lines)

    def _finding(self, session: Session, finding: Finding, compact: bool, read_only: bool) -> list[Text]:
        sign, style = SIGN[finding.severity]
        headline = finding.headline or finding.message
        if headline.startswith("LR "):  # LR FROZEN: the word that matters, readable without colour
            first, second, rest = headline.split(" ", 2)
            headline = f"{first} {second.upper()} {rest}"
        about = finding.cost.partition(", ")[2] if compact else ": ".join(t for t in (finding.here, finding.cost) if t)
        lines = [Text.assemble((f" {sign} {headline} ", style), f" {about}" if about else "")]
        label = "bold"
        if finding.why:
            lines.append(Text.assemble(("   why  ", label), finding.why))
        if finding.family == RATE:
            code = finding.remedy.split("; ")[0]
            keys = self._keys(session, compact, read_only)
            if keys:
                lines.append(Text.assemble(("   do   ", label), keys))
            if code and (not compact or not keys):
                lines.append(Text.assemble(("   code ", label), code))
        elif finding.remedy and finding.remedy not in headline:
            lines.append(Text.assemble(("   do   ", label), finding.remedy))
        return lines

    def _keys(self, session: Session, compact: bool, read_only: bool) -> str:
        """The keys that help against a wrong learning rate and can work now."""
        able = {action.action for action in possible(session, read_only=read_only)}
        if not able & {"app.resume", "app.restart"}:
            return ""
        return " · ".join(words[compact] for action, words in RATE_KEYS.items() if action in able)


class Checklist(Lines):
    """The mission's questions, answered: one a line in a panel."""

    DEFAULT_CSS = "Checklist { height: auto; border: round $panel; border-title-color: $text; padding: 0 1; }"
    BORDER_TITLE = "checklist"

    def show(self, session: Session) -> None:
        ticks = checklist(session.history, session.diagnosis)
        lines = [Text.assemble((t.mark, MARK_STYLE[t.mark]), f" {t.text}") for t in ticks]
        self.put(lines)


class Ticks(Lines):
    """The same checklist folded into one line, for 80 columns."""

    DEFAULT_CSS = "Ticks { height: auto; max-height: 2; padding: 0 1; }"

    def show(self, session: Session) -> None:
        line = Text()
        for tick in checklist(session.history, session.diagnosis):
            words = tick.text if tick.short == "AUROC" else tick.short
            line.append(f"{tick.mark} ", MARK_STYLE[tick.mark])
            line.append(f"{words}   ")
        self.put([line])


class Panel(Lines):
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


class Figures(Panel):
    """Expected against observed."""

    DEFAULT_CSS = "Figures { height: auto; border: round $panel; border-title-color: $text; padding: 0 1; }"
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
    """Load of the trainer's machine: the newest figure, and the course of the last minutes as a sparkline."""

    DEFAULT_CSS = "System { height: auto; border: round $panel; border-title-color: $text; padding: 0 1; }"
    BORDER_TITLE = "system"

    def lines_of(self, session: Session) -> list[Text]:
        records = session.history.system
        if not records:
            return [Text("no figures yet")]
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
        return lines


BLOCKS = "▁▂▃▄▅▆▇█"


def percent(value: float) -> str:
    return f"{value:.0f} %"


def sparkline(values: list[float], width: int) -> str:
    """The last `width` values as blocks from 0 (or the least, if negative) to the most."""
    shown = values[-width:] if width else []
    low, high = min([0.0, *shown]), max([0.0, *shown])
    scale = (len(BLOCKS) - 1) / (high - low) if high > low else 0.0
    return "".join(BLOCKS[round((v - low) * scale)] for v in shown)


class Events(Lines):
    """What happened, the newest first; the answer to a command of ours stands above all."""

    DEFAULT_CSS = "Events { height: 4; padding: 0 1; }"

    def show(self, session: Session) -> None:
        lines: list[Text] = []
        if session.sent is not None:
            done = session.sent.answer.status if session.sent.answer else ""
            style = {"done": "bold green", "failed": "bold red", "rejected": "bold red", "expired": "bold red"}
            colour = "bold red" if session.sent.differs else style.get(done, "bold yellow")
            lines.append(Text(f"» {session.sent.text()}", colour))
        for event in reversed(session.events[-12:]):
            lines.append(Text.assemble((f"{clock(event.time)} ", "dim"), event.text))
        room = max(1, self.size.height or 4)
        for line in lines:
            line.truncate(max(20, self.size.width - 2), overflow="ellipsis")
        self.put(lines[:room])
