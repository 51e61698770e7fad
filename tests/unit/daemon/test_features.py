"""Frozen features: each patch once, cached by all that they depend on, resumable, and refused when constant."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from eegpt_daemon.eeg.corpus import CorpusError, index, with_validation
from eegpt_daemon.eeg.features import FeatureStore, statistics_of
from eegpt_daemon.eeg.recording import read, wanted_channels
from eegpt_daemon.model.encoder import Encoder
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
    with pytest.raises(CorpusError, match=r"input_dim: 512 .* 256 \(patches\)"):
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
    import shutil

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
