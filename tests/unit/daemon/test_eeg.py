"""The corpus and its recordings: real EDF files, faulty ones among them, read by mne."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import edfio
import mne
import numpy as np
import pytest

from eegpt_daemon.data.corpus import CorpusError, Entry, counts, index, misnamed, with_validation, without_eval_subjects
from eegpt_daemon.data.recording import TUAB_CHANNELS, Unusable, canonical, read
from eegwatch.run.config import Data

LABELS = ["normal", "abnormal"]


def data(**changes: object) -> Data:
    return Data(root_dir="/nowhere", min_duration=10.0, **changes)  # type: ignore[arg-type]


def first_file(corpus: Path, rate: int = 256) -> Path:
    for path in sorted(corpus.rglob("*.edf")):
        header = mne.io.read_raw_edf(path, preload=False, verbose="ERROR")
        if header.info["sfreq"] == rate:
            return path
    raise AssertionError(f"no file at {rate} Hz")


# ---- the corpus ------------------------------------------------------------------------------------------------------


def test_label_and_split_come_from_path_parts_and_abnormal_is_not_normal(tiny_corpus: Path) -> None:
    entries = index(tiny_corpus, LABELS)
    assert {(e.split, e.label) for e in entries} == {("train", 0), ("train", 1), ("eval", 0), ("eval", 1)}
    assert all(("abnormal" in e.relative) == (e.label == 1) for e in entries)
    assert counts(entries, LABELS)["train"] == {"normal": 8, "abnormal": 8, "subjects": 12}


def test_the_nested_layout_of_version_2_is_read_too(tmp_path: Path) -> None:
    for split in ("train", "eval"):
        for label in LABELS:
            folder = tmp_path / "edf" / split / label / "01_tcp_ar" / "004" / "00000415" / "s001_2003_06_24"
            folder.mkdir(parents=True)
            (folder / "00000415_s001_t000.edf").touch()
            (folder / "00000415_s001.txt").touch()
    entries = index(tmp_path, LABELS)
    assert [e.subject for e in entries] == ["00000415"] * 4


def test_validation_is_cut_by_subject_and_a_subject_under_both_labels_stays_whole() -> None:
    entries = [
        Entry(Path("x"), f"{subject}-{label}-{session}", f"subject{subject}", label, "train")
        for subject in range(30)
        for label in ((0, 1) if subject % 7 == 0 else (subject % 2,))
        for session in range(2)
    ]
    entries.append(Entry(Path("x"), "test", "someone", 0, "eval"))
    split = with_validation(entries, 0.2, seed=1)
    sides = {s: {e.subject for e in split if e.split == s} for s in ("train", "val", "eval")}
    assert not sides["train"] & sides["val"]
    assert 4 <= len(sides["val"]) <= 9 and sides["eval"] == {"someone"}
    assert {e.label for e in split if e.split == "val"} == {0, 1}
    assert with_validation(entries, 0.2, seed=1) == split != with_validation(entries, 0.2, seed=2)


def test_a_folder_that_is_no_corpus_says_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="not a folder"):
        index(tmp_path / "nowhere", LABELS)
    with pytest.raises(CorpusError, match="no EDF file under train/normal"):
        index(tmp_path, LABELS)


# ---- one recording ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("label", "name"),
    [
        ("EEG FP1-REF", "FP1"),
        ("EEG T3-REF", "T7"),
        ("EEG T6-LE", "P8"),
        ("Fz", "FZ"),
        ("EEG O1-AR", "O1"),
        ("EKG1", "EKG1"),
    ],
)
def test_channel_names_in_all_their_spellings(label: str, name: str) -> None:
    assert canonical(label) == name


def test_a_recording_equals_plain_mne_sample_for_sample(tiny_corpus: Path) -> None:
    path = first_file(tiny_corpus)
    recording = read(path, data(reference="none"))
    raw = mne.io.read_raw_edf(path, preload=True, verbose="ERROR")
    for row, name in zip(recording.data, TUAB_CHANNELS, strict=True):
        theirs = next(c for c in raw.ch_names if canonical(c) == name)
        np.testing.assert_allclose(row, raw.get_data(picks=[theirs])[0] * 1e3, rtol=1e-5, atol=1e-7)
    assert recording.rate == 256 and recording.seconds == pytest.approx(20.0)


def test_another_rate_is_resampled_once_and_the_average_reference_sums_to_zero(tiny_corpus: Path) -> None:
    recording = read(first_file(tiny_corpus, rate=250), data())
    assert recording.data.shape == (19, 20 * 256)
    np.testing.assert_allclose(recording.data.sum(axis=0), 0, atol=1e-5)
    assert 0.002 < recording.data.std() < 0.1  # millivolt


def test_the_twentieth_channel_is_the_mean_of_its_neighbours_and_said(tiny_corpus: Path) -> None:
    recording = read(first_file(tiny_corpus), data(n_channels=20))
    assert recording.channels[:3] == ["FP1", "FPZ", "FP2"]
    np.testing.assert_allclose(recording.data[1], (recording.data[0] + recording.data[2]) / 2, atol=1e-6)
    assert any("FPZ missing: mean of FP1 and FP2" in repair for repair in recording.repairs)
    zero = read(first_file(tiny_corpus), data(n_channels=20, missing="zero"))
    assert not zero.data[1].any()
    assert read(first_file(tiny_corpus), data(n_channels=20, missing="drop")).data.shape[0] == 19


def rewrite(source: Path, target: Path, change: Callable[[list[edfio.EdfSignal]], list[edfio.EdfSignal]]) -> Path:
    edf = edfio.read_edf(source)
    edfio.Edf(change(list(edf.signals)), data_record_duration=1).write(target)
    return target


def without(*names: str) -> Callable[[list[edfio.EdfSignal]], list[edfio.EdfSignal]]:
    return lambda signals: [s for s in signals if canonical(s.label) not in names]


def rescaled(factor: float) -> Callable[[list[edfio.EdfSignal]], list[edfio.EdfSignal]]:
    def change(signals: list[edfio.EdfSignal]) -> list[edfio.EdfSignal]:
        return [
            edfio.EdfSignal(s.data * factor, s.sampling_frequency, label=s.label, physical_dimension="uV")
            for s in signals
        ]

    return change


def flat(name: str) -> Callable[[list[edfio.EdfSignal]], list[edfio.EdfSignal]]:
    def change(signals: list[edfio.EdfSignal]) -> list[edfio.EdfSignal]:
        return [
            edfio.EdfSignal(s.data * 0, s.sampling_frequency, label=s.label, physical_dimension="uV",
                            physical_range=(-100, 100)) if canonical(s.label) == name else s
            for s in signals
        ]  # fmt: skip

    return change


def test_two_missing_channels_are_completed_and_three_are_too_many(tiny_corpus: Path, tmp_path: Path) -> None:
    source = first_file(tiny_corpus)
    recording = read(rewrite(source, tmp_path / "two.edf", without("FZ", "PZ")), data())
    assert sum("missing: mean of" in repair for repair in recording.repairs) == 2
    with pytest.raises(Unusable, match="lacks .*FZ"):
        read(rewrite(source, tmp_path / "three.edf", without("FZ", "PZ", "CZ")), data())


def test_a_flat_channel_counts_as_missing(tiny_corpus: Path, tmp_path: Path) -> None:
    recording = read(rewrite(first_file(tiny_corpus), tmp_path / "flat.edf", flat("C3")), data())
    assert any("flat" in repair and "C3" in repair for repair in recording.repairs)
    assert recording.data[TUAB_CHANNELS.index("C3")].std() > 0


@pytest.mark.parametrize(("factor", "words"), [(1e-4, "lacks|median"), (100.0, "beyond|median")])
def test_a_wrong_physical_range_is_refused(tiny_corpus: Path, tmp_path: Path, factor: float, words: str) -> None:
    with pytest.raises(Unusable, match=words):
        read(rewrite(first_file(tiny_corpus), tmp_path / "range.edf", rescaled(factor)), data())


def test_a_file_cut_short_is_used_and_the_repair_is_said(tiny_corpus: Path, tmp_path: Path) -> None:
    source, path = first_file(tiny_corpus), tmp_path / "cut.edf"
    content = source.read_bytes()
    path.write_bytes(content[: int(len(content) * 0.8)])
    recording = read(path, data())
    assert recording.seconds < 17
    assert any("reco" in repair.lower() or "size" in repair.lower() for repair in recording.repairs), recording.repairs


@pytest.mark.parametrize("kind", ["empty", "html", "header", "half"])
def test_what_is_no_edf_file_is_refused_with_the_reason(tiny_corpus: Path, tmp_path: Path, kind: str) -> None:
    source, path = first_file(tiny_corpus), tmp_path / "bad.edf"
    content = source.read_bytes()
    size = int(content[184:192])
    path.write_bytes(
        {"empty": b"", "html": b"<html>403</html>" * 50, "header": content[:size], "half": content[:400]}[kind]
    )
    with pytest.raises(Unusable) as error:
        read(path, data())
    assert "\n" not in str(error.value)


def test_a_recording_shorter_than_asked_for_is_refused(tiny_corpus: Path) -> None:
    with pytest.raises(Unusable, match=r"20\.0 s long, data.min_duration is 60 s"):
        read(first_file(tiny_corpus), Data(root_dir="/", min_duration=60.0))


def test_other_reference_spellings_and_a_duplicate_label(tiny_corpus: Path, tmp_path: Path) -> None:
    def spelled(signals: list[edfio.EdfSignal]) -> list[edfio.EdfSignal]:
        for s in signals:
            s.label = s.label.replace("-REF", "-LE")
        return [*signals, next(s for s in signals if s.label == "EEG CZ-LE")]

    path = rewrite(first_file(tiny_corpus), tmp_path / "le.edf", spelled)
    recording = read(path, data(reference="none"))
    original = read(first_file(tiny_corpus), data(reference="none"))
    np.testing.assert_allclose(recording.data, original.data, atol=1e-6)


@pytest.mark.parametrize("rate", [200, 250, 400, 500, 512])
def test_blocks_put_together_are_what_mne_makes_of_the_whole(tmp_path: Path, rate: int) -> None:
    """Longer than two blocks: every seam, and both ends, equal mne's polyphase resampling of the whole recording."""
    rng = np.random.default_rng(rate)
    signals = [
        edfio.EdfSignal(
            rng.standard_normal(rate * 300) * 20 + 50,
            rate,
            label=f"EEG {name}-REF",
            physical_dimension="uV",
            physical_range=(-3276.7, 3276.7),
        )
        for name in TUAB_CHANNELS
    ]
    path = tmp_path / "long.edf"
    edfio.Edf(signals, data_record_duration=1).write(path)
    recording = read(path, data(reference="none"))
    blocks = list(recording.blocks())
    assert len(blocks) == 3 and all(block.shape[1] < 130 * 256 for block in blocks)
    raw = mne.io.read_raw_edf(path, preload=True, verbose="ERROR").resample(256, method="polyphase", verbose="ERROR")
    assert recording.data.shape == (19, 300 * 256) == (19, recording.samples)
    np.testing.assert_allclose(recording.data, raw.get_data() * 1e3, atol=1e-7)


def test_zscores_are_those_of_the_whole_recording_after_the_reference(tiny_corpus: Path) -> None:
    path = first_file(tiny_corpus)
    plain, scaled = read(path, data()).data.astype(np.float64), read(path, data(scaling="zscore")).data
    centred = plain - plain.mean(axis=1, keepdims=True)
    np.testing.assert_allclose(scaled, centred / centred.std(axis=1, keepdims=True), atol=1e-4)


def annotated(source: Path, target: Path) -> Path:
    """The same signals as EDF+C, with a time in every record."""
    signals = [s for s in edfio.read_edf(source).signals if s.sampling_frequency > 1]
    edfio.Edf(signals, data_record_duration=1, annotations=[edfio.EdfAnnotation(0, None, "x")]).write(target)
    return target


def test_a_discontinuous_file_is_refused_where_it_has_gaps(tiny_corpus: Path, tmp_path: Path) -> None:
    path = annotated(first_file(tiny_corpus), tmp_path / "plus.edf")
    whole = path.read_bytes()
    assert whole[192:197] == b"EDF+C" and whole.count(b"+19\x14\x14") == 1
    path.write_bytes(whole.replace(b"EDF+C", b"EDF+D", 1))
    assert any("without gaps" in repair for repair in read(path, data()).repairs)
    path.write_bytes(whole.replace(b"EDF+C", b"EDF+D", 1).replace(b"+19\x14\x14", b"+99\x14\x14"))
    with pytest.raises(Unusable, match="discontinuous .* windows would cross its gaps"):
        read(path, data())


def test_an_edf_file_with_another_extension_is_named_and_left_out(tiny_corpus: Path, tmp_path: Path) -> None:
    root = tmp_path / "corpus"
    shutil.copytree(tiny_corpus, root)
    path = first_file(root)
    path.rename(path.with_suffix(".rec"))
    (path.parent / "report.txt").write_text("0       no EDF file")
    (found,) = misnamed(root, LABELS)
    assert found.relative.endswith(".rec") and "rename it to .edf" in found.reason
    (hidden,) = misnamed(root, LABELS, names=False)
    assert path.stem not in hidden.alias and hidden.alias.startswith("eval/abnormal")
    assert len(index(root, LABELS)) == 23


def test_logs_do_not_hold_file_names_unless_asked_to(tiny_corpus: Path) -> None:
    assert all(e.alias == e.relative for e in index(tiny_corpus, LABELS))
    hidden = index(tiny_corpus, LABELS, names=False)
    assert len({e.alias for e in hidden}) == 24
    assert {e.alias for e in hidden} >= {"train/normal #1", "eval/abnormal #4"}


def test_subjects_of_the_official_evaluation_never_train(tmp_path: Path) -> None:
    entries = [
        Entry(tmp_path, "a-train", "a", 0, "train"),
        Entry(tmp_path, "b-train", "b", 0, "train"),
        Entry(tmp_path, "a-eval", "a", 0, "eval"),
    ]
    kept, dropped = without_eval_subjects(entries)
    assert [e.relative for e in kept] == ["b-train", "a-eval"] and dropped == 1


# ---- the synthetic corpus --------------------------------------------------------------------------------------------


def test_the_synthetic_corpus_is_named_so_everywhere(tiny_corpus: Path) -> None:
    assert "SYNTHETIC" in (tiny_corpus / "README-SYNTHETIC.txt").read_text()
    for path in tiny_corpus.rglob("*.edf"):
        assert path.name.startswith("syn")
        assert b"SYNTHETIC" in path.read_bytes()[:256]


def test_the_synthetic_corpus_exercises_the_reader(tiny_corpus: Path) -> None:
    rates, orders, names = set(), set(), set()
    for path in tiny_corpus.rglob("*.edf"):
        edf = edfio.read_edf(path)
        rates.add(edf.signals[0].sampling_frequency)
        orders.add(tuple(s.label for s in edf.signals))
        names |= {s.label for s in edf.signals}
        assert {s.sampling_frequency for s in edf.signals} >= {1.0}
    assert rates == {250.0, 256.0} and len(orders) > 2
    assert {"EEG T3-REF", "EEG T5-REF", "EEG A1-REF", "EEG EKG1-REF", "IBI", "BURSTS", "SUPPR"} <= names


def test_a_corpus_is_made_whole_or_not_at_all(tmp_path: Path) -> None:
    from eegpt_daemon.data.synthetic import make_corpus
    from eegwatch.run.config import Synthetic

    def stop(done: int, total: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_corpus(tmp_path / "corpus", Synthetic(train_recordings=4, eval_recordings=2, seconds=5), stop)
    assert list(tmp_path.iterdir()) == []
