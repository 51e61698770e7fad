"""Results computed after a run's training, as sections of a page or lines for a terminal.

Each comes from one file in the run's folder, written by a command of `eegpt-daemon`; without the file there is none.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from eegwatch.run.results import baselines, cost, optimum


class Section(msgspec.Struct, kw_only=True):
    """`sentences` first, then tables: each a caption, a header, and rows of cells."""

    title: str
    sentences: list[str] = []
    tables: list[tuple[str, list[str], list[list[str]]]] = []


def sections(folder: Path) -> list[Section]:
    """The sections for a run's folder, in the order of the page."""
    sections = []
    reach = optimum.read(folder)
    if reach is not None:
        sections.append(Section(title="what this run could still reach", sentences=optimum.sentences(reach)))
    rows = baselines.read(folder)
    if rows is not None:
        sections.append(Section(title="baselines and protocol", sentences=rows.remarks, tables=baselines.tables(rows)))
    fault_cost = cost.read(folder)
    if fault_cost is not None:
        tables = (
            [("AUROC at the declared rates less AUROC as it was", *cost.table(fault_cost))] if fault_cost.rows else []
        )
        sections.append(Section(title="what the fault has cost", sentences=cost.sentences(fault_cost), tables=tables))
    return sections


def lines(folder: Path) -> list[str]:
    """The sentences alone."""
    return [sentence for section in sections(folder) for sentence in section.sentences]
