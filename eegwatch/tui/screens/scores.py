"""The scores of a run as text: its evaluations with intervals, and what was computed about it afterwards."""

from __future__ import annotations

from rich.text import Text

from eegwatch.run.results import evaluation_tables
from eegwatch.tui.session import Session
from eegwatch.wording import plain

NONE = (
    "nothing was computed about this run. After its end, for a run of this project's trainer:\n"
    "   eegpt-daemon optimum RUN     what a linear probe could still reach\n"
    "   eegpt-daemon baselines RUN   simpler models on the same data\n"
    "   eegwatch cost RUN            what a fault of the learning rate has cost"
)


def scores_text(session: Session) -> Text:
    """All sections: sentences, then tables in columns."""
    sections = evaluation_tables.sections(session.history.evals, session.folder if session.foreign is None else None)
    text = Text()
    for section in sections:
        text.append(f"{plain(section.title)}\n", "bold")
        for sentence in section.sentences:
            text.append(f"   {plain(sentence)}\n")
        for caption, header, rows in section.tables:
            text.append(f"\n   {plain(caption)}\n", "italic")
            cells = [[plain(cell) for cell in row] for row in [header, *rows]]
            widths = [max(len(row[column]) for row in cells if column < len(row)) for column in range(len(header))]
            for number, row in enumerate(cells):
                line = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=False)).rstrip()
                text.append(f"   {line}\n", "bold" if number == 0 else "")
        text.append("\n")
    return text if sections else Text("\n".join([*_plain_scores(session), "", NONE]))


def _plain_scores(session: Session) -> list[str]:
    """The newest evaluation of each set, as its script logged it: without intervals."""
    newest = {record.split: record for record in session.history.evals}
    lines = []
    for split, record in newest.items():
        values = ", ".join(f"{plain(name)} {value:.4g}" for name, value in record.values().items())
        lines.append(f"{plain(split)}, step {record.step:,}: {values}")
    return lines or ["no evaluation yet"]
