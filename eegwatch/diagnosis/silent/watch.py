"""The judge of the watcher's records: one finding for each rule that is broken, resolved when a later look holds."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from eegwatch.diagnosis.findings import ERROR, INFO, RESOLVED, WARNING, Finding
from eegwatch.diagnosis.silent import data, losses, optimizers, orders, processes, runs, steps, windows
from eegwatch.diagnosis.silent.rule import Attempt, SilentRule, Violation, steps_of_epoch
from eegwatch.run.records import Run, Watch
from eegwatch.wording import significant

_OF_STEPS = (*steps.RULES, *windows.RULES, *losses.RULES, *optimizers.RULES)
RULES: tuple[SilentRule, ...] = (*_OF_STEPS, *runs.RULES, *orders.RULES, *data.RULES, *processes.RULES)
PROVED = frozenset(rule.name for rule in RULES if rule.proved)
FACTS = frozenset(rule.name for rule in RULES if not rule.proved)
NEEDS = {
    "off_schedule": "no scheduled= is declared to log.watch()",
    "frozen_draws": "no frozen= is declared to log.watch()",
    "frozen_changed": "no frozen= is declared to log.watch()",
    "clip_missing": "no clip= is declared to log.watch()",
    "clip_before_unscale": "no clip= with scaler= is declared to log.watch()",
    "lr_stays_zero": "several optimizers are watched",
    "micro_gradients_dropped": "no step was looked at",
    "accumulation_differs": "no accumulate= is declared to log.watch()",
    "micro_gradients_shrunk": "no accumulate= is declared to log.watch()",
    "order_repeated": "no loader= that shuffles was read for two epochs",
    **dict.fromkeys(
        ("order_restarted", "order_lost"),
        "no resume in the middle of an epoch with loader= from a checkpoint that log.checkpoint() recorded",
    ),
    "order_unshuffled": "no loader= that takes steps in the order of its indices was read for two epochs",
    "sampler_leaves_out": "no loader= with a sampler of torch's and a data set of known length",
    "workers_stale": "no loader= with persistent workers was read for two epochs",
    "ranks_draw_the_same": "no copies of a model that draws random numbers were trained by several ranks",
    "epoch_length": "no steps_per_epoch is declared, or no loader= was read for two epochs",
    "optimizer_state_carried": "no run before this one in its process has left the state of an optimizer",
    "splits_overlap": "no log.split() was called",
    "evaluation_in_train_mode": "no log.evaluating() was entered",
    "evaluation_changed_model": "no log.evaluating() was entered",
    "microbatch_weights": "no log.micro() was called, and no accumulate= is declared",
    "gradient_scale": "no loss was seen that is scaled",
    "scaler_not_used": "no scaler= is declared to log.watch()",
    "loss_not_trained": "no loss was seen that is more than one number",
    "optimizer_state_lost": "no resume from a checkpoint that log.checkpoint() recorded",
    "update_ignores_setting": "no optimizer of the script's own takes steps that coincide with a known formula",
    "settings_put_back": "no resume from a checkpoint that log.checkpoint() recorded",
    "optimizer_state_differs": "no resume from a checkpoint that log.checkpoint() recorded",
    "weights_overwritten": "no copies of half-precision weights that an optimizer holds were other than these",
    "steps_draw_the_same": "no generator that steps draw from was put back",
    "statistics_not_restored": "no resume with batch norms from a checkpoint that log.checkpoint() recorded",
    "ema_statistics_stand": "no log.ema() of a model with batch norms was used in evaluation mode",
    "scaler_state_lost": "no resume with scaler= from a checkpoint that log.checkpoint() recorded",
    "ema_not_restored": "no resume with log.ema() from a checkpoint that log.checkpoint() recorded",
    "weights_not_restored": "no resume from a checkpoint that log.checkpoint() recorded",
    "step_not_taken": "log.step() was not called",
    "tying_lost": "no tensor of the model has two names",
    "evaluation_draws": "no log.evaluating() was entered",
    "replicas_differ": "no copies of the model are trained: no DistributedDataParallel, no log.replica()",
    "ranks_leave_out": "no loader= with a DistributedSampler was read by several ranks",
    **dict.fromkeys(("ranks_overlap", "ranks_read_the_same"), "no loader= of several ranks was read for an epoch"),
    **dict.fromkeys(
        ("workers_yield_the_same", "workers_draw_the_same", "epochs_draw_the_same"),
        "no loader= with several workers was read",
    ),
    **dict.fromkeys(data.OF_A_CORPUS, "recordings are known for the daemon's own trainer alone"),
    "labels_disagree": "nothing but the folders names the labels of the recordings",
    **dict.fromkeys(("ema_aliased", "ema_not_updated", "ema_updated_twice", "ema_differs"), "no log.ema() was called"),
}
# rules that compare ranks or workers: one finding for all of them
JOINED = frozenset(rule.name for rule in processes.RULES)
SETTLED_AFTER = 2000  # steps of an attempt: the looks at its first ones are a small part of the share from here on
EARLIER = 4  # attempts before the present one that records of other ranks are still judged with
KEPT = 64  # epochs whose order is remembered over a resume
NO_FORMULA = "no update of an optimizer whose formula is known was read"


class SilentWatch:
    """Judges the records of one run. `findings`: what is broken now. `judged`: rules that a record has decided."""

    def __init__(self) -> None:
        self._attempt = Attempt()
        self._earlier: dict[int, Attempt] = {}  # attempts that are over, by number
        self._told: set[tuple[int, str]] = set()  # (attempt, rule) that was said of one of them
        self._up: dict[tuple[str, int, int], Finding] = {}  # by rule, optimizer (loader, average) and rank
        self.judged: set[str] = set()
        self.watched = False
        self.off: str | None = None
        self.cost: dict[str, Any] = {}  # as the newest record tells
        self.unread: dict[str, int] = {}  # why tensors were not read -> how many
        self.formulas: set[str] = set()  # why an update was not computed

    @property
    def findings(self) -> list[Finding]:
        return list(self._up.values())

    def begin(self, run: Run) -> list[Finding]:
        """A new attempt: what it does is judged anew; what its checkpoints hold is remembered."""
        before = self._attempt
        self._attempt = Attempt(run, states=before.states, drawn=before.drawn, apart=before.apart)
        self._attempt.took = before.took
        if before.run is not None:
            self._earlier[before.run.attempt] = before
            for old_number in list(self._earlier)[:-EARLIER]:
                del self._earlier[old_number]
        number = 0 if before.run is None else before.run.attempt
        if before.run is not None and before.run.step < run.step:  # of one that began later nothing is left
            own = [(number, split) for split in before.splits.values() if split.get("kind") == "train"]
            self._attempt.trained = [*before.trained, *own][-KEPT:]
        per_epoch = None if before.run is None else before.run.steps_per_epoch
        for reader, epochs in before.read.items():
            self._attempt.done[reader] = [
                values
                for began, values in epochs
                if began + int(values["epoch"]) * steps_of_epoch(values, per_epoch) <= run.step
            ][-KEPT:]
        gone, self._up = self._up, {}
        return [old.resolved(run.step, f"a new attempt ({run.attempt}) began") for old in gone.values()]

    def feed(self, record: Watch) -> list[Finding]:
        """Take one record; returns what it raised, changed or resolved."""
        values, attempt = record.values, self._attempt
        rank = int(values.get("rank", 0))
        if rank and "attempt" in values and (attempt.run is None or values["attempt"] != attempt.run.attempt):
            return self._of_earlier(record)
        if record.look == "attached":
            if rank:
                return []
            self.watched, self.off = True, None
            attempt.attached = values
            return []
        if record.look == "cost":
            self.cost = values
            return []
        if record.look == "off":
            self.off = str(values.get("why", ""))
            return self._told_off(record)
        changes = self._judged(record)
        if record.look == "calls" and not any(f.severity == ERROR for f in changes):
            self.judged.add("step_not_taken")
        return changes

    def _judged(self, record: Watch) -> list[Finding]:
        values = record.values
        subject = int(values.get("opt", values.get("loader", values.get("average", 0))) or 0)
        changes: list[Finding] = []
        for rule in RULES:
            if rule.look == record.look:
                changes += self._judge(rule, record, subject)
        self._remember(record)
        return changes

    def _of_earlier(self, record: Watch) -> list[Finding]:
        """A record that another rank wrote in an attempt that is over: its file is read after the log.

        What it shows is of the past: it is raised and resolved at once, each rule once an attempt.
        """
        number = int(record.values["attempt"])
        if number not in self._earlier or record.look in ("attached", "cost", "off"):
            return []
        present = self._attempt, self._up
        self._attempt, self._up = self._earlier[number], {}
        changes = self._judged(record)
        self._attempt, self._up = present
        new = [one for one in changes if one.severity != RESOLVED and (number, one.rule) not in self._told]
        self._told |= {(number, one.rule) for one in new}
        end = self._attempt.run.step if self._attempt.run is not None else record.step
        return [told for one in new for told in (one, one.resolved(end, f"attempt {number} is over"))]

    def _remember(self, record: Watch) -> None:
        values, attempt = record.values, self._attempt
        if record.look == "order" and values.get("n") and "partial" not in values:
            reader = int(values["loader"]), int(values.get("rank", 0))
            began = attempt.run.step if attempt.run is not None else 0
            attempt.read[reader] = [*attempt.read.get(reader, [])[1 - KEPT :], (began, values)]
        if record.look == "order" and values.get("when") in ("checkpoint", "end"):
            drawn = attempt.drawn.setdefault(orders.reader_of(values), {})
            drawn[record.step] = values | {"base": attempt.run.step if attempt.run is not None else 0}
            for step in list(drawn)[:-KEPT]:
                del drawn[step]
        if record.look == "state" and values.get("when") == "begin":
            attempt.begun = values["weights"]
        if record.look == "state" and values.get("when") == "checkpoint" and not self._rewritten(record):
            attempt.states[record.step] = values
            if values.get("ahead"):  # the script counts the step that it has taken, and has not logged it yet
                attempt.states.setdefault(record.step + 1, values)
        if record.look == "step":
            self.judged.add("step_not_taken")
            for why, count in (values.get("unread") or {}).items():
                self.unread[why] = int(count)
            if "formula" in values:
                self.formulas.add(str(values["formula"]))

    def _rewritten(self, record: Watch) -> bool:
        """Did a resume write the checkpoint that it began with again, before its first step? It tells nothing new."""
        attempt = self._attempt
        waits = attempt.run is not None and attempt.run.attempt > 1 and not attempt.begun
        return waits and record.step in attempt.states

    def _judge(self, rule: SilentRule, record: Watch, subject: int) -> list[Finding]:
        judgement = rule.judge(record, self._attempt)
        if judgement is None:
            return []
        self.judged.add(rule.name)
        key = (rule.name, subject, int(record.values.get("rank", 0)) if rule.name not in JOINED else 0)
        old = self._up.get(key)
        if judgement is True:
            if old is None:
                return []
            del self._up[key]
            return [old.resolved(record.step, f"{rule.name}: it holds again at step {record.step:,}")]
        finding = self._finding(rule, record, subject, judgement)
        if old is not None and (old.severity == finding.severity or old.severity == ERROR):
            self._up[key] = replace(old, step=record.step)
            return []
        self._up[key] = finding
        return [finding]

    def _finding(self, rule: SilentRule, record: Watch, subject: int, broken: Violation) -> Finding:
        optimizers: list[dict[str, Any]] = self._attempt.attached.get("optimizers") or []
        where = ""
        known = [one for one in optimizers if one.get("opt") == subject]
        if "opt" in record.values and len(optimizers) > 1 and known:
            where = f"optimizer {subject} ({known[0]['name']}): "
        rank = int(record.values.get("rank", 0))
        if rank and rule.name not in JOINED:
            where = f"rank {rank}: {where}"
        message = where + broken.message
        severity = ERROR if rule.proved and not broken.fact else WARNING
        step = max(record.step, 0)
        return Finding(rule.name, severity, step, step, message, headline=message, why=broken.why, remedy=broken.remedy)

    def _told_off(self, record: Watch) -> list[Finding]:
        message = f"the watcher switched itself off at step {record.step:,}: {self.off} (please report it)"
        finding = Finding("watcher_failed", INFO, record.step, record.step, message, headline=message)
        self._up[finding.rule, 0, 0] = finding
        return [finding]

    def coverage(self) -> tuple[list[str], list[dict[str, str]]]:
        """(rules that could judge, those that could not and why); none of either where nothing was watched."""
        if not self.watched:
            return [], []
        names = list(dict.fromkeys(rule.name for rule in RULES))
        skipped = [{"rule": n, "why": self._why_not(n)} for n in names if n not in self.judged]
        return [n for n in names if n in self.judged], skipped

    def _why_not(self, rule: str) -> str:
        if self.off is not None:
            return f"the watcher switched itself off: {self.off}"
        if rule in ("update_lost", "update_differs"):
            return f"{NO_FORMULA}: {', '.join(sorted(self.formulas))}" if self.formulas else NO_FORMULA
        return NEEDS.get(rule, "no step was looked at")

    def share(self) -> str:
        """What watching costs once the first steps are over, in words; empty where it is not known."""
        if "share" not in self.cost:
            return ""
        share, looks = 100 * float(self.cost["share"]), float(self.cost.get("per_1000", 0.0))
        words = f"{share:.1f} % of a step's time, {significant(looks)} looks per 1,000 steps"
        if not self.settling:
            return words
        return f"{words}, {int(self.cost['steps']):,} steps into this start: the first steps are looked at more often"

    @property
    def settling(self) -> bool:
        """Has the attempt just begun, so that the looks at its first steps still make up most of the share?"""
        return "share" in self.cost and int(self.cost.get("steps", 0)) < SETTLED_AFTER

    def remarks(self) -> Iterable[str]:
        """What was not looked at, and what looking has cost, in words."""
        if self.cost.get("looks"):
            looks, steps, spent = int(self.cost["looks"]), int(self.cost["steps"]), float(self.cost["spent_s"])
            steady = f"; after the first steps {self.share()}" if self.share() else ""
            yield f"the watcher looked at {looks:,} of {steps:,} steps, which took {spent:.2g} s{steady}"
        if self.unread:
            total = sum(self.unread.values())
            whys = ", ".join(f"{count} {why}" for why, count in sorted(self.unread.items()))
            yield f"the watcher did not read {total} tensors: {whys}"
