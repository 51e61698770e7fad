"""A finding opened: the records around its onset, the expected curve, and what each cause predicts drawn over them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from rich.console import Console
from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Vertical, VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Static

from eegwatch.charts.expected import sampled
from eegwatch.charts.kinds.learning_rate import lr_chart
from eegwatch.charts.kinds.loss import loss_chart
from eegwatch.charts.model import MORE, PAST, ChartData, ChartStyle, Series
from eegwatch.charts.view import View
from eegwatch.diagnosis.findings import CONFIG, RATE, Finding
from eegwatch.diagnosis.rate.causes import Hypothesis
from eegwatch.tui.session import Session
from eegwatch.tui.widgets.chart import TITLE_FRAME, Chart
from eegwatch.wording import fitting

AROUND = 200  # steps at least: a window of fewer shows no shape
OUT_SHOWN = 2  # causes that a record refuted, drawn faintly: the last to fall


class EvidenceScreen(ModalScreen[View | None]):
    """One finding at a time; n and N go through them, g goes to its place in the charts."""

    BINDINGS = [
        Binding("escape,q,enter", "close", "close"),
        Binding("n,down,j", "next(1)", "next finding"),
        Binding("N,up,k", "next(-1)", "finding before"),
        Binding("y", "toggle_log", "log/linear"),
        Binding("plus,equals_sign", "zoom(2.0)", "closer"),
        Binding("minus", "zoom(0.5)", "farther"),
        Binding("g", "go", "show it in the charts"),
    ]
    DEFAULT_CSS = """
    EvidenceScreen { align: center middle; }
    EvidenceScreen > Vertical { width: 100%; height: 100%; border: round $accent; background: $surface; padding: 0 1; }
    EvidenceScreen Chart { height: 3fr; border: none; border-top: solid $panel; }
    EvidenceScreen VerticalScroll { height: 2fr; scrollbar-gutter: stable; }
    EvidenceScreen Static { height: auto; }
    """

    def __init__(self, session: Session) -> None:
        super().__init__()
        self.session, self.at, self.logarithmic, self.factor = session, 0, True, 1.0
        self.chart, self.text = Chart(), Static()

    def compose(self) -> ComposeResult:
        with Vertical():
            yield self.chart
            with VerticalScroll():
                yield self.text

    def on_mount(self) -> None:
        self.call_after_refresh(self.show_finding)
        self.set_interval(1.0, self.show_finding)  # the run goes on

    def on_resize(self) -> None:
        keys = ["Esc close", "n next finding", "g show in the charts", "y log/linear", "+ - closer, farther"]
        self.query_one(Vertical).border_subtitle = fitting(keys, self.app.size.width - TITLE_FRAME, "   ")

    @property
    def findings(self) -> list[Finding]:
        return self.session.diagnosis.findings

    def show_finding(self) -> None:
        findings = self.findings
        box = self.query_one(Vertical)
        if not findings:
            box.border_title = "nothing is wrong any more"
            return
        self.at %= len(findings)
        finding = findings[self.at]
        box.border_title = f"finding {self.at + 1} of {len(findings)}: {finding.rule}"
        self.chart.border_title, data = self._chart_data(finding)
        self.chart.show(data)
        text = evidence_text(self.session, finding, self._causes(finding))
        self.text.update(hanging(text, self.app.console, self.text.content_size.width))

    def window(self, finding: Finding) -> View:
        """From before its onset to where the remaining causes part, or to the newest step."""
        separates_at = finding.cause.separates_at if finding.cause else None
        span = max(AROUND, ((separates_at or self.session.history.step_done) - finding.since_step) * 1.15) / self.factor
        return View().around(max(0.0, finding.since_step - 0.15 * span), finding.since_step + span)

    def _causes(self, finding: Finding) -> list[tuple[str, Hypothesis]]:
        """(label, hypothesis) of each that is left, likeliest first, then of the last to be refuted."""
        lr = self.session.diagnosis.lr
        if lr is None or lr.fault is None or finding.rule != lr.fault.rule:
            return []
        named: dict[str, Hypothesis] = {}
        for hypothesis in lr.fault.alive:
            named.setdefault(hypothesis.name, hypothesis)
        alive = list(named.values())[: len(MORE)]
        out = sorted((h for h in lr.fault.hypotheses if h.killed_at), key=lambda h: -(h.killed_at or 0))
        out = [h for h in out if h.name not in named][:OUT_SHOWN]
        return list(zip("abcdefg", [*alive, *out], strict=False))

    def _chart_data(self, finding: Finding) -> tuple[str, ChartData]:
        history, view = self.session.history, self.window(finding)
        style = ChartStyle(view, frozenset({"lr", "loss"}) if self.logarithmic else frozenset())
        if finding.family not in (RATE, CONFIG):
            return f"loss around step {finding.since_step:,}", loss_chart(history, replace(style, log=frozenset()))
        data = lr_chart(history, style)
        steps = sampled(*view.window(history))
        causes = self._causes(finding)
        colours = iter(MORE)
        for label, cause in causes:
            colour = next(colours, PAST) if cause.alive else PAST
            rates = np.asarray(cause.rate(steps), np.float64)
            # what a refuted cause predicts may lie anywhere: it has no say in the range
            data.series.insert(0, Series(steps, rates, "line", colour, label, aside=not cause.alive))
        data.rules.append((float(finding.since_step), "since"))
        names = [
            f"{label} {cause.name}" for label, cause in causes if cause.alive
        ]  # the others, and their words: below
        return fitting(["learning rate", "━ observed", "┄ expected", *names], self.chart.title_width), data

    def action_next(self, by: int) -> None:
        self.at += by
        self.show_finding()

    def action_toggle_log(self) -> None:
        self.logarithmic = not self.logarithmic
        self.show_finding()

    def action_zoom(self, factor: float) -> None:
        self.factor = min(max(self.factor * factor, 1 / 64), 64.0)
        self.show_finding()

    def action_go(self) -> None:
        findings = self.findings
        self.dismiss(place_of(self.session, findings[self.at % len(findings)]) if findings else None)

    def action_close(self) -> None:
        self.dismiss(None)


def hanging(text: Text, console: Console, width: int) -> Text:
    """The text with what wraps of a line set below its words: three cells in, beside the letter of a cause."""
    lines: list[Text] = []
    for line in text.split("\n", allow_blank=True):
        if line.cell_len <= width or width < 20 or line.plain[1:3] != "  ":
            lines.append(line)
            continue
        head, rest = line[:3], line[3:]
        first, *more = rest.wrap(console, width - 3)
        lines += [Text.assemble(head, first), *(Text.assemble("   ", part) for part in more)]
    return Text("\n").join(lines)


def place_of(session: Session, finding: Finding) -> View:
    """A finding's place in the charts: its onset under the cursor, and what led to it."""
    width = max(AROUND, session.history.step_done // 50)
    view = View().around(max(0, finding.since_step - width), finding.since_step + width)
    return replace(view, cursor=view.pointed(session.history, finding.since_step).cursor)


def evidence_text(session: Session, finding: Finding, causes: list[tuple[str, Hypothesis]]) -> Text:
    """The finding in full: the numbers behind it, each cause and the record that refuted it, what will decide."""
    labels = {cause.name: label for label, cause in causes}
    text = Text()
    text.append(f"{finding.message}\n", "bold")
    cause = finding.cause
    if cause is not None:
        text.append(f"\n{labels.get(cause.name, ' ')}  {cause.name}: {cause.evidence}\n")
        says = {h.name: h.says for _, h in causes}
        for name in cause.alternatives:
            text.append(f"{labels.get(name, ' ')}  or {name}: {says.get(name, '')}\n")
        if cause.separates_at:
            text.append(f"   step {cause.separates_at:,} will decide between them\n")
        refuted = {name: at for name, at in cause.killed.items() if name != "unknown"}
        for name, at in sorted(refuted.items(), key=lambda item: -item[1]):
            text.append(f"{labels.get(name, ' ')}  ruled out by step {at:,}: {says.get(name, name)}\n", "dim")
    if finding.remedy:
        text.append(f"\n   remedy  {finding.remedy}\n")
    lr = session.diagnosis.lr
    if lr is not None and causes:
        newest = session.history.step[-5:]
        text.append("\n   step      observed        expected\n", "dim")
        for step, seen in zip(newest, session.history.lr[-5:], strict=True):
            text.append(f"{step:>9,}   {seen:.10g}   {float(lr.situation.expected(int(step))):.10g}\n")
    return text
