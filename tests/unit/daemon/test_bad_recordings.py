"""Whatever lies in a corpus beside good recordings: skipped by name and reason, and the rest is prepared."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from eegpt_daemon.data import dataset, recording
from eegpt_daemon.data.corpus import CorpusError, index
from eegpt_daemon.data.features import FeatureStore
from eegpt_daemon.data.recording import header_samples, read
from eegpt_daemon.data.windows import CHANGED
from eegwatch.run import config as configuration
from eegwatch.run.config import Config
from tests.patience import PATIENCE_S

ConfigFile = Callable[..., Path]
Bad = Callable[[bytes], bytes]


def field(at: int, width: int, text: str) -> Bad:
    """Overwrite a field of the fixed header."""
    return lambda content: content[:at] + text.encode("latin-1").ljust(width)[:width] + content[at + width :]


def per_signal(offset: int, width: int, text: str) -> Bad:
    """Overwrite a field of every signal; `offset`: of the fields before it, in bytes a signal."""

    def write(content: bytes) -> bytes:
        signals = int(content[252:256])
        at = 256 + offset * signals
        return content[:at] + text.encode("latin-1").ljust(width)[:width] * signals + content[at + width * signals :]

    return write


KINDS: dict[str, Bad] = {
    "empty": lambda _: b"",
    "one byte": lambda content: content[:1],
    "cut in the fixed header": lambda content: content[:100],
    "cut in the signal headers": lambda content: content[:700],
    "header alone": lambda content: content[: int(content[184:192])],
    "cut to a few records": lambda content: content[: int(content[184:192]) + 4000],
    "zeros": lambda content: bytes(len(content)),
    "text": lambda _: b"this is no EDF file\n" * 400,
    "random": lambda content: np.random.default_rng(0).bytes(len(content)),
    "png": lambda content: b"\x89PNG\r\n\x1a\n" + content[8:],
    "duration nan": field(244, 8, "nan"),
    "duration inf": field(244, 8, "inf"),
    "duration 1e300": field(244, 8, "1e300"),
    "duration 1e-300": field(244, 8, "1e-300"),
    "duration 0": field(244, 8, "0"),
    "duration -1": field(244, 8, "-1"),
    "duration text": field(244, 8, "long"),
    "duration empty": field(244, 8, ""),
    "duration 1000": field(244, 8, "1000"),
    "duration 0.0001": field(244, 8, "0.0001"),
    "channels 0": field(252, 4, "0"),
    "channels -1": field(252, 4, "-1"),
    "channels 9999": field(252, 4, "9999"),
    "channels text": field(252, 4, "many"),
    "header bytes -1": field(184, 8, "-1"),
    "header bytes 0": field(184, 8, "0"),
    "header bytes 99999999": field(184, 8, "99999999"),
    "header bytes text": field(184, 8, "x"),
    "records -5": field(236, 8, "-5"),
    "records text": field(236, 8, "few"),
    "records 0": field(236, 8, "0"),
    "version 9": field(0, 8, "9"),
    "date": field(168, 8, "99.99.99"),
    "date text": field(168, 8, "someday"),
    "EDF+D without annotations": field(192, 44, "EDF+D"),
    "samples 0": per_signal(216, 8, "0"),
    "samples 1": per_signal(216, 8, "1"),
    "samples -1": per_signal(216, 8, "-1"),
    "samples 99999999": per_signal(216, 8, "99999999"),
    "samples text": per_signal(216, 8, "many"),
    "labels gone": per_signal(0, 16, ""),
    "labels strange": per_signal(0, 16, "\xb5\xff\x00\x01"),
    "physical range 0": per_signal(104, 8, "0"),
    "physical nan": per_signal(104, 8, "nan"),
    "physical 1e30": per_signal(112, 8, "1e30"),
    "digital range 0": per_signal(120, 8, "32767"),
    "digital text": per_signal(120, 8, "low"),
    "unit volts": per_signal(96, 8, "V"),
}


@pytest.fixture
def config(config_file: ConfigFile, tiny_corpus: Path, tmp_path: Path) -> Config:
    """The tiny corpus, copied, for a corpus of its own and an empty cache."""
    shutil.copytree(tiny_corpus, tmp_path / "corpus")
    cache = str(tmp_path / "cache")
    return configuration.load(
        config_file(data={"root_dir": str(tmp_path / "corpus"), "cache_dir": cache, "max_rejected": 0.9})
    )


def prepared(config: Config) -> tuple[dataset.TrainingData, list[str], FeatureStore]:
    encoder, _ = dataset.build_encoder(config)
    store = dataset.store_for(config, encoder, torch.device("cpu"))
    assert isinstance(store, FeatureStore)
    notes: list[str] = []
    planned = dataset.plan(config, store, lambda *_: None)
    return dataset.windows(config, store, planned, lambda *_: None, notes.append), notes, store


def place(config: Config) -> Path:
    return Path(config.data.root_dir) / "edf" / "train" / "normal"


def test_every_kind_of_broken_file_is_skipped_by_name_and_reason(config: Config) -> None:
    good = sorted(place(config).rglob("*.edf"))[0].read_bytes()
    for number, (name, spoil) in enumerate(KINDS.items()):
        (place(config) / f"zz{number:03d}PATIENT_s001_t000.edf").write_bytes(spoil(good))
        assert name
    links = place(config)
    (links / "zzaPATIENT_s001_t000.edf").symlink_to(links / "nowhere")
    (links / "zzbPATIENT_s001_t000.edf").symlink_to(links / "zzbPATIENT_s001_t000.edf")
    (links / "zzcPATIENT_s001_t000.edf").mkdir()
    os.mkfifo(links / "zzdPATIENT_s001_t000.edf")
    (links / "zze\nPATIENT\t_s001_t000.edf").write_bytes(b"")
    with open(os.fsencode(links) + b"/zzf\xe9PATIENT_s001_t000.edf", "wb") as latin1:
        latin1.write(good)
    data, notes, store = prepared(config)
    assert len(data.train) and data.val is not None and len(data.val) and len(data.test)
    skipped = [note for note in notes if "skipped: " in note]
    assert len(skipped) >= len(KINDS) - 9  # a cut file, a strange date or the like is used, and the repair is said
    assert not any("PATIENT" in note or config.data.root_dir in note for note in notes)
    assert "PATIENT" not in (store.folder / "index.jsonl").read_text()
    table = (store.folder / "recordings.tsv").read_bytes().split(b"\n")
    assert all(line.count(b"\t") == 6 for line in table[:-1])
    assert sum(b"\trejected\t" in line for line in table) == len(skipped)
    again, notes_again, _ = prepared(config)
    assert again.hash() == data.hash() and [n for n in notes_again if "skipped: " in n]


def test_what_broken_headers_promise_never_raises_and_good_ones_promise_what_is_read(
    config: Config, tmp_path: Path
) -> None:
    paths = sorted(place(config).rglob("*.edf"))
    for path in paths[:4]:
        assert header_samples(path, config.data.sampling_rate) == read(path, config.data).samples
    for name, spoil in KINDS.items():
        spoilt = tmp_path / "spoilt.edf"
        spoilt.write_bytes(spoil(paths[0].read_bytes()))
        assert header_samples(spoilt, 256) >= 0, name


@pytest.mark.parametrize("change", ["replaced", "cut", "deleted"])
def test_a_recording_that_changes_while_it_is_read_is_left_out_once(
    config: Config, change: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    victim = sorted(place(config).rglob("*.edf"))[0]
    content, real = victim.read_bytes(), recording._read
    spoilt: list[str] = []

    def reading(path: Path, *rest: object) -> object:
        block = real(path, *rest)  # type: ignore[arg-type]
        if path == victim and not spoilt:
            spoilt.append(change)
            victim.unlink()
            if change != "deleted":
                victim.write_bytes(content if change == "replaced" else content[: len(content) // 2])
        return block

    monkeypatch.setattr(recording, "_read", reading)
    data, notes, store = prepared(config)
    assert spoilt and len(data.train)
    assert [note for note in notes if CHANGED in note]
    victim.unlink(missing_ok=True)
    victim.write_bytes(content)
    _, notes, _ = prepared(config)
    assert not [note for note in notes if "skipped" in note]


def test_a_mount_that_does_not_answer_is_waited_for_and_no_recording_is_refused_for_ever(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    from eegpt_daemon.data import reader_processes

    victim, real, failures = sorted(place(config).rglob("*.edf"))[0], recording._open, [0]

    def opening(path: Path, wanted: list[str]) -> object:
        if path == victim:
            failures[0] += 1
            if failures[0] <= 2:
                raise OSError(116, "Stale file handle", str(path))
        return real(path, wanted)

    monkeypatch.setattr(recording, "_open", opening)
    monkeypatch.setattr(reader_processes, "PAUSES_S", (0.0, 0.0, 0.0))
    _, notes, _ = prepared(config)
    assert failures[0] == 3 and not [note for note in notes if "skipped" in note]


def test_labels_are_found_whatever_their_case(config: Config) -> None:
    root = Path(config.data.root_dir)
    for folder in [p for p in root.rglob("normal") if p.is_dir()]:
        folder.rename(folder.with_name("Normal"))
    assert {e.label for e in index(root, ["Normal", "ABNORMAL"])} == {0, 1}
    with pytest.raises(CorpusError, match="holds no EDF file"):
        index(root, ["Ill", "Well"])


NAMESPACED = """
import sys
from pathlib import Path
from eegpt_daemon.data.shards import ShardStore
import numpy as np
store = ShardStore(Path(sys.argv[1]), {"a": 1}, 4)
store.open()
writer = store.writer("theirs")
writer.write(np.zeros((3, 4), np.float16))
print("writing", flush=True)
sys.stdin.readline()
writer.finish([])
print("finished", flush=True)
"""


@pytest.mark.skipif(not shutil.which("unshare"), reason="needs unshare")
def test_two_containers_on_one_cache_leave_each_other_in_peace(tmp_path: Path) -> None:
    from eegpt_daemon.data.shards import ShardStore

    command = ["unshare", "-pf", "--mount-proc", sys.executable, "-c", NAMESPACED, str(tmp_path)]
    other = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert other.stdout is not None
    if other.stdout.readline() != "writing\n":
        pytest.skip("no pid namespaces here")
    mine = ShardStore(tmp_path, {"a": 1}, 4)
    mine.open()  # removes what dead processes of this namespace left, and nothing of the other's
    (mine.folder / ".x.tmp").write_bytes(b"")  # a stray one is nobody's
    ShardStore(tmp_path, {"a": 1}, 4).open()
    said, errors = other.communicate("\n", timeout=PATIENCE_S)
    assert said == "finished\n", errors
    assert json.loads((mine.folder / "index.jsonl").read_text())["rows"] == 3
