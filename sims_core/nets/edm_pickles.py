"""EDM's and EDM2's network pickles: read without running anything in them.

These files carry the source text of their classes, which `pickle.load` would execute. Here it is
never looked at: the network's kind and arguments come from what was recorded when it was made, and
the weights must have the shapes that they give.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor

from sims_core.common.errors import BadInput
from sims_core.common.frozen import one_line
from sims_core.nets import edm_notes
from sims_core.nets.edm_config import EDMNet
from sims_core.nets.edm_networks import build_edm_network
from sims_core.nets.edm_notes import LatentScaling, ObjectNote
from sims_core.nets.inert_pickle import Note, Refused, map_file, read_inert
from sims_core.nets.layers import Resample
from sims_core.nets.preconditioning import iddpm_levels
from sims_core.nets.preconditioning_config import (
    IDDPMPreconditioning,
    Loss,
    Preconditioning,
)
from sims_core.nets.tensor_notes import (
    TensorLoader,
    TensorNote,
    note_array,
    note_array_of_bytes,
    note_dtype,
    note_parameter,
    note_storage,
    note_tensor,
    note_text_bytes,
    read_scalar,
)

_ZIP = b"PK\x03\x04"
_OLD_PYTORCH = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."

MOST_QUOTED = 300
"""Characters of an error's message, which may quote the file."""


@dataclass(frozen=True)
class NetworkPickle:
    """What a network pickle holds."""

    net: EDMNet
    preconditioning: Preconditioning
    weights: dict[str, Tensor]
    """The state of the network that `build_edm_network(net)` gives, float32."""
    widened: bool
    """The file has half-precision weights."""
    loss: Loss | None
    """What the network was trained with, where the file says it in a form that is known."""
    loss_fn: ObjectNote | None
    augment_pipe: ObjectNote | None
    encoder: ObjectNote | None
    """What turns images into what the network sees; EDM2's have one."""
    latent_scaling: LatentScaling | None
    """How latents are scaled for the network, where the encoder is an autoencoder."""
    dataset_kwargs: dict[str, Any] | None
    """How the training data were opened."""
    recorded: dict[str, Any]
    """The arguments of the denoiser as they were recorded."""


def _set(values: Any = ()) -> set[str]:
    """In the place of `set`, which older pickles call."""
    if not isinstance(values, list | tuple) or len(values) > 1000:
        raise Refused("a set of what is no short list")
    if not all(isinstance(value, str) for value in values):
        raise Refused("a set of what is not text")
    return set(values)


def _empty_dict(*arguments: Any) -> dict[str, Any]:
    """In the place of `collections.OrderedDict`."""
    if arguments:
        raise Refused("an OrderedDict made from a list")
    return {}


def _persistent(meta: Any) -> Note:
    """In the place of `_reconstruct_persistent_obj`: a note of the object, its source unread."""
    meta = edm_notes.mapping(meta)
    name = meta.get("class_name")
    if meta.get("type") != "class" or not isinstance(name, str):
        raise Refused("a recorded object of no class")
    return Note(name[:200], (), meta.get("state"))


def _noted(name: str) -> Callable[..., Note]:
    """A builder of notes of one class."""

    def build(*arguments: Any) -> Note:
        return Note(name, arguments)

    return build


_CONTAINERS = "torch.nn.modules.container."
NAMES: Mapping[str, Callable[..., Any]] = {
    "torch_utils.persistence._reconstruct_persistent_obj": _persistent,
    "dnnlib.util.EasyDict": _noted("EasyDict"),
    "collections.OrderedDict": _empty_dict,
    "_codecs.encode": note_text_bytes,
    "builtins.set": _set,
    "__builtin__.set": _set,
    "torch._utils._rebuild_tensor_v2": note_tensor,
    "torch._utils._rebuild_parameter": note_parameter,
    "torch.storage._load_from_bytes": note_storage,
    **{f"{_CONTAINERS}{n}": _noted(n) for n in ("ModuleDict", "ModuleList", "Sequential")},
    "numpy.dtype": note_dtype,
    "numpy.ndarray": _noted("ndarray"),
    **{
        f"numpy.{core}.{name}": build
        for core in ("core", "_core")
        for name, build in (
            ("multiarray.scalar", read_scalar),
            ("multiarray._reconstruct", note_array),
            ("numeric._frombuffer", note_array_of_bytes),
        )
    },
}
"""Every name that a network pickle may mention, and what is done in its place."""


def read_network_pickle(path: Path) -> NetworkPickle:
    """What a network pickle of EDM or EDM2 holds.

    Raises:
        BadInput: it is no such file, names anything but what these hold, was cut, or describes
            another network than its weights are of; says what was found.
    """
    data = map_file(path)
    try:
        _check_kind(data[:16], path)
        top = edm_notes.mapping(read_inert(data, NAMES))
        return _interpret(top, len(data))
    except Refused as refused:
        raise BadInput(f"{path}: {_printable(refused)}") from None
    except ValidationError as error:
        text = _printable(one_line(error))
        raise BadInput(f"{path}: the recorded arguments: {text}") from None
    except BadInput:
        raise
    except Exception as error:
        # Bytes made to do harm may raise anything, where the standard library decodes them too.
        text = _printable(error) or type(error).__name__
        raise BadInput(f"{path} is no whole network pickle: {text}") from None


def _printable(message: object) -> str:
    """A message of one line, whatever text of the file it quotes."""
    text = "".join(letter if letter.isprintable() else "?" for letter in str(message)[:500])
    return text if len(text) <= MOST_QUOTED else f"{text[:MOST_QUOTED]} ..."


def _check_kind(head: bytes, path: Path) -> None:
    """Raises BadInput for files that are often mistaken for a network pickle."""
    if head.startswith(_ZIP) or head.startswith(_OLD_PYTORCH):
        raise BadInput(
            f"{path} is a file of torch.save, such as training-state-*.pt: give the "
            "network-snapshot-*.pkl that lies beside it"
        )
    if head[:1] not in (b"\x80", b"c"):
        raise BadInput(f"{path} is no pickle: give a network pickle, such as edm-...-vp.pkl")


def _interpret(top: Mapping[str, Any], size: int) -> NetworkPickle:
    """The parts of a network pickle of `size` bytes."""
    denoiser = _find_network(top)
    described = edm_notes.describe_denoiser(denoiser)
    net, preconditioning = described.net, described.preconditioning
    if 2 * net.parameters > size:
        raise Refused(
            f"it describes a network of {net.parameters:,} parameters and is of {size:,} bytes"
        )
    edm_notes.check_blocks(described.network, net)
    notes = edm_notes.tensors_of(described.network)
    if net.kind == "edm2":
        notes |= edm_notes.tensors_of(denoiser, only=("logvar_fourier", "logvar_linear"))
    loader = TensorLoader()
    _check_filters(notes, net, loader)
    if isinstance(preconditioning, IDDPMPreconditioning):
        _check_levels(denoiser, preconditioning, loader)
    weights = _load_weights(notes, net, loader)
    encoder = edm_notes.object_note(top.get("encoder"))
    dataset = top.get("dataset_kwargs")
    return NetworkPickle(
        net=net,
        preconditioning=preconditioning,
        weights=weights,
        widened=loader.widened,
        loss=edm_notes.describe_loss(top.get("loss_fn")),
        loss_fn=edm_notes.object_note(top.get("loss_fn")),
        augment_pipe=edm_notes.object_note(top.get("augment_pipe")),
        encoder=encoder,
        latent_scaling=edm_notes.latent_scaling(encoder),
        dataset_kwargs=None if dataset is None else edm_notes.plain(edm_notes.mapping(dataset)),
        recorded=described.recorded,
    )


def _find_network(top: Mapping[str, Any]) -> Note:
    """The averaged denoiser.

    Raises:
        Refused: there is none; says what the file is.
    """
    found = top.get("ema")
    keys = ", ".join(sorted(str(key)[:40] for key in top)[:10]) or "nothing"
    if isinstance(found, Note):
        return found
    if "optimizer_state" in top or "net" in top:
        raise Refused(f"it is a training state (it holds {keys}), not a network: give the snapshot")
    raise Refused(f"it has no averaged network 'ema'; it holds {keys}")


def _check_filters(notes: dict[str, TensorNote], net: EDMNet, loader: TensorLoader) -> None:
    """Takes the resampling filters out of `notes`: they must be those that the arguments say."""
    taps = getattr(net, "resample_filter", (1.0, 1.0))
    wanted = Resample("down", taps).kernel
    for name in [name for name in notes if name.endswith(".resample_filter")]:
        note = notes.pop(name)
        if note.size != tuple(wanted.shape) or not torch.allclose(loader.load(note), wanted):
            raise Refused(f"{name} is not the filter {list(taps)} of the recorded arguments")


def _check_levels(
    denoiser: Note, preconditioning: IDDPMPreconditioning, loader: TensorLoader
) -> None:
    """Raises Refused unless iDDPM's noise levels are those that the arguments say."""
    note = edm_notes.tensors_of(denoiser, only=()).get("u")
    wanted = iddpm_levels(preconditioning.C_1, preconditioning.C_2, preconditioning.M)
    if note is None:
        return
    if note.size != tuple(wanted.shape) or not torch.allclose(loader.load(note), wanted, rtol=1e-2):
        raise Refused("its noise levels u are not those of the recorded C_1, C_2 and M")


def _load_weights(
    notes: Mapping[str, TensorNote], net: EDMNet, loader: TensorLoader
) -> dict[str, Tensor]:
    """The network's state, once names and shapes are those of the recorded arguments."""
    wanted = build_edm_network(net, device="meta").state_dict()
    for name, tensor in wanted.items():
        if name not in notes:
            raise Refused(f"weights of another network than its arguments: no {name}")
        if notes[name].size != tuple(tensor.shape):
            raise Refused(
                f"weights of another network than its arguments: {name} is of shape "
                f"{list(notes[name].size)}, not {list(tensor.shape)}"
            )
    if extra := sorted(notes.keys() - wanted.keys()):
        raise Refused(
            f"weights of another network than its arguments: {extra[0][:200]} is too many"
        )
    shares: Counter[int] = Counter()
    for note in notes.values():
        shares[id(note.storage)] += note.count
        if 2 * shares[id(note.storage)] > len(note.storage.data):
            raise Refused("its weights are larger than what it holds: they share their memory")
    weights = {name: loader.load(notes[name]) for name in wanted}
    if bad := [name for name, tensor in weights.items() if not bool(tensor.isfinite().all())]:
        raise Refused(f"{bad[0]} is not finite: what was saved had diverged")
    return weights
