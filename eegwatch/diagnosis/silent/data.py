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
    for other in attempt.splits.values():  # declared again: what it shares is in its newest record
        other.pop(name, None)
    attempt.splits[name] = dict(values.get("shared") or {})
    for one, shared in attempt.splits.items():
        for other_name, both in shared.items():
            more = f" and {both['n'] - len(both['ids']):,} more" if both["n"] > len(both["ids"]) else ""
            return Violation(
                f"the splits {other_name} and {one} share {both['n']:,} of their ids: {', '.join(both['ids'])}{more}",
                "divide by subject (or by recording) before you cut windows",
            )
    return True


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
        f"the class can be told by the header, without a signal: {'; '.join(parts)}",
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
        "remove one of the two files if that is not meant",
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
