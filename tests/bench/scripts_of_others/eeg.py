"""Scripts of EEG projects, as their repositories have them, on tiny synthetic recordings in the format that each reads.

They call `.cuda()` throughout: `without_gpu/sitecustomize.py` makes that do nothing. CHECKOUTS holds `LaBraM`,
`CBraMod`, `EEG-Conformer` and `braindecode`.
"""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np

from tests.bench.scripts_of_others.others import RUNLOG, tuab_pickles
from tests.bench.scripts_of_others.trial import Case

WITHOUT_GPU = Path(__file__).parent / "without_gpu"
FIRST_SUBJECT, CLASSES = 1, 4


def _env() -> dict[str, str]:
    # LaBraM's checkpoints hold its arguments, which torch 2.6 and later load only when told to
    told = {"OMP_NUM_THREADS": "1", "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD": "1"}
    return told | {"PYTHONPATH": f"{WITHOUT_GPU}:{os.environ.get('PYTHONPATH', '')}"}


def cbramod_pickles(work: Path) -> None:
    """TUAB as CBraMod reads it: 10 s of 16 channels at 200 Hz."""
    draw = np.random.default_rng(0)
    for split, number in (("train", 12), ("val", 4), ("test", 4)):
        folder = work / "tuab" / split
        folder.mkdir(parents=True)
        for n in range(number):
            sample = {"X": draw.normal(size=(16, 2000)).astype(np.float32), "y": n % 2}
            (folder / f"{n}.pkl").write_bytes(pickle.dumps(sample))


def conformer_mats(work: Path) -> None:
    """BCI IV 2a as EEG-Conformer reads it: A01T.mat, A01E.mat with (samples, channels, trials) and a label a trial."""
    import scipy.io

    draw = np.random.default_rng(0)
    (work / "results").mkdir()
    for name in ("T", "E"):
        labels = np.arange(72)[:, None] % CLASSES + 1  # its augmentation takes 18 trials of each class
        data = draw.normal(size=(1000, 22, len(labels)))
        scipy.io.savemat(work / f"A0{FIRST_SUBJECT}{name}.mat", {"data": data, "label": labels})


def _labram() -> list[str]:
    words = ["python", "run_class_finetuning.py", "--output_dir", "{run}/output", "--device", "cpu", "--dataset"]
    words += ["TUAB", "--batch_size", "2", "--num_workers", "1", "--epochs", "400", "--save_ckpt_freq", "1"]
    return [*words, "--no_auto_resume", "--dist_eval", "--abs_pos_emb", "--disable_rel_pos_bias"]


def cases(checkouts: Path) -> tuple[Case, ...]:
    script: dict[str, Any] = {"env": _env()}
    labram, cbramod = checkouts / "LaBraM", checkouts / "CBraMod"
    held = ["--lr", "{lr}", "--min_lr", "{lr}", "--warmup_epochs", "0"]
    finetune = ["python", "finetune_main.py", "--cuda", "0", "--downstream_dataset", "TUAB", "--datasets_dir", "tuab"]
    finetune += ["--use_pretrained_weights", "", "--batch_size", "2", "--epochs", "400", "--model_dir", "{run}/output"]
    finetune += ["--classifier", "avgpooling_patch_reps"]
    example = checkouts / "braindecode/examples/model_building/plot_basic_training_epochs.py"
    return (
        Case(
            "LaBraM run_class_finetuning.py, without a GPU",
            (*labram.glob("*.py"), labram / "data_processor"),
            script
            | {
                "command": _labram(),
                "resume": [*_labram(), "--resume", "{checkpoint}", held],
                "checkpoints": "output/checkpoint-*.pth",
            },
            {"max_epochs": 400},
            tuab_pickles,
            enough=3,
        ),
        Case(
            "CBraMod finetune_main.py, without a GPU",
            (*cbramod.glob("*.py"), *(cbramod / name for name in ("datasets", "models", "utils"))),
            script | {"command": finetune},
            {"max_epochs": 400},
            cbramod_pickles,
            enough=2,
        ),
        Case(
            "EEG-Conformer conformer.py, without a GPU",
            (checkouts / "EEG-Conformer/conformer.py",),
            script | {"command": ["python", "conformer.py"], "checkpoints": "{cwd}/model.pth"},
            {"max_epochs": 2000},
            conformer_mats,
            enough=3,
            edits=(("conformer.py", "self.root = '/Data/strict_TE/'", "self.root = './'"),),
        ),
        Case(
            "braindecode plot_basic_training_epochs.py",
            (example,),
            script | {"command": ["python", example.name]},
            {"max_epochs": 10},
            enough=10,
        ),
    )


def two_lines(checkouts: Path) -> tuple[Case, ...]:
    """LaBraM sets its own rate at each step (held by its options), CBraMod has a scheduler (kept from moving)."""
    by_name = {case.name: case for case in cases(checkouts)}
    labram = by_name["LaBraM run_class_finetuning.py, without a GPU"]
    cbramod = by_name["CBraMod finetune_main.py, without a GPU"]
    cosine = "schedule={'name': 'cosine', 'max_lr': 5e-4, 'total_steps': 20000}, optimizer=optimizer)"
    made = f"    import builtins; {RUNLOG}{cosine}; builtins.log = log\n    loss_scaler = NativeScaler()\n"
    scheduler = (
        f"        {RUNLOG}schedule=self.optimizer_scheduler)\n        self.optimizer_scheduler.step = lambda: None\n"
    )
    hook = "        self.optimizer.register_step_post_hook(lambda *_: log.step())\n        print(self.model)\n"
    return (
        Case(
            labram.name,
            labram.files,
            {"command": [*_labram(), "--min_lr", "5e-4", "--warmup_epochs", "0"], "env": _env()},
            prepare=labram.prepare,
            edits=(
                ("run_class_finetuning.py", "        loss_scaler = NativeScaler()\n", made.replace("    ", "        ")),
                ("engine_for_finetuning.py", "        torch.cuda.synchronize()\n", "        log.step(loss=loss_value)\n"),
            ),
        ),
        Case(
            cbramod.name,
            cbramod.files,
            {"command": cbramod.script["command"], "env": _env()},
            prepare=cbramod.prepare,
            edits=(("finetune_trainer.py", "        print(self.model)\n", scheduler + hook),),
        ),
    )  # fmt: skip
