"""Rules over several processes: ranks that train copies of a model, and workers of a loader."""

from __future__ import annotations

from itertools import combinations
from typing import Literal

from eegwatch.diagnosis.silent.rule import Attempt, Judgement, SilentRule, Values, Violation, names
from eegwatch.diagnosis.silent.runs import differing
from eegwatch.run.records import Watch

WHEN = ("states", "after")  # a worker's generators before and after its first batch
SHARED_SAMPLES, LEAST_SHARE = 8, 0.05  # of a stream's samples: fewer may be contents that the data hold twice
KEPT = 64  # steps or epochs of which the processes are compared

# ---- ranks ----


def replicas_differ(record: Watch, attempt: Attempt) -> Judgement:
    values = record.values
    known = attempt.ranks.setdefault(("replica", f"{record.step} {values.get('nth')}"), {})
    known[int(values.get("rank", 0))] = values
    _forget(attempt, "replica")
    if len(known) < 2:
        return None
    ranks = sorted(known)
    for rank in ranks[1:]:
        if known[rank]["crc"] != known[ranks[0]]["crc"]:
            return Violation(
                f"the weights of rank {rank} are not those of rank {ranks[0]} at step {record.step:,}: "
                f"{differing(known[ranks[0]], known[rank])}",
                "call the wrapped model (not .module), and treat gradients alike in every rank before step()",
            )
    for rank in ranks[1:]:
        one, other = known[ranks[0]].get("still"), known[rank].get("still")
        if one and other and one["crc"] != other["crc"] and one["parts"].keys() == other["parts"].keys():
            return Violation(
                f"what no optimizer moves is not the same in ranks {ranks[0]} and {rank} at step {record.step:,}: "
                f"{differing(one, other)}",
                "average what the forward pass moves over the ranks (all_reduce): a checkpoint keeps that of rank 0 "
                "alone; dismiss this if each rank is meant to have its own",
                fact=True,
            )
    return True


def ranks_overlap(record: Watch, attempt: Attempt) -> Judgement:
    found = _of_ranks(record, attempt)
    if not isinstance(found, tuple):
        return found
    one, other, shared, share = found
    if _alike(attempt.ranks[_order_key(record)], one, other):
        return True  # ranks_read_the_same says so
    return Violation(
        f"ranks {one} and {other} read {shared:,} of the same samples in epoch {record.values['epoch']}"
        + (f" (of one in {share:,} that was compared)" if share > 1 else ""),
        "give every rank the same seed for the order and its own rank: DistributedSampler(data, num_replicas, rank)",
        fact=bool(record.values.get("weighted")),  # each rank may be meant to draw by weights from all of the data
    )


def ranks_read_the_same(record: Watch, attempt: Attempt) -> Judgement:
    found = _of_ranks(record, attempt)
    if not isinstance(found, tuple):
        return found
    one, other, _, _ = found
    if not _alike(attempt.ranks[_order_key(record)], one, other):
        return True
    return Violation(
        f"ranks {one} and {other} read the same {record.values['n']:,} samples in the same order in epoch "
        f"{record.values['epoch']}",
        "divide the data: DistributedSampler(data) with the rank of each process; world=1 if they should read the same",
    )


def ranks_draw_the_same(record: Watch, attempt: Attempt) -> Judgement:
    """Ranks whose generators are in one state after a resume, and were not in the attempt before.

    Where they are from the beginning, one seed for all ranks may be meant.
    """
    values = record.values
    known = attempt.ranks.setdefault(("draws", ""), {})
    known[int(values.get("rank", 0))] = values
    number = 1 if attempt.run is None else attempt.run.attempt
    if len(known) < 2:
        return None
    for one, other in combinations(sorted(known), 2):
        if known[one]["from"] != known[other]["from"]:
            attempt.apart["draws"] = max(number, attempt.apart.get("draws", 0))
        elif known[one]["to"] == known[other]["to"] and attempt.apart.get("draws", number) < number:
            return Violation(
                f"ranks {one} and {other} draw the same random numbers from step {record.step:,} on: torch's generator "
                "is in one state in both since the resume, and was in two before it",
                "save the generator's state of each rank and restore its own, or seed by the rank after a resume too",
                "dropouts and noise are the same in these ranks",
            )
    return True


def streams_alike(record: Watch, attempt: Attempt) -> Judgement:
    """Ranks that read a stream: their first batches, or those of their workers of one number, differ."""
    values = record.values
    if int(attempt.declared.get("world", 1)) < 2 or not values.get("distinct") or "begins" in values:
        return None
    if record.look == "workers" and not values.get("iterable"):
        return None
    part = f"{values.get('epoch', 1)} {values.get('worker', '')}"
    known = attempt.ranks.setdefault(("stream", f"{values['loader']} {part}"), {})
    rank = int(values.get("rank", 0))
    known[rank] = values
    _forget(attempt, "stream")
    for other, there in sorted(known.items()):
        if other != rank and there["batch"] == values["batch"] and not _takes_a_share(values):
            return Violation(
                f"ranks {min(rank, other)} and {max(rank, other)} read the same first batch of a stream",
                "divide the stream by the rank of each process (split_dataset_by_node, or in its __iter__); world=1 if "
                "they should read the same",
            )
    return True if len(known) > 1 else None


def streams_overlap(record: Watch, attempt: Attempt) -> Judgement:
    """Ranks that read a stream, whose samples are known by their contents: a data set may hold a sample twice."""
    values = record.values
    if "some" not in values or int(attempt.declared.get("world", 1)) < 2:
        return None
    key = ("samples", f"{values['loader']} {values['epoch']}")
    known = attempt.ranks.setdefault(key, {})
    rank = int(values.get("rank", 0))
    own = known.setdefault(rank, {})  # worker -> what it has read so far
    own[str(values.get("worker", ""))] = values
    _forget(attempt, "samples")
    if len(known) < 2 or any(int(one["repeats"]) for parts in known.values() for one in parts.values()):
        return None  # what holds samples twice may give them to two ranks
    alike = attempt.ranks.get(("stream", f"{values['loader']} 1 "), {})
    if len({str(one["batch"]) for one in alike.values()}) < len(alike):
        return None  # ranks_read_the_same says so
    for other in sorted(known):
        if other == rank:
            continue
        shared, least, every = _shared_samples(own, known[other])
        if shared >= SHARED_SAMPLES and shared >= LEAST_SHARE * least:
            return Violation(
                f"ranks {min(rank, other)} and {max(rank, other)} read {shared:,} of the same samples of a stream in "
                f"epoch {values['epoch']}" + (f" (of one in {every:,} that was compared)" if every > 1 else ""),
                "shuffle with the same seed in every rank before the stream is divided, or divide it first",
                fact=True,  # samples are compared by what they hold
            )
    return True


def _shared_samples(one: Values, other: Values) -> tuple[int, int, int]:
    """(samples that two ranks share, that the one with fewer has, one in how many was compared)."""
    every = max(int(part["every"]) for part in (*one.values(), *other.values()))
    both = [{n for part in parts.values() for n in part["some"] if not n % every} for parts in (one, other)]
    return len(both[0] & both[1]), min(map(len, both)), every


def _order_key(record: Watch) -> tuple[str, str]:
    part = "begun" if "partial" in record.values else ""
    return "order", f"{record.values.get('loader')} {record.values.get('epoch')} {part}"


def _of_ranks(record: Watch, attempt: Attempt) -> tuple[int, int, int, int] | Literal[True] | None:
    """(two ranks, samples that both read, one in how many was compared); True where none do, None if not known."""
    values = record.values
    if "some" not in values or "when" in values or int(attempt.declared.get("world", 1)) < 2:
        return None
    known = attempt.ranks.setdefault(_order_key(record), {})
    known[int(values.get("rank", 0))] = values
    _forget(attempt, "order")
    if len(known) < 2:
        return None
    for one in sorted(known):
        for other in sorted(known):
            if not _same_data(known[one], known[other]):
                continue
            shared = set(known[one]["some"]) & set(known[other]["some"])
            if one < other and len(shared) > len(known):  # the last samples are given out twice to fill the ranks up
                return one, other, len(shared), int(values.get("every", 1))
    return True


def _same_data(one: Values, other: Values) -> bool:
    """Do both draw from the same data set? A number means another sample in each rank's own part of the data.

    Samplers that draw with replacement, and those of the script's own, may share samples unless all are alike.
    """
    same = one.get("data") is not None and one.get("data") == other.get("data") and not _takes_a_share(one)
    return same and ((one.get("once") and other.get("once")) or one["crc"] == other["crc"])


def _takes_a_share(values: Values) -> bool:
    """Does a rank train on fewer rows than its loader gives it: its own share of a batch that all of them read?"""
    batch = values.get("batch")  # of an order it is how many, of a stream the sum of the first one
    size = int(values.get("size") or (batch if isinstance(batch, int) else 0))
    return 0 < int(values.get("rows") or 0) < size


def _alike(known: dict[int, Values], one: int, other: int) -> bool:
    return bool(known[one]["crc"] == known[other]["crc"] and known[one]["n"] == known[other]["n"])


def _forget(attempt: Attempt, look: str) -> None:
    """Of what ranks are compared by, the newest is kept."""
    keys = [key for key in attempt.ranks if key[0] == look]
    for key in keys[:-KEPT]:
        del attempt.ranks[key]


# ---- workers ----


def _workers(record: Watch, attempt: Attempt) -> list[Values]:
    """What the workers of the same epoch of this loader have told, this one last."""
    values = record.values
    known = attempt.ranks.setdefault(("workers", f"{values['loader']} {values['epoch']}"), {})
    known[int(values["worker"])] = values
    _forget(attempt, "workers")
    return [one for worker, one in sorted(known.items()) if worker != values["worker"]]


def _alike_drawn(one: Values, other: Values, name: str) -> bool:
    """Did both draw from this generator, from the same state on and as far? One that was seeded anew ends elsewhere."""
    return name in one.get("drawn", []) and all(one[when].get(name) == other[when].get(name) for when in WHEN)


def workers_yield_the_same(record: Watch, attempt: Attempt) -> Judgement:
    values = record.values
    others = _workers(record, attempt)
    if not values.get("iterable") or not values.get("distinct"):
        return None
    for other in others:
        if other["batch"] == values["batch"]:
            return Violation(
                f"workers {other['worker']} and {values['worker']} yield the same first batch: every sample of the "
                "stream is read once by each worker",
                "divide the stream in its __iter__ by torch.utils.data.get_worker_info()",
            )
    return True if others else None


def workers_draw_the_same(record: Watch, attempt: Attempt) -> Judgement:
    values = record.values
    others = _workers(record, attempt)
    drawn = values.get("drawn", [])
    for other in others:
        for name in drawn:
            if _alike_drawn(other, values, name):
                return Violation(
                    f"workers {other['worker']} and {values['worker']} draw the same numbers: {name} began in the same "
                    "state in both",
                    "seed it from get_worker_info().seed in worker_init_fn, not by a number of your own",
                )
    return True if others and drawn else None


def epochs_draw_the_same(record: Watch, attempt: Attempt) -> Judgement:
    values = record.values
    before = attempt.ranks.get(("workers", f"{values['loader']} {values['epoch'] - 1}"), {}).get(int(values["worker"]))
    drawn = values.get("drawn", [])
    if before is None or not drawn:
        return None
    for name in drawn:
        if _alike_drawn(before, values, name):
            return Violation(
                f"worker {values['worker']} draws in epoch {values['epoch']} what it drew in epoch {before['epoch']}: "
                f"{name} began in the same state",
                "seed it from get_worker_info().seed in worker_init_fn: the worker's number is the same in each epoch",
            )
    return True


def workers_stale(record: Watch, attempt: Attempt) -> Judgement:
    stale = record.values.get("stale")
    if stale is None:
        return None
    if not stale["n"]:
        return True
    return Violation(
        f"{names(stale)} of the data set changed since the persistent workers were started: their copies of the data "
        f"set have the old value in epoch {record.values['epoch']}",
        "persistent_workers=False, or keep the value in shared memory (torch.tensor(0).share_memory_())",
    )


def ranks_leave_out(record: Watch, attempt: Attempt) -> Judgement:
    replicas, world = int(record.values.get("replicas", 0)), int(attempt.declared.get("world", 1))
    if not replicas or world < 2 or "when" in record.values:
        return None
    if replicas <= world:
        return True
    return Violation(
        f"the sampler divides the data among {replicas:,} ranks and {world:,} train: {replicas - world:,} of "
        f"{replicas:,} parts are read by none",
        f"DistributedSampler(data, num_replicas={world}), or leave num_replicas out; dismiss this if the rest is read "
        "elsewhere",
    )


RULES = (
    SilentRule("replicas_differ", "replica", True, replicas_differ),
    SilentRule("ranks_overlap", "order", True, ranks_overlap),
    SilentRule("ranks_overlap", "stream", True, streams_overlap),
    SilentRule("ranks_read_the_same", "order", True, ranks_read_the_same),
    SilentRule("ranks_leave_out", "order", False, ranks_leave_out),
    SilentRule("ranks_draw_the_same", "rank_draws", False, ranks_draw_the_same),
    SilentRule("ranks_read_the_same", "stream", True, streams_alike),
    SilentRule("ranks_read_the_same", "workers", True, streams_alike),
    SilentRule("workers_yield_the_same", "workers", True, workers_yield_the_same),
    SilentRule("workers_draw_the_same", "workers", True, workers_draw_the_same),
    SilentRule("epochs_draw_the_same", "workers", True, epochs_draw_the_same),
    SilentRule("workers_stale", "order", False, workers_stale),
)
