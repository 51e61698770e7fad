"""The tables of docs/traincheck.md, from the records of a run."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from statistics import median

from tests.bench.silent.judge import FACT, PROVED
from tests.bench.silent.peer.compare import Record, alarmed, found
from tests.bench.silent.peer.sample import Sample

STAGES = ("bare", "collect", "infer", "check")


def markdown(records: list[Record], sample: Sample) -> str:
    errors = [each for each in records if each["kind"] == "error"]
    healthy = [each for each in records if each["kind"] == "healthy"]
    pool = [each for each in records if each["kind"] == "pool"]
    lines = [*_summary(errors, healthy), "", *_costs([*errors, *healthy, *pool]), "", *_errors(errors), ""]
    lines += [*_healthy(healthy), "", *_apart(sample, errors, healthy, pool)]
    return "\n".join(lines)


def ran(records: Iterable[Record]) -> list[Record]:
    """Those that TrainCheck played to the end."""
    return [each for each in records if "failure" not in each]


def ours_found(record: Record) -> bool:
    return record["ours"].get("verdict") in (PROVED, FACT)


def _summary(errors: list[Record], healthy: list[Record]) -> Iterator[str]:
    done, well = ran(errors), ran(healthy)
    bits = [same for each in [*errors, *healthy] for same in each["same"]]
    yield "| | TrainCheck | eegwatch |"
    yield "|---|---|---|"
    yield f"| errors played | {len(done)} of {len(errors)} | {len(errors)} of {len(errors)} |"
    yield f"| found, of those that both played | {_of(map(found, done))} | {_of(map(ours_found, done))} |"
    strict = _of(found(each, without_orders=True) for each in done)
    proved = _of(each["ours"].get("verdict") == PROVED for each in done)
    yield f"| of these by more than the order of calls / proved | {strict} | {proved} |"
    played = _of(map(alarmed, done))
    yield f"| the reference, played again, with an alarm / an error | {played} | {_of(_error_of_reference(e) for e in done)} |"
    strict = _of(alarmed(each, without_orders=True) for each in done)
    yield f"| of these by more than the order of calls | {strict} | – |"
    yield f"| healthy trainings with an alarm / an error | {_of(map(alarmed, well))} | {_of(map(_error_of_healthy, well))} |"
    strict = _of(alarmed(each, without_orders=True) for each in well)
    yield f"| of these by more than the order of calls | {strict} | – |"
    yield f"| invariants violated by a healthy training (median) | {_share(well)} | – |"
    yield f"| trainings that came out the same, bit for bit | {_of(bits)} | {_of(e['ours'].get('same') for e in errors)} |"


def _costs(records: list[Record]) -> Iterator[str]:
    yield "| processor time of one command (median) | seconds |"
    yield "|---|---|"
    for stage in STAGES:
        taken = [seconds for each in records for seconds in each["cpu"].get(stage, [])]
        name = "the script by itself" if stage == "bare" else f"TrainCheck: {stage}"
        yield f"| {name} | {median(taken):.1f} |" if taken else f"| {name} | – |"
    ours = [each["ours"]["cpu"] for each in records if "cpu" in each.get("ours", {})]
    if ours:
        yield f"| the training alone, without imports | {median(each['bare'] for each in ours):.2f} |"
        yield f"| eegwatch: the training watched, and the check | {median(e['watched and checked'] for e in ours):.2f} |"
    sizes = [size for each in records for size in each["bytes"].get("collect", [])]
    if sizes:
        yield f"| size of one trace, MB (median) | {median(sizes) / 1e6:.1f} |"


def _errors(errors: list[Record]) -> Iterator[str]:
    yield "| error | set | TrainCheck: new violations (without orders) | first step | on the reference | eegwatch | step |"
    yield "|---|---|---|---|---|---|---|"
    for each in sorted(errors, key=lambda record: record["name"]):
        ours = each["ours"]
        own = f"{ours.get('verdict', 'failed')} | {'–' if ours.get('step') is None else ours['step']}"
        if "failure" in each:
            yield f"| `{each['name']}` | {each['set']} | did not run | – | – | {own} |"
            continue
        count = f"{len(each['faulty'])} ({len(_other(each['faulty']))})" if each["faulty"] else "missed"
        step = min((step for _, _, step in each["faulty"] if step >= 0), default="–")
        reference = f"{len(each['reference'])} of {each['invariants']}"
        yield f"| `{each['name']}` | {each['set']} | {count} | {step} | {reference} | {own} |"


def _healthy(healthy: list[Record]) -> Iterator[str]:
    yield "| healthy training | set | TrainCheck: violations (without orders) | eegwatch |"
    yield "|---|---|---|---|"
    for each in sorted(healthy, key=lambda record: record["name"]):
        told = each.get("reference", [])
        count = "did not run" if "failure" in each else f"{len(told)} ({len(_other(told))}) of {each['invariants']}"
        yield f"| `{each['name']}` | {each['set']} | {count} | {each['ours'].get('verdict', 'failed')} |"


def _apart(sample: Sample, errors: list[Record], healthy: list[Record], pool: list[Record]) -> Iterator[str]:
    reasons = sorted(set(sample.apart.values()))
    counts = ", ".join(f"{list(sample.apart.values()).count(why)} ({why})" for why in reasons)
    yield f"Left out before the draw: {counts}."
    for each in pool:
        names = ", ".join(f"`{name}`" for name in each["of"])
        yield f"Invariants for healthy trainings: {each['invariants']}, inferred from {names}."
    for each in [*errors, *healthy]:
        if "failure" in each:
            yield f"- `{each['name']}` did not run with TrainCheck: {_one_line(each['failure'])}"


def _other(told: list[list[object]]) -> list[list[object]]:
    return [each for each in told if found({"faulty": [each]}, without_orders=True)]


def _error_of_reference(record: Record) -> bool:
    return any(severity == "error" for _, severity, _ in record["ours"].get("of_reference", []))


def _error_of_healthy(record: Record) -> bool:
    return bool(record["ours"].get("verdict") == "error")


def _share(well: list[Record]) -> str:
    shares = [len(each["reference"]) / each["invariants"] for each in well if each["invariants"]]
    return f"{median(shares):.1%}" if shares else "–"


def _of(answers: Iterable[object]) -> str:
    told = [bool(each) for each in answers]
    return f"{sum(told)} of {len(told)}"


def _one_line(text: str) -> str:
    return " ".join(text.replace("`", "'").split())[-240:]
