"""From a run's history to the charts' pictures: which charts there are, and what each draws.

Observed over expected, drawn ahead to the end of the run; the residual; loss with the band that batch noise explains;
and every other figure that the log holds. One `Kind` a chart; `kinds(history)` are those that have something to draw.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from eegwatch.diagnosis.checklist import loss_band, val_auroc
from eegwatch.run.history import History
from eegwatch.run.records import Run, number
from eegwatch.schedule import Manual, Schedule, ScheduleError, parse, position_at, rate_at
from eegwatch.tui.view import SMOOTHINGS, View, on_axis
from eegwatch.tui.widgets.chart import EXPECTED, MORE, OBSERVED, PAST, Picture, Series
from eegwatch.wording import size

NOISE_PERCENT = 1e-7  # a deviation below is the last bits of float64: on schedule
SAMPLES = 2048  # points of the expected curve: more than any terminal has dot columns


@dataclass(frozen=True)
class Other:
    """Another run, laid over the one on the screen; `label` names its lines."""

    label: str
    name: str
    history: History


class Deviation:
    """observed / expected - 1 of one history in percent: computed once a record, while the chart is looked at."""

    def __init__(self) -> None:
        self._attempts = 0
        self._values = np.empty(0, np.float32)
        self._length = 0

    def of(self, history: History) -> NDArray[np.float32]:
        if len(history.attempts) != self._attempts or history.length < self._length:
            self._attempts, self._length = len(history.attempts), 0
        if len(self._values) < history.length:
            grown = np.empty(max(1024, 2 * history.length), np.float32)
            grown[: self._length] = self._values[: self._length]
            self._values = grown
        step, lr = history.step[self._length :], history.lr[self._length :]
        fresh = self._values[self._length : history.length]
        fresh[:] = np.nan
        begins = [run.step for run in history.attempts]
        for run, begin, end in zip(history.attempts, begins, [*begins[1:], np.inf], strict=True):
            schedule = schedule_of(run)
            rows = slice(*np.searchsorted(step, [begin, min(end, 2**62)], side="right"))
            if schedule is not None and rows.stop > rows.start:
                with np.errstate(divide="ignore", invalid="ignore"):
                    fresh[rows] = (lr[rows] / rate_at(schedule, step[rows], run.steps_per_epoch) - 1) * 100
        self._length = history.length
        return self._values[: history.length]


@dataclass(frozen=True)
class Look:
    """How charts are drawn: the part in sight, the y axes that are logarithmic, the runs laid over."""

    view: View = field(default_factory=View)
    log: frozenset[str] = frozenset({"lr"})
    others: tuple[Other, ...] = ()
    deviation: Deviation = field(default_factory=Deviation)


@dataclass(frozen=True)
class Kind:
    """One chart: `name` for keys and patterns, `legend` after its title, `there`: has it anything to draw?"""

    name: str
    title: str
    legend: str
    there: Callable[[History], bool]
    draw: Callable[[History, Look], Picture]
    at: Callable[[History, int], str]  # what stands at a step, for the cursor


# ---- learning rate ----


def lr_picture(history: History, look: Look) -> Picture:
    """The learning rate: expected dotted to the run's end, observed as a line, what a resume did again faintly."""
    view = look.view
    picture = _picture(history, look, "lr", "no step yet: the expected curve comes with the run record")
    picture.rates = True
    left, right = view.window(history)
    series = expected_series(history, left, right)
    series += [Series(o.history.step, o.history.lr, "line", c, o.label) for o, c in zip(look.others, MORE)]
    series += [Series(old.step, old.lr, "line", PAST) for old in history.superseded]
    series.append(Series(history.step, history.lr, "line", OBSERVED))
    picture.series = [_placed(history, view, s) for s in series]
    run = history.run
    schedule = schedule_of(run)
    if schedule is not None:
        scale = (run.steps_per_epoch or 1) if run and schedule.unit == "epoch" else 1
        bands = [(name, a * scale, b * scale) for name, a, b in schedule.phases()]
        ends = on_axis(history, view.axis, np.array([[a, b] for _, a, b in bands]).reshape(-1, 2))
        picture.bands = [(name, float(a), float(b)) for (name, _, _), (a, b) in zip(bands, ends, strict=True)]
    return picture


def residual_picture(history: History, look: Look) -> Picture:
    """How far the observed rate lies from the expected one, in percent; zero is on schedule."""
    picture = _picture(history, look, "residual", "no expected rate to compare with")
    left, right = look.view.window(history)
    values = look.deviation.of(history)
    zero = Series(np.array([left, right]), np.zeros(2), "dotted", EXPECTED)
    flat = len(values) and float(np.nanmax(np.abs(values), initial=0.0)) < NOISE_PERCENT
    shown = np.zeros(len(values), np.float32) if flat else values
    series = [zero, Series(history.step, shown, "line", OBSERVED)]
    picture.series = [_placed(history, look.view, s) for s in series]
    return picture


# ---- loss and the other figures of a step ----


def loss_picture(history: History, look: Look) -> Picture:
    """Loss: every step's within a min-max band, a smoothed line, the validation losses, the range noise explains."""
    view = look.view
    picture = _picture(history, look, "loss", "no loss yet")
    left, right = view.window(history)
    band = loss_band(history, val_auroc(history))
    series = [Series(np.array([left, right]), np.array([v, v]), "dotted", EXPECTED) for v in band or ()]
    series.append(Series(history.step, history.loss, "noisy", OBSERVED))
    series += [Series(old.step, old.loss, "smooth", PAST) for old in history.superseded]
    series += [Series(o.history.step, o.history.loss, "smooth", c, o.label) for o, c in zip(look.others, MORE)]
    picture.series = [_placed(history, view, s) for s in series]
    evals = [e for e in history.evals if e.split == "val" and e.loss is not None]
    places = on_axis(history, view.axis, np.array([e.step for e in evals]))
    picture.marks = [(float(x), number(e.loss), "◆") for x, e in zip(places, evals, strict=True)]
    return picture


def _steps_picture(column: str, kind: str = "noisy") -> Callable[[History, Look], Picture]:
    """A chart of one more column of the step records."""

    def draw(history: History, look: Look) -> Picture:
        picture = _picture(history, look, column, "none is logged")
        series = [Series(history.step, getattr(history, column), kind, OBSERVED)]
        for other, colour in zip(look.others, MORE):
            series.append(Series(other.history.step, getattr(other.history, column), "smooth", colour, other.label))
        picture.series = [_placed(history, look.view, s) for s in series]
        return picture

    return draw


def auroc_picture(history: History, look: Look) -> Picture:
    """Validation AUROC over the steps, and the target."""
    picture = _picture(history, look, "auroc", "no evaluation yet")
    left, right = look.view.window(history)
    target = ((history.run.target if history.run else None) or {}).get("auroc")
    series = [Series(np.array([left, right]), np.array([target, target]), "dotted", EXPECTED)] if target else []
    for label, one, colour in [("", history, OBSERVED), *((o.label, o.history, c) for o, c in zip(look.others, MORE))]:
        evals = [e for e in one.evals if e.split == "val" and e.auroc is not None]
        steps, scores = np.array([e.step for e in evals]), np.array([number(e.auroc) for e in evals])
        series.append(Series(steps, scores, "line", colour, label))
        if one is history:
            places = on_axis(history, look.view.axis, steps)
            picture.marks = [(float(x), float(y), "◆") for x, y in zip(places, scores, strict=True)]
    picture.series = [_placed(history, look.view, s) for s in series]
    return picture


def _system_picture(name: str, values: Callable[[History], NDArray[np.float64]]) -> Callable[[History, Look], Picture]:
    def draw(history: History, look: Look) -> Picture:
        picture = _picture(history, look, name, "no figures yet")
        steps = np.array([s.step for s in history.system])
        picture.series = [_placed(history, look.view, Series(steps, values(history), "line", OBSERVED))]
        if name.endswith("memory"):
            picture.y_text = size
        return picture

    return draw


# ---- which there are ----


def _logged(column: str) -> Callable[[History], bool]:
    return lambda history: bool(np.isfinite(getattr(history, column)[-2000:]).any())


def _of_gpu(key: str) -> Callable[[History], NDArray[np.float64]]:
    """The mean over the GPUs."""
    return lambda h: np.array([float(np.mean([g.get(key, np.nan) for g in s.gpu or [{}]])) for s in h.system])


def _cpu(history: History) -> NDArray[np.float64]:
    return np.array([np.nan if s.cpu_percent is None else s.cpu_percent for s in history.system])


def _rss(history: History) -> NDArray[np.float64]:
    return np.array([np.nan if s.rss_bytes is None else s.rss_bytes for s in history.system])


def _at_step(column: str, text: str) -> Callable[[History, int], str]:
    def at(history: History, step: int) -> str:
        i = int(np.searchsorted(history.step, step))
        return text.format(getattr(history, column)[i]) if i < history.length and history.step[i] == step else ""

    return at


def _at_eval(history: History, step: int) -> str:
    known = [e for e in history.evals if e.split == "val" and e.auroc is not None and e.step <= step]
    return f"{number(known[-1].auroc):.3f} at step {known[-1].step:,}" if known else ""


def _at_system(values: Callable[[History], NDArray[np.float64]], say: Callable[[float], str]) -> Callable[..., str]:
    def at(history: History, step: int) -> str:
        i = int(np.searchsorted([s.step for s in history.system], step, side="right")) - 1
        return say(float(values(history)[i])) if i >= 0 else ""

    return at


def _at_residual(history: History, step: int) -> str:
    i = int(np.searchsorted(history.step, step))
    run = next((run for run in reversed(history.attempts) if run.step < step), None)
    schedule = schedule_of(run)
    if i >= history.length or history.step[i] != step or run is None or schedule is None:
        return ""
    expected = float(rate_at(schedule, step, run.steps_per_epoch))
    return f"{(history.lr[i] / expected - 1) * 100:+.3g} %" if expected else ""


def _always(history: History) -> bool:
    return True


def _gpus(history: History) -> bool:
    return bool(history.system and history.system[-1].gpu)


_UTIL, _GPU_MEMORY = _of_gpu("util_percent"), _of_gpu("memory_bytes")
KINDS = (
    Kind("lr", "learning rate", "━ observed  ┄ expected", _always, lr_picture, _at_step("lr", "{:.4g}")),
    Kind("loss", "loss", "░ every step  ━ smoothed  ◆ validation  ┄ batch noise", _always, loss_picture,
         _at_step("loss", "{:.4f}")),
    Kind("residual", "LR against expected, %", "┄ on schedule", lambda h: schedule_of(h.run) is not None,
         residual_picture, _at_residual),
    Kind("auroc", "validation AUROC", "┄ target", lambda h: any(e.auroc is not None for e in h.evals), auroc_picture,
         _at_eval),
    Kind("grad_norm", "gradient norm", "", _logged("grad_norm"), _steps_picture("grad_norm"),
         _at_step("grad_norm", "{:.4g}")),
    Kind("samples_per_s", "samples a second", "", _logged("samples_per_s"), _steps_picture("samples_per_s"),
         _at_step("samples_per_s", "{:,.0f}")),
    Kind("cpu", "cpu, % of a core", "", lambda h: len(h.system) > 1, _system_picture("cpu", _cpu),
         _at_system(_cpu, "{:.0f} %".format)),
    Kind("memory", "resident memory", "", lambda h: len(h.system) > 1, _system_picture("memory", _rss),
         _at_system(_rss, size)),
    Kind("gpu", "gpu, %", "", _gpus, _system_picture("gpu", _UTIL), _at_system(_UTIL, "{:.0f} %".format)),
    Kind("gpu_memory", "gpu memory", "", _gpus, _system_picture("gpu_memory", _GPU_MEMORY),
         _at_system(_GPU_MEMORY, size)),
)  # fmt: skip


def kinds(history: History) -> list[Kind]:
    """The charts that this log has something for, the most telling first."""
    return [kind for kind in KINDS if kind.there(history)]


# ---- shared ----


def _picture(history: History, look: Look, name: str, empty: str) -> Picture:
    """An empty one over the view's window, with its axis, its cursor and the attempts."""
    view = look.view
    left, right = on_axis(history, view.axis, np.array(view.window(history)))
    picture = Picture(float(left), float(right), log=name in look.log, empty=empty)
    picture.smoothing = SMOOTHINGS[view.smoothing]
    if view.cursor is not None:
        picture.cursor = float(on_axis(history, view.axis, np.array([view.cursor]))[0])
    later = history.attempts[1:]
    places = on_axis(history, view.axis, np.array([run.step for run in later]))
    picture.rules = [(float(x), f"{run.attempt}") for x, run in zip(places, later, strict=True)]
    if view.axis == "epoch":
        picture.x_text = lambda epoch: f"epoch {epoch:g}"
    elif view.axis == "time":
        picture.x_text = lambda hours: f"{hours:g} h"
    return picture


def _placed(history: History, view: View, series: Series) -> Series:
    return series if view.axis == "step" else replace(series, x=on_axis(history, view.axis, series.x))


def expected_series(history: History, left: float, right: float) -> list[Series]:
    """Each attempt's declared curve over the steps in sight that it stands for, the newest one's to the end."""
    series: list[Series] = []
    attempts = history.attempts
    for i, run in enumerate(attempts):
        schedule = schedule_of(run)
        if schedule is None:
            continue
        begin = max(run.step + 1, left)
        end = min(attempts[i + 1].step, right) if i + 1 < len(attempts) else right
        if end >= begin:
            series.append(curve(schedule, begin, end, run.steps_per_epoch))
    return series


def curve(schedule: Schedule, first: float, last: float, steps_per_epoch: int | None, colour: int = EXPECTED) -> Series:
    """A schedule's rates over steps first … last, sampled."""
    steps = sampled(first, last)
    return Series(steps, rate_at(schedule, steps, steps_per_epoch), "dotted", colour)


def sampled(first: float, last: float) -> NDArray[np.int64]:
    """Steps evenly over first … last, each once."""
    steps = np.linspace(max(first, 1), max(last, 1), SAMPLES).round().astype(np.int64)
    return steps[np.diff(steps, prepend=steps[0] - 1) > 0]  # np.unique would import numpy.ma, 12 ms of the start


def resume_picture(history: History, schedule: Schedule, at: int, *, log: bool) -> Picture:
    """What a resume at step `at` would lead to: the run so far, and from there the new expected curve."""
    run = history.run
    per_epoch = run.steps_per_epoch if run else None
    total = schedule.total_steps if isinstance(schedule, Manual) else (run.total_steps if run else None)
    right = float(total or schedule.total_steps)
    picture = Picture(0, right, log=log, rates=True)
    upto = int(np.searchsorted(history.step, at, side="right"))
    picture.series.append(curve(schedule, at + 1, right, per_epoch))
    picture.series.append(Series(history.step[:upto], history.lr[:upto], "line", OBSERVED))
    position = float(position_at(schedule, at + 1, per_epoch))
    picture.marks.append((float(at + 1), float(schedule.rate(position)), "◆"))
    return picture


def schedule_of(run: Run | None) -> Schedule | None:
    """The declared schedule of an attempt, or None."""
    if run is None or run.schedule is None:
        return None
    try:
        return parse(run.schedule)
    except ScheduleError:
        return None  # the diagnosis says what is wrong with it; there is no curve to draw


def legend(kind: Kind, look: Look) -> str:
    """A chart's title line: what it shows, on which axis, which runs lie over it."""
    axis = "log" if kind.name in look.log else "linear"
    view = look.view
    part = "" if view.width is None else "  following" if view.follow else "  zoomed"
    others = "".join(f"  {o.label} {o.name}" for o in look.others)
    words = f"{kind.title} ({axis})" + (f"   {kind.legend}" if kind.legend else "")
    return f"{words}{part}{others}"
