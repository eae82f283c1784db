"""diffusers' folders: their configuration, schedule and weights."""

from __future__ import annotations

import inspect
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diffusers import UNet2DModel
from pydantic import ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor

from sims_core.common.digest import canonical_json, digest_of, file_sha256
from sims_core.common.errors import BadInput
from sims_core.common.frozen import one_line
from sims_core.common.hostile import parse_json, read_bounded, regular
from sims_core.nets.config import DiffusersUNetConfig
from sims_core.nets.files import WEIGHTS_FILE

MAX_JSON = 1 << 24
MOST_LAYERS = 100
"""Of each block. diffusers' own networks have two."""
MOST_LEVELS = 16
OLD_NAMES = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
"""What diffusers called the parts of attention before 0.15, to what it calls them."""


def read_json(path: Path, finite: bool = True) -> dict[str, Any]:
    """Raises BadInput unless the file is a JSON object of at most 16 MiB.

    Args:
        finite: its numbers must be. Schedulers write that nothing bounds them as an infinity.
    """
    content = parse_json(read_bounded(path, MAX_JSON), path)
    if not isinstance(content, dict):
        raise BadInput(f"{path} must be a JSON object")
    try:
        if finite:
            canonical_json(content)
    except ValueError:
        raise BadInput(f"{path}: a number is not finite") from None
    return content


def check_depth(config: Mapping[str, Any], path: Path) -> None:
    """Raises BadInput if a network of diffusers has so many layers that building it never ends."""
    layers, levels = config.get("layers_per_block", 1), config.get("block_out_channels", ())
    if isinstance(layers, int) and layers > MOST_LAYERS:
        raise BadInput(f"{path}: layers_per_block must be at most {MOST_LAYERS}, got {layers}")
    if isinstance(levels, list) and len(levels) > MOST_LEVELS:
        raise BadInput(
            f"{path}: block_out_channels are {len(levels)}, at most {MOST_LEVELS} can be"
        )


def own_arguments(found: Mapping[str, Any], network: type, path: Path) -> dict[str, Any]:
    """What a config.json says of a diffusers network, without the library's private entries.

    Raises:
        BadInput: the network has no such argument.
    """
    known = inspect.signature(network).parameters
    config = {key: value for key, value in found.items() if not key.startswith("_")}
    if unknown := [key for key in config if key not in known]:
        raise BadInput(f"{path}: {network.__name__} has no argument {unknown[0]!r}")
    return config


def read_net_config(path: Path, num_classes: int | None = None) -> DiffusersUNetConfig:
    """The network that a config.json of diffusers describes.

    Args:
        num_classes: classes to use, where the file does not say it or has more embeddings.

    Raises:
        BadInput: it is no `UNet2DModel`, or one that cannot be used as it is; says why.
    """
    found = read_json(path)
    if (name := found.get("_class_name", "UNet2DModel")) != "UNet2DModel":
        raise BadInput(f"{path} describes a {name}: only UNet2DModel can be imported")
    known = inspect.signature(UNet2DModel.__init__).parameters
    config = own_arguments(found, UNet2DModel, path)
    channels, out = (config.get(key, known[key].default) for key in ("in_channels", "out_channels"))
    if not isinstance(channels, int) or out not in (channels, 2 * channels):
        raise BadInput(
            f"{path}: out_channels {out} are neither in_channels {channels} nor twice as many "
            "(mean and learned variance)"
        )
    size = config.get("sample_size")
    first, *others = size if isinstance(size, list) and size else [size]
    if not isinstance(first, int) or any(other != first for other in others):
        raise BadInput(f"{path}: sample_size must be the size of square images, got {size}")
    embedding = config.get("time_embedding_type", "positional")
    if embedding != "positional":
        raise BadInput(
            f"{path}: time_embedding_type must be positional, got {embedding!r}: only such a "
            "network knows the noise between two timesteps"
        )
    check_depth(config, path)
    classes = _classes(path, config, num_classes)
    try:
        return DiffusersUNetConfig(
            image_size=first, channels=channels, num_classes=classes, config=config
        )
    except ValidationError as error:
        raise BadInput(f"{path}: {one_line(error)}") from None


def _classes(path: Path, config: Mapping[str, Any], wanted: int | None) -> int:
    """Classes that the network is told, as an embedding each or as numbers that are projected."""
    embeddings, kind = config.get("num_class_embeds"), config.get("class_embed_type")
    if embeddings is not None and not isinstance(embeddings, int):
        raise BadInput(f"{path}: num_class_embeds must be a number, got {embeddings!r}")
    if kind not in (None, "timestep"):
        raise BadInput(
            f"{path}: class_embed_type {kind!r} takes vectors, not classes: only a table "
            "(num_class_embeds) or 'timestep' can be imported"
        )
    if kind is None:
        if wanted is not None and wanted > (embeddings or 0):
            raise BadInput(f"{path}: the network has {embeddings or 0} classes, not {wanted}")
        return (embeddings or 0) if wanted is None else wanted
    if (count := wanted or embeddings) is None:
        raise BadInput(
            f"{path}: class_embed_type 'timestep' does not say how many classes there are: pass "
            "`num_classes`"
        )
    return count


def pick_weights(names: Collection[str]) -> tuple[str, ...]:
    """Which of a folder's files has the weights, or is the index of their parts.

    Full precision goes before half. Several are left for the user to choose between.
    """
    stem, index = re.escape(Path(WEIGHTS_FILE).stem), re.escape(f"{WEIGHTS_FILE}.index")
    variant = rf"{stem}\.(?!.*-of-)[^.]+\.safetensors|{index}\.[^.]+\.json"
    for pattern in (re.escape(WEIGHTS_FILE), rf"{index}\.json", variant):
        if found := [name for name in names if re.fullmatch(pattern, name)]:
            return tuple(sorted(found))
    return ()


def find_weights(folder: Path) -> tuple[Path, ...]:
    """The network's safetensors in a folder that diffusers wrote: one file, or all its parts.

    Raises:
        BadInput: it has none, several to choose from, a part is missing, or it has a pickle.
    """
    names = [path.name for path in sorted(folder.glob("*"))]
    picked = pick_weights(names)
    if len(picked) > 1:
        raise BadInput(f"{folder} has {' and '.join(picked)}: leave one of them")
    if picked and not picked[0].endswith(".json"):
        return (regular(folder / picked[0]),)
    if picked:
        return _parts(folder / picked[0])
    others = [name for name in names if name.endswith((".bin", ".pt", ".pth", ".index.json"))]
    if others:
        raise BadInput(
            f"{folder / others[0]} is of pickles, which could run any code: convert it where you "
            f"trust it, by from_pretrained({str(folder)!r}, use_safetensors=False)"
            ".save_pretrained(...) of its class in diffusers"
        )
    raise BadInput(f"{folder} has no {WEIGHTS_FILE}")


def _parts(index: Path) -> tuple[Path, ...]:
    """The files that an index of sharded weights names."""
    named = read_json(index).get("weight_map")
    if not isinstance(named, dict) or not all(isinstance(name, str) for name in named.values()):
        raise BadInput(f"{index} has no weight_map that names files")
    if not named:
        raise BadInput(f"{index}: weight_map is empty")
    parts = sorted({*named.values()})
    for part in parts:
        if Path(part).name != part or not part.endswith(".safetensors"):
            raise BadInput(f"{index} names {part!r}: want safetensors files of the same folder")
        if not (index.parent / part).is_file():
            raise BadInput(f"{index} names {part}, which is not there")
    return tuple(index.parent / part for part in parts)


def weights_sha256(files: Sequence[Path]) -> str:
    """The digest of a file, or of all parts by their digests in order."""
    found = [file_sha256(file) for file in files]
    return found[0] if len(found) == 1 else digest_of(found)


def read_weights(files: Sequence[Path]) -> dict[str, Tensor]:
    """A state dict under the names that diffusers has for its parts now, in float32.

    Raises:
        BadInput: a file is cut or no safetensors, a tensor is in two parts, or a number is not
            finite.
    """
    weights: dict[str, Tensor] = {}
    for file in files:
        try:
            part = load_file(file)
        except (SafetensorError, OSError) as error:
            raise BadInput(f"{file} is no whole safetensors file: {error}") from None
        if both := part.keys() & weights.keys():
            raise BadInput(f"{file}: {min(both)} is in another part, too")
        if bad := [name for name, tensor in part.items() if not bool(tensor.isfinite().all())]:
            raise BadInput(f"{file}: {bad[0]} is not finite: what was saved had diverged")
        weights.update(part)
    return {_new_name(name): _widened(tensor) for name, tensor in weights.items()}


@dataclass(frozen=True)
class StoredTensor:
    """What the header of a file says of a tensor."""

    precision: str
    shape: tuple[int, ...]


def stored_tensors(files: Sequence[Path]) -> dict[str, StoredTensor]:
    """The tensors of safetensors files by the names that diffusers has for them now; only headers
    are read.

    Raises:
        BadInput: a file is no whole safetensors file.
    """
    found: dict[str, StoredTensor] = {}
    for file in files:
        try:
            with safe_open(regular(file), "pt") as opened:
                for name in opened.keys():  # noqa: SIM118 - it is no dict
                    part = opened.get_slice(name)
                    stored = StoredTensor(part.get_dtype(), tuple(part.get_shape()))
                    found[_new_name(name)] = stored
        except (SafetensorError, OSError) as error:
            raise BadInput(f"{file} is no whole safetensors file: {error}") from None
    return found


def _widened(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.is_floating_point() else tensor


def _new_name(name: str) -> str:
    if ".attentions." not in name:
        return name
    *path, part, kind = name.split(".")
    return ".".join([*path, OLD_NAMES.get(part, part), kind])
