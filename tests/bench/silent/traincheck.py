"""The list of TrainCheck (OSDI '25, arXiv 2506.14813): the errors that its artifact names, and where each stands here."""

from __future__ import annotations

from typing import NamedTuple

REPRODUCTIONS = (
    "https://github.com/OrderLab/TrainCheck-Evaluation-Workloads/tree/main/silent-issue-detection/bug-reprod-scripts/"
)


class Row(NamedTuple):
    """`cases`: the cases that reproduce it; where there is none, `why` says what keeps it outside."""

    name: str
    mechanism: str
    cases: tuple[str, ...] = ()
    why: str = ""


LIST = (
    Row("deepspeed-1801", "gradients clipped by one rank alone (BLOOM-176B)", ("clipped_on_one_rank",)),
    Row("x-jxmnop-ddp-out-of-sync", "the module is called past DistributedDataParallel", ("module_called_past_ddp",)),
    Row("pytorch-104336", "a move of the model loses DistributedDataParallel's hooks", ("ddp_hooks_lost",)),
    Row("pytorch-84803", "a peer-to-peer copy between devices loses data", ("broadcast_loses_data",)),
    Row("pytorch-96600", "a peer-to-peer copy between devices loses data", ("broadcast_loses_data",)),
    Row("baichuan2-86", "a peer-to-peer copy loses data in inference", (), "nothing is trained"),
    Row("pytorch-115607", "the compiled optimizer drops updates", ("compiled_step_drops_updates",)),
    Row("pytorch-forum-84911", "the optimizer holds only frozen parameters", ("optimizer_holds_the_frozen_part",)),
    Row("stackoverflow-60335387", "zero_grad() is missing", ("zero_grad_missing",)),
    Row("stackoverflow-67180955", "workers share the state of numpy's generator", ("workers_share_a_generator",)),
    Row("mmpretrain-702", "frozen_stages is applied to nothing", ("frozen_stages_not_applied",)),
    Row("lightning-thunder-725", "autocast is left out of the compiled module", ("autocast_left_out",)),
    Row("transformers-33844", "dropout is active in evaluation", ("dropout_in_evaluation",)),
    Row(
        "deepspeed-5794",
        "experts call all_to_all unequally: the training hangs",
        (),
        "no step is taken that could be judged, and a hang is not silent",
    ),
    Row(
        "pytorch-51800",
        "spectral_norm makes the weights in the first forward pass, an evaluation before it sees others",
        (),
        "no equality of a step: the log does not know which first weights are meant",
    ),
    Row(
        "transformers-17877",
        "the weights are initialised several times over",
        (),
        "no equality of a step: what comes out is drawn from the same distribution, time is lost before the first step",
    ),
    Row("transformers-23723", "generation goes beyond max_new_tokens", (), "nothing is trained"),
    Row(
        "transformers-34204",
        "a processor makes one row of input_ids of a batch of 50",
        (),
        "the content of the data: the log does not know the task",
    ),
)
