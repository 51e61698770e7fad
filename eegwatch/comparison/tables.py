"""A comparison as text, Markdown, LaTeX or one JSON object."""

from __future__ import annotations

from typing import Any

from eegwatch.comparison.compare import FIGURES, Comparison, Pair
from eegwatch.scores.intervals import Difference, Interval
from eegwatch.wording import count, plain

ESCAPES = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"} | {
    character: f"\\{character}" for character in "&%$#_{}"
}


def _value(value: float, interval: Interval | None) -> str:
    return f"{value:.3f}" + (f" ({interval[0]:.3f} to {interval[1]:.3f})" if interval is not None else "")


def _apart(difference: Difference) -> str:
    interval = difference.interval
    return f"{difference.value:+.3f}" + (f" ({interval[0]:+.3f} to {interval[1]:+.3f})" if interval is not None else "")


def _rows(comparison: Comparison, pair: Pair) -> list[list[str]]:
    """[figure, the first, the other, difference, told apart], one row a level and figure."""
    number = comparison.arms.index(pair.arm)
    rows = []
    for level, apart in pair.differences.items():
        for name, difference in apart.items():
            first, other = comparison.figures[0][level][name], comparison.figures[number][level][name]
            verdict = "yes" if difference.told_apart else "no" if difference.interval is not None else "–"
            rows.append([f"{level} {FIGURES[name]}", _value(*first), _value(*other), _apart(difference), verdict])
    return rows


def _header(comparison: Comparison, pair: Pair) -> list[str]:
    return ["", comparison.arms[0].name, pair.arm.name, "difference", "told apart"]


def _facts(comparison: Comparison) -> list[str]:
    first = comparison.arms[0].predictions[0]
    size = f"{count(len(first.recordings()), 'recording')} of {count(comparison.subjects, 'subject')}"
    named = {"eval": "official evaluation set", "val": "validation set"}[comparison.split]
    seeds = {len(arm.seeds) for arm in comparison.arms}
    several = f", {'/'.join(map(str, sorted(seeds)))} seeds" if seeds != {1} else ""
    over = "subjects and seeds" if several else "subjects"
    return [
        f"{named}: {size}, {comparison.model} model{several}",
        f"in brackets: 95 % intervals by a bootstrap over {over}",
    ]


def _differing(pair: Pair) -> list[str]:
    return [f"{key}: {before} -> {after}" for key, before, after in pair.configuration]


def text(comparison: Comparison) -> str:
    lines = _facts(comparison)
    for pair in comparison.pairs:
        table = [_header(comparison, pair), *_rows(comparison, pair)]
        widths = [max(len(row[column]) for row in table) for column in range(5)]
        lines.append("")
        lines += ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in table]
        lines += ["", *pair.verdicts]
        differing = _differing(pair)
        lines += (
            ["different in configuration:", *(f"  {line}" for line in differing)]
            if differing
            else ["the configurations do not differ"]
        )
    lines += ["", *comparison.remarks] if comparison.remarks else []
    return "\n".join(plain(line) for line in lines)


def markdown(comparison: Comparison) -> str:
    lines = [f"{'; '.join(_facts(comparison))}.", ""]
    for pair in comparison.pairs:
        rows = [_header(comparison, pair), ["---"] * 5, *_rows(comparison, pair)]
        lines += ["| " + " | ".join(plain(cell).replace("|", r"\|") for cell in row) + " |" for row in rows]
        lines += ["", *(f"- {plain(one)}." for one in pair.verdicts)]
        lines += [f"- `{plain(one).replace('`', ' ')}`" for one in _differing(pair)] + [""]
    lines += [f"- {plain(remark)}." for remark in comparison.remarks]
    return "\n".join(lines).rstrip()


def latex(comparison: Comparison) -> str:
    """A tabular for booktabs."""
    lines = [f"% {plain(fact)}" for fact in (*_facts(comparison), *comparison.remarks)]
    for pair in comparison.pairs:
        lines += [f"% {plain(one)}" for one in (*pair.verdicts, *_differing(pair))]
        lines += [r"\begin{tabular}{lllll}", r"\toprule"]
        lines += [" & ".join(map(_escaped, _header(comparison, pair))) + r" \\", r"\midrule"]
        lines += [" & ".join(map(_escaped, row)) + r" \\" for row in _rows(comparison, pair)]
        lines += [r"\bottomrule", r"\end{tabular}"]
    return "\n".join(lines)


def _escaped(cell: str) -> str:
    return "".join(ESCAPES.get(character, character) for character in plain(cell)).replace("–", "--")


def as_dict(comparison: Comparison) -> dict[str, Any]:
    """For `--json`: names as on the command line, intervals as [low, high] or null."""
    return {
        "split": comparison.split,
        "model": comparison.model,
        "subjects": comparison.subjects,
        "runs": [
            {
                "name": arm.name,
                "folders": [str(folder) for folder in arm.folders],
                "seeds": arm.seeds,
                "looks": arm.looks,
                "figures": {
                    level: {name: {"value": v, "ci95": i and list(i)} for name, (v, i) in named.items()}
                    for level, named in figures.items()
                },
            }
            for arm, figures in zip(comparison.arms, comparison.figures, strict=True)
        ],
        "comparisons": [
            {
                "first": comparison.arms[0].name,
                "second": pair.arm.name,
                "differences": {
                    level: {
                        name: {"value": d.value, "ci95": d.interval and list(d.interval), "told_apart": d.told_apart}
                        for name, d in named.items()
                    }
                    for level, named in pair.differences.items()
                },
                "verdicts": pair.verdicts,
                "configuration": [{"key": k, "first": a, "second": b} for k, a, b in pair.configuration],
            }
            for pair in comparison.pairs
        ],
        "remarks": comparison.remarks,
    }
