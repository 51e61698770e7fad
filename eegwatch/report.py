"""`eegwatch report`: one self-contained page on a run, the verdict first; its pictures are SVG by matplotlib.

Every text that comes from a log is escaped: nothing in it is markup. The charts are those of the screen.
"""

from __future__ import annotations

import html
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from urllib.parse import quote

import numpy as np

from eegwatch import __version__
from eegwatch.charts import figure
from eegwatch.charts.kinds import kinds
from eegwatch.charts.kinds.learning_rate import lr_chart
from eegwatch.charts.model import ChartData, ChartStyle
from eegwatch.check import TOLD_OF_A_RULE, CheckedRun, in_shell_words
from eegwatch.diagnosis.checklist import checklist, loss_band, table, val_auroc
from eegwatch.diagnosis.findings import RATE, Finding
from eegwatch.run.folder import CONFIG, write_whole
from eegwatch.run.history import History
from eegwatch.run.notes import note_of
from eegwatch.run.results import evaluation_tables
from eegwatch.run.yaml_file import without_secrets
from eegwatch.wording import UserError, clock, plain

TITLES = {"lr": "learning rate", "loss": "loss", "residual": "learning rate against expected, %", "auroc": "AUROC"}
ATTEMPTS = ("attempt", "from step", "begun", "learning rate", "command")
PICTURE = (520, 320)  # pixels: shown at 360 of a phone and at 720 of a desk, the words in it are read
CSS = """
:root { color-scheme: light; }
body { font: 16px/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 960px; padding: 1rem; color: #1a1a1a; }
h1 { font-size: 1.3rem; } h2 { font-size: 1.1rem; margin-top: 2rem; }
.verdict { border-left: .5rem solid; padding: .6rem 1rem; border-radius: .2rem; }
.error { border-color: #b00020; background: #fdecee; } .warning { border-color: #c77700; background: #fff6e5; }
.info { border-color: #446; background: #eef; } .good { border-color: #1b7f3b; background: #eaf7ee; }
table { border-collapse: collapse; width: 100%; }
td, th { padding: .25rem .4rem; text-align: left; border-bottom: 1px solid #ddd; } th.n { text-align: right; }
td.n { text-align: right; font-variant-numeric: tabular-nums; }
figure { margin: 0; } svg { width: 100%; max-width: 720px; height: auto; }
pre { overflow-x: auto; background: #f6f6f6; padding: .8rem; font-size: .8rem; }
dt { font-weight: 600; } dd { margin: 0 0 .4rem 1rem; overflow-wrap: anywhere; } li { overflow-wrap: anywhere; }
@media print { body { max-width: none; } h2 { break-after: avoid; }
 svg { break-inside: avoid; max-width: 480px; } }
"""


class ReportError(UserError):
    """The page cannot be made: what is missing, or what to write instead."""


def write_report(run: CheckedRun, target: Path) -> None:
    """Write the page for a run read to its end. Raises ReportError for another ending, or without matplotlib."""
    if target.suffix not in (".html", ".md"):
        raise ReportError(f"{target}: write it as .html or .md")
    pictures = _pictures(run.history, run.diagnosis.findings)
    if target.suffix == ".html":
        page = _html(run, pictures)
    else:  # sites that show Markdown show no data: address: the pictures are files beside it
        beside = {title: _beside(target, title) for title in pictures}
        for title, path in beside.items():
            _replace(path, pictures[title])
        page = _markdown(run, beside)
    _replace(target, page)


def _beside(target: Path, title: str) -> Path:
    """The picture of a chart beside a Markdown report: report-learning-rate.svg."""
    words = "".join(c if c.isalnum() else " " for c in title)
    return target.with_name(f"{target.stem}-{'-'.join(words.split())}.svg")


def _replace(target: Path, text: str) -> None:
    """Write a file completely, mode 0600: a configuration in it may hold private values."""
    write_whole(target, text.encode("utf-8", "replace"))


# ---- pictures --------------------------------------------------------------------------------------------------------


def _pictures(history: History, findings: list[Finding]) -> dict[str, str]:
    """SVG text by title; only what there is to see."""
    rates_positive = bool((history.lr[np.isfinite(history.lr)] > 0).all())
    style = ChartStyle(log=frozenset({"lr"} if rates_positive else ()))
    pictures: dict[str, str] = {}
    for kind in kinds(history):
        if kind.name not in TITLES or not history.length:
            continue
        kind = replace(kind, title="")  # its name is the heading above it
        if kind.name == "lr":
            kind = replace(kind, draw=partial(_with_onsets, findings))
        try:
            text = figure.draw("", figure.prepare(history, [kind], style), style, size=PICTURE).decode()
        except figure.FigureError as error:
            raise ReportError(str(error)) from None
        pictures[TITLES[kind.name]] = text[text.index("<svg") :]
    return pictures


def _with_onsets(findings: list[Finding], history: History, style: ChartStyle) -> ChartData:
    """The learning rate, with a line where each of its faults began."""
    picture = lr_chart(history, style)
    faults = [finding for finding in findings if finding.family == RATE]
    picture.rules += [(float(finding.since_step), finding.rule) for finding in faults]
    return picture


# ---- pages -----------------------------------------------------------------------------------------------------------


def _facts(run: CheckedRun) -> list[tuple[str, str]]:
    history, record = run.history, run.history.run
    facts = [("run", run.name)]
    if written := note_of(run.folder):
        facts.append(("note of a person", plain(written)))
    if record is not None:
        total = f" of {record.total_steps:,}" if record.total_steps else ""
        facts.append(("steps", f"{history.step_done:,}{total}, attempt {record.attempt}"))
        facts += [("note", plain(note)) for note in record.notes]
        if record.inject:
            facts.append(("injected fault", record.inject))
        facts += [("versions", ", ".join(f"{k} {v}" for k, v in record.versions.items()))] if record.versions else []
    if history.end is not None:
        facts.append(
            ("ended", f"{history.end.reason}" + (f": {plain(history.end.error)}" if history.end.error else ""))
        )
    band = loss_band(history, val_auroc(history))
    if band is not None:
        facts.append(("ordinary loss of one batch", f"{band[0]:.2f} to {band[1]:.2f} at this AUROC and batch size"))
    return facts


def _verdict(run: CheckedRun) -> tuple[str, str]:
    """(class of the page, words): what is wrong now, else what was and healed, else what nothing wrong covers."""
    outcome = run.outcome()
    bad = [finding for finding in outcome.findings if finding.bad]
    if bad:
        return bad[0].severity, bad[0].message
    if not outcome.steps:
        return "warning", outcome.verdict()
    healed = [finding for finding in outcome.past if finding.bad and finding.is_fact]
    if healed:
        until = max(finding.until_step or finding.step for finding in healed)
        return "warning", f"Wrong until step {until:,}, nothing wrong since. It was: {healed[0].message}"
    if run.diagnosis.lr is None:
        return (
            "info",
            "Nothing wrong found. No schedule is declared: whether the learning rate is right cannot be decided.",
        )
    return "good", "Nothing wrong: the learning rate follows its declared schedule."


def _findings(run: CheckedRun) -> list[tuple[Finding, str]]:
    """Each finding with its heading: present ones, then resolved ones, a few per rule."""
    outcome = run.outcome()
    listed = [(finding, finding.severity) for finding in outcome.findings]
    for rule in dict.fromkeys(finding.rule for finding in outcome.past):
        alike = [finding for finding in outcome.past if finding.rule == rule]
        more = len(alike) - TOLD_OF_A_RULE
        for at, finding in enumerate(alike[:TOLD_OF_A_RULE], 1):
            rest = f"; and {more:,} more times" if more > 0 and at == TOLD_OF_A_RULE else ""
            listed.append((finding, f"healed at step {finding.until_step or finding.step:,}{rest}"))
    return listed


def _attempts(history: History) -> list[tuple[str, ...]]:
    """A row an attempt: number, first step, when, what its learning rate follows, the command that began it."""
    rows: list[tuple[str, ...]] = []
    for record in history.begun:
        law = (record.schedule or {}).get("name", "no schedule declared")
        if law == "manual":
            declared = record.schedule or {}
            law = f"LR {declared.get('lr')} by hand, then {declared.get('then', 'anneal')}"
        rows.append((f"{record.attempt}", f"{record.step + 1:,}", clock(record.time), str(law), record.command or "–"))
    return rows


def _config(run: CheckedRun) -> str | None:
    """The configuration as run, without what may hold passwords: a report is made to be sent to people."""
    path = run.folder / CONFIG
    return without_secrets(path.read_text(encoding="utf-8", errors="replace")) if path.exists() else None


def _html(run: CheckedRun, pictures: dict[str, str]) -> str:
    e = html.escape
    severity, words = _verdict(run)
    parts = [
        f"<!doctype html><html lang='en'><head><meta charset='utf-8'><title>{e(run.name)}</title>",
        f"<meta name='viewport' content='width=device-width, initial-scale=1'><style>{CSS}</style></head><body>",
        f"<h1>{e(run.name)}</h1><p class='verdict {severity}'>{e(words)}</p>",
    ]
    for title, svg in pictures.items():
        parts.append(f"<h2>{e(title)}</h2><figure role='img' aria-label='{e(title)}'>{svg}</figure>")
    parts.append(
        "<h2>expected and observed</h2><table>"
        "<tr><th></th><th class='n'>expected</th><th class='n'>observed</th><th></th></tr>"
    )
    for row in table(run.history, run.diagnosis):
        cells = f"<td class='n'>{e(row.expected)}</td><td class='n'>{e(row.observed)}</td><td>{row.mark}</td>"
        parts.append(f"<tr><td>{e(row.metric)}</td>{cells}</tr>")
    parts.append("</table><h2>checklist</h2><ul style='list-style:none;padding:0'>")
    parts += [f"<li>{tick.mark} {e(tick.text)}</li>" for tick in checklist(run.history, run.diagnosis)]
    parts.append("</ul><h2>findings</h2>")
    findings = _findings(run)
    for finding, heading in findings:
        evidence = "".join(f"<dt>{e(k)}</dt><dd>{e(v)}</dd>" for k, v in _evidence(finding))
        words = f"<b>{e(finding.rule)}</b> ({e(heading)}) {e(plain(finding.message))}"
        parts.append(f"<div class='verdict {finding.severity}'>{words}<dl>{evidence}</dl></div>")
    if not findings:
        parts.append("<p>none</p>")
    covered = run.outcome().covered()
    told, not_checked = ([w for w in covered if w.startswith("not ") == kind] for kind in (False, True))
    parts.append("<h2>what was checked</h2><ul>" + "".join(f"<li>{e(w)}</li>" for w in told) + "</ul>")
    if not_checked:
        items = "".join(f"<li>{e(w.removeprefix('not checked: '))}</li>" for w in not_checked)
        parts.append(f"<details><summary>what was not checked, and why</summary><ul>{items}</ul></details>")
    parts += _sections_html(run)
    if len(run.history.begun) > 1:
        parts.append("<h2>attempts</h2><table><tr>" + "".join(f"<th>{name}</th>" for name in ATTEMPTS) + "</tr>")
        for attempt in _attempts(run.history):
            parts.append("<tr>" + "".join(f"<td>{e(plain(cell))}</td>" for cell in attempt) + "</tr>")
        parts.append("</table>")
    parts.append("<h2>the run</h2><dl>" + "".join(f"<dt>{e(k)}</dt><dd>{e(v)}</dd>" for k, v in _facts(run)) + "</dl>")
    config = _config(run)
    if config:
        parts.append(f"<h2>configuration</h2><pre>{e(config)}</pre>")
    parts.append(f"<p><small>eegwatch {__version__}, {time.strftime('%Y-%m-%d %H:%M')}</small></p></body></html>")
    return "\n".join(parts)


def _sections_html(run: CheckedRun) -> list[str]:
    e, parts = html.escape, []
    for section in evaluation_tables.sections(run.history.evals, run.folder):
        parts.append(f"<h2>{e(section.title)}</h2>")
        parts += [f"<p>{e(plain(words))}</p>" for words in section.sentences]
        for caption, header, rows in section.tables:
            cells = "".join(f"<th>{e(name)}</th>" for name in header)
            parts.append(f"<p>{e(plain(caption))}</p><table><tr>{cells}</tr>")
            parts += ["<tr>" + "".join(f"<td>{e(plain(cell))}</td>" for cell in row) + "</tr>" for row in rows]
            parts.append("</table>")
    return parts


def _markdown(run: CheckedRun, beside: dict[str, Path]) -> str:
    def e(text: str) -> str:
        return html.escape(text, quote=False).replace("|", "\\|").replace("`", "\\`")

    severity, words = _verdict(run)
    lines = [f"# {e(run.name)}", "", f"**{severity}**: {e(words)}", ""]
    for title in beside:
        lines += [f"## {title}", "", f"![{title}]({quote(beside[title].name)})", ""]
    lines += ["## expected and observed", "", "| | expected | observed | |", "|---|---:|---:|---|"]
    lines += [
        f"| {e(r.metric)} | {e(r.expected)} | {e(r.observed)} | {r.mark} |" for r in table(run.history, run.diagnosis)
    ]
    lines += ["", "## checklist", ""]
    lines += [f"- {tick.mark} {e(tick.text)}" for tick in checklist(run.history, run.diagnosis)]
    lines += ["", "## findings", ""]
    findings = _findings(run)
    for finding, heading in findings:
        lines.append(f"- **{finding.rule}** ({e(heading)}) {e(plain(finding.message))}")
        lines += [f"  - {e(k)}: {e(v)}" for k, v in _evidence(finding)]
    lines += ["none"] if not findings else []
    lines += ["", "## what was checked", "", *(f"- {e(words)}" for words in run.outcome().covered())]
    for section in evaluation_tables.sections(run.history.evals, run.folder):
        lines += ["", f"## {e(section.title)}", "", *(f"- {e(plain(words))}" for words in section.sentences)]
        for caption, header, rows in section.tables:
            lines += ["", f"{e(plain(caption))}", "", f"| {' | '.join(map(e, header))} |", "|" + "---|" * len(header)]
            lines += [f"| {' | '.join(e(plain(cell)) for cell in row)} |" for row in rows]
    if len(run.history.begun) > 1:
        lines += ["", "## attempts", "", f"| {' | '.join(ATTEMPTS)} |", "|" + "---|" * len(ATTEMPTS)]
        lines += [f"| {' | '.join(e(plain(cell)) for cell in attempt)} |" for attempt in _attempts(run.history)]
    lines += ["", "## the run", ""] + [f"- {e(k)}: {e(v)}" for k, v in _facts(run)]
    config = _config(run)
    if config:
        lines += ["", "## configuration", "", "````yaml", config.replace("````", "'''' "), "````"]
    return "\n".join([*lines, ""])


def _evidence(finding: Finding) -> list[tuple[str, str]]:
    pairs = []
    if finding.cause is not None:
        pairs += [("cause", f"{finding.cause.name}: {finding.cause.evidence}")]
        if finding.cause.alternatives:
            pairs.append(("explains the records equally well", ", ".join(finding.cause.alternatives)))
        if finding.cause.separates_at:
            pairs.append(("decided at step", f"{finding.cause.separates_at:,}"))
        if finding.cause.killed:
            out = ", ".join(f"{name} (step {at:,})" for name, at in sorted(finding.cause.killed.items()))
            pairs.append(("ruled out", out))
    if finding.remedy:
        pairs.append(("remedy", in_shell_words(finding.remedy)))
    return pairs
