"""Rules over what lies around the steps: calls, checkpoints and resumes, evaluations, averages."""

from __future__ import annotations

from eegwatch.diagnosis.silent.rule import Attempt, Judgement, SilentRule, Values, Violation, names
from eegwatch.run.records import Watch, number

IDLE_CALLS = 3  # of log.step() in a row without a step, with finite gradients each time: no scaler skipped those
SKIPS = 20  # in a row: a scaler that halves 65,536 skips at most 16
NEVER_ENDING = 64  # calls in a row without a step, before each of which a backward pass came


def step_not_taken(record: Watch, attempt: Attempt) -> Judgement:
    values = record.values
    if "rests" in values:
        return _one_rests(record, attempt)
    idle = int(values.get("idle", 0))
    if not idle:
        return True
    taken, calls = int(values.get("taken", 0)), int(values.get("calls", 0))
    known = int(attempt.declared.get("accumulate", 0) or 0)
    most = max(IDLE_CALLS, known + 1)
    since = record.step - idle + 1
    if int(values.get("finite", 0)) < most:
        return _never_ending(values, idle, since)
    if taken and calls - idle < 2 * most and idle < SKIPS:
        return None
    if values.get("moved"):
        return Violation(
            f"log.step() was called {idle:,} times since step {since:,} without a step of the watched optimizer, and "
            "the weights move: another optimizer moves them",
            "watch the optimizer whose step() is called: the one inside a wrapper, or the one that was built anew",
            fact=True,  # what is watched is wrong; the training may be right
        )
    return Violation(
        f"log.step() was called {idle:,} times since step {since:,} and the watched optimizer has not stepped: "
        f"{taken:,} steps were taken in {calls:,} calls",
        "call optimizer.step() (scaler.step(optimizer)) in every step; an optimizer that is built anew in the loop is "
        "not the one that is watched",
    )


def _never_ending(values: Values, idle: int, since: int) -> Judgement:
    """Backward passes at every call and no step, for longer than a scaler or an accumulation takes.

    Or none at all, where a step came with nearly each call before: what is trained is another model.
    """
    passes, taken = int(values.get("passes", 0)), int(values.get("taken", 0))
    before = int(values.get("calls", 0)) - idle
    if idle >= NEVER_ENDING and not passes and taken >= max(before - 1, IDLE_CALLS):
        return Violation(
            f"log.step() was called {idle:,} times since step {since:,}, and no step and no backward pass of what is "
            "watched came between: another model and optimizer are trained, and nothing is known of them",
            "call log.watch(model, optimizer) again when the script replaces them",
            fact=True,
        )
    if idle < NEVER_ENDING or passes < NEVER_ENDING - 1:
        return None
    why = "their gradients are not finite" if values.get("skipped") else "their gradients add up"
    return Violation(
        f"log.step() was called {idle:,} times since step {since:,} without a step of the watched optimizer: {why}",
        "call optimizer.step() (scaler.step(optimizer)) in every step that is logged, and look where the gradients "
        "stop being finite",
        fact=True,
    )


def _one_rests(record: Watch, attempt: Attempt) -> Judgement:
    """One of several optimizers does not step, though backward passes reach what it holds."""
    values = record.values
    rests, taken = int(values["rests"]), int(values.get("taken", 0))
    before = f"has stepped {taken:,} times before" if taken else "has not stepped once"
    return Violation(
        f"it {before}, and not in the last {rests:,} calls of log.step(), while backward passes reach its tensors",
        "call step() of this optimizer too; watch the new one if it was built anew",
        fact=True,
    )


# ---- checkpoints and resumes ----


def optimizer_state_lost(record: Watch, attempt: Attempt) -> Judgement:
    values = record.values
    if values.get("when") != "begin" or values.get("fresh_optimizer"):
        return None
    saved = attempt.states.get(record.step)
    judged = False
    for one in values.get("optimizers", []):
        before = optimizer_at_checkpoint(saved, one)
        if before is None or before.get("name") != one.get("name"):
            continue  # it was not there, or is of another class: nothing of the old state is of use to it
        judged, had, count = True, int(before["entries"]), int(before["count"])
        if had and not one["entries"]:
            return Violation(
                f"the optimizer's state is empty at step {record.step + 1:,}: {had} tensors had one at the checkpoint "
                f"of step {record.step:,}",
                "load the optimizer's state_dict when you resume; fresh_optimizer=True if an empty one is meant",
                "load_state_dict was not called, or the optimizer was built anew after it",
                fact=not _alike_made(before, one),  # a second stage begins with another one
            )
        if one["entries"] and int(one["count"]) < count:
            return Violation(
                f"the optimizer has counted {one['count']:,} steps at step {record.step + 1:,}, and {count:,} at the "
                f"checkpoint of step {record.step:,}",
                "load the state_dict of this checkpoint; fresh_optimizer=True if another state is meant",
            )
    return True if judged else None


def optimizer_state_differs(record: Watch, attempt: Attempt) -> Judgement:
    values, saved = record.values, attempt.states.get(record.step)
    if values.get("when") != "begin" or values.get("fresh_optimizer") or saved is None:
        return None
    for one in values.get("optimizers", []):
        before = optimizer_at_checkpoint(saved, one)
        if before is None or not one["entries"] or before["crc"] == one["crc"] or not _alike_made(before, one):
            continue
        if "kinds" in before and before["kinds"] != one.get("kinds"):
            continue  # load_state_dict turns numbers of a state into their parameter's type
        if int(one["count"]) < int(before["count"]):
            return None  # optimizer_state_lost says so
        return Violation(
            f"the optimizer's state is not that of the checkpoint of step {record.step:,}: {differing(before, one)}",
            "load the state of this checkpoint, with the parameters in the order in which they were saved",
        )
    return True


def weights_not_restored(record: Watch, attempt: Attempt) -> Judgement:
    values, saved = record.values, attempt.states.get(record.step)
    if values.get("when") != "begin" or saved is None:
        return None
    before, now = saved["weights"], values["weights"]
    restored = before["crc"] in (now["crc"], values.get("weights_at_pass"))
    if restored:
        return True
    if any(_same(one, now) for one in saved.get("averages", [])):
        if not values.get("averages"):
            return True  # it goes on from the average, and without one
        return Violation(
            f"the weights at step {record.step + 1:,} are those of the average at the checkpoint of step "
            f"{record.step:,}, and not the weights that trained",
            "save the model's own weights beside the average's and load them; dismiss this if the training is to go on "
            "from the average",
            fact=True,
        )
    if not before["n"] or not now["n"] or before.get("kinds") != now.get("kinds"):
        return None  # another head, another type: a second stage
    return Violation(
        f"the weights at step {record.step + 1:,} are not those of the checkpoint of step {record.step:,}: "
        f"{differing(before, now)}",
        "load the model's state_dict with strict=True: a prefix such as 'module.' or '_orig_mod.' makes names differ",
    )


def statistics_not_restored(record: Watch, attempt: Attempt) -> Judgement:
    """A batch norm counts its batches: the count does not go back where its statistics were restored."""
    values, saved = record.values, attempt.states.get(record.step)
    if values.get("when") != "begin" or saved is None or "norms" not in saved or "norms" not in values:
        return None
    if saved["weights"].get("kinds") != values["weights"].get("kinds"):
        return None  # another model: a second stage
    before, now = int(saved["norms"]), int(values["norms"])
    if now >= before:
        return True
    return Violation(
        f"the batch norms have counted {now:,} batches at step {record.step + 1:,}, and {before:,} at the checkpoint "
        f"of step {record.step:,}: their running statistics are not those of the checkpoint",
        "save and load the whole state_dict(), buffers included; dismiss this if they are meant to begin anew",
    )


def own_tensors_loaded(record: Watch, attempt: Attempt) -> Judgement:
    values = record.values
    if "unfit" in values:
        given, own = values["names"]
        return Violation(
            f"load_state_dict() after step {record.step:,} loaded none of the {int(values['tensors']):,} parameters: "
            f"of the {int(values['unfit']):,} names that it was given, such as {given}, the model has none ({own})",
            "rename the keys (a prefix such as 'module.' or 'model.'), and load with strict=True",
            fact=True,
        )
    if int(values["own"]) < int(values["tensors"]):
        return True
    return Violation(
        f"load_state_dict() after step {record.step:,} was given the model's own {int(values['tensors']):,} tensors: "
        "it restores nothing",
        "keep copy.deepcopy(model.state_dict()): state_dict() is no copy, it holds the weights that train on",
        fact=True,
    )


def optimizer_state_carried(record: Watch, attempt: Attempt) -> Judgement:
    return Violation(
        f"the optimizer begins with the state that run {record.values['run']} left, and the weights are others: "
        "averages of another model's gradients move them",
        "build the optimizer (and its scheduler) anew for each fold",
    )


def scaler_state_lost(record: Watch, attempt: Attempt) -> Judgement:
    values, saved = record.values, attempt.states.get(record.step)
    if values.get("when") != "begin" or saved is None or "scaler" not in saved or "scaler" not in values:
        return None
    before, now = saved["scaler"], values["scaler"]
    scale = number(now["scale"])
    if scale in (number(before["scale"]), number(before["scale"]) * number(now.get("backoff", 1.0))):
        return True
    return Violation(
        f"the gradient scale is {number(now['scale']):g} at step {record.step + 1:,}, and was "
        f"{number(before['scale']):g} at the checkpoint of step {record.step:,}",
        "save and load scaler.state_dict() too; dismiss this if the scale is to be found anew",
    )


def ema_not_restored(record: Watch, attempt: Attempt) -> Judgement:
    values, saved = record.values, attempt.states.get(record.step)
    if values.get("when") != "begin" or saved is None:
        return None
    judged = False
    for one in values.get("averages", []):
        before = next((b for b in saved.get("averages", []) if b["average"] == one["average"]), None)
        if before is None or before["n"] != one["n"]:
            continue
        judged = True
        if before["crc"] != one["crc"]:
            began = " (it is a copy of the weights)" if _same(values["weights"], one) else ""
            return Violation(
                f"the average at step {record.step + 1:,} is not that of the checkpoint of step {record.step:,}"
                f"{began}: {differing(before, one)}",
                "save and load the average's state_dict too; dismiss this if a new average is meant to begin",
            )
    return True if judged else None


def _same(one: Values, other: Values) -> bool:
    """Are these the same tensors, as far as they have the same names?"""
    both = [name for name in one["parts"] if name in other["parts"]]
    return one["crc"] == other["crc"] or (bool(both) and all(one["parts"][n] == other["parts"][n] for n in both))


def optimizer_at_checkpoint(state: Values | None, now: Values) -> Values | None:
    """This optimizer at the checkpoint: the one of its number, unless another one's state has the names of this one."""
    known = (state or {}).get("optimizers", [])
    own = next((one for one in known if int(one["opt"]) == int(now["opt"])), None)
    named = [one for one in known if set(one["parts"]) & set(now["parts"])]
    return own if own in named or not named else named[0]


def _alike_made(before: Values, now: Values) -> bool:
    """Is it of the class that it was, and does it hold as many tensors?"""
    return all(before.get(name) == now.get(name) for name in ("name", "held"))


def differing(before: Values, now: Values) -> str:
    """Which tensors differ, as far as they are noted by name."""
    both = [name for name in before["parts"] if name in now["parts"]]
    other = [name for name in both if before["parts"][name] != now["parts"][name]]
    if not both:
        return f"no tensor has the name it had ({before['n']} then, {now['n']} now)"
    if not other:
        return f"{before['n']} tensors then, {now['n']} now"
    return f"{len(other)} of {len(both)} tensors differ, such as {names({'names': other[:3], 'n': len(other)})}"


# ---- evaluations ----


def evaluation_in_train_mode(record: Watch, attempt: Attempt) -> Judgement:
    trained = record.values.get("train_mode")
    if trained is None:
        return True if record.values.get("modules") else None
    return Violation(
        f"the evaluation at step {record.step:,} ran in training mode: {names(trained)}",
        "call model.eval() before the evaluation and model.train() after it",
        fact=bool(trained.get("samples")),  # dropouts alone: they may be meant to sample
    )


def evaluation_changed_model(record: Watch, attempt: Attempt) -> Judgement:
    if "tensors" not in record.values or "waits" in record.values:
        return None
    changed = record.values.get("changed")
    if changed is None:
        return True
    return Violation(
        f"the evaluation at step {record.step:,} changed the model: {names(changed)} are not what they were before it",
        "evaluate in evaluation mode and without an optimizer; put the trained weights back after averaged ones",
    )


# ---- micro-batches and averages ----


def microbatch_weights(record: Watch, attempt: Attempt) -> Judgement:
    items = [number(one) for one in record.values.get("items", [])]
    weights = [number(one) for one in record.values.get("weights", [])]
    scale = number(record.values.get("scale"))
    near = max(1e-5, 4 * number(record.values.get("unit")))
    if not items or len(items) != len(weights) or not sum(items) > 0:
        return None
    whole = sum(weight * n for weight, n in zip(weights, items))
    if whole == 0:
        return None
    mean = whole / sum(items)
    worst = max(range(len(items)), key=lambda i: abs(weights[i] - mean))
    if abs(weights[worst] / mean - 1) > near:
        share, part = items[worst] / sum(items), items[worst] * weights[worst] / whole
        return Violation(
            f"micro-batch {worst + 1} of step {record.step:,} holds {items[worst]:g} of {sum(items):g} items, a share "
            f"of {share:.6g}, and has a weight of {part:.6g} in the gradient",
            "weigh each micro-batch by its items: loss * items / items_of_the_step, not a mean of means",
        )
    known = abs(whole) if scale != scale else abs(whole) / scale
    if len(items) > 1 and abs(known / len(items) - 1) <= near:
        return Violation(
            f"the {len(items)} micro-batches of step {record.step:,} are added up and not averaged: their weights sum "
            f"to {known:.6g}, not 1",
            "divide each loss by the number of micro-batches, or weigh it by its share of the items",
            fact=bool(record.values.get("of_several")),  # a loss of several terms, of which one has the full weight
        )
    return _short_window(record, attempt, items, known, near)


def _short_window(record: Watch, attempt: Attempt, items: list[float], weight: float, near: float) -> Judgement:
    """A step of fewer micro-batches than the longest, whose losses were divided as if it had as many."""
    longest = attempt.windows
    if len(items) > longest[0]:
        attempt.windows = (len(items), sum(items), weight)
        return True
    if attempt.unequal or len(set(items)) > 1 or sum(items) / len(items) != longest[1] / longest[0]:
        attempt.unequal = True
        return True  # weighed by its items, or by a number of them that is always the same
    if len(items) == longest[0] or abs(longest[2] - 1) > near:
        return True
    if abs(weight * longest[0] / len(items) - 1) > near:
        return True
    return Violation(
        f"step {record.step:,} has {len(items)} micro-batches and divides each loss by {longest[0]}: their weights sum "
        f"to {weight:.6g}, not 1",
        "divide by the number of micro-batches that the step has, a short one at the end of an epoch too; dismiss this "
        "if a short one is to count less",
        fact=True,
    )


def tying_lost(record: Watch, attempt: Attempt) -> Judgement:
    if "untied" not in record.values:
        return True if record.values.get("ties") else None
    untied = record.values["untied"]
    return Violation(
        f"{names(untied)} were one tensor when the run began and are two at step {record.step:,}",
        "tie them again after the weights are loaded (load_state_dict with assign=True replaces both)",
        fact=True,  # they may have been untied on purpose
    )


def evaluation_draws(record: Watch, attempt: Attempt) -> Judgement:
    draws = record.values.get("draws")
    if draws is None:
        return True if record.values.get("forwards") else None
    return Violation(
        f"{names(draws)} drew random numbers in evaluation mode at step {record.step:,}: two evaluations differ",
        "give a functional dropout training=self.training; dismiss this if the model is meant to sample",
    )


def ema(kind: str) -> SilentRule:
    """The rule of one way in which an average is wrong."""
    says = {
        "ema_aliased": (
            "aliased",
            "the average and the model share {names}: it is the model itself, not an average of it",
            "copy the model for the average: copy.deepcopy(model)",
        ),
        "ema_not_updated": (
            "still",
            "the average did not move in step {step}, though the weights are elsewhere: {element}",
            "call the average's update after each optimizer.step(); if it is meant to rest, let decay be a function of "
            "the step that is None there",
        ),
        "ema_updated_twice": (
            "twice",
            "the average was updated {times} in step {step}: {element}",
            "call the average's update once a step",
        ),
        "ema_differs": (
            "other",
            "the average is not decay times itself plus the rest of the weights in step {step}: {element}",
            "update the average by the declared decay, or declare the decay as a function of the step",
        ),
    }
    what, message, remedy = says[kind]

    def judge(record: Watch, attempt: Attempt) -> Judgement:
        values = record.values
        if kind == "ema_not_updated" and values.get("what") == "swapped":
            return _swapped(record)
        if values.get("what") != what:
            return None if not values.get("n") else True
        element = ""
        if "name" in values:
            element = (
                f"{values['name']} is {number(values['got']):.9g}, a decay of {number(values['decay']):g} makes "
                f"{number(values['want']):.9g}"
            )
            if "as_if" in values and what == "other":
                element += f"; it was made with a decay of {number(values['as_if']):g}"
        aliased, count = names(values.get("aliased", {})), int(values.get("times", 2))
        times = "twice" if count == 2 else f"{count} times"
        return Violation(message.format(names=aliased, step=f"{record.step:,}", element=element, times=times), remedy)

    return SilentRule(kind, "ema", True, judge)


def _swapped(record: Watch) -> Violation:
    values = record.values
    decay = number(values["decay"])
    return Violation(
        f"the weights were set to {decay:g} times themselves plus {1 - decay:g} of the average after step "
        f"{record.step:,}, and the average did not move: {values['name']} was {number(values['want']):.9g} and is "
        f"{number(values['got']):.9g}",
        "exchange the average and the model in the update: the average is what moves",
    )


def ema_statistics_stand(record: Watch, attempt: Attempt) -> Judgement:
    if record.values.get("what") != "statistics":
        return None
    return Violation(
        f"the average was used in evaluation mode after step {record.step:,}, and the running statistics of its "
        f"{record.values['norms']:,} batch norms are what they were when it began, while the model's have moved",
        "copy the model's buffers with each update (AveragedModel's use_buffers averages them), or call update_bn "
        "before you evaluate it",
    )


def weights_overwritten(record: Watch, attempt: Attempt) -> Judgement:
    values = record.values
    return Violation(
        f"the float32 copies that the optimizer holds of {names(values)} were not the weights before step "
        f"{record.step:,}, and the weights are the copies after it: what was loaded is lost",
        "load the weights before the optimizer copies them, or load the copies too",
    )


def steps_draw_the_same(record: Watch, attempt: Attempt) -> Judgement:
    return Violation(
        f"torch's generator began and ended {int(record.values['steps']):,} steps in a row in the same states and drew "
        "within each: dropouts and noise are the same in every step",
        "seed once, before the loop (no manual_seed in a step, a forward pass or __getitem__); dismiss this if each "
        "step is meant to draw the same",
    )


RULES = (
    SilentRule("step_not_taken", "calls", True, step_not_taken),
    SilentRule("optimizer_state_lost", "state", True, optimizer_state_lost),
    SilentRule("optimizer_state_differs", "state", True, optimizer_state_differs),
    SilentRule("weights_not_restored", "state", True, weights_not_restored),
    SilentRule("weights_not_restored", "load", True, own_tensors_loaded),
    SilentRule("statistics_not_restored", "state", False, statistics_not_restored),
    SilentRule("scaler_state_lost", "state", False, scaler_state_lost),
    SilentRule("optimizer_state_carried", "carried", False, optimizer_state_carried),
    SilentRule("ema_not_restored", "state", False, ema_not_restored),
    SilentRule("evaluation_in_train_mode", "evaluating", True, evaluation_in_train_mode),
    SilentRule("evaluation_changed_model", "evaluating", True, evaluation_changed_model),
    SilentRule("microbatch_weights", "micro", True, microbatch_weights),
    SilentRule("tying_lost", "step", True, tying_lost),
    SilentRule("evaluation_draws", "evaluating", False, evaluation_draws),
    SilentRule("weights_overwritten", "masters", False, weights_overwritten),
    SilentRule("steps_draw_the_same", "draws", False, steps_draw_the_same),
    SilentRule("ema_statistics_stand", "ema", False, ema_statistics_stand),
    *(ema(kind) for kind in ("ema_aliased", "ema_not_updated", "ema_updated_twice", "ema_differs")),
)
