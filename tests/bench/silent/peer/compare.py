"""One case with TrainCheck and with eegwatch: what each says, and what it costs; a record that a file can keep."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

from tests.bench.silent.case import Case
from tests.bench.silent.peer.commands import Failed, Ran, TrainCheck, Violation, outcome_of, run, size_of, violations
from tests.bench.silent.peer.standalone import standalone

SEEDS, ANOTHER = (0, 1), 2  # of the references that are learnt from; of the runs that are checked
ORDERS = (
    "FunctionCoverRelation",
    "FunctionLeadRelation",
)  # its tutorial: "overfit our single demo trace", "ignore these"
Record = dict[str, Any]


def compare_error(case: Case, peer: TrainCheck, folder: Path) -> Record:
    """Two references are learnt from; a third run of the reference and the faulty one, of the same seed, are checked."""
    record = _begun(case)
    try:
        traces = [_collected(record, case, peer, folder, faulty=False, seed=seed) for seed in SEEDS]
        known = folder / "invariants.json"
        _took(record, "infer", peer.infer(traces, known))
        again = _collected(record, case, peer, folder, faulty=False, seed=ANOTHER)
        wrong = _collected(record, case, peer, folder, faulty=True, seed=ANOTHER)
        _took(record, "check", peer.check([again, wrong], known, folder / "results"))
        record["invariants"] = len(known.read_text(encoding="utf-8").splitlines())
        of_reference = violations(folder / "results", again)
        record["reference"] = [_told(each) for each in of_reference]
        record["faulty"] = [_told(each) for each in only_new(violations(folder / "results", wrong), of_reference)]
    except Failed as failure:
        record["failure"] = str(failure)[:600]
    record["ours"] = ours_of(case, folder)
    return record


def compare_healthy(case: Case, peer: TrainCheck, folder: Path, known: Path) -> Record:
    """A healthy training against the invariants of other trainings, as its users have them."""
    record = _begun(case)
    try:
        trace = _collected(record, case, peer, folder, faulty=False, seed=ANOTHER)
        _took(record, "check", peer.check([trace], known, folder / "results"))
        record["invariants"] = len(known.read_text(encoding="utf-8").splitlines())
        record["reference"] = [_told(each) for each in violations(folder / "results", trace)]
    except Failed as failure:
        record["failure"] = str(failure)[:600]
    record["ours"] = ours_of(case, folder)
    return record


def learn(pool: tuple[Case, ...], peer: TrainCheck, folder: Path) -> tuple[Path, Record]:
    """The invariants of several trainings. One that cannot be traced is left out and named."""
    record: Record = {"name": "pool", "kind": "pool", "of": [], "left_out": {}, "cpu": {}, "wall": {}, "bytes": {}}
    traces = []
    for case in pool:
        own = folder / case.name
        own.mkdir()
        try:
            traces.append(_collected(record, case, peer, own, faulty=False, seed=SEEDS[0]))
            record["of"].append(case.name)
        except Failed as failure:
            record["left_out"][case.name] = str(failure)[:300]
    known = folder / "invariants.json"
    _took(record, "infer", peer.infer(traces, known))
    record["invariants"] = len(known.read_text(encoding="utf-8").splitlines())
    for trace in traces:
        shutil.rmtree(trace)
    return known, record


def ours_of(case: Case, folder: Path) -> Record:
    """eegwatch on the case in a process of its own, as the benchmark plays it."""
    ran = run([sys.executable, "-m", "tests.bench.silent.peer.ours", case.name], Path.cwd(), 900)
    lines = [line for line in ran.output.splitlines() if line.startswith("{")]
    if ran.code or not lines:
        return {"failure": ran.output[-400:]}
    return {**json.loads(lines[-1]), "process_cpu": round(ran.cpu, 2)}


def only_new(faulty: list[Violation], reference: list[Violation]) -> list[Violation]:
    """The violations of the faulty run that the reference of the same seed does not have."""
    known = {each.key for each in reference}
    return [each for each in faulty if each.key not in known]


def found(record: Record, *, without_orders: bool = False) -> bool:
    """Does TrainCheck say of the faulty run what it does not say of the reference?"""
    return any(not (without_orders and relation in ORDERS) for relation, _, _ in record.get("faulty", []))


def alarmed(record: Record, *, without_orders: bool = False) -> bool:
    """Does TrainCheck say something of the run that is as it should be?"""
    return any(not (without_orders and relation in ORDERS) for relation, _, _ in record.get("reference", []))


def _begun(case: Case) -> Record:
    kind = "error" if case.is_error else "healthy"
    return {"name": case.name, "set": case.part, "kind": kind, "cpu": {}, "wall": {}, "bytes": {}, "same": []}


def _collected(record: Record, case: Case, peer: TrainCheck, folder: Path, *, faulty: bool, seed: int) -> Path:
    """The trace of one form of a case. Of a target it notes whether the training came out as untraced, bit for bit."""
    form = f"{'faulty' if faulty else 'reference'}{seed}"
    told = standalone(case, faulty=faulty, seed=seed)
    script = folder / f"{form}.py"
    script.write_text(told.text, encoding="utf-8")
    trace = folder / f"{form}-trace"
    _took(record, "collect", peer.collect(script, told.models, trace))
    record["bytes"].setdefault("collect", []).append(size_of(trace))
    if seed == ANOTHER:
        bare = run([str(peer.python), str(script)], folder, peer.limit)
        _took(record, "bare", bare)
        traced = outcome_of((trace / "program_output.txt").read_text(encoding="utf-8", errors="replace"))
        record["same"].append(bool(traced) and traced == outcome_of(bare.output))
    return trace


def _took(record: Record, stage: str, ran: Ran) -> None:
    record["cpu"].setdefault(stage, []).append(round(ran.cpu, 2))
    record["wall"].setdefault(stage, []).append(round(ran.wall, 1))


def _told(violation: Violation) -> list[Any]:
    return [violation.relation, violation.text, violation.step]
