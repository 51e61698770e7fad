"""The encoder agrees with the published code's numbers, and refuses what is no EEGPT checkpoint."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from eegpt_daemon.model.encoder import CHANNELS, Encoder, EncoderError

GOLDEN = Path(__file__).resolve().parents[2] / "golden" / "eegpt_encoder_small.npz"


@pytest.fixture(scope="module")
def golden() -> dict[str, np.ndarray]:
    with np.load(GOLDEN) as file:
        return dict(file)


@pytest.fixture(scope="module")
def state(golden: dict[str, np.ndarray]) -> dict[str, torch.Tensor]:
    return {key[2:]: torch.from_numpy(value) for key, value in golden.items() if key.startswith("w.")}


def test_it_agrees_with_the_output_that_the_published_code_gave(
    golden: dict[str, np.ndarray], state: dict[str, torch.Tensor]
) -> None:
    encoder = Encoder.from_state_dict(state, channels=[str(c) for c in golden["channels"]], num_heads=4)
    y = encoder(torch.from_numpy(golden["x"]))
    assert y.shape == (2, 16, 4, 32)
    assert float((y - torch.from_numpy(golden["y"])).abs().max()) < 1e-5


def test_a_patchs_features_do_not_depend_on_its_window(
    golden: dict[str, np.ndarray], state: dict[str, torch.Tensor]
) -> None:
    encoder = Encoder.from_state_dict(state, channels=[str(c) for c in golden["channels"]], num_heads=4)
    x = torch.from_numpy(golden["x"])
    torch.testing.assert_close(encoder(x[:, :, 64 * 5 : 64 * 9]), encoder(x)[:, 5:9], rtol=0, atol=1e-6)


def test_the_order_of_channels_does_not_matter_only_their_names(
    golden: dict[str, np.ndarray], state: dict[str, torch.Tensor]
) -> None:
    names = [str(c) for c in golden["channels"]]
    order = np.random.default_rng(0).permutation(len(names))
    shuffled = Encoder.from_state_dict(state, channels=[names[i] for i in order], num_heads=4)
    y = shuffled(torch.from_numpy(golden["x"][:, order]))
    torch.testing.assert_close(y, torch.from_numpy(golden["y"]), rtol=0, atol=1e-5)


def test_the_large_preset_has_the_published_size() -> None:
    encoder = Encoder.preset("large", ["FP1", "FP2"], seed=0)
    assert sum(p.numel() for p in encoder.parameters()) == 25_287_168
    assert len(encoder.state_dict()) == 102
    assert len(CHANNELS) == 62 and CHANNELS.index("O2") == 61


def test_a_preset_is_the_same_for_the_same_seed_and_leaves_the_global_one_alone() -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    one, two = (Encoder.preset("small", ["CZ"], seed=1).state_dict() for _ in range(2))
    assert all(torch.equal(one[key], two[key]) for key in one)
    assert torch.equal(before, torch.get_rng_state())
    assert not any(p.requires_grad for p in Encoder.preset("small", ["CZ"], seed=1).parameters())


def test_the_published_checkpoints_layout_is_read(tmp_path: Path, state: dict[str, torch.Tensor]) -> None:
    path = tmp_path / "eegpt.ckpt"
    others = {"predictor.x": torch.zeros(1), "encoder.norm.weight": torch.zeros(32)}
    torch.save({"state_dict": {**others, **{f"target_encoder.{k}": v for k, v in state.items()}}, "epoch": 3}, path)
    encoder = Encoder.from_checkpoint(path, ["FP1", "CZ"], num_heads=4)
    assert torch.equal(encoder.norm.weight, state["norm.weight"])


@pytest.mark.parametrize("content", ["missing", "text", "pickle", "foreign", "truncated"])
def test_a_file_that_is_no_checkpoint_is_refused_in_one_line(
    tmp_path: Path, state: dict[str, torch.Tensor], content: str
) -> None:
    path = tmp_path / "file.ckpt"
    if content == "text":
        path.write_text("<html>not found</html>")
    elif content == "pickle":
        torch.save({"state_dict": {}, "numpy": np.float64(1.0), "rng": np.random.get_state()}, path)
    elif content == "foreign":
        torch.save({"state_dict": {"resnet.weight": torch.zeros(3)}}, path)
    elif content == "truncated":
        torch.save({"state_dict": {f"target_encoder.{k}": v for k, v in state.items()}}, path)
        path.write_bytes(path.read_bytes()[:20_000])
    with pytest.raises(EncoderError) as error:
        Encoder.from_checkpoint(path, ["CZ"])
    assert "\n" not in str(error.value) and str(path) in str(error.value)


def test_an_unknown_channel_is_named() -> None:
    with pytest.raises(EncoderError, match="A1"):
        Encoder.preset("small", ["CZ", "A1"], seed=0)
