"""Rules over the data: splits, signals under two names, labels that disagree, headers that tell the class."""

from __future__ import annotations

from typing import Any

from eegwatch.diagnosis.silent.rule import Attempt, Judgement, SilentRule, Values, Violation, names
from eegwatch.run.records import Watch, number

LARGEST_CHANGE = 1e-3  # of the features' spread, between two passes over the same windows in evaluation mode
LARGEST_OF_A_BATCH = 3e-2  # the same with other windows in the batch: bfloat16 kernels differ with the batch's size

# ---- splits ----


def splits_overlap(record: Watch, attempt: Attempt) -> Judgement:
    values, name = record.values, str(record.values["name"])
    rank = int(values.get("rank", 0))
    for (where, _), other in attempt.splits.items():  # declared again: what it shares is in its newest record
        if where == rank:
            other.get("shared", {}).pop(name, None)
    attempt.splits[rank, name] = {**values, "shared": dict(values.get("shared") or {})}
    for (_, one), split in sorted(attempt.splits.items()):
        for other_name, both in split["shared"].items():
            more = f" and {both['n'] - len(both['ids']):,} more" if both["n"] > len(both["ids"]) else ""
            return Violation(
                f"the splits {other_name} and {one} share {both['n']:,} of their ids: {', '.join(both['ids'])}{more}",
                "divide by subject (or by recording) before you cut windows",
            )
    return _over_ranks(attempt) or _over_attempts(record, attempt) or _over_runs(values) or True


def _over_ranks(attempt: Attempt) -> Violation | None:
    """What one rank of a job holds out and another one trains on."""
    if int(attempt.declared.get("world", 1)) < 2:
        return None
    splits = sorted(attempt.splits.items())
    for (rank, name), held in splits:
        for (other, trained_as), trained in splits:
            if rank == other or not _is_held_out(held) or trained.get("kind") != "train":
                continue
            shared, compared = shared_ids(held, trained)
            if shared:
                return Violation(
                    f"rank {rank} holds out ids as {name} that rank {other} trains on as {trained_as}: "
                    f"{_of(shared, compared, held)}",
                    "draw the split once, or in every rank from the same seed",
                    fact=not attempt.attached.get("copies"),  # each rank may train a model of its own on its own fold
                )
    return None


def _over_attempts(record: Watch, attempt: Attempt) -> Violation | None:
    """What a resume holds out and an earlier attempt has trained on."""
    values, run = record.values, attempt.run
    if run is None or not run.step or not _is_held_out(values):
        return None
    saved, now = attempt.states.get(run.step, {}).get("weights"), attempt.begun
    if saved is not None and now and saved["crc"] != now["crc"]:
        return None  # other weights: what was trained before may not be in them
    for earlier, trained in attempt.trained:
        shared, compared = shared_ids(values, trained)
        if shared:
            return Violation(
                f"{values['name']} holds out ids that attempt {earlier} trained on as {trained['name']}: "
                f"{_of(shared, compared, values)}",
                "keep the split with the checkpoint, or draw it from the same seed on a resume",
                fact=saved is None or not now,  # it is not known that the weights are those of that attempt
            )
    return None


def _over_runs(values: Values) -> Violation | None:
    """What a run holds out and an earlier one of the same process has trained the same model on."""
    for one in values.get("before", []):
        return Violation(
            f"{values['name']} holds out ids that run {one['run']} trained this model on as {one['split']}: "
            f"{_of(one['shared'], one['compared'], values)}",
            "make or load the model anew before each fold; dismiss this if the earlier run is meant to have seen them",
            "the model begins with the weights that the earlier run left",
            fact=True,  # a model may be pretrained, without labels, on what it is tested on
        )
    return None


def _is_held_out(split: Values) -> bool:
    return split.get("kind") in ("val", "test")


def shared_ids(one: Values, other: Values) -> tuple[int, int]:
    """(ids that both splits hold, ids of the first that were compared), by the hashes in their records."""
    every = max(int(one.get("every", 1)), int(other.get("every", 1)))
    own = {number for number in one.get("hashes", []) if not number % every}
    return len(own.intersection(other.get("hashes", []))), len(own)


def _of(shared: int, compared: int, split: Values) -> str:
    whole = "" if compared == int(split["n"]) else f" that were compared (it has {int(split['n']):,})"
    return f"{shared:,} of {compared:,}{whole}"


# ---- signals ----


def same_signal(name: str, kind: str, message: str, remedy: str, *, proved: bool) -> SilentRule:
    """The rule of one kind of pairs of recordings that hold the same signal; `{pair}` of the message: the first."""

    def judge(record: Watch, attempt: Attempt) -> Judgement:
        if not record.values.get("compared"):
            return None
        pairs: Values | None = record.values.get(kind)
        if pairs is None:
            return None
        if not pairs["n"]:
            return True
        words = message.format(pair=_pair(pairs["shown"], pairs["n"]))
        return Violation(words, remedy, "samples are equal second by second")

    return SilentRule(name, "signals", proved, judge)


def _pair(shown: list[Any], n: int) -> str:
    """The first pair in words: "train/normal #3 and eval/normal #1 (all of it)" and how many more."""
    one, other, seconds, whole = shown[0]
    how_much = "all of it" if whole else f"about {float(seconds):,.0f} s of it"
    return f"{one} and {other} ({how_much})" + (f", and {n - 1:,} more pairs" if n > 1 else "")


# ---- labels and headers ----


def labels_disagree(record: Watch, attempt: Attempt) -> Judgement:
    sources: list[Values] = record.values.get("sources") or []
    if not sources:
        return None
    for source in sources:
        if source["n"]:
            shown = "; ".join(f"{one}: {folder} by folder, {says} there" for one, folder, says in source["shown"])
            more = f" and {source['n'] - len(source['shown']):,} more" if source["n"] > len(source["shown"]) else ""
            return Violation(
                f"the labels of {source['n']:,} of {source['compared']:,} recordings are not those of "
                f"{source['name']}: {shown}{more}",
                "find out which is right, and move the files or correct the list",
            )
    return True


def class_in_header(record: Watch, attempt: Attempt) -> Judgement:
    facts: list[Values] | None = record.values.get("by_class")
    if facts is None:
        return None
    if not facts:
        return True
    parts = []
    for fact in facts:
        of_class = "; ".join(f"{name}: {words}" for name, words in fact["classes"].items())
        parts.append(f"{fact['what']} ({of_class}), {float(fact['told']):.0%} balanced accuracy")
    return Violation(
        f"the header predicts the class without the signal: {'; '.join(parts)}",
        "a model may learn the equipment in place of the disease: compare within one kind, or balance the classes",
    )


def by_header(name: str, kind: str, message: str, remedy: str) -> SilentRule:
    """The rule of one thing that headers say of people; `{n}` and `{shown}` of the message: how many, and files."""

    def judge(record: Watch, attempt: Attempt) -> Judgement:
        told: Values | None = record.values.get(kind)
        if told is None:
            return None
        if not told["n"]:
            return True
        shown = "; ".join(" and ".join(files) for files in told["shown"])
        return Violation(message.format(n=f"{told['n']:,}", shown=shown), remedy)

    return SilentRule(name, "headers", False, judge)


# ---- the frozen encoder ----


def encoder_in_train_mode(record: Watch, attempt: Attempt) -> Judgement:
    values = record.values
    active = values.get("active")
    if active:
        return Violation(
            f"the frozen encoder computed the features in training mode: {names(active)}",
            "call .eval() on the encoder before its features are computed",
        )
    repeat, alone = number(values.get("repeat")), number(values.get("alone"))
    if repeat > LARGEST_CHANGE:
        return Violation(
            f"the frozen encoder gives other features for the same windows: by {repeat:.2g} of their spread",
            "put it into evaluation mode (.eval()): dropout draws in training mode",
        )
    if alone > LARGEST_OF_A_BATCH:
        return Violation(
            f"the features of a window depend on the other windows of its batch: by {alone:.2g} of their spread",
            "put the encoder into evaluation mode (.eval()): a batch norm uses the batch's statistics in training mode",
        )
    return True if repeat == repeat else None


RULES = (
    SilentRule("splits_overlap", "split", True, splits_overlap),
    same_signal(
        "signal_in_two_splits",
        "splits",
        "two splits hold the same signal under two names: {pair}",
        "remove one of the two files, or give both the subject's name, so that they fall into one split",
        proved=True,
    ),
    same_signal(
        "signal_in_two_classes",
        "classes",
        "the same signal carries two labels: {pair}",
        "find out which label is right, and remove the other file",
        proved=True,
    ),
    SilentRule("labels_disagree", "labels", True, labels_disagree),
    SilentRule("encoder_in_train_mode", "encoder", True, encoder_in_train_mode),
    same_signal(
        "signal_twice",
        "twice",
        "a split holds the same signal twice: {pair}; its windows count double",
        "remove one of the two files if that is not intended",
        proved=False,
    ),
    SilentRule("class_in_header", "headers", False, class_in_header),
    by_header(
        "patient_in_two_splits",
        "codes",
        "the headers give {n} patient codes to subjects of two splits: {shown}",
        "name both files after one subject if they are of one person",
    ),
    by_header(
        "subject_is_two_people",
        "sexes",
        "the headers of {n} subjects name both sexes: {shown}",
        "give the files of two people two subjects' names; the split is by subject",
    ),
)
OF_A_CORPUS = tuple(rule.name for rule in RULES if rule.look in ("signals", "labels", "headers", "encoder"))
