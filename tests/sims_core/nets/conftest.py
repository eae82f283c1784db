"""Checkpoints in EDM's own form, written by the tests; and the real ones, where they are."""

from __future__ import annotations

import pickle
import subprocess
import sys
import types
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sims_core.nets.edm_config import EDM2Config, EDMNet, SongUNetConfig
from sims_core.nets.edm_networks import build_edm_network
from sims_core.nets.layers import Conv, Resample

torch.set_num_threads(1)

SOURCE = "open('owned-by-a-checkpoint', 'w').close(); raise SystemExit('ran')"
"""In the place of the source text that real files carry."""
CLASSES = {"song": "SongUNet", "adm": "DhariwalUNet", "edm2": "UNet"}


@pytest.fixture
def edm_folder(data_folder: Path) -> Path:
    """The checkpoints that NVIDIA's code wrote."""
    folder = data_folder / "edm"
    if not folder.is_dir():
        pytest.skip(f"the data folder SIMS_DATA has no checkpoints in {folder}")
    return folder


@pytest.fixture
def canary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that appears in the working directory if anything in a checkpoint is run."""
    monkeypatch.chdir(tmp_path)
    return tmp_path / "owned-by-a-checkpoint"


def _reconstruct_persistent_obj(meta: Any) -> Any:
    raise AssertionError("a checkpoint was unpickled by pickle")


_reconstruct_persistent_obj.__module__ = "torch_utils.persistence"


class EasyDict(dict):  # type: ignore[type-arg]
    """What EDM's files hold settings in."""


EasyDict.__module__, EasyDict.__qualname__ = "dnnlib.util", "EasyDict"


class Recorded:
    """Pickles as an object that recorded its source and what it was made with."""

    def __init__(self, class_name: str, state: dict[str, Any]) -> None:
        self.class_name, self.state = class_name, state

    def __reduce__(self) -> Any:
        meta = {"type": "class", "version": 6, "module_src": SOURCE}
        meta |= {"class_name": self.class_name, "state": self.state}
        return _reconstruct_persistent_obj, (meta,)


def module_state(module: nn.Module, **attributes: Any) -> dict[str, Any]:
    """As torch pickles a module, its parts recorded in their turn."""
    buffers = {
        name: tensor
        for name, tensor in module.named_buffers(recurse=False)
        if name not in module._non_persistent_buffers_set
    }
    if isinstance(module, Conv) and module.resample.mode != "keep":
        buffers["resample_filter"] = module.resample.kernel
    if isinstance(module, Resample) and module.mode != "keep":
        buffers["resample_filter"] = module.kernel
    return {
        "training": False,
        "_parameters": dict(module.named_parameters(recurse=False)),
        "_buffers": buffers,
        "_non_persistent_buffers_set": set(),
        "_forward_hooks": OrderedDict(),
        "_modules": {
            name: record(child)
            for name, child in module.named_children()
            if name not in ("resample", "kept", "dropout", "label_dropout")
        },
        **attributes,
    }


def record(module: nn.Module, name: str = "", **attributes: Any) -> Any:
    """A module as such files hold it."""
    if isinstance(module, nn.ModuleDict):
        return container(module_state(module))
    attributes = {"_init_args": (), "_init_kwargs": {}} | attributes
    return Recorded(name or type(module).__name__, module_state(module, **attributes))


def container(state: dict[str, Any]) -> nn.ModuleDict:
    """A torch container, which recorded nothing, of recorded parts."""
    holder = nn.ModuleDict()
    holder.__dict__.update(state)
    return holder


ARGUMENTS = {"image_size": "img_resolution", "num_classes": "label_dim"}


def network_arguments(config: EDMNet) -> dict[str, Any]:
    """A configuration as EDM's code names its arguments."""
    fields = config.model_dump(exclude={"kind", "logvar_channels", "out_channels"})
    fields = {ARGUMENTS.get(key, key): value for key, value in fields.items()}
    fields = {key: list(v) if isinstance(v, tuple) else v for key, v in fields.items()}
    channels = fields.pop("channels")
    if isinstance(config, EDM2Config):
        return fields | {"img_channels": channels}
    return fields | {"in_channels": channels, "out_channels": config.outputs}


def checkpoint(
    net: nn.Module,
    denoiser: str = "EDMPrecond",
    half: bool = False,
    **extra: Any,
) -> dict[str, Any]:
    """The content of a network pickle, to be changed by a test before it is written."""
    config: EDMNet = net.config  # type: ignore[assignment]
    if half:
        net = net.half()
    arguments = network_arguments(config)
    outer = {"img_resolution": config.image_size, "img_channels": config.channels}
    outer |= {"label_dim": config.num_classes}
    raw = record(net, CLASSES[config.kind], _init_kwargs=arguments)
    modules = {"model": raw}
    buffers: dict[str, Tensor] = extra.pop("buffers", {})
    if isinstance(config, EDM2Config):
        inner = raw.state["_modules"]
        modules = {name: inner.pop(name) for name in ("logvar_fourier", "logvar_linear")}
        modules["unet"] = raw
        outer["logvar_channels"] = config.logvar_channels
    state = {"_init_args": (), "_init_kwargs": outer, "_parameters": {}, "_buffers": buffers}
    state |= {"_modules": modules, **extra}
    loss = {"P_mean": -1.1, "P_std": 1.3, "sigma_data": 0.5, "_init_args": (), "_init_kwargs": {}}
    return {
        "ema": Recorded(denoiser, state),
        "loss_fn": Recorded("EDMLoss", loss),
        "augment_pipe": None,
        "dataset_kwargs": EasyDict(path="x.zip", use_labels=True, max_size=None),
    }


@pytest.fixture(scope="module")
def edm_modules() -> Iterator[None]:
    """Lets pickle write the names that EDM's code has."""
    persistence = types.ModuleType("torch_utils.persistence")
    persistence._reconstruct_persistent_obj = _reconstruct_persistent_obj  # type: ignore[attr-defined]
    util = types.ModuleType("dnnlib.util")
    util.EasyDict = EasyDict  # type: ignore[attr-defined]
    with pytest.MonkeyPatch.context() as monkeypatch:
        for module in (persistence, util):
            parent = module.__name__.partition(".")[0]
            monkeypatch.setitem(sys.modules, parent, types.ModuleType(parent))
            monkeypatch.setitem(sys.modules, module.__name__, module)
        yield


@pytest.fixture
def write(edm_modules: None, tmp_path: Path) -> Callable[..., Path]:
    """Writes an object, or bytes, as a network pickle."""

    def write(content: Any, protocol: int = 4) -> Path:
        path = tmp_path / "network.pkl"
        if not isinstance(content, bytes):
            content = pickle.dumps(content, protocol=protocol)
        path.write_bytes(content)
        return path

    return write


@pytest.fixture(scope="session")
def growth() -> Iterator[Callable[[Path], int]]:
    """By how many bytes a fresh process grows at its peak that reads a network pickle."""
    command = [sys.executable, str(Path(__file__).with_name("peak_worker.py"))]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        paths, answers = process.stdin, process.stdout

        def grown(path: Path) -> int:
            print(path, file=paths, flush=True)
            return int(answers.readline())

        yield grown
        paths.close()


@pytest.fixture(scope="session")
def checkpoint_of() -> Callable[..., dict[str, Any]]:
    """`checkpoint`, for tests."""
    return checkpoint


@pytest.fixture(scope="session")
def recorded() -> type[Recorded]:
    """`Recorded`, for tests."""
    return Recorded


@torch.no_grad()
def randomise(net: nn.Module, seed: int = 0) -> nn.Module:
    """Every parameter away from zero and one, so that each matters."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in net.named_parameters():
        parameter.normal_(0, 0.2, generator=generator)
        if ("norm" in name and name.endswith("weight")) or "gain" in name:
            parameter.add_(1)
    return net


@pytest.fixture(scope="session")
def random_net() -> Callable[..., nn.Module]:
    """A network whose every parameter matters."""

    def build(config: EDMNet, seed: int = 0) -> nn.Module:
        net = build_edm_network(config)
        net.initialise(torch.Generator().manual_seed(seed))
        return randomise(net, seed)

    return build


@pytest.fixture
def tiny_song() -> SongUNetConfig:
    """The smallest DDPM++ that has every part."""
    return SongUNetConfig(
        image_size=8, channels=3, model_channels=4, channel_mult=(1, 2), num_blocks=1,
        attn_resolutions=(4,), augment_dim=9, num_classes=3,
    )  # fmt: skip
