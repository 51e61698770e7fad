"""Rules over the order in which a loader's samples are read: epoch after epoch, and over a resume."""

from __future__ import annotations

import math

from eegwatch.diagnosis.silent.rule import Attempt, Judgement, SilentRule, Values, Violation, steps_of_epoch
from eegwatch.run.records import Watch

BY_CHANCE = 1e-9  # two shuffles of n are alike once in n!: 13 are enough
LEFT_ALIKE = 3  # epochs in a row that were left at the same place
FEW_BATCHES = 3  # an epoch of so few is one that is to be overfitted
OF_BLOCKS = 1e-6  # of a few batches or blocks, over all repetitions in a row: it is a fact
LEAST = 13  # different samples: draws with replacement of so many are alike at most once in 13^13


def order_repeated(record: Watch, attempt: Attempt) -> Judgement:
    values = record.values
    if "cycled" in values:
        return Violation(
            f"{values['cycled']:,} steps were taken since the loader's first epoch was drawn, and it draws no other: "
            "the batches of the first one are used again, in their order and as they were augmented",
            "begin the loader anew in each epoch (itertools.cycle keeps the first one's batches); dismiss this if "
            "another loader is read by now",
            fact=True,
        )
    if "unread" in values or "partial" in values or not (values.get("shuffles") or values.get("asks")):
        return None
    reader = reader_of(values)
    before = attempt.orders.get(reader)
    attempt.orders[reader] = values
    if before is None:
        return _replayed(record, attempt, attempt.done.get(reader, []))
    n, batch = int(values["n"]), int(values.get("batch") or 1)
    if n <= batch or values.get("ascends"):
        return None  # one batch holds the whole set, or it is read from its beginning to its end
    if n == before["n"]:
        same = values["crc"] == before["crc"]
    elif "head" in values and "head" in before:
        n, same = 64, values["head"] == before["head"]
    else:
        return None
    times = f"order_repeated of rank {reader[1]}", reader[0]
    attempt.in_a_row[times] = attempt.in_a_row.get(times, 0) + 1 if same else 0
    if not same:
        return True
    repeats = attempt.in_a_row[times]
    chance = -repeats * math.lgamma(n + 1)
    if chance > math.log(BY_CHANCE) or (values.get("redraws") and int(values["distinct"]) < LEAST):
        return None
    units = int(values.get("units", n))
    if not values.get("shuffles") and -repeats * math.lgamma(units + 1) > math.log(OF_BLOCKS):
        return None  # a few batches or blocks that are shuffled as they are
    told = f"epoch {values['epoch']} reads the data in the order of epoch {before['epoch']}: {n:,} indices alike"
    if not values.get("shuffles"):
        return Violation(
            f"{told}, though the sampler {values['asks']}",
            "draw the order in __iter__, and call set_epoch(epoch) if it has one; dismiss this if the order is meant",
            f"the order is that of a {values['sampler']} of the script's own, which may be meant to stay",
            fact=True,
        )
    return Violation(
        told + ("" if values.get("redraws") else f" (by chance once in 1e{-chance / math.log(10):.0f})"),
        "call loader.sampler.set_epoch(epoch) at the beginning of each epoch, and seed once, not in every epoch",
        f"a {values['sampler']} draws each epoch anew unless its seed is the same again",
    )


def stream_repeated(record: Watch, attempt: Attempt) -> Judgement:
    """A stream that is asked for another order in each epoch, and begins two with the same batch."""
    values = record.values
    asks = values.get("asks")
    if asks is None or not values.get("distinct"):
        return None
    if record.look == "workers":
        of_epoch = attempt.ranks.get(("workers", f"{values['loader']} {int(values['epoch']) - 1}"), {})
        before = of_epoch.get(int(values["worker"]))
    else:
        if not values.get("begins"):
            return None
        begins = attempt.ranks.setdefault(("stream begins", str(values["loader"])), {})
        rank = int(values.get("rank", 0))
        before, begins[rank] = begins.get(rank), values
    if before is None or not before.get("distinct"):
        return None
    if before["batch"] != values["batch"]:
        return True
    return Violation(
        f"epoch {values['epoch']} of the stream begins with the batch that epoch {before['epoch']} began with, "
        f"though the data set {asks}",
        "call set_epoch(epoch) of the data set before each epoch, and let it reach the workers "
        "(persistent_workers=False, or a value in shared memory); dismiss this if the order is meant",
        "a stream may be meant to be in one order",
        fact=True,
    )


def epoch_length(record: Watch, attempt: Attempt) -> Judgement:
    """An epoch takes the declared steps, not their number of all processes or micro-batches, and all of them."""
    values, run = record.values, attempt.run
    if "took" not in values or run is None:
        return None
    steps, reader = int(values["took"]), reader_of(values)
    before = attempt.took.get(reader, run.steps_per_epoch or steps)  # epochs of the attempts before have taken
    attempt.took[reader] = max(steps, attempt.took.get(reader, 0))
    full = run.steps_per_epoch or attempt.took[reader]
    factors = {
        "processes": max(run.world_size, int(attempt.declared.get("world", 1) or 1)),
        "micro-batches": max(run.accumulate, int(attempt.declared.get("accumulate", 1) or 1)),
    }
    for name, factor in factors.items():
        if factor > 1 and full != steps and abs(full - steps * factor) < factor and run.steps_per_epoch:
            return Violation(
                f"steps_per_epoch={full:,} was declared and epoch {values['epoch'] - 1} took {steps:,} steps: it "
                f"counts those of all {factor} {name}",
                f"steps_per_epoch={steps}; a schedule that was built from it is {factor} times as long as the run",
            )
    if 0 < run.step % full == full - steps and before == full:
        return Violation(
            f"epoch {values['epoch'] - 1} of the resume from step {run.step:,} took {steps:,} of {full:,} steps: the "
            f"{full - steps:,} that the resume was to skip in its first epoch are skipped in each",
            "skip batches in the first epoch alone (skip_first_batches gives a loader for one epoch)",
        )
    return True if run.steps_per_epoch else None


def order_unshuffled(record: Watch, attempt: Attempt) -> Judgement:
    """Epoch after epoch the samples are read by their indices, and steps are taken with them.

    Said of feed-forward models alone: a recurrent one may carry its state from batch to batch. Nothing is said where
    the data set has another order by itself, or a loader that shuffles is read beside this one.
    """
    values = record.values
    if "partial" in values or not values.get("n"):
        return None
    reader, n, batch = reader_of(values), int(values["n"]), int(values.get("batch") or 1)
    meant = values.get("own_order") or values.get("beside") or attempt.attached.get("recurrent")
    if not values.get("sequential") or not int(values.get("steps", 0)) or meant:
        attempt.sequences.pop(reader, None)
        return None if not values.get("shuffles") else True
    before, times = attempt.sequences.get(reader, (0, 0))
    times = times + 1 if before == n else 1
    attempt.sequences[reader] = n, times
    size = int(values.get("length") or n)
    left = n + batch <= size
    if times < (LEFT_ALIKE if left else 2) or (n <= FEW_BATCHES * batch and not left):
        return None
    message = f"the last {times} epochs read the first {n:,} of {size:,} samples, in the order of their indices: "
    if left:
        message += "the others are never read"
    else:
        message = f"epochs {values['epoch'] - 1} and {values['epoch']} read {n:,} samples in the order of their indices"
    return Violation(
        message,
        "DataLoader(..., shuffle=True), and one iterator for a whole epoch (no next(iter(loader)) in a step); dismiss "
        "this if the order is meant (a series)",
        f"a {values['sampler']} never shuffles",
    )


def sampler_leaves_out(record: Watch, attempt: Attempt) -> Judgement:
    values = record.values
    indices, samples = int(values["indices"]), int(values["samples"])
    if indices >= samples:
        return True
    return Violation(
        f"the {values['sampler']} draws among {indices:,} indices and the data set has {samples:,} samples: "
        f"{samples - indices:,} are never read",
        "give the sampler one weight for each sample (not for each class), and the data set that the loader reads; "
        "dismiss this if the rest is left out on purpose",
    )


def reader_of(values: Values) -> tuple[int, int]:
    """(loader, rank) of a record of look "order"."""
    return int(values["loader"]), int(values.get("rank", 0))


def _replayed(record: Watch, attempt: Attempt, done: list[Values]) -> Judgement:
    """The first epoch of a resume in the order of one that was over at its checkpoint: its seed began anew."""
    values, run = record.values, attempt.run
    if run is None or not done or not values.get("n"):
        return None
    if record.step - run.step < steps_of_epoch(values, run.steps_per_epoch) / 2:
        return None  # batches that are skipped to come back to where the run was
    n = int(values["n"])
    if n <= int(values.get("batch") or 1) or math.lgamma(n + 1) < -math.log(BY_CHANCE):
        return None
    same = next((one for one in done if one["n"] == n and one["crc"] == values["crc"]), None)
    if same is None:
        return None
    return Violation(
        f"the resume from step {run.step:,} reads the data in the order of epoch {same['epoch']} of an attempt before, "
        "which was over",
        "call loader.sampler.set_epoch(epoch) with the epoch of the whole run, or restore the generator's state",
        f"a {values['sampler']} begins with the same order whenever its seed is set anew",
        fact=True,
    )


# ---- a resume in the middle of an epoch ----


def order_restarted(record: Watch, attempt: Attempt) -> Judgement:
    """A resume in the middle of an epoch that reads its beginning again, in the same order."""
    both = _both(record, attempt)
    if both is None:
        return _read_again(record, attempt)
    before, now, alike = both
    again = min(int(before["n"]), int(before["n"]) - int(now["first"]) + int(now.get("batch") or 1))
    if not alike or int(now["first"]) >= int(before["n"]) or again <= 0:
        return True
    return Violation(
        f"the resume from step {record.step:,} reads the beginning of the epoch again, in the same order: "
        f"{int(before['n']):,} of {int(before['length']):,} samples had been drawn at the checkpoint",
        "skip what was read (accelerate.skip_first_batches, torchdata's StatefulDataLoader); dismiss this if the epoch "
        "is meant to begin again",
    )


def _read_again(record: Watch, attempt: Attempt) -> Judgement:
    """A second resume within one epoch whose samples have all been read by the attempts before it."""
    values, run = record.values, attempt.run
    if run is None or values.get("when") not in ("checkpoint", "end") or not values.get("resumed"):
        return None
    if values.get("epoch") != 1 or values.get("redraws") or int(values["first"]) > int(values.get("batch") or 1):
        return None  # what is drawn before the first step is skipped
    known, step, total = attempt.drawn.get(reader_of(values), {}), run.step, 0
    chain: list[Values] = []
    while step in known and _same_reader(known[step], values):
        chain.append(known[step])
        total += int(known[step]["n"])
        if known[step]["epoch"] != 1 or not known[step].get("resumed") or known[step]["base"] >= step:
            break
        step = int(known[step]["base"])
    size = int(values.get("length") or 0) // int(values.get("every") or 1)
    if len(chain) < 2 or total + int(values.get("batch") or 1) >= int(values.get("length") or 0):
        return None
    read, own = {index for one in chain for index in one["some"]}, set(values["some"])
    if not own or not own <= read or len(read) >= size:
        return None
    chance = sum(math.log((len(read) - i) / (size - i)) for i in range(len(own)))
    if chance > math.log(OF_BLOCKS):
        return None  # a new order may begin with samples that were read
    return Violation(
        f"the resume from step {run.step:,} reads samples that the {len(chain)} attempts before it have read in this "
        f"epoch: all of its {int(values['n']):,} (by chance once in 1e{-chance / math.log(10):.0f})",
        "skip all that was read since the epoch began, not what the last attempt has read alone",
    )


def order_lost(record: Watch, attempt: Attempt) -> Judgement:
    """A resume in the middle of an epoch that goes on in another order: samples are read twice, and others never."""
    if "partial" not in record.values:
        return _rest_read_twice(record, attempt)
    both = _both(record, attempt)
    if both is None or both[0].get("resumed"):
        return None
    before, now, alike = both
    done, first = int(before["n"]), int(now["first"])
    skips = done <= first <= done + int(before.get("first", 0))
    untrained = first - int(now.get("trained", 0)) * int(now.get("batch") or 1)
    if 2 * untrained < done:
        return None  # an epoch that begins anew, and whose first steps were left out (a loss that is not finite)
    if alike or not skips or not now.get("shuffles") or now.get("redraws"):
        return None if not skips else True
    if before.get("batch") != now.get("batch"):
        return None
    return Violation(
        f"the resume from step {record.step:,} skips {done:,} samples that are not those which were read before: "
        "the epoch is in another order, so that some samples are read twice and others never",
        "restore the generator's state or the sampler's seed and epoch before you skip (use_seedable_sampler=True in "
        "accelerate)",
    )


def _both(record: Watch, attempt: Attempt) -> tuple[Values, Values, bool] | None:
    """(the epoch at the checkpoint, the epoch that a resume begins with, are they in the same order?).

    None where the checkpoint lies at the end of an epoch, or the two cannot be compared.
    """
    values = record.values
    before = attempt.drawn.get(reader_of(values), {}).get(record.step) if values.get("when") == "begin" else None
    if before is None or not _in_the_middle(before) or not _same_reader(before, values):
        return None
    marks = [int(n) for n in values.get("marks", {}) if n in before.get("marks", {})]
    if not marks:
        return None
    longest = str(max(marks))
    return before, values, bool(values["marks"][longest] == before["marks"][longest])


def _rest_read_twice(record: Watch, attempt: Attempt) -> Judgement:
    """The first epoch of a resume, left where the epoch before it would have ended."""
    values, run = record.values, attempt.run
    if run is None or values.get("epoch") != 1 or not values.get("n"):
        return None
    before = attempt.drawn.get(reader_of(values), {}).get(run.step)
    if before is None or not _in_the_middle(before) or not _same_reader(before, values):
        return None
    n, done, size = int(values["n"]), int(before["n"]), int(values["length"])
    if not values.get("shuffles") or values.get("redraws") or abs(n + done - size) > int(values.get("batch") or 1):
        return None
    again = set(before.get("some", [])) & set(values.get("some", []))
    if len(again) < 2 or any(before["marks"].get(mark) == crc for mark, crc in values["marks"].items()):
        return None  # what began again in the same order is told of as soon as it begins
    return Violation(
        f"the rest of the epoch was read in another order after the resume from step {run.step:,}: {len(again):,} "
        f"samples were read twice"
        + (f" (of one in {int(values['every']):,} that was compared)" if int(values["every"]) > 1 else ""),
        "restore the sampler's state and skip what was read; dismiss this if the epoch is meant to begin again",
        fact=True,
    )


def _in_the_middle(values: Values) -> bool:
    size = int(values.get("length", 0))
    return bool(values.get("n")) and int(values["n"]) + int(values.get("batch") or 1) < size


def _same_reader(before: Values, now: Values) -> bool:
    """The same sampler over as many samples, for as many ranks?"""
    return all(before.get(name) == now.get(name) for name in ("sampler", "length", "replicas"))


RULES = (
    SilentRule("order_repeated", "order", True, order_repeated),
    SilentRule("order_repeated", "workers", True, stream_repeated),
    SilentRule("order_repeated", "stream", True, stream_repeated),
    SilentRule("epoch_length", "order", False, epoch_length),
    SilentRule("order_unshuffled", "order", False, order_unshuffled),
    SilentRule("sampler_leaves_out", "loader", False, sampler_leaves_out),
    SilentRule("order_restarted", "order", False, order_restarted),
    SilentRule("order_lost", "order", True, order_lost),
)
