"""Encoders of a user's own: made, tried, converted to their unit, cached by name and version, refused in one line."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from eegpt_daemon.data import dataset
from eegpt_daemon.data.custom_features import ForeignStore
from eegpt_daemon.data.recording import read
from eegpt_daemon.model.custom_encoder import load
from eegpt_daemon.model.encoder import EncoderError
from eegwatch.run.config import Config, ConfigError, parse_text, training_hash
from eegwatch.run.config import load as load_config
from tests import encoders

CHANNELS = ["FZ", "CZ", "PZ"]
ConfigFile = Callable[..., Path]


def windows(n: int, samples: int = 1024) -> np.ndarray:
    return np.random.default_rng(2).standard_normal((n, len(CHANNELS), samples)).astype(np.float32)


def test_tokens_are_averaged_or_kept_and_features_taken_as_they_are() -> None:
    x = windows(70, 512)
    whole = encoders.spread(torch.from_numpy(x)).numpy()
    mean = load("tests.encoders:spread", CHANNELS, 512, 128, "zscore")
    kept = load("tests.encoders:spread", CHANNELS, 512, 128, "zscore", flatten=True)
    np.testing.assert_allclose(mean(x), whole.mean(1), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(kept(x), whole.reshape(70, 12), rtol=1e-6)
    assert (mean.size, kept.size) == (3, 12) and mean.key != kept.key


def test_a_function_that_makes_one_gets_channels_samples_and_rate_and_signals_in_its_unit() -> None:
    encoder = load("tests.encoders:projection", CHANNELS, 1024, 256, "millivolt")
    x = windows(5)
    theirs = encoders.Projection(3, 1024)(torch.from_numpy(x * np.float32(1000)))
    np.testing.assert_allclose(encoder(x), theirs.numpy(), rtol=1e-5, atol=1e-4)
    assert encoder.key["weights"] and encoder.size == 8
    numpys = load("tests.encoders:in_numpy", CHANNELS, 1024, 256, "uv100")
    np.testing.assert_allclose(numpys(x), np.abs(x * 0.1).mean(2), rtol=1e-5)


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ("tests.encoders", "write it as package.module:function"),
        ("tests.no_such_module:f", "tests.no_such_module cannot be imported: ModuleNotFoundError"),
        ("tests.encoders:nothing", "has no nothing"),
        ("tests.encoders:CHANNELS", "has no CHANNELS"),
        ("tests.encoders:broken", "failed on windows of shape (4, 3, 1024): RuntimeError: no such kernel"),
        ("tests.encoders:a_number", "it must give (windows, features)"),
        ("tests.encoders:undeclared", "has no attribute rate (Hz) or unit"),
        ("tests.encoders:of_a_strange_unit", "its unit is 'furlong'"),
        ("tests.encoders:spread", "takes 128 Hz; write data.sampling_rate: 128"),
        ("tests.encoders:with_dropout", "gives other features for the same windows when it is asked again"),
        ("tests.encoders:with_batch_norm", "depend on the other windows of its batch"),
        (
            "tests.encoders:in_its_own_order",
            "takes its channels in another order than the run gives; write data.channels",
        ),
        ("tests.encoders:windows_of_nothing.inside", "has no windows_of_nothing.inside"),
    ],
)
def test_what_is_wrong_with_an_encoder_is_one_line(entry: str, words: str) -> None:
    with pytest.raises(EncoderError) as error:
        load(entry, CHANNELS, 1024, 256, "millivolt")
    assert words in str(error.value) and "\n" not in str(error.value)


def test_an_encoder_in_evaluation_mode_gives_the_same_features_each_time() -> None:
    encoder = load("tests.encoders:evaluating", CHANNELS, 1024, 256, "millivolt")
    assert encoder.behaviour == {"repeat": 0.0, "alone": pytest.approx(0.0, abs=1e-5)}


def test_a_zscore_cannot_be_turned_into_volts() -> None:
    with pytest.raises(EncoderError, match="takes mV, data.scaling is zscore; write data.scaling: millivolt"):
        load("tests.encoders:in_numpy", CHANNELS, 1024, 256, "zscore")


def config_with(config_file: ConfigFile, entry: str, **data: object) -> Config:
    backbone = {"backbone": {"entry": entry}, "probe": {"type": "linear"}}
    return load_config(config_file({"model": backbone}, data=data))


def test_the_cache_holds_its_features_of_each_window_under_its_version(
    config_file: ConfigFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = config_with(config_file, "tests.encoders:spread", cache_dir=str(tmp_path), sampling_rate=128)
    encoder, notes = dataset.build_encoder(config)
    store = dataset.store_for(config, encoder, torch.device("cpu"))
    assert isinstance(store, ForeignStore) and "spread, version 1: 19 features" in notes[0]
    planned = dataset.plan(config, store, lambda *_: None)
    data = dataset.windows(config, store, planned, lambda *_: None, lambda *_: None)
    first = next(entry for entry in planned.entries if entry.split == "train")
    signal = read(first.path, config.data).data
    cut = np.stack([signal[:, i * 256 : i * 256 + 512] for i in range(int((data.train.recording == 0).sum()))])
    theirs = encoders.spread(torch.from_numpy(cut)).mean(1).numpy()
    np.testing.assert_allclose(data.train.x[: len(cut)], theirs, atol=2e-3)
    monkeypatch.setattr(encoders.spread, "version", "2")
    assert dataset.store_for(config, dataset.build_encoder(config)[0], torch.device("cpu")).folder != store.folder


@pytest.mark.parametrize("apart", [100, 512, 900])
def test_blocks_of_any_length_give_the_windows_of_the_whole_also_with_gaps_between_them(
    config_file: ConfigFile, tmp_path: Path, apart: int
) -> None:
    stride = {"window_stride": apart / 128, "window_duration": 4.0, "sampling_rate": 128, "cache_dir": str(tmp_path)}
    config = config_with(config_file, "tests.encoders:spread", **stride)
    store = dataset.store_for(config, dataset.build_encoder(config)[0], torch.device("cpu"))
    signal = np.random.default_rng(3).standard_normal((19, 5000)).astype(np.float32)
    whole = store.row_of().feed(signal)
    rower = store.row_of()
    cuts = [0, 520, 530, 1700, 1701, 4000, 5000]
    parts = [rower.feed(signal[:, a:b]) for a, b in itertools.pairwise(cuts)]
    np.testing.assert_array_equal(np.concatenate(parts), whole)
    assert len(whole) == store.windows_in(5000) == (5000 - 512) // apart + 1


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ("backbone: {entry: 'a:b', freeze: false}", "used frozen"),
        ("backbone: {entry: 'a:b', checkpoint_path: x}", "loads its own weights"),
        ("{backbone: {entry: 'a:b'}, probe: {pooling: patches}}", "null (mean of tokens) or none"),
        ("probe: {n_classes: 3}", "data.labels names 2 classes, not 3"),
    ],
)
def test_what_cannot_go_with_an_encoder_of_ones_own_is_said_with_its_key(model: str, words: str) -> None:
    text = "data: {root_dir: x}\nmodel: " + (model if model.startswith("{") else "{" + model + "}")
    with pytest.raises(ConfigError) as error:
        parse_text(text, "x.yaml")
    assert words in str(error.value)


def test_classes_are_counted_from_the_labels_and_old_runs_keep_their_hash() -> None:
    three = parse_text("data: {root_dir: x, labels: [a, b, c]}", "x.yaml")
    assert three.model.probe.n_classes == 3
    with pytest.raises(ConfigError, match="two or more different folder names"):
        parse_text("data: {root_dir: x, labels: [a, A]}", "x.yaml")
    two = parse_text("data: {root_dir: x}", "x.yaml")
    said = parse_text("data: {root_dir: x}\nmodel: {probe: {n_classes: 2}}", "x.yaml")
    assert training_hash(two) == training_hash(said)
