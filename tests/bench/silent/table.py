"""The results as tables: what was found and how, what was said of healthy trainings, and TrainCheck's list."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

from tests.bench.silent.case import PARTS, Case
from tests.bench.silent.judge import CLEAN, CRASHED, FACT, MISSED, OTHER, PROVED, Result, Said
from tests.bench.silent.traincheck import LIST, REPRODUCTIONS

Pairs = list[tuple[Case, Result]]
FIRST_LOOKS = 20  # steps that the watcher always looks at


def text(pairs: Pairs) -> str:
    lines = [f"{'case':42}{'set':8}{'found':16}{'first':>6}{'step':>6}  {'rules':44}reference"]
    for case, result in _errors(pairs):
        step = result.step(case)
        rules = ", ".join(each.rule for each in result.said) or (result.crash[:90] if result.crash else "–")
        told = "–" if step is None else str(step)
        row = f"{case.name[:41]:42}{case.part:8}{result.verdict(case):16}{case.first:>6}{told:>6}  {rules[:43]:44}"
        lines.append(row + result.of_the_reference() + _unlike(result, case))
    lines += ["", f"{'healthy training':42}{'set':8}{'said':16}rules"]
    for case, result in _healthy(pairs):
        rules = ", ".join(each.rule for each in result.said) or result.crash[:90]
        lines.append(f"{case.name[:41]:42}{case.part:8}{result.verdict(case):16}{rules}{_unlike(result, case)}")
    return "\n".join(
        [
            *lines,
            "",
            *summary(pairs),
            "",
            "TrainCheck's list (the 18 of 20 errors that its artifact names)",
            *_listed(pairs),
        ]
    )


def summary(pairs: Pairs) -> Iterator[str]:
    """The scores of each set and of all of them."""
    parts = [part for part in PARTS if any(case.part == part for case, _ in pairs)]
    for chosen in [*parts, None] if len(parts) > 1 else parts:
        part = _of(pairs, chosen) if chosen else pairs
        name = f"{chosen} set" if chosen else "all sets"
        errors, well = _errors(part), _healthy(part)
        counts = Counter(result.verdict(case) for case, result in errors)
        found = counts[PROVED] + counts[FACT]
        if errors:
            kinds = ", ".join(f"{kind} {counts[kind]}" for kind in (PROVED, FACT, OTHER, MISSED, CRASHED))
            yield f"{name}: {found} of {len(errors)} errors found ({found / len(errors):.0%}): {kinds}"
            if any(case.again for case, _ in errors):
                yield f"{name}: {_without_repetitions(errors)}"
            yield f"{name}: {_delays(errors)}"
        said = Counter(result.verdict(case) for case, result in well)
        references = Counter(result.of_the_reference() for _, result in errors)
        yield (
            f"{name}: {len(well)} healthy trainings: error {said['error']}, fact {said[FACT]}, clean {said[CLEAN]}, "
            f"crashed {said[CRASHED]}; {len(errors)} references: error {references['error']}, fact {references[FACT]}, "
            f"clean {references[CLEAN]}"
        )
        alike = sum(result.identical for _, result in part)
        yield f"{name}: watched and unwatched outcomes are the same bits in {alike} of {len(part)} cases"


def _without_repetitions(errors: Pairs) -> str:
    """The score of the errors whose mechanism no earlier set has."""
    new = [result.verdict(case) for case, result in errors if not case.again]
    return f"{sum(verdict in (PROVED, FACT) for verdict in new)} of the {len(new)} whose mechanism no earlier set has"


def _delays(errors: Pairs) -> str:
    """How many were described by the first step whose equality is broken, and by how much the others are later."""
    found = [(case, step) for case, result in errors if (step := result.step(case)) is not None]
    at_once = sum(step <= max(case.first, 1) for case, step in found)
    early = [(case, step) for case, step in found if case.first <= FIRST_LOOKS]
    late = [f"{case.name} {step - case.first}" for case, step in found if step > max(case.first, 1)]
    in_first = sum(step <= max(case.first, 1) for case, step in early)
    words = f"at the first step that can show it {at_once} of {len(found)} ({in_first} of {len(early)} in the first 20 steps)"
    return words + (f"; steps later: {', '.join(late)}" if late else "")


def _listed(pairs: Pairs) -> Iterator[str]:
    for name, mechanism, verdict in traincheck(pairs):
        yield f"  {name:27}{mechanism[:55]:56}{verdict}"


def traincheck(pairs: Pairs) -> Iterator[tuple[str, str, str]]:
    """(name, mechanism, verdict) of each row of the list; a case that was not played has no verdict."""
    by_name = {case.name: (case, result) for case, result in pairs}
    for row in LIST:
        if not row.cases:
            yield row.name, row.mechanism, f"outside: {row.why}"
            continue
        played = [by_name[name] for name in row.cases if name in by_name]
        if played:
            told = ", ".join(_of_the_list(case, result) for case, result in played)
            yield row.name, row.mechanism, told


def _of_the_list(case: Case, result: Result) -> str:
    step = result.step(case)
    return result.verdict(case) + (f" at step {step}" if step is not None else "")


def markdown(pairs: Pairs) -> str:
    """The tables for the documentation: a section for each set, and TrainCheck's list."""
    sections = [*(f"- {line}" for line in summary(pairs)), ""]
    for part in PARTS:
        if members := _of(pairs, part):
            sections += [
                f"### The {part} set, case by case",
                "",
                *_errors_as_rows(members),
                "",
                *_healthy_as_rows(members),
                "",
            ]
    sections += ["### TrainCheck's list, row by row", "", "| error | mechanism | here |", "|---|---|---|"]
    sections += [_row([f"[{name}]({REPRODUCTIONS}{name})", *cells]) for name, *cells in traincheck(pairs)]
    return "\n".join(sections)


def _errors_as_rows(pairs: Pairs) -> Iterator[str]:
    yield "| case | error | source | found | rules | first step | said at |"
    yield "|---|---|---|---|---|---|---|"
    for case, result in _errors(pairs):
        step = result.step(case)
        source = f"[{_short(case.source)}]({case.source})" + (" (again)" if case.again else "")
        cells = [f"`{case.name}`", case.what, source, result.verdict(case), _rules(result.said), str(case.first)]
        yield _row([*cells, "" if step is None else str(step)])


def _healthy_as_rows(pairs: Pairs) -> Iterator[str]:
    yield "| case | healthy training | said |"
    yield "|---|---|---|"
    for case, result in _healthy(pairs):
        yield _row([f"`{case.name}`", case.what, _rules(result.said) or "nothing"])


def of_one(case: Case, result: Result) -> str:
    """All that is said of one case."""
    lines = [f"{case.name}: {result.verdict(case)} ({case.what})"]
    if case.source:
        lines.append(f"  {case.source}")
    if case.is_error:
        lines.append(f"  expected: {', '.join(case.rules)} at step {case.first}; real: {result.real}")
    lines.append(f"  watched as unwatched: {result.identical}; {result.seconds:.1f} s {result.crash}")
    for name, said in (("", result.said), ("of the reference: ", result.of_reference)):
        lines += [f"  {name}{s.severity} {s.rule}, step {s.step}, since {s.since}: {s.message}" for s in said]
    return "\n".join(lines)


def _of(pairs: Pairs, part: str) -> Pairs:
    return [(case, result) for case, result in pairs if case.part == part]


def _errors(pairs: Pairs) -> Pairs:
    return [(case, result) for case, result in pairs if case.is_error]


def _healthy(pairs: Pairs) -> Pairs:
    return [(case, result) for case, result in pairs if not case.is_error]


def _unlike(result: Result, case: Case) -> str:
    """What is wrong with the case or the watching itself."""
    wrong = [] if result.identical else ["THE WATCHED TRAINING DIFFERS"]
    if case.is_error and not result.real:
        wrong.append("THE ERROR CHANGES NOTHING")
    return "  " + ", ".join(wrong) if wrong else ""


def _short(address: str) -> str:
    parts = address.removeprefix("https://").split("/")
    return f"{parts[2]} #{parts[-1]}" if parts[0] == "github.com" else parts[0]


def _rules(said: Iterable[Said]) -> str:
    return ", ".join(f"`{each.rule}`" for each in said)


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |"
