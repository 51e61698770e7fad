"""What a corpus proves of itself: signals under two names, labels that disagree, headers that tell the class."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from eegpt_daemon.data.edf_header import read_header
from eegpt_daemon.data.header_facts import told_by
from eegpt_daemon.data.signal_fingerprint import Fingerprint, kept_of
from eegwatch.diagnosis.findings import ERROR, WARNING
from tests.unit.daemon.corpora import config_of, corpus, findings_of, looks_of, signal_of, write_edf


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return corpus(tmp_path_factory.mktemp("corpus") / "clean")


@pytest.fixture
def root(clean: Path, tmp_path: Path) -> Path:
    """A copy of the clean corpus, to be broken."""
    return Path(shutil.copytree(clean, tmp_path / "corpus"))


def rules(root: Path, *, signals: bool = True, **data: Any) -> dict[str, str]:
    found = findings_of(config_of(root, root.parent / "cache", **data), signals=signals)
    return {rule: finding.severity for rule, finding in found.items()}


TRAIN = "train/normal/tn0000_s001_t000.edf"


def test_a_corpus_without_faults_has_none_and_every_rule_could_judge(root: Path) -> None:
    looks = looks_of(config_of(root, root.parent / "cache", log_file_names=True))
    assert rules(root) == {}
    assert looks["signals"]["compared"] == 14 and looks["headers"]["codes"] == {"n": 0, "shown": []}


# ---- the same signal under two names ----


def test_a_copy_of_a_training_recording_in_the_evaluation_set_is_found(root: Path) -> None:
    shutil.copy(root / TRAIN, root / "eval/normal/zz9999_s001_t000.edf")
    found = findings_of(config_of(root, root.parent / "cache"))
    # the header went with the copy: its patient's code is in two splits too
    assert {r: f.severity for r, f in found.items()} == {
        "signal_in_two_splits": ERROR,
        "patient_in_two_splits": WARNING,
    }
    assert "train/normal #1 and eval/normal #4 (all of it)" in found["signal_in_two_splits"].message


@pytest.mark.parametrize("scaling", ["millivolt", "zscore"])
def test_two_files_cut_from_one_recording_that_overlap_are_found(root: Path, scaling: str) -> None:
    whole = signal_of(99, 60)
    write_edf(root / "train/normal/aa_s001_t000.edf", whole[:, : 40 * 256], patient="aa")
    write_edf(root / "eval/normal/bb_s001_t000.edf", whole[:, 15 * 256 :], patient="bb")
    assert rules(root, scaling=scaling) == {"signal_in_two_splits": ERROR}


def test_the_same_samples_with_another_header_and_order_of_channels_are_found(root: Path) -> None:
    signal = signal_of(1)  # of tn0000
    write_edf(root / "eval/normal/cc_s001_t000.edf", signal, patient="cc", order=range(18, -1, -1), filter="HP:0.1Hz")
    assert rules(root) == {"signal_in_two_splits": ERROR}


def test_one_signal_under_both_labels_is_found(root: Path) -> None:
    shutil.copy(root / TRAIN, root / "train/abnormal/tn0000_s001_t000.edf")
    found = rules(root)
    assert found["signal_in_two_classes"] == ERROR and "signal_in_two_splits" not in found


def test_a_recording_twice_in_one_split_is_a_fact(root: Path) -> None:
    shutil.copy(root / TRAIN, root / "train/normal/tn0000_s001_t001.edf")
    assert rules(root) == {"signal_twice": WARNING}


def test_a_test_signal_that_recordings_begin_with_is_no_ones_own(root: Path) -> None:
    square = np.repeat(np.sign(np.sin(np.arange(8 * 256) / 20))[None] * 50, 19, axis=0)
    flat = np.zeros((19, 8 * 256))
    for number, split in enumerate(["train", "train", "eval"]):
        signal = np.concatenate([np.tile(square[:, :256], 8), flat, signal_of(200 + number)], axis=1)
        write_edf(root / split / "normal" / f"tt{number}_s001_t000.edf", signal, patient=f"tt{number}")
    assert rules(root) == {}


def test_a_cache_of_an_earlier_version_still_tells_whole_copies(root: Path) -> None:
    shutil.copy(root / TRAIN, root / "eval/normal/zz9999_s001_t000.edf")
    config = config_of(root, root.parent / "cache")
    looks_of(config)
    for index in (root.parent / "cache").glob("*/index.jsonl"):
        shards = [json.loads(line) for line in index.read_text().splitlines()]
        assert all(shard["signal"]["whole"] for shard in shards)
        index.write_text("".join(json.dumps({k: v for k, v in s.items() if k != "signal"}) + "\n" for s in shards))
    assert findings_of(config)["signal_in_two_splits"].severity == ERROR


def test_fingerprints_do_not_depend_on_the_blocks_that_a_signal_is_read_in() -> None:
    signal = signal_of(3, 30)
    at_once, in_parts = Fingerprint(256), Fingerprint(256)
    at_once.feed(signal)
    for part in np.array_split(signal, 7, axis=1):
        in_parts.feed(part)
    assert at_once.as_dict() == in_parts.as_dict()
    later = Fingerprint(256)
    later.feed(signal[:, 10 * 256 :])
    assert kept_of(later.as_dict()) < kept_of(at_once.as_dict())


# ---- labels ----


def listed(root: Path, name: str, lines: list[str]) -> None:
    (root / name).write_text("\n".join(lines) + "\n")


STEMS = [f"{s}{label}{i:04d}_s001_t000" for s, n in (("t", 4), ("e", 3)) for label in "na" for i in range(n)]
LABEL = {stem: "normal" if stem[1] == "n" else "abnormal" for stem in STEMS}


@pytest.mark.parametrize("wrong", [0, 2])
@pytest.mark.parametrize(
    ("name", "lines"),
    [
        ("labels.csv", ["file,label", *(f"{s}.edf,{{{s}}}" for s in STEMS)]),
        ("labels.tsv", ["recording\tpathology", *(f"{s}\t{{{s}}}" for s in STEMS)]),
        (
            "list.txt",
            [f"/data/edf/somewhere/{s}.edf {{{s}}}" for s in STEMS[:10]] + [f"{s} {{{s}}}" for s in STEMS[10:]],
        ),
        ("participants.tsv", ["participant_id\tage\tdiagnosis", *(f"sub-{s[:6]}\t40\t{{{s}}}" for s in STEMS)]),
        ("paths.list", [f"v3/train/{{{s}}}/01_tcp_ar/{s}.edf" for s in STEMS]),
        ("flags.csv", ["id;abnormal;old", *(f"{s};{{{s}}};1" for s in STEMS)]),
    ],
)
def test_labels_in_a_list_are_held_against_the_folders(root: Path, name: str, lines: list[str], wrong: int) -> None:
    says = dict(LABEL)
    for stem in STEMS[:wrong]:
        says[stem] = "abnormal"
    if name == "flags.csv":
        says = {stem: str(int(label == "abnormal")) for stem, label in says.items()}
    listed(root, name, [line.format(**says) for line in lines])
    found = findings_of(config_of(root, root.parent / "cache"), signals=False)
    assert set(found) == ({"labels_disagree"} if wrong else set())
    if wrong:
        assert found["labels_disagree"].severity == ERROR
        assert f"2 of 14 recordings are not those of {'the paths in ' if name == 'paths.list' else ''}{name}" in (
            found["labels_disagree"].message
        )
        assert "train/normal #1: normal by folder, abnormal there" in found["labels_disagree"].message


def test_a_column_about_something_else_says_nothing(root: Path) -> None:
    listed(
        root,
        "report.csv",
        ["file,alpha rhythm", *(f"{s},{'normal' if i % 3 else 'abnormal'}" for i, s in enumerate(STEMS))],
    )
    (root / "train/normal/tn0001_s001_t000.txt").write_text(
        "REPORT\nBackground: normal, sleep: abnormal\nabnormal EEG\n"
    )
    (root / "train/normal/tn0002_s001_t000.csv").write_text(
        "channel,start,stop,label\nFP1,0,1,bckg\nFP1,1,2,abnormal\n"
    )
    (root / "train/normal/tn0002_s001_t000.tsv").write_text("label\nnormal\nabnormal\n")
    assert rules(root, signals=False) == {"labels_disagree": ERROR}  # a column called label says abnormal alone
    (root / "train/normal/tn0002_s001_t000.csv").unlink()
    assert rules(root, signals=False) == {}


def test_labels_beside_a_recording_and_in_its_name_are_held_against_its_folder(root: Path) -> None:
    (root / "train/normal/tn0003_s001_t000.json").write_text('{"label": "abnormal"}')
    assert rules(root, signals=False) == {"labels_disagree": ERROR}
    (root / "train/normal/tn0003_s001_t000.json").write_text('{"label": "normal"}')
    assert rules(root, signals=False) == {}
    shutil.move(root / TRAIN, root / "train/normal/tn0000_s001_t000_Abnormal.edf")
    assert rules(root, signals=False) == {"labels_disagree": ERROR}


def test_a_folder_of_one_class_within_the_other_is_found(root: Path) -> None:
    (root / "train/normal/abnormal").mkdir()
    shutil.move(root / TRAIN, root / "train/normal/abnormal/tn0000_s001_t000.edf")
    assert rules(root, signals=False) == {"labels_disagree": ERROR}


# ---- headers ----


@pytest.mark.parametrize(
    ("abnormal", "what"),
    [
        ({"hertz": 250}, "sampling rate (normal: 256 Hz in 7 of 7; abnormal: 250 Hz in 7 of 7), 100%"),
        ({"reference": "LE"}, "reference (normal: REF in 7 of 7; abnormal: LE in 7 of 7), 100%"),
        ({"filter": "HP:1.0Hz LP:70Hz"}, "filter (normal: none named in 7 of 7; abnormal: HP:1.0Hz LP:70Hz in 7 of 7)"),
        ({"equipment": "Nihon"}, "equipment (normal: none in 7 of 7; abnormal: Nihon in 7 of 7)"),
    ],
)
def test_a_class_that_the_header_tells_is_a_fact(tmp_path: Path, abnormal: dict[str, Any], what: str) -> None:
    root = corpus(tmp_path / "corpus", abnormal=abnormal)
    for edf in root.rglob("a*.edf"):
        assert read_header(edf) is not None
    found = findings_of(config_of(root, tmp_path / "cache"), signals=False)
    assert {r: f.severity for r, f in found.items()} in ({"class_in_header": WARNING},)
    assert what in found["class_in_header"].message


def test_headers_that_vary_by_chance_say_nothing() -> None:
    draw = np.random.default_rng(1)
    classes = np.repeat([0, 1], 60)
    told = [
        told_by([str(v) for v in draw.integers(0, kinds, 120)], classes, 2)
        for kinds in (2, 5, 40, 10_000)
        for _ in range(5)
    ]
    assert told == [None] * 20
    assert told_by(["a", "b"] * 60, np.tile([0, 1], 60), 2) == 1.0
    assert told_by(["a"] * 2 + ["b"] * 2, np.array([0, 0, 1, 1]), 2) is None  # one in three by chance


def test_one_patient_under_two_subjects_and_two_people_under_one_are_facts(root: Path) -> None:
    write_edf(root / "eval/normal/new_s001_t000.edf", signal_of(70), patient="tn0001")
    write_edf(root / "train/normal/tn0002_s002_t000.edf", signal_of(71), patient="tn0002", sex="F")
    write_edf(root / "train/normal/tn0002_s003_t000.edf", signal_of(72), patient="tn0002", sex="M")
    found = findings_of(config_of(root, root.parent / "cache"), signals=False)
    assert {r: f.severity for r, f in found.items()} == {
        "patient_in_two_splits": WARNING,
        "subject_is_two_people": WARNING,
    }


def test_a_code_that_all_patients_have_tells_nobody_apart(tmp_path: Path) -> None:
    root = corpus(tmp_path / "corpus", both={"patient": "TUH"})
    assert findings_of(config_of(root, tmp_path / "cache"), signals=False) == {}


def test_no_name_of_a_patient_reaches_the_records(root: Path) -> None:
    shutil.copy(root / TRAIN, root / "eval/normal/zz9999_s001_t000.edf")
    listed(root, "labels.csv", ["file,label", *(f"{s}.edf,abnormal" for s in STEMS)])
    text = json.dumps(looks_of(config_of(root, root.parent / "cache")))
    assert not [stem for stem in [*STEMS, "zz9999"] if stem[:6] in text]
