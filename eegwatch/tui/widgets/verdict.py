"""The top of the screen: what happened to the run, what is wrong, why, what to press. Gone when all is well."""

from __future__ import annotations

from rich.text import Text

from eegwatch.diagnosis.findings import ERROR, INFO, RATE, WARNING, Finding
from eegwatch.tui.actions import possible
from eegwatch.tui.banner import Notice, consequence, headline, notice
from eegwatch.tui.session import Session
from eegwatch.tui.widgets.lines import TextLines, whole_words
from eegwatch.wording import fitting

SIGN = {ERROR: ("✖", "bold white on #a01020"), WARNING: ("!", "bold black on #e0a000"), INFO: ("i", "")}
NOTICE = {"error": ("✖", "bold white on #a01020"), "warning": ("!", "bold black on #e0a000"),
          "good": ("✔", "bold white on #1b6f3b")}  # fmt: skip
RATE_KEYS = {
    "app.resume": ("m resume on the planned LR curve, or at an LR of yours", "m resume"),
    "app.restart": ("r restart from step 0", "r restart"),
    "app.stop": ("s stop", "s stop"),
    "app.evidence": ("⏎ evidence", "⏎ evidence"),
}
LABEL = "bold"
INDENT, LABELLED = 4, 8  # cells before the words of a notice, and of a line with a label
MOST_FINDINGS = 3  # on a roomy screen; the others are counted


class Verdict(TextLines):
    """A notice, and the findings, the worst first."""

    DEFAULT_CSS = "Verdict { height: auto; padding: 0 1; max-height: 9; }"

    def show(self, session: Session, *, compact: bool, tight: bool = False, read_only: bool = False) -> None:
        """`compact`: one finding, short words. `tight`: what, why and the keys; the chart keeps its rows."""
        findings = [f for f in session.diagnosis.findings if f.bad]
        current = notice(session, read_only=read_only)
        self.display = bool(findings) or current is not None
        if not self.display:
            return
        width = max(20, self.app.size.width - 2)
        lines = self._notice(current, width, tight=tight, alone=not findings) if current is not None else []
        notice_rows = len(lines)
        if findings:
            room = not tight or current is None or current.kind != "error"  # what helps against an error stands first
            lines += self._finding(session, findings[0], compact, tight, read_only)[: None if room else 1]
            if compact:
                more = len(findings) - 1
            else:
                for other in findings[1:MOST_FINDINGS]:
                    sign, style = SIGN[other.severity]
                    lines.append(Text.assemble((f" {sign} ", style), " ", other.headline or other.message))
                more = len(findings) - MOST_FINDINGS
            if more > 0:
                lines[-1].append(f"   (+{more} more: e)", "dim")
        if compact:
            lines[notice_rows:] = [whole_words(line, width) for line in lines[notice_rows:]]
        self.put(lines)

    def _notice(self, current: Notice, width: int, *, tight: bool, alone: bool) -> list[Text]:
        """`alone`: no finding stands below it. What is too long takes a second row: a command that is cut is none."""
        sign, style = NOTICE[current.kind]
        text = fitting([current.text, *current.parts], width - INDENT, " · ")
        lines = self._wrapped(Text.assemble((f" {sign} ", style), " "), Text(text, "bold"), width, 1 if tight else 2)
        if current.more and not tight:
            more = current.more if len(current.more) + INDENT <= width else current.shorter_more
            lines += self._wrapped(Text(" " * INDENT), Text(more), width, 1)
        fits = len(current.do) + LABELLED <= width
        shorter = current.shorter_do and not fits and (tight or current.kind == "good")
        do = current.shorter_do if shorter else current.do
        if do and (alone or not tight or current.kind == "error"):
            lines += self._wrapped(Text("   do   ", LABEL), Text(do), width, 1 if tight else 3)
        return lines

    def _wrapped(self, head: Text, text: Text, width: int, most: int) -> list[Text]:
        """Text after a head, wrapped below itself into `most` rows; the last is cut where that is not enough."""
        rows = list(text.wrap(self.app.console, max(20, width - head.cell_len)))
        if len(rows) > most:
            rows = [*rows[: most - 1], Text(" ").join(rows[most - 1 :])]
            rows[-1] = whole_words(rows[-1], max(20, width - head.cell_len))
        return [Text.assemble(head if i == 0 else " " * head.cell_len, row) for i, row in enumerate(rows)]

    def _finding(self, session: Session, finding: Finding, compact: bool, tight: bool, read_only: bool) -> list[Text]:
        sign, style = SIGN[finding.severity]
        what = Text.assemble((f" {sign} {headline(finding)} ", style))
        bad = consequence(session, finding, short=compact)
        if len(bad) + 3 > self.app.size.width - 2:
            bad = consequence(session, finding, short=True)
        lines = [what]
        if bad and not compact and what.cell_len + len(bad) + 4 < self.app.size.width:
            what.append(f" {bad}")
        elif bad and not tight:
            lines.append(Text(f"   {bad}"))
        if finding.why:
            lines += self._why(finding.why, tight=tight)
        keys = self._keys(session, compact, read_only) if finding.family == RATE else ""
        code = finding.remedy.split("; ")[0]
        if keys:
            lines.append(Text.assemble(("   do   ", LABEL), keys))
        if code and code not in headline(finding) and not (keys and compact) and not tight:
            lines.append(Text.assemble(("   code " if finding.family == RATE else "   do   ", LABEL), code))
        return lines

    def _why(self, why: str, *, tight: bool) -> list[Text]:
        """In as many rows as it takes, two at most, the second below the first; in one where every row counts."""
        head = Text("   why  ", LABEL)
        first, *more = Text(why).wrap(self.app.console, max(20, self.app.size.width - 2 - len(head)))
        if tight or not more:
            return [Text.assemble(head, why)]
        return [Text.assemble(head, first), Text.assemble(" " * len(head), Text(" ").join(more))]

    def _keys(self, session: Session, compact: bool, read_only: bool) -> str:
        """The keys that help against a wrong learning rate and can work now."""
        able = {action.action for action in possible(session, read_only=read_only)}
        if not able & {"app.resume", "app.restart"}:
            return ""
        return " · ".join(words[compact] for action, words in RATE_KEYS.items() if action in able)
