"""Scripts in the shape of the mission's, written for the trial: `shapes/`."""

from __future__ import annotations

from pathlib import Path

import yaml

from tests.bench.scripts_of_others.trial import Case

HERE = Path(__file__).parent / "shapes"
ONE_CYCLE = {"max_epochs": 300, "scheduler": {"name": "OneCycleLR", "max_lr": 3.0e-3, "pct_start": 0.1}}


def _config(folder: Path) -> None:
    tree = {"name": "tuab_4s_paper_target", "epochs": 300, "batches": 60, "max_lr": 3e-3, "pause": 0.02}
    (folder / "tuab.yaml").write_text(yaml.safe_dump(tree))


def _train(*words: str) -> list[str]:
    return ["python", "train_paper_aligned.py", "--config", "tuab.yaml", *words]


CASES = (
    Case(
        "train_paper_aligned.py",
        (HERE / "train_paper_aligned.py",),
        {
            "command": _train(),
            "resume": _train("--resume", "{checkpoint}", "--manual_lr", "{lr}"),
            "checkpoints": "{cwd}/output/**/best_model.pt",
        },
        ONE_CYCLE,
        _config,
    ),
    Case(
        "bash LAUNCH.sh (tee)",
        (HERE / "train_paper_aligned.py", HERE / "LAUNCH.sh"),
        {
            "command": ["bash", "LAUNCH.sh", "--config", "tuab.yaml"],
            "resume": ["bash", "LAUNCH.sh", "--config", "tuab.yaml", "--resume", "{checkpoint}", "--manual_lr", "{lr}"],
            "checkpoints": "{cwd}/output/**/best_model.pt",
        },
        ONE_CYCLE,
        _config,
    ),
    Case(
        "epochs_only.py",
        (HERE / "epochs_only.py",),
        {
            "command": ["python", "epochs_only.py", "--save_dir", "{run}/out", "--epochs", "2000"],
            "resume": ["python", "epochs_only.py", "--save_dir", "{run}/out", "--epochs", "2000", "--ckpt", "{checkpoint}",
                       "--learning_rate={lr}"],
            "checkpoints": "out/*.pth",
        },
        {"max_epochs": 2000, "scheduler": {"name": "CosineAnnealingLR", "max_lr": 0.1, "unit": "epoch"}},
        enough=5,
    ),
    Case(
        "silent_to_file.py",
        (HERE / "silent_to_file.py",),
        {
            "command": ["python", "silent_to_file.py", "--out", "{run}/out"],
            "resume": ["python", "silent_to_file.py", "--out", "{run}/out", "--resume", "{checkpoint}", "--lr", "{lr}"],
            "checkpoints": "out/*.pt",
        },
    ),
    Case(
        "workers.py",
        (HERE / "workers.py",),
        {
            "command": ["python", "workers.py", "--workdir", "{run}/output"],
            "resume": ["python", "workers.py", "--workdir", "{run}/output", "--load", "{checkpoint}"],
            "checkpoints": "output/*.pt",
        },
        enough=8,
    ),
    Case(
        "stubborn.py",
        (HERE / "stubborn.py",),
        {
            "command": ["python", "stubborn.py", "--dir", "{run}/output"],
            "resume": ["python", "stubborn.py", "--dir", "{run}/output", "--from", "{checkpoint}"],
            "checkpoints": "output/*.pth",
        },
        enough=8,
    ),
)  # fmt: skip
