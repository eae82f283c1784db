"""Network pickles that the tests write: read back whole, or refused without running anything."""

from __future__ import annotations

import codecs
import io
import os
import pickle
import random
import struct
import time
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from sims_core.common.errors import BadInput
from sims_core.nets.edm_config import ADMConfig, EDM2Config, EDMNet, SongUNetConfig
from sims_core.nets.edm_pickles import NAMES, read_network_pickle
from sims_core.nets.inert_pickle import Refused, read_inert
from sims_core.nets.preconditioning import iddpm_levels
from sims_core.nets.preconditioning_config import (
    EDMLoss,
    EDMPreconditioning,
    IDDPMPreconditioning,
    VPPreconditioning,
)

Write = Callable[..., Path]
SONG = SongUNetConfig(
    image_size=8, channels=3, model_channels=4, channel_mult=(1, 2), num_blocks=1,
    attn_resolutions=(4,), augment_dim=9, num_classes=3,
)  # fmt: skip
NETS: dict[str, EDMNet] = {
    "song": SONG,
    "ncsnpp": SONG.model_copy(
        update={"embedding_type": "fourier", "encoder_type": "residual", "channel_mult_noise": 2,
                "resample_filter": (1.0, 3.0, 3.0, 1.0)}
    ),
    "skip": SONG.model_copy(
        update={"encoder_type": "skip", "decoder_type": "skip", "num_classes": 0,
                "resample_filter": (1.0, 3.0, 3.0, 1.0), "label_dropout": 0.1, "dropout": 0.0}
    ),
    "adm": ADMConfig(image_size=8, channels=2, model_channels=8, channel_mult=(1, 2), num_blocks=2,
                     attn_resolutions=(8, 4), channel_mult_emb=3, augment_dim=4),
    "edm2": EDM2Config(image_size=8, channels=4, model_channels=8, channel_mult=(1, 2),
                       num_blocks=1, attn_resolutions=(4,), channels_per_head=8, num_classes=3,
                       logvar_channels=6, res_balance=0.4, clip_act=None, channel_mult_noise=2,
                       channel_mult_emb=3),
}  # fmt: skip
MOST_SECONDS = 1.0
"""Of the processor, for any refusal."""
MOST_GROWTH = 32 * 2**20
"""Bytes by which a process may grow more, at its peak, than one that reads a harmless network."""

Refuse = Callable[..., None]


@pytest.fixture(scope="module")
def harmless_growth(
    growth: Callable[[Path], int],
    edm_modules: None,
    checkpoint_of: Any,
    random_net: Any,
    tmp_path_factory: pytest.TempPathFactory,
) -> int:
    """By how many bytes a process grows that reads the smallest whole network of these tests."""
    path = tmp_path_factory.mktemp("harmless") / "network.pkl"
    path.write_bytes(pickle.dumps(checkpoint_of(random_net(SONG)), protocol=4))
    assert read_network_pickle(path).net == SONG
    return growth(path)


@pytest.fixture
def refused(growth: Callable[[Path], int], harmless_growth: int) -> Refuse:
    """Asserts that a file is refused, soon, in one line that names it, in bounded memory."""

    def check(path: Path, message: str = ".") -> None:
        begun = time.process_time()
        with pytest.raises(BadInput, match=message) as caught:
            read_network_pickle(path)
        assert time.process_time() - begun < MOST_SECONDS
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)
        assert len(str(caught.value)) < 1000
        assert growth(path) < harmless_growth + MOST_GROWTH

    return check


def test_what_a_file_takes_is_measured(
    write: Write, growth: Callable[[Path], int], harmless_growth: int
) -> None:
    """By a process of its own: one that takes much hides none that comes after it."""
    large, small = (write({"ema": bytes(n)}).read_bytes() for n in (128 * 2**20, 10))
    assert growth(write(large)) > harmless_growth + 2 * MOST_GROWTH
    assert growth(write(small)) < MOST_GROWTH


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("name", NETS)
def test_network_comes_back_as_it_was(
    write: Write, checkpoint_of: Any, random_net: Any, canary: Path, name: str, half: bool
) -> None:
    net = random_net(NETS[name])
    denoiser = "Precond" if name == "edm2" else "EDMPrecond"
    found = read_network_pickle(write(checkpoint_of(net, denoiser, half=half)))
    assert found.net == NETS[name]
    assert found.widened == half
    assert found.weights.keys() == net.state_dict().keys()
    for key, tensor in net.state_dict().items():
        assert found.weights[key].dtype == torch.float32
        assert torch.equal(found.weights[key], tensor.float())
    assert found.loss == EDMLoss(P_mean=-1.1, P_std=1.3)
    assert found.dataset_kwargs == {"path": "x.zip", "use_labels": True, "max_size": None}
    assert not canary.exists()


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_every_binary_protocol_is_read(
    write: Write, checkpoint_of: Any, random_net: Any, protocol: int
) -> None:
    """In protocol 2 byte strings are texts that `_codecs.encode` is called with."""
    net = random_net(SONG)
    content = checkpoint_of(net)
    content["dataset_kwargs"] = {"scale": np.float32(1.5), "mean": np.array([-1.0, 200.0])}
    path = write(content, protocol)
    assert (b"_codecs encode" in path.read_bytes().replace(b"\n", b" ")) == (protocol == 2)
    found = read_network_pickle(path)
    assert found.net == SONG
    assert found.dataset_kwargs == {"scale": 1.5, "mean": [-1.0, 200.0]}
    for key, tensor in net.state_dict().items():
        assert torch.equal(found.weights[key], tensor)


def test_arguments_by_place_and_extras_are_understood(
    write: Write, checkpoint_of: Any, random_net: Any, recorded: Any
) -> None:
    content = checkpoint_of(random_net(SONG), "VPPrecond", beta_d=20.0)
    state = content["ema"].state
    outer = state["_init_kwargs"]
    state["_init_args"] = (outer.pop("img_resolution"), outer.pop("img_channels"))
    scale = np.float32([0.1, 0.2, 0.3, 0.4])
    content["encoder"] = recorded("StabilityVAEEncoder", {"scale": scale, "bias": -scale})
    content["loss_fn"].state["P_mean"] = np.float64(-0.8)
    found = read_network_pickle(write(content))
    assert found.preconditioning == VPPreconditioning(beta_d=20.0)
    assert found.recorded == {"img_resolution": 8, "img_channels": 3, "label_dim": 3}
    assert found.latent_scaling is not None
    np.testing.assert_array_equal(np.float32(found.latent_scaling.scale), scale)
    np.testing.assert_array_equal(np.float32(found.latent_scaling.bias), -scale)
    assert found.loss == EDMLoss(P_mean=-0.8, P_std=1.3)


def test_limits_of_the_noise_level_are_kept(
    write: Write, checkpoint_of: Any, random_net: Any
) -> None:
    content = checkpoint_of(random_net(SONG), sigma_min=0.01, sigma_max=float("inf"))
    found = read_network_pickle(write(content)).preconditioning
    assert found == EDMPreconditioning(sigma_min=0.01)
    content["ema"].state["sigma_max"] = 50.0
    found = read_network_pickle(write(content)).preconditioning
    assert found == EDMPreconditioning(sigma_min=0.01, sigma_max=50)


def test_iddpm_with_its_table_of_noise_levels(
    write: Write, checkpoint_of: Any, random_net: Any, refused: Refuse
) -> None:
    config = NETS["adm"].model_copy(update={"out_channels": 4})
    levels = {"u": iddpm_levels(0.001, 0.008, 1000)}
    content = checkpoint_of(random_net(config), "iDDPMPrecond", buffers=levels)
    found = read_network_pickle(write(content))
    assert (found.net, found.preconditioning) == (config, IDDPMPreconditioning())
    levels["u"] *= 1.5
    refused(write(content), "noise levels u")
    content = checkpoint_of(random_net(NETS["adm"]), "iDDPMPrecond")
    refused(write(content), "predicts 2 channels, its denoiser wants 4")


class Reduced:
    """Pickles as a call."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


CALLS = {
    "os.system": Reduced(os.system, "touch owned-by-a-checkpoint"),
    "builtins.eval": Reduced(eval, "open('owned-by-a-checkpoint', 'w')"),
    "builtins.exec": Reduced(exec, "open('owned-by-a-checkpoint', 'w')"),
    "builtins.getattr": Reduced(getattr, "text", "upper"),
    "io.open": Reduced(open, "owned-by-a-checkpoint", "w"),
    "torch.serialization.load": Reduced(torch.load, "x.pt"),
    "numpy.load": Reduced(np.load, "x.npy"),
    "builtins.bytearray": Reduced(bytearray, 10**10),
    "functools.partial": Reduced(__import__("functools").partial, os.system),
    "torch._utils._rebuild_wrapper_subclass": Reduced(torch._utils._rebuild_wrapper_subclass, 1),
}


@pytest.mark.parametrize("place", ["instead", "beside", "within"])
@pytest.mark.parametrize("name", CALLS)
def test_calls_are_refused_wherever_they_stand(
    write: Write,
    checkpoint_of: Any,
    random_net: Any,
    canary: Path,
    name: str,
    place: str,
    refused: Refuse,
) -> None:
    content = checkpoint_of(random_net(SONG))
    if place == "instead":
        content["ema"] = CALLS[name]
    elif place == "beside":
        content["augment_pipe"] = {"kept": [CALLS[name]]}
    else:
        content["ema"].state["_parameters"]["weight"] = CALLS[name]
    refused(write(content), f"names '{name.replace('os.', '(posix|nt).')}'")
    assert not canary.exists()


class Unknown:
    """A class that no network file needs."""


def test_unknown_classes_and_old_forms_are_refused(
    write: Write, canary: Path, refused: Refuse
) -> None:
    refused(write({"ema": Unknown()}), "Unknown")
    refused(write(b"cos\nsystem\n(S'touch owned-by-a-checkpoint'\ntR."), r"names 'os\.system'")
    refused(write(b"\x80\x02cos\nsystem\nX\x01\x00\x00\x00x\x85R."), r"names 'os\.system'")
    refused(write(b"(S'touch owned-by-a-checkpoint'\nios\nsystem\n."), "no pickle")
    refused(write(b"\x80\x02(X\x01\x00\x00\x00xios\nsystem\n."), "operation INST")
    refused(write(b"\x80\x02X\x01\x00\x00\x00xQ."), "outside the file")
    refused(write(b"\x80\x02\x82\x01."), "operation EXT1")
    assert not canary.exists()


def test_source_text_is_not_run_nor_a_storage_s_own_pickle(
    write: Write, checkpoint_of: Any, random_net: Any, canary: Path, refused: Refuse
) -> None:
    content = pickle.dumps(checkpoint_of(random_net(SONG)), protocol=4)
    read_network_pickle(write(content))
    inner = b"torch FloatStorage".replace(b" ", b"\n")
    assert inner in content
    changed = content.replace(inner, b"posix\nsystem".ljust(len(inner), b"x"))
    refused(write(changed), "storage")
    assert not canary.exists()


DEPTH = 100_000
OPEN, CLOSE = b"\x80\x04}\x94\x8c\x03ema", b"s."
NESTED = {
    "lists": b"]" * DEPTH + b"a" * (DEPTH - 1),
    "tuples": b")" + b"\x85" * DEPTH,
    "dicts": (b"}\x8c\x01k" * DEPTH) + b"N" + b"s" * DEPTH,
    "marks": b"(" * DEPTH + b"N",
}


@pytest.mark.parametrize("name", NESTED)
def test_deep_nesting_is_refused(write: Write, name: str, refused: Refuse) -> None:
    refused(write(OPEN + NESTED[name] + CLOSE))
    refused(write(b"\x80\x04" + NESTED[name] + b"."))


def test_deeply_nested_modules_and_settings_are_refused(
    write: Write, checkpoint_of: Any, random_net: Any, refused: Refuse
) -> None:
    """Written by hand: pickle itself cannot write them."""
    content = pickle.dumps(checkpoint_of(random_net(SONG)), protocol=4)
    marker = pickle.dumps("max_size", protocol=4)[11:-2]
    place = content.index(marker) + len(marker)
    assert content[place : place + 2] == b"\x94N"
    for name in ("lists", "tuples"):
        nested = NESTED[name].replace(b"a", b"a") + b""
        changed = content[: place + 1] + nested + content[place + 2 :]
        # The frame's length is not what ends a pickle; what is in it counts.
        refused(write(changed), "nested|wait on its stack")


def doubled(levels: int, leaf: Any) -> Any:
    """A value of 2^levels leaves in a few bytes: each list holds the one before it twice."""
    for _ in range(levels):
        leaf = [leaf, leaf]
    return leaf


def test_bombs_of_repetition_are_refused(
    write: Write, checkpoint_of: Any, random_net: Any, recorded: Any, refused: Refuse
) -> None:
    content = checkpoint_of(random_net(SONG))
    content["dataset_kwargs"] = {"path": doubled(20, "ha")}
    refused(write(content), "nested without end")
    content = checkpoint_of(random_net(SONG))
    content["dataset_kwargs"] = {"path": doubled(400, "ha")}
    refused(write(content), "nested without end")
    content = checkpoint_of(random_net(SONG))
    module = recorded("Linear", {"_modules": {}})
    for _ in range(23):
        module = recorded("Linear", {"_modules": {"a": module, "b": module}})
    content["ema"].state["_modules"]["model"].state["_modules"]["bomb"] = module
    refused(write(content), "nested without end")
    content = checkpoint_of(random_net(SONG))
    loop: list[Any] = []
    loop.append(loop)
    content["dataset_kwargs"] = {"path": loop}
    refused(write(content), "nested without end")


def test_bombs_of_copies_are_refused(write: Write, refused: Refuse) -> None:
    """Calls that would each copy what the memo holds."""
    pairs = [("k", "v")] * 10_000
    copies = [Reduced(OrderedDict, pairs) for _ in range(10_000)]
    refused(write({"ema": copies}), "OrderedDict made from a list")
    copies = [Reduced(set, ["k"] * 10_000) for _ in range(10_000)]
    refused(write({"ema": copies}), "set of what is no short list")
    text = "k" * 10**6
    copies = [Reduced(codecs.encode, text, "latin1") for _ in range(10_000)]
    refused(write({"ema": copies}), "no averaged network")


@pytest.mark.parametrize(
    "arguments",
    [
        ("text", "rot13"),
        ("text", "zip"),
        ("text", "LATIN1"),
        ("text", "unicode_escape"),
        ("text",),
        (b"bytes", "latin1"),
        (7, "latin1"),
        ("text", ["latin1"]),
        ("text", "latin1", "strict"),
    ],
)
def test_codecs_are_never_looked_up(
    write: Write,
    canary: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[Any, ...],
    refused: Refuse,
) -> None:
    """`_codecs.encode` of latin1 is bytes of protocol 2; every other call of it is refused."""
    path = write({"ema": Reduced(codecs.encode, *arguments)})
    monkeypatch.setattr(codecs, "encode", None)
    monkeypatch.setattr(codecs, "lookup", None)
    refused(path, "_codecs.encode|no whole network pickle")
    assert not canary.exists()


def test_letters_that_are_no_bytes_are_refused(
    write: Write, checkpoint_of: Any, random_net: Any, refused: Refuse
) -> None:
    content = checkpoint_of(random_net(SONG))
    text = Reduced(codecs.encode, "\u20ac" * 100, "latin1")
    storage = Reduced(torch.storage._load_from_bytes, text)
    modules = content["ema"].state["_modules"]["model"].state["_modules"]
    modules["map_layer0"].state["_parameters"]["bias"] = rebuilt(storage, (16,), (1,))
    refused(write(content), "holds other letters")


def test_claims_beyond_the_file_are_refused(write: Write, refused: Refuse) -> None:
    ten_gigabytes = struct.pack("<Q", 10 * 2**30)
    refused(write(OPEN + b"\x8e" + ten_gigabytes + CLOSE), "no whole network pickle")
    refused(write(OPEN + b"\x8d" + ten_gigabytes + CLOSE), "no whole network pickle")
    refused(write(OPEN + b"\x96" + ten_gigabytes + CLOSE), "no whole network pickle")
    refused(write(OPEN + b"B" + struct.pack("<I", 2**32 - 1) + CLOSE), "no whole network pickle")
    refused(write(OPEN + b"\x8b" + struct.pack("<i", 2**31 - 1) + CLOSE), "no whole")
    refused(write(b"\x80\x04\x95" + ten_gigabytes + OPEN[2:] + b"N" + CLOSE), "no averaged network")
    refused(write(OPEN + b"Nr" + struct.pack("<I", 2**32 - 1) + CLOSE), "memo index")
    refused(write(OPEN + b"Nq\xff" + CLOSE), "memo index")
    refused(write(OPEN + b"h\xff" + CLOSE), "memo index")
    refused(write(OPEN + b"N" * 200_000 + b"0" * 199_999 + CLOSE), "wait on its stack")
    refused(write(OPEN + b"N0" * 300_000 + b"N" + CLOSE), "operations")


def rebuilt(storage: Any, size: tuple[Any, ...], stride: tuple[Any, ...], offset: Any = 0) -> Any:
    """Pickles as a tensor of any shape on a storage."""
    return Reduced(torch._utils._rebuild_tensor_v2, storage, offset, size, stride, False, {})


def test_tensors_larger_than_their_storages_are_refused(
    write: Write, checkpoint_of: Any, random_net: Any, refused: Refuse
) -> None:
    net = random_net(SONG)
    storage = torch.zeros(20)._typed_storage()
    name = "map_layer0"
    shape = tuple(net.map_layer0.weight.shape)
    cases = [
        (rebuilt(storage, shape, (shape[1], 1)), "in a storage of 20"),
        (rebuilt(storage, shape, (0, 0)), "in a storage of 20"),
        (rebuilt(storage, (10**6, 2500), (2500, 1)), "is of shape"),
        (rebuilt(storage, (10**13,), (1,)), "holds what is no size"),
        (rebuilt(storage, (-1,), (1,)), "holds what is no size"),
        (rebuilt(storage, (1,) * 9, (1,) * 9), "at most 8"),
        (rebuilt(storage, ("1",), (1,)), "holds what is no size"),
        (rebuilt(storage, (1,), (1, 1)), "differ in length"),
        (rebuilt("storage", (1,), (1,)), "without a storage"),
        (Reduced(torch._utils._rebuild_parameter, "x", False, {}), "no tensor"),
        ("text", "is no tensor"),
    ]
    for tensor, message in cases:
        content = checkpoint_of(net)
        modules = content["ema"].state["_modules"]["model"].state["_modules"]
        modules[name].state["_parameters"]["weight"] = tensor
        refused(write(content), message)


def storage_bytes(
    kind: bytes = b"FloatStorage", count: int = 20, claim: int | None = None
) -> bytes:
    """A storage as PyTorch saves it, that may claim another type or count."""
    stream = io.BytesIO()
    torch.save(torch.zeros(count)._typed_storage(), stream, _use_new_zipfile_serialization=False)
    content = stream.getvalue().replace(b"FloatStorage", kind)
    if claim is not None:
        before = b"q\x03K" + bytes([count])
        content = content.replace(before, b"q\x03\x8a\x05" + claim.to_bytes(5, "little"))
        tail = content.rindex(count.to_bytes(8, "little"))
        content = content[:tail] + claim.to_bytes(8, "little") + content[tail + 8 :]
    return content


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (storage_bytes(claim=10 * 2**30), "claims 10,737,418,240 numbers"),
        (storage_bytes(b"LongStorage"), "floating point"),
        (storage_bytes(b"NoneStorage"), "floating point"),
        (storage_bytes()[:-1], "holds 79 bytes"),
        (storage_bytes() + b"x", "holds 81 bytes"),
        (storage_bytes()[:50], "no whole network pickle"),
        (b"", "larger than what it holds"),
        (b"\x80\x02K\x01." * 10, "another form"),
        (b"\x80\x02cos\nsystem\nX\x01\x00\x00\x00x\x85R." * 5, "another form"),
    ],
    ids=["claim", "long", "none", "short", "long-tail", "cut", "empty", "numbers", "system"],
)
def test_storages_of_another_form_are_refused(
    write: Write,
    checkpoint_of: Any,
    random_net: Any,
    canary: Path,
    content: bytes,
    message: str,
    refused: Refuse,
) -> None:
    loaded = Reduced(torch.storage._load_from_bytes, content)
    outer = checkpoint_of(random_net(SONG))
    modules = outer["ema"].state["_modules"]["model"].state["_modules"]
    modules["map_layer0"].state["_parameters"]["bias"] = rebuilt(loaded, (16,), (1,))
    refused(write(outer), message)
    assert not canary.exists()


def test_weights_that_share_memory_are_refused(
    write: Write, checkpoint_of: Any, random_net: Any, refused: Refuse
) -> None:
    """A file of one storage must not become a network of gigabytes."""
    net = random_net(SONG.model_copy(update={"model_channels": 64}))
    content = checkpoint_of(net)
    largest = max(parameter.numel() for parameter in net.parameters())
    storage = Reduced(torch.storage._load_from_bytes, storage_bytes(count=largest))
    waiting = [content["ema"].state["_modules"]["model"].state]
    while waiting:
        state = waiting.pop()
        for name, tensor in state["_parameters"].items():
            shared = rebuilt(storage, tuple(tensor.shape), tensor.stride())
            state["_parameters"][name] = shared
        for child in state["_modules"].values():
            waiting.append(child.__dict__ if isinstance(child, nn.Module) else child.state)
    path = write(content)
    refused(path, "is of .* bytes")
    path.write_bytes(
        path.read_bytes()[:-1] + b"\x8e" + struct.pack("<Q", 10**7) + bytes(10**7) + b"0."
    )
    refused(path, "share their memory")


def changed_arguments(content: dict[str, Any], **changes: Any) -> dict[str, Any]:
    content["ema"].state["_modules"]["model"].state["_init_kwargs"].update(changes)
    return content


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_channels": 8}, "is of shape"),
        ({"model_channels": 4096, "channel_mult": [8, 8]}, "larger than"),
        ({"model_channels": 512}, "parameters and is of"),
        ({"model_channels": 10**9}, "model_channels"),
        ({"model_channels": "many"}, "model_channels"),
        ({"channel_mult": [1] * 10**4}, "channel_mult"),
        ({"channel_mult": [1] * 9}, "cannot be halved 8 times"),
        ({"channel_mult": "abc"}, "channel_mult"),
        ({"channel_mult": None}, "channel_mult"),
        ({"num_blocks": 64}, "is of .* bytes"),
        ({"num_blocks": -1}, "num_blocks"),
        ({"dropout": float("nan")}, "dropout"),
        ({"label_dim": 4}, "label_dim"),
        ({"img_resolution": 16}, "img_resolution"),
        ({"augment_dim": 0}, "map_augment.weight is too many"),
        ({"attn_resolutions": [8]}, "num_heads"),
        ({"resample_filter": [1, 3, 3, 1]}, "resample_filter"),
        ({"resample_filter": [1, -1]}, "resample_filter"),
        ({"decoder_type": "skip"}, "4x4_aux"),
        ({"encoder_type": "odd"}, "encoder_type"),
        ({"novelty": 1}, "novelty"),
    ],
)
def test_arguments_that_are_not_the_weights_are_refused(
    write: Write,
    checkpoint_of: Any,
    random_net: Any,
    changes: dict[str, Any],
    message: str,
    refused: Refuse,
) -> None:
    content = checkpoint_of(random_net(SONG))
    blocks = content["ema"].state["_modules"]["model"].state["_modules"]["dec"]._modules
    blocks["8x8_block1"].state["num_heads"] = 0
    refused(write(changed_arguments(content, **changes)), message)


def test_a_large_file_of_few_weights_is_refused_before_its_network_is_built(
    write: Write, checkpoint_of: Any, random_net: Any, refused: Refuse
) -> None:
    content = changed_arguments(checkpoint_of(random_net(SONG)), num_blocks=64)
    padding = b"\x8e" + struct.pack("<Q", 10**7) + bytes(10**7) + b"0."
    padded = pickle.dumps(content, protocol=4)[:-1] + padding
    refused(write(padded), "no enc.8x8_block1")


def test_weights_that_are_not_finite_missing_or_too_many_are_refused(
    write: Write, checkpoint_of: Any, random_net: Any, refused: Refuse
) -> None:
    net = random_net(SONG)
    with torch.no_grad():
        net.map_layer0.bias[0] = float("nan")
    refused(write(checkpoint_of(net)), "map_layer0.bias is not finite")
    content = checkpoint_of(random_net(SONG))
    modules = content["ema"].state["_modules"]["model"].state["_modules"]
    del modules["map_layer0"].state["_parameters"]["bias"]
    refused(write(content), "no map_layer0.bias")
    modules["map_layer0"].state["_parameters"]["bias"] = torch.zeros(16)
    modules["map_layer0"].state["_parameters"]["odd"] = torch.zeros(16)
    refused(write(content), "map_layer0.odd is too many")


def test_files_of_another_kind_are_named(
    write: Write, tmp_path: Path, recorded: Any, canary: Path, refused: Refuse
) -> None:
    refused(write({"net": 1, "optimizer_state": 2}), "training state")
    refused(write({"G": 1, "D": 2, "G_ema": 3}), "no averaged network 'ema'; it holds D, G, G_ema")
    refused(write({}), "it holds nothing")
    refused(write([1]), "holds a list")
    refused(write(3), "holds a int")
    for ema in (None, 3, "x", [1], {"a": 1}):
        refused(write({"ema": ema}), "no averaged network")
    refused(write({"ema": recorded("Generator", {})}), "is a 'Generator'; known are")
    refused(write({"ema": recorded("EDMPrecond", {})}), "raw network is 'nothing'")
    refused(write({"ema": recorded("EDMPrecond", {"_modules": [1]})}), "holds a list")
    refused(write(b""), "cannot be read")
    refused(write(b"\x89PNG\r\n\x1a\n"), "is no pickle")
    refused(write(b"\x80\x04"), "no whole network pickle")
    refused(write(b"\x80\x04}"), "no whole network pickle")
    refused(write(b"\x80\x04."), "lacks its values")
    refused(write(pickle.dumps({"ema": 1})[:-1]), "no whole network pickle")
    refused(write(pickle.dumps({"ema": 1}) + b"more"), "4 bytes follow its end")
    refused(write(b"\x80\x04NN."), "left over")
    path = tmp_path / "training-state.pt"
    for zipped in (True, False):
        torch.save({"net": 1}, path, _use_new_zipfile_serialization=zipped)
        refused(path, r"torch\.save, such as training-state")
    save_file({"x": torch.zeros(3)}, tmp_path / "x.safetensors")
    refused(tmp_path / "x.safetensors", "is no pickle")
    refused(tmp_path, "is no file")
    refused(tmp_path / "missing.pkl", "is no file")
    assert not canary.exists()


def test_state_is_given_to_notes_alone() -> None:
    """BUILD would set attributes of functions and classes in pickle's own machine."""
    for target in (b"\x8c\x08builtins\x8c\x03set\x93", b"}", b"]"):
        with pytest.raises(Refused, match="state is given"):
            read_inert(b"\x80\x04" + target + b"}b.", NAMES)
    note = b"\x8c\x0bdnnlib.util\x8c\x08EasyDict\x93)\x81"
    with pytest.raises(Refused, match="state is given"):
        read_inert(b"\x80\x04" + note + b"}b}b.", NAMES)


def test_keys_that_could_collide_are_refused() -> None:
    """-1 and -2 have one hash, and so have all tuples of them."""
    with pytest.raises(Refused, match="of type int"):
        read_inert(pickle.dumps({-1: 0}), NAMES)
    with pytest.raises(Refused, match="of type tuple"):
        read_inert(pickle.dumps({(-1, -2): 0}), NAMES)
    with pytest.raises(Refused, match="not text"):
        read_inert(pickle.dumps({1}), NAMES)


def test_plain_pickles_are_read_as_pickle_reads_them() -> None:
    values = {
        "numbers": [0, -1, 255, 256, 65536, -(2**31), 2**40, 1.5, True, False, None],
        "texts": ["", "a" * 300, "ä"],
        "tuples": [(), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4)],
        "sets": {"a", "b"},
    }
    values["again"] = values["numbers"]
    for protocol in (2, 3, 4, 5):
        names = {"builtins.set": set, "__builtin__.set": set}
        assert read_inert(pickle.dumps(values, protocol), names) == values


def test_damaged_files_are_refused_or_read_but_never_run(
    write: Write, checkpoint_of: Any, random_net: Any, canary: Path
) -> None:
    """Bytes changed at random places: one clear error, or a network all the same."""
    small = SONG.model_copy(update={"channel_mult": (1,), "attn_resolutions": ()})
    content = pickle.dumps(checkpoint_of(random_net(small)), protocol=4)
    chance = random.Random(0)  # noqa: S311
    outcomes: list[str] = []
    for _ in range(120):
        damaged = bytearray(content)
        for _ in range(chance.randint(1, 4)):
            damaged[chance.randrange(len(damaged))] = chance.randrange(256)
        try:
            read_network_pickle(write(bytes(damaged)))
            outcomes.append("")
        except BadInput as error:
            outcomes.append(str(error))
    assert all("\n" not in outcome for outcome in outcomes)
    assert {bool(outcome) for outcome in outcomes} == {True, False}
    assert not canary.exists()
