"""One SVG that moves, from many screenshots of one app: each row of the terminal is kept once for all frames it stands in.

A row is drawn while its frames are shown (SMIL, `visibility`): GitHub and browsers play it in an <img>, without a script.
"""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass, field

STYLE = re.compile(r"\.(terminal-\d+)-(r\d+) \{ (.*?) \}")
PIECE = re.compile(r"<(rect|text) [^>]*?(?:/>|>.*?</text>)", re.DOTALL)
BASELINE, LINE = 20.0, 24.4  # rich's export: the first row's baseline and the height of a row, pixels
BACKGROUND = 'fill="#292929" stroke="rgba(255,255,255,0.35)" stroke-width="1"'


@dataclass
class Frame:
    """A screenshot (SVG of rich), how long it is shown in seconds, and what is said above it."""

    svg: str
    seconds: float
    title: str


@dataclass
class Sheet:
    """The rows of all frames: (row number, its pieces) to the frames that show it; styles under names of their own."""

    styles: dict[str, str] = field(default_factory=dict)
    rows: dict[tuple[int, str], list[int]] = field(default_factory=lambda: defaultdict(list))

    def add(self, number: int, svg: str) -> None:
        names = {short: self._name(css) for _, short, css in STYLE.findall(svg)}
        rows: dict[int, list[str]] = defaultdict(list)
        for match in PIECE.finditer(svg[svg.index('-clip-terminal)">') :]):
            piece = re.sub(r' clip-path="[^"]*"', "", match[0])
            piece = re.sub(r' class="terminal-\d+-(r\d+)"', lambda m: f' class="{names[m[1]]}"', piece)
            y = float(re.search(r' y="([\d.]+)"', piece)[1])  # type: ignore[index]
            rows[round((y - (BASELINE if match[1] == "text" else 1.5)) / LINE)].append(piece)
        for row, pieces in rows.items():
            self.rows[row, "".join(pieces)].append(number)

    def _name(self, css: str) -> str:
        return self.styles.setdefault(css, f"s{len(self.styles)}")


def moving(frames: list[Frame]) -> str:
    """The animation, repeated for ever. Raises ValueError for no frame."""
    if not frames:
        raise ValueError("no frame to show")
    width, height = re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', frames[0].svg).groups()  # type: ignore[union-attr]
    sheet = Sheet()
    for number, frame in enumerate(frames):
        sheet.add(number, frame.svg)
    total = sum(f.seconds for f in frames)
    begins = [sum(f.seconds for f in frames[:i]) / total for i in range(len(frames))]
    styles = "\n".join(f".{name} {{ {css} }}" for css, name in sheet.styles.items())
    titles: dict[str, list[int]] = defaultdict(list)
    for number, frame in enumerate(frames):
        titles[frame.title].append(number)
    words = [
        _shown(
            f'<text class="title" x="{float(width) / 2:.0f}" y="27" text-anchor="middle">{title}</text>',
            at,
            begins,
            total,
        )
        for title, at in titles.items()
    ]
    rows = [_shown(pieces, at, begins, total) for (_, pieces), at in sorted(sheet.rows.items())]
    return f"""<svg viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg">
<style>
.matrix {{ font-family: "Fira Code", "DejaVu Sans Mono", Menlo, Consolas, monospace; font-size: 20px; white-space: pre }}
.title {{ font-family: arial, DejaVu Sans, sans-serif; font-size: 18px; font-weight: bold; fill: #c5c8c6 }}
{styles}
</style>
<rect {BACKGROUND} x="1" y="1" width="{float(width) - 2:.0f}" height="{float(height) - 2:.0f}" rx="8"/>
{"".join(words)}
<g class="matrix" transform="translate(9, 41)">
{chr(10).join(rows)}
</g>
</svg>
"""


def _shown(content: str, at: list[int], begins: list[float], total: float) -> str:
    """The content, visible in the frames `at` alone: one value at each change."""
    frames = set(at)
    if len(frames) == len(begins):
        return f"<g>{content}</g>"
    states = [number in frames for number in range(len(begins))]
    changes = [i for i, state in enumerate(states) if i == 0 or state != states[i - 1]]
    values = ";".join("visible" if states[i] else "hidden" for i in changes)
    times = ";".join(f"{begins[i]:.4f}" for i in changes)
    start = "" if states[0] else ' visibility="hidden"'
    return (
        f'<g{start}><animate attributeName="visibility" calcMode="discrete" dur="{total:.2f}s" '
        f'repeatCount="indefinite" values="{values}" keyTimes="{times}"/>{content}</g>'
    )
