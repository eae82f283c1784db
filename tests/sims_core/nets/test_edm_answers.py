"""Imported checkpoints answer as the networks that they came from."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from sims_core.common.errors import BadInput
from sims_core.nets.edm_config import ADMConfig, EDM2Config, SongUNetConfig
from sims_core.nets.edm_networks import build_edm_network
from sims_core.nets.edm_pickles import NetworkPickle, read_network_pickle
from sims_core.nets.preconditioning import Preconditioned, precondition
from sims_core.nets.preconditioning_config import (
    EDM2Loss,
    EDM2Preconditioning,
    EDMLoss,
    EDMPreconditioning,
    VEPreconditioning,
    VPPreconditioning,
)

TOLERANCE = 1e-5


def denoiser_of(found: NetworkPickle, weights: dict[str, torch.Tensor]) -> Preconditioned:
    net = build_edm_network(found.net)
    net.load_state_dict(weights)
    return precondition(net, found.preconditioning).eval().requires_grad_(False)


def largest_error(denoiser: Preconditioned, answers: dict[str, torch.Tensor]) -> float:
    """Of any image: the norm of the difference in units of the norm of the answer."""
    found = denoiser(answers["x"], answers["sigma"], answers.get("class_labels"))
    difference = (found - answers["denoised"]).flatten(1).norm(dim=1)
    return float((difference / answers["denoised"].flatten(1).norm(dim=1)).max())


def test_checkpoint_denoises_as_the_original(
    edm_folder: Path, canary: Path, tmp_path: Path, edm_checkpoint: str
) -> None:
    found = read_network_pickle(edm_folder / f"{edm_checkpoint}.pkl")
    answers = load_file(edm_folder / f"{edm_checkpoint}.answers.safetensors")
    assert largest_error(denoiser_of(found, found.weights), answers) < TOLERANCE
    save_file(found.weights, tmp_path / "weights.safetensors")
    stored = denoiser_of(found, load_file(tmp_path / "weights.safetensors"))
    assert largest_error(stored, answers) < TOLERANCE
    assert not canary.exists()


@pytest.mark.parametrize("name", ["adm-edm-cond", "ddpmpp-edm-cond", "edm2-cond"])
def test_classes_by_number_equal_classes_by_row(edm_folder: Path, name: str) -> None:
    found = read_network_pickle(edm_folder / f"{name}.pkl")
    answers = load_file(edm_folder / f"{name}.answers.safetensors")
    denoiser = denoiser_of(found, found.weights)
    numbers = answers["class_labels"].argmax(dim=1)
    by_number = denoiser(answers["x"], answers["sigma"], numbers)
    assert torch.equal(by_number, denoiser(answers["x"], answers["sigma"], answers["class_labels"]))
    others = denoiser(answers["x"], answers["sigma"], (numbers + 1) % 10)
    none = denoiser(answers["x"], answers["sigma"])
    assert not torch.allclose(by_number, others, rtol=1e-3)
    assert not torch.allclose(by_number, none, rtol=1e-3)


def test_what_the_files_say_besides_weights(
    edm_folder: Path, edm_checkpoints: tuple[str, ...]
) -> None:
    found = {name: read_network_pickle(edm_folder / f"{name}.pkl") for name in edm_checkpoints}
    ddpmpp = found["ddpmpp-edm-cond"]
    assert ddpmpp.net == SongUNetConfig(
        image_size=16, channels=3, num_classes=10, model_channels=16, channel_mult=(1, 2),
        augment_dim=9,
    )  # fmt: skip
    assert ddpmpp.net.augment_labels
    assert ddpmpp.preconditioning == EDMPreconditioning()
    assert ddpmpp.loss == EDMLoss()
    assert ddpmpp.augment_pipe is not None
    assert ddpmpp.augment_pipe.class_name == "AugmentPipe"
    assert ddpmpp.augment_pipe.arguments["p"] == 0.12
    assert ddpmpp.dataset_kwargs is not None
    assert ddpmpp.dataset_kwargs["class_name"] == "training.dataset.ImageFolderDataset"
    assert not ddpmpp.widened
    ncsnpp = found["ncsnpp-edm-uncond"].net
    assert isinstance(ncsnpp, SongUNetConfig)
    assert (ncsnpp.embedding_type, ncsnpp.encoder_type) == ("fourier", "residual")
    assert ncsnpp.resample_filter == (1, 3, 3, 1)
    assert isinstance(found["adm-edm-cond"].net, ADMConfig)
    assert found["ddpmpp-vp-uncond"].preconditioning == VPPreconditioning()
    assert found["ncsnpp-ve-uncond"].preconditioning == VEPreconditioning()
    edm2 = found["edm2-cond"]
    assert isinstance(edm2.net, EDM2Config)
    assert edm2.net.logvar_channels == 8
    assert edm2.preconditioning == EDM2Preconditioning()
    assert edm2.loss == EDM2Loss()
    assert edm2.encoder is not None
    assert edm2.encoder.class_name == "StandardRGBEncoder"
    assert edm2.latent_scaling is None


def test_checkpoint_that_names_a_system_call_is_refused(edm_folder: Path, canary: Path) -> None:
    with pytest.raises(BadInput, match=r"posix\.system"):
        read_network_pickle(edm_folder / "hostile-system.pkl")
    assert not canary.exists()


def test_checkpoint_is_refused_wherever_it_is_cut(
    edm_folder: Path, canary: Path, tmp_path: Path, edm_checkpoint: str
) -> None:
    """Every cut of a file is refused, wherever it is cut."""
    content = (edm_folder / f"{edm_checkpoint}.pkl").read_bytes()
    path = tmp_path / "cut.pkl"
    for part in (0.0001, 0.01, 0.3, 0.7, 0.999):
        path.write_bytes(content[: int(len(content) * part)])
        with pytest.raises(BadInput):
            read_network_pickle(path)
    path.write_bytes(content[:-1])
    with pytest.raises(BadInput):
        read_network_pickle(path)
    assert not canary.exists()
