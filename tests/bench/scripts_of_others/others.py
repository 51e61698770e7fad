"""The scripts of others, as their repositories have them, on tiny data that is made here; nothing is fetched."""

from __future__ import annotations

import pickle
import random
import struct
import sys
from pathlib import Path

import numpy as np

from tests.bench.scripts_of_others.trial import Case

WORDS = [
    "the",
    "model",
    "sees",
    "a",
    "window",
    "of",
    "the",
    "signal",
    "and",
    "says",
    "whether",
    "it",
    "is",
    "normal",
    "or",
    "not",
    "at",
    "every",
    "step",
    "of",
    "the",
    "run",
]


def _text(path: Path, lines: int) -> None:
    draw = random.Random(0)
    path.write_text("".join(" ".join(draw.choices(WORDS, k=24)) + "\n" for _ in range(lines)))


def nanogpt(work: Path) -> None:
    folder = work / "data/tiny"
    folder.mkdir(parents=True)
    for name in ("train", "val"):
        np.random.default_rng(0).integers(0, 64, 40_000).astype(np.uint16).tofile(folder / f"{name}.bin")
    (folder / "meta.pkl").write_bytes(pickle.dumps({"vocab_size": 64}))


def language_model(work: Path) -> None:
    """A tiny GPT-2 with random weights, a tokenizer of its words, and two text files."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import GPT2Config, PreTrainedTokenizerFast

    _text(work / "train.txt", 2000)
    _text(work / "val.txt", 100)
    vocabulary = {word: n for n, word in enumerate(["<unk>", "</s>", *dict.fromkeys(WORDS)])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", eos_token="</s>")
    fast.save_pretrained(work / "tiny")
    GPT2Config(vocab_size=64, n_positions=64, n_embd=32, n_layer=2, n_head=2).save_pretrained(work / "tiny")


def lightning_text(work: Path) -> None:
    (work / "data").mkdir()
    _text(work / "data/wikitext-2.txt", 12_000)


def mnist(work: Path) -> None:
    """Black pictures where the example looks: two folders above its own."""
    folder = work.parents[1] / "Datasets/MNIST/raw"
    folder.mkdir(parents=True, exist_ok=True)
    for name, size in (("train", 60_000), ("t10k", 10_000)):
        pixels = np.zeros((size, 28, 28), np.uint8).tobytes()
        (folder / f"{name}-images-idx3-ubyte").write_bytes(struct.pack(">4i", 2051, size, 28, 28) + pixels)
        labels = (np.arange(size) % 10).astype(np.uint8).tobytes()
        (folder / f"{name}-labels-idx1-ubyte").write_bytes(struct.pack(">2i", 2049, size) + labels)


def pictures(work: Path) -> None:
    from PIL import Image

    draw = np.random.default_rng(0)
    for split, number in (("train", 400), ("validation", 16)):
        for label in ("a", "b"):
            folder = work / "pictures" / split / label
            folder.mkdir(parents=True)
            for n in range(number):
                Image.fromarray(draw.integers(0, 255, (32, 32, 3), dtype=np.uint8)).save(folder / f"{n}.png")


def tuab_pickles(work: Path) -> None:
    """TUAB as LaBraM cuts it: 10 s of 23 channels at 200 Hz; and the two functions of pyhealth that it calls."""
    draw = np.random.default_rng(0)
    for split, number in (("train", 60), ("val", 4), ("test", 4)):
        folder = work / "path/to/TUAB" / split
        folder.mkdir(parents=True)
        for n in range(number):
            sample = {"X": draw.normal(size=(23, 2000)).astype(np.float32), "y": n % 2}
            (folder / f"{n}.pkl").write_bytes(pickle.dumps(sample))
    (work / "pyhealth").mkdir()
    (work / "pyhealth/__init__.py").write_text("")
    (work / "pyhealth/metrics.py").write_text(
        "from sklearn.metrics import roc_auc_score\n"
        "def binary_metrics_fn(target, output, metrics=None, threshold=0.5):\n"
        "    return {name: float(roc_auc_score(target, output)) for name in metrics}\n"
        "multiclass_metrics_fn = binary_metrics_fn\n"
    )


def cases(checkouts: Path) -> tuple[Case, ...]:
    clm = checkouts / "transformers/examples/pytorch/language-modeling"
    tiny = ["--config_name", "tiny", "--tokenizer_name", "tiny", "--train_file", "train.txt"]
    tiny += ["--validation_file", "val.txt", "--block_size", "32"]
    trainer = ["python", "run_clm.py", *tiny, "--do_train", "--output_dir", "{run}/output", "--save_steps", "50"]
    trainer += ["--logging_steps", "5", "--num_train_epochs", "40", "--per_device_train_batch_size", "4", "--use_cpu"]
    accelerate = ["python", "run_clm_no_trainer.py", *tiny, "--output_dir", "{run}/output", "--checkpointing_steps"]
    accelerate += ["50", "--num_train_epochs", "40", "--per_device_train_batch_size", "4", "--with_tracking"]
    accelerate += ["--report_to", "tensorboard"]
    nano = ["python", "train.py", "--dataset=tiny", "--device=cpu", "--compile=False", "--out_dir={run}/out"]
    nano += ["--block_size=32", "--batch_size=4", "--n_layer=2", "--n_head=2", "--n_embd=32", "--eval_interval=100"]
    nano += ["--eval_iters=2", "--gradient_accumulation_steps=1", "--max_iters=20000", "--lr_decay_iters=20000"]
    vision = ["python", "train.py", "--data-dir", "pictures", "--model", "resnet10t", "--device", "cpu", "--img-size"]
    vision += ["32", "--num-classes", "2", "-b", "4", "-j", "1", "--epochs", "60", "--log-interval", "2"]
    vision += ["--output", "{run}/output", "--experiment", "it", "--sched", "cosine", "--lr", "0.01"]
    basics = checkouts / "pytorch-lightning/examples/pytorch/basics"
    return (
        Case(
            "nanoGPT train.py",
            tuple((checkouts / "nanoGPT") / name for name in ("train.py", "model.py", "configurator.py")),
            {
                "command": nano,
                "resume": [*nano, "--init_from=resume", ["--learning_rate={lr}", "--decay_lr=False"]],
                "checkpoints": "out/ckpt.pt",
            },
            {"max_epochs": 1, "scheduler": {"name": "CosineAnnealingLR", "max_lr": 6e-4}},
            nanogpt,
        ),
        Case(
            "transformers run_clm.py",
            (clm / "run_clm.py",),
            {
                "command": trainer,
                "resume": [*trainer, "--resume_from_checkpoint", "{checkpoint}"],
                "checkpoints": "output/checkpoint-*",
            },
            {"max_epochs": 40},
            language_model,
            enough=4,
        ),
        Case(
            "transformers run_clm_no_trainer.py",
            (clm / "run_clm_no_trainer.py",),
            {
                "command": accelerate,
                "resume": [*accelerate, "--resume_from_checkpoint", "{checkpoint}"],
                "checkpoints": "output/step_*",
            },
            {"max_epochs": 40},
            language_model,
        ),
        Case(
            "Lightning basics/transformer.py",
            (basics / "transformer.py",),
            {"command": ["python", "transformer.py"], "checkpoints": "{cwd}/lightning_logs/**/*.ckpt"},
            {"max_epochs": 20},
            lightning_text,
        ),
        Case(
            "Lightning basics/backbone_image_classifier.py (LightningCLI)",
            (basics / "backbone_image_classifier.py",),
            {
                "command": ["python", "backbone_image_classifier.py", "--trainer.max_epochs=50"],
                "checkpoints": "{cwd}/lightning_logs/**/*.ckpt",
            },
            {"max_epochs": 50},
            mnist,
        ),
        Case(
            "timm train.py",
            (checkouts / "pytorch-image-models/train.py",),
            {
                "command": vision,
                "resume": [
                    *vision,
                    "--resume",
                    "{checkpoint}",
                    [
                        "--no-resume-opt",
                        "--sched",
                        "step",
                        "--decay-epochs",
                        "100000",
                        "--warmup-epochs",
                        "0",
                        "--lr",
                        "{lr}",
                    ],
                ],
                "checkpoints": "output/**/last.pth.tar",
            },
            {"max_epochs": 60},
            pictures,
        ),
    )


RUNLOG = "from eegwatch import RunLog; log = RunLog(LOGS, name='it', "


def two_lines(checkouts: Path) -> tuple[Case, ...]:
    """The same scripts with two lines, and a third that keeps their own scheduler from moving."""
    by_name = {case.name: case for case in cases(checkouts)}

    def edited(name: str, *edits: tuple[str, str, str], more: tuple[str, ...] = ()) -> Case:
        case = by_name[name]
        command = [*case.script["command"], *more]
        return Case(name, case.files, {"command": command}, prepare=case.prepare, edits=edits)

    cosine = "schedule={'name': 'cosine', 'max_lr': 6e-4, 'total_steps': 20000}, optimizer=optimizer)"
    callback = "[__import__('eegwatch.integrations.huggingface').integrations.huggingface.EegwatchCallback(LOGS)]"
    lightning = "[__import__('eegwatch.integrations.lightning').integrations.lightning.EegwatchCallback("
    lightning += "LOGS, schedule={'name': 'cosine', 'max_lr': 0.1, 'total_steps': 4580})]"
    return (
        edited(
            "nanoGPT train.py",
            ("train.py", "raw_model = model.module if ddp", f"{RUNLOG}{cosine}\nraw_model = model.module if ddp"),
            ("train.py", "    iter_num += 1\n", "    iter_num += 1; log.step(loss=loss.item())\n"),
            more=("--decay_lr=False",),
        ),
        edited(
            "transformers run_clm_no_trainer.py",
            ("run_clm_no_trainer.py", "    # On TPU, the tie", f"    {RUNLOG}schedule=lr_scheduler)\n    # On TPU, the tie"),
            ("run_clm_no_trainer.py", "                lr_scheduler.step()\n", "                log.step(loss=loss)\n"),
        ),
        edited(
            "transformers run_clm.py",
            ("run_clm.py", "        args=training_args,\n", f"        args=training_args,\n        callbacks={callback},\n"),
            more=("--lr_scheduler_type", "constant"),
        ),
        edited(
            "timm train.py",
            ("train.py", "    start_epoch = 0\n", f"    global log; {RUNLOG}schedule=lr_scheduler, "
             "steps_per_epoch=updates_per_epoch)\n    lr_scheduler.step = lr_scheduler.step_update = lambda *_, **__: None\n"
             "    start_epoch = 0\n"),
            ("train.py", "        num_updates += 1\n", "        num_updates += 1; log.step()\n"),
        ),
        edited(
            "Lightning basics/transformer.py",
            ("transformer.py", "gradient_clip_val=0.25,", f"gradient_clip_val=0.25, callbacks={lightning},"),
        ),
    )  # fmt: skip


def packages(folder: Path) -> None:
    """Packages that these scripts need and this project does not, installed beside (`pip install --target`)."""
    sys.path.insert(0, str(folder))


__all__ = ["cases", "packages", "two_lines"]
