"""`sims model import` of folders that were made to do harm: one line, at once, in little memory."""

import json
import os
import resource
import shutil
import struct

import pytest
import torch
from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel

from sims_core.common.errors import BadInput
from sims_core.latents.autoencoder import find_autoencoder
from sims_core.nets.importing import find_model_source

NET, SCHEDULER = "unet/config.json", "scheduler/scheduler_config.json"
WEIGHTS = "unet/diffusion_pytorch_model.safetensors"
FILES = (NET, SCHEDULER, WEIGHTS, "model.json")
MOST_MIB = 300


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    folder = tmp_path_factory.mktemp("good")
    with torch.random.fork_rng():
        net = UNet2DModel(
            sample_size=8,
            in_channels=1,
            out_channels=1,
            block_out_channels=(8, 16),
            layers_per_block=1,
            down_block_types=("DownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "UpBlock2D"),
            norm_num_groups=4,
        )
    DDPMPipeline(net, DDPMScheduler()).save_pretrained(folder)
    return folder


@pytest.fixture
def folder(good, tmp_path):
    return shutil.copytree(good, tmp_path / "m")


def changed(folder, file, **changes):
    path = folder / file
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def refused(folder, message="."):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(BadInput, match=message) as caught:
        find_model_source(folder).read()
    assert len(str(caught.value).splitlines()) == 1
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) >> 10 < MOST_MIB


def test_the_good_one_is_read(folder):
    assert find_model_source(folder).read()


@pytest.mark.parametrize("file", FILES)
def test_what_never_ends_is_not_read(folder, file):
    for make in (os.mkfifo, lambda path: path.symlink_to("/dev/zero"), os.mkdir):
        (folder / file).unlink(missing_ok=True)
        make(folder / file)
        refused(folder, "is no file|Is a directory|is no whole safetensors file")
        (folder / file).rmdir() if make is os.mkdir else (folder / file).unlink()


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize(
    "content",
    [b"", b"\xff\0" * 50, b"[" * 100_000, b"[]", b'{"a": NaN}', b'{"a": ' + b"1" * 5000 + b"}"],
    ids=["empty", "bytes", "deep", "a list", "NaN", "a long number"],
)
def test_files_of_any_form(folder, file, content):
    (folder / file).write_bytes(content)
    refused(folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"block_out_channels": [2**20, 2**20]}, "parameters, at most"),
        ({"block_out_channels": [2**22, 2**22]}, "parameters, at most"),
        ({"block_out_channels": [-8, 16]}, "no network can be built"),
        ({"block_out_channels": 8}, "no network can be built"),
        ({"block_out_channels": ["8", "16"]}, "no network can be built"),
        ({"block_out_channels": [8] * 1000}, "block_out_channels are 1000, at most 16"),
        ({"in_channels": -1, "out_channels": -1}, "channels"),
        ({"in_channels": "1", "out_channels": "1"}, "channels"),
        ({"in_channels": [1], "out_channels": [1]}, "channels"),
        ({"in_channels": 10**12, "out_channels": 10**12}, "channels"),
        ({"norm_num_groups": 0}, "no network can be built"),
        ({"act_fn": "nope"}, "no network can be built"),
        ({"down_block_types": ["Evil", "DownBlock2D"]}, "no network can be built"),
        ({"down_block_types": None}, "no network can be built"),
        ({"dropout": 5}, "no network can be built"),
        ({"layers_per_block": 10**4}, "layers_per_block must be at most 100"),
        ({"layers_per_block": -1}, "."),
        ({"layers_per_block": "x"}, "no network can be built"),
        ({"norm_eps": float("nan")}, "a number is not finite"),
        ({"sample_size": 10**400}, "image_size"),
        ({"sample_size": 0}, "image_size"),
        ({"sample_size": "8"}, "sample_size must be"),
        ({"sample_size": {}}, "sample_size must be"),
        ({"sample_size": [[8], [8]]}, "sample_size must be"),
        ({"sample_size": []}, "sample_size must be"),
        ({"num_class_embeds": -1}, "."),
        ({"num_class_embeds": 10**12}, "."),
        ({"num_class_embeds": "3"}, "num_class_embeds must be a number"),
        ({"freq_shift": "zz"}, "the network cannot be run"),
        ({"_class_name": "E\x1b[31mvil"}, "only UNet2DModel"),
        ({"add_attention": True, "attention_head_dim": 0}, "."),
    ],
)
def test_networks_of_any_form(folder, changes, message):
    changed(folder, NET, **changes)
    refused(folder, message)


@pytest.mark.parametrize(
    "changes",
    [
        {"num_train_timesteps": 10**12},
        {"num_train_timesteps": "x"},
        {"trained_betas": ["x"]},
        {"trained_betas": []},
        {"trained_betas": [0.5] * 10**6},
        {"trained_betas": [0.9] * 10**4},
        {"beta_start": 0.9999, "beta_end": 0.999999999999},
        {"_class_name": ["x"]},
        {"_class_name": {"a": 1}},
        {"prediction_type": "\x1b]0;x\x07"},
        {"_class_name": "EDMEulerScheduler", "sigma_data": "x"},
    ],
)
def test_schedulers_of_any_form(folder, changes):
    changed(folder, SCHEDULER, **changes)
    refused(folder)


@pytest.mark.parametrize(
    ("dtype", "shape"), [("I32", None), ("U8", None), ("F32", [2**40]), ("F32", [2**63, 2])]
)
def test_headers_of_weights_of_any_form(folder, dtype, shape):
    content = (folder / WEIGHTS).read_bytes()
    size = struct.unpack("<Q", content[:8])[0]
    header = json.loads(content[8 : 8 + size])
    name = next(name for name in header if name != "__metadata__")
    header[name] |= {"dtype": dtype, **({"shape": shape} if shape else {})}
    text = json.dumps(header).encode()
    (folder / WEIGHTS).write_bytes(struct.pack("<Q", len(text)) + text + content[8 + size :])
    refused(folder)


def test_parts_that_never_end_are_not_read(folder):
    (folder / WEIGHTS).unlink()
    index = folder / "unet" / "diffusion_pytorch_model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "a.safetensors"}}))
    os.mkfifo(folder / "unet" / "a.safetensors")
    refused(folder, "names a.safetensors, which is not there")
    index.unlink()
    os.mkfifo(index)
    refused(folder, "is no file")


@pytest.mark.parametrize(
    "net",
    [
        {"kind": "unet", "block_out_channels": [2**22, 2**22]},
        {"kind": "unet", "layers_per_block": 10**6},
        {"kind": "unet", "image_size": 10**400},
        {"kind": "diffusers", "image_size": 8, "channels": 1, "config": {"layers_per_block": "x"}},
        {"kind": "diffusers", "image_size": 8, "channels": 1, "config": {"layers_per_block": 9999}},
        {"kind": "mlp"},
        {"kind": ["x"]},
    ],
)
def test_our_own_artifacts_of_any_form(folder, net):
    (folder / "unet").rename(folder / "net")
    (folder / "model.json").write_text(json.dumps({"net": net}))
    refused(folder)


@pytest.mark.parametrize(
    "changes",
    [
        {"block_out_channels": [2**22]},
        {"layers_per_block": 10**4},
        {"in_channels": "x"},
        {"norm_num_groups": 0},
        {"act_fn": "nope"},
        {"latent_channels": -4},
    ],
)
def test_autoencoders_of_any_form(autoencoder_folder, tmp_path, changes):
    folder = shutil.copytree(autoencoder_folder, tmp_path / "a")
    changed(folder, "vae/config.json", **changes)
    with pytest.raises(BadInput):
        find_autoencoder(folder)
    (folder / "vae" / "config.json").unlink()
    os.mkfifo(folder / "vae" / "config.json")
    with pytest.raises(BadInput, match="is no file"):
        find_autoencoder(folder)
