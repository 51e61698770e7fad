"""Frozen features: each patch once, cached by all that they depend on, resumable, and refused when constant."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from eegpt_daemon.data.corpus import CorpusError, index, with_validation
from eegpt_daemon.data.features import FeatureStore, statistics_of
from eegpt_daemon.data.recording import read, wanted_channels
from eegpt_daemon.model.encoder import Encoder, EncoderError
from eegwatch.run.config import Config, load

CPU = torch.device("cpu")


@pytest.fixture
def config(config_file: Callable[..., Path], tmp_path: Path) -> Config:
    config = load(config_file())
    config.data.cache_dir = str(tmp_path / "cache")
    return config


def store_for(config: Config, seed: int = 1) -> FeatureStore:
    return FeatureStore(config, Encoder.preset("small", wanted_channels(config.data), seed), CPU)


def nothing(*_: object) -> None: ...


def test_features_of_overlapping_windows_equal_encoding_each_window_by_itself(config: Config) -> None:
    store = store_for(config)
    entry = index(Path(config.data.root_dir), config.data.labels)[0]
    signal = read(entry.path, config.data).data
    ours = store.windows(signal)
    windows = np.stack([signal[:, i * 512 : i * 512 + 1024] for i in range(len(ours))])
    with torch.inference_mode():
        theirs = store.encoder(torch.from_numpy(windows)).mean(dim=1).flatten(1).numpy()
    assert ours.shape == ((20 * 4 - 16) // 8 + 1, 4 * 64) and ours.dtype == np.float16
    np.testing.assert_allclose(ours, theirs, atol=2e-3)


@pytest.mark.parametrize(("size", "pooling"), [(64, "patches_and_tokens"), (256, "patches"), (4096, "none")])
def test_the_users_input_dim_names_the_pooling(config: Config, size: int, pooling: str) -> None:
    config.model.probe.input_dim = size
    store = store_for(config)
    assert (store.pooling, store.size) == (pooling, size)


def test_an_input_dim_that_fits_no_pooling_lists_those_that_do(config: Config) -> None:
    config.model.probe.input_dim = 512
    with pytest.raises(EncoderError, match=r"input_dim: 512 .* 256 \(patches\)"):
        store_for(config)


def test_windows_that_are_no_whole_patches_are_refused(config: Config) -> None:
    config.data.window_duration = 4.1
    with pytest.raises(CorpusError, match="whole patches of 64 samples"):
        store_for(config)


def test_a_killed_preparation_goes_on_where_it_was(config: Config) -> None:
    entries = index(Path(config.data.root_dir), config.data.labels)

    def die(done: int, total: int) -> None:
        if done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store_for(config).prepare(entries, die, nothing)
    store = store_for(config)
    made = {path: path.stat().st_mtime_ns for path in store.folder.glob("*.npy")}
    assert len(made) == 5
    assert store.prepare(entries, nothing, nothing) == []
    assert all(path.stat().st_mtime_ns == time for path, time in made.items())
    assert len(list(store.folder.glob("*.npy"))) == len(entries)


def test_a_damaged_shard_is_computed_again(config: Config) -> None:
    entries = index(Path(config.data.root_dir), config.data.labels)[:2]
    store = store_for(config)
    store.prepare(entries, nothing, nothing)
    shard = store.shard(entries[0])
    before = np.load(shard)
    shard.write_bytes(shard.read_bytes()[:100])
    store.prepare(entries, nothing, nothing)
    assert np.array_equal(np.load(shard), before)


@pytest.mark.parametrize("change", ["weights", "scaling", "stride", "reference"])
def test_whatever_the_features_depend_on_makes_another_cache(config: Config, change: str) -> None:
    first = store_for(config).folder
    if change == "scaling":
        config.data.scaling = "millivolt"
    elif change == "stride":
        config.data.window_stride = 4.0
    elif change == "reference":
        config.data.reference = "none"
    assert store_for(config, seed=2 if change == "weights" else 1).folder != first


def test_too_many_unusable_recordings_stop_the_run_before_it_starts(config: Config, tmp_path: Path) -> None:
    root = tmp_path / "corpus"
    shutil.copytree(config.data.root_dir, root)
    files = sorted(root.rglob("*.edf"))
    files[0].write_bytes(b"")
    config.data.root_dir = str(root)
    entries, notes = index(root, config.data.labels), list[str]()
    rejected = store_for(config).prepare(entries, nothing, notes.append)
    assert [r.relative for r in rejected] == [files[0].relative_to(root).as_posix()]
    assert any("skipped" in note for note in notes)
    files[1].write_bytes(b"")
    with pytest.raises(CorpusError, match=r"2 of 24 recordings cannot be used, more than data.max_rejected \(5%\)"):
        store_for(config).prepare(index(root, config.data.labels), nothing, nothing)


def test_constant_features_are_refused_with_the_likely_reason(config: Config) -> None:
    with pytest.raises(CorpusError, match=r"hardly vary .* data.scaling"):
        statistics_of(100, np.full(8, 50.0), np.full(8, 25.0))
    x = np.random.default_rng(0).normal(3, 2, (5000, 4))
    mean, std = statistics_of(len(x), x.sum(0), (x**2).sum(0))
    assert mean == pytest.approx([3] * 4, abs=0.2) and std == pytest.approx([2] * 4, abs=0.2)


def test_gathered_windows_carry_label_and_recording(config: Config) -> None:
    entries = with_validation(index(Path(config.data.root_dir), config.data.labels), 0.25, 1)
    store = store_for(config)
    rejected = store.prepare(entries, nothing, nothing)
    pack = store.pack(entries, rejected, nothing, nothing)
    val = store.gather(pack, entries, "val", rejected)
    mine = [e for e in entries if e.split == "val"]
    assert val.names == [e.relative for e in mine]
    for i, entry in enumerate(mine):
        assert set(val.y[val.recording == i]) == {entry.label}
    assert val.hash() != store.gather(pack, entries, "train", rejected).hash()


# ---- the pack, worker processes, signals ----------------------------------------------------------------------------


def test_a_damaged_pack_or_shard_is_found_by_its_checksum_and_made_again(config: Config) -> None:
    entries = index(Path(config.data.root_dir), config.data.labels)
    store, notes = store_for(config), list[str]()
    rejected = store.prepare(entries, nothing, nothing)
    pack = store.pack(entries, rejected, nothing, nothing)
    good = pack.rows.copy()

    def flip(path: Path, at: int) -> None:
        content = bytearray(path.read_bytes())
        content[at] ^= 1
        path.write_bytes(content)

    flip(pack.path, -5)
    again = store_for(config)
    again.prepare(entries, nothing, nothing)
    assert np.array_equal(again.pack(entries, [], nothing, notes.append).rows, good) and notes == []
    flip(pack.path, 5000)
    flip(store.shard(entries[3]), 900)
    again = store_for(config)
    again.prepare(entries, nothing, nothing)
    assert np.array_equal(again.pack(entries, [], nothing, notes.append).rows, good)
    assert len(notes) == 1 and "1 shard(s)" in notes[0] and "damaged" in notes[0]


def test_worker_processes_read_the_same_and_say_the_same(config: Config, tmp_path: Path) -> None:
    root = tmp_path / "corpus"
    shutil.copytree(config.data.root_dir, root)
    next(root.rglob("train/normal/**/*.edf")).write_bytes(b"nothing")
    config.data.root_dir = str(root)
    entries = index(root, config.data.labels)
    packs, rejections, said = [], [], []
    for workers in (0, 2):
        config.data.num_workers, config.data.cache_dir = workers, str(tmp_path / f"cache-{workers}")
        store, notes = store_for(config), list[str]()
        rejected = store.prepare(entries, nothing, notes.append)
        packs.append(store.pack(entries, rejected, nothing, nothing))
        rejections.append(rejected)
        said.append(sorted(notes))
    assert np.array_equal(packs[0].rows, packs[1].rows) and packs[0].content == packs[1].content
    assert rejections[0] == rejections[1] and said[0] == said[1] and len(rejections[0]) == 1


def test_what_cannot_be_used_is_remembered_with_its_reason_and_tabled(config: Config, tmp_path: Path) -> None:
    root = tmp_path / "corpus"
    shutil.copytree(config.data.root_dir, root)
    bad = sorted(root.rglob("*.edf"))[0]
    bad.write_bytes(bad.read_bytes()[:3000])
    config.data.root_dir = str(root)
    entries = index(root, config.data.labels, names=False)
    store = store_for(config)
    (first,) = store.prepare(entries, nothing, nothing)
    (second,) = store_for(config).prepare(entries, nothing, nothing)
    assert first == second and first.alias == "eval/abnormal #1"
    table = (store.folder / "recordings.tsv").read_text().splitlines()
    assert len(table) == 25
    (row,) = [line.split("\t") for line in table if "rejected" in line]
    assert row[0] == "eval/abnormal #1" and row[1] == bad.relative_to(root).as_posix() and row[6] == first.reason


def test_recordings_longer_than_a_block_give_the_windows_of_the_whole(config: Config, monkeypatch: Any) -> None:
    from eegpt_daemon.data import recording

    entries = index(Path(config.data.root_dir), config.data.labels)[:1]
    whole = store_for(config)
    whole.prepare(entries, nothing, nothing)
    monkeypatch.setattr(recording, "BLOCK_S", 3.3)
    config.data.cache_dir += "-blocks"
    pieces = store_for(config)
    pieces.prepare(entries, nothing, nothing)
    assert len(list(recording.read(entries[0].path, config.data).blocks())) > 5
    np.testing.assert_allclose(np.load(pieces.shard(entries[0])), np.load(whole.shard(entries[0])), atol=2e-3)


def test_a_large_pack_stays_mapped_and_can_be_trimmed(config: Config, monkeypatch: Any) -> None:
    from eegpt_daemon.data import shards

    entries = index(Path(config.data.root_dir), config.data.labels)
    store = store_for(config)
    rejected = store.prepare(entries, nothing, nothing)
    loaded = store.pack(entries, rejected, nothing, nothing)
    monkeypatch.setattr(shards, "IN_MEMORY_BYTES", 0)
    mapped = store.pack(entries, rejected, nothing, nothing)
    before = mapped.rows[5].copy()
    mapped.trim()
    assert mapped.mapped and not loaded.mapped
    starts = np.array([7, 0, len(loaded.rows) - 3])
    assert np.array_equal(mapped.take(starts)[:, 0], loaded.rows[starts])
    assert np.array_equal(mapped.take(starts, 3)[1], loaded.rows[:3])
    gathered = cache_gather(store, mapped, entries).at(torch.tensor([3, 1]))
    assert torch.equal(gathered, cache_gather(store, loaded, entries).at(torch.tensor([3, 1])))
    assert np.array_equal(mapped.rows, loaded.rows) and np.array_equal(mapped.rows[5], before)


def cache_gather(store: FeatureStore, pack: Any, entries: list[Any]) -> Any:
    from eegpt_daemon.trainer.batches import BatchReader

    return BatchReader(store.gather(pack, entries, "train", []), CPU)


def test_windows_cut_from_cached_signals_give_the_features_that_the_cache_holds(config: Config) -> None:
    from eegpt_daemon.data.features import SignalStore
    from eegpt_daemon.model.probe import Backbone, ChannelAdapter
    from eegpt_daemon.trainer.batches import BatchReader

    entries = index(Path(config.data.root_dir), config.data.labels)
    features, signals = store_for(config), SignalStore(config)
    cached = features.gather(features_pack(features, entries), entries, "train", [])
    cut = signals.gather(features_pack(signals, entries), entries, "train", [])
    assert len(cached) == len(cut) and np.array_equal(cached.y, cut.y)
    gather = BatchReader(cut, CPU, signals.window)
    backbone = Backbone(features.encoder, ChannelAdapter(19), "patches", bf16=False)
    which = torch.tensor([0, 7, len(cut) - 1])
    x = gather.at(which)
    assert x.shape == (3, 19, 1024)
    np.testing.assert_allclose(backbone(x).detach().numpy(), cached.x[which.numpy()], atol=5e-3)


def features_pack(store: Any, entries: list[Any]) -> Any:
    assert store.prepare(entries, nothing, nothing) == []
    return store.pack(entries, [], nothing, nothing)


def test_a_cache_that_cannot_be_made_says_which_key_to_change(config: Config) -> None:
    config.data.cache_dir = "/proc/nowhere"
    with pytest.raises(CorpusError, match=r"data.cache_dir: /proc/nowhere"):
        store_for(config).open()


def test_another_version_of_a_library_begins_a_new_cache_and_says_so(config: Config, monkeypatch: Any) -> None:
    entries, notes = index(Path(config.data.root_dir), config.data.labels)[:1], list[str]()
    old = store_for(config)
    old.prepare(entries, nothing, nothing)
    monkeypatch.setattr("importlib.metadata.version", lambda _: "99.0")
    new = store_for(config)
    new.prepare(entries, nothing, notes.append)
    assert new.folder != old.folder and any(str(old.folder) in note and "was made with" in note for note in notes)


def test_a_full_disk_while_features_are_written_is_one_line_and_keeps_what_is_done(config: Config) -> None:
    """A real limit of the kernel's on the size of a file, in a process of its own."""
    import subprocess
    import sys
    import textwrap

    script = f"""
        import resource, signal
        from pathlib import Path
        import torch
        from eegpt_daemon.data.corpus import CorpusError
        from eegpt_daemon.data.features import FeatureStore
        from eegpt_daemon.data import dataset
        from eegwatch.run.config import Config, Data
        config = Config(data=Data(root_dir={config.data.root_dir!r}, cache_dir={config.data.cache_dir!r}, scaling="zscore",
                                  min_duration=10.0, val_fraction=0.25))
        config.model.backbone.preset = "small"
        encoder, _ = dataset.build_encoder(config)
        store = dataset.store_for(config, encoder, torch.device("cpu"))
        nothing = lambda *_: None
        planned = dataset.plan(config, store, nothing)
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))  # a shard fits, the pack does not
        try:
            dataset.windows(config, store, planned, nothing, nothing)
        except CorpusError as error:
            print(error)
        print(len(list(store.folder.glob("*.npy"))), len(list(store.folder.glob(".*"))))
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True)
    words, counts = done.stdout.splitlines()
    assert "File too large: free some space or repair it; finished parts are kept" in words, done.stderr
    assert counts == "24 0"


def test_runs_of_several_seeds_share_the_split_that_split_seed_draws(config: Config) -> None:
    from eegpt_daemon.data import dataset

    def validation(seed: int, split_seed: int | None) -> set[str]:
        config.experiment.seed, config.data.split_seed = seed, split_seed
        entries = dataset.plan(config, store_for(config), nothing).entries
        return {entry.subject for entry in entries if entry.split == "val"}

    assert validation(1, 9) == validation(2, 9) == validation(9, None)
    assert len({frozenset(validation(seed, None)) for seed in range(5)}) > 1
