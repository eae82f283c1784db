"""What the notes of EDM's and EDM2's objects say: which network, in which arguments."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import TypeAdapter

from sims_core.nets.edm_config import EDM2Config, EDMNet, SongUNetConfig, edm_net_config
from sims_core.nets.inert_pickle import Note, Refused
from sims_core.nets.preconditioning_config import (
    IDDPMPreconditioning,
    Loss,
    LossConfig,
    Preconditioning,
    PreconditioningConfig,
)
from sims_core.nets.tensor_notes import TensorNote, array_values

_EDM = ("img_resolution", "img_channels", "label_dim", "use_fp16")
_DENOISERS = {
    "EDMPrecond": ("edm", (*_EDM, "sigma_min", "sigma_max", "sigma_data", "model_type")),
    "VPPrecond": ("vp", (*_EDM, "beta_d", "beta_min", "M", "epsilon_t", "model_type")),
    "VEPrecond": ("ve", (*_EDM, "sigma_min", "sigma_max", "model_type")),
    "iDDPMPrecond": ("iddpm", (*_EDM, "C_1", "C_2", "M", "model_type")),
    "Precond": ("edm2", (*_EDM, "sigma_data", "logvar_channels")),
}
"""By class name: the kind of preconditioning, and the order of its positional arguments."""
_ADM = (
    *("img_resolution", "in_channels", "out_channels", "label_dim", "augment_dim"),
    *("model_channels", "channel_mult", "channel_mult_emb", "num_blocks", "attn_resolutions"),
    *("dropout", "label_dropout"),
)
_NETWORKS = {
    "SongUNet": (
        "song",
        (
            *(*_ADM, "embedding_type", "channel_mult_noise", "encoder_type", "decoder_type"),
            "resample_filter",
        ),
    ),
    "DhariwalUNet": ("adm", _ADM),
    "UNet": (
        "edm2",
        (
            *("img_resolution", "img_channels", "label_dim", "model_channels", "channel_mult"),
            *("channel_mult_noise", "channel_mult_emb", "num_blocks", "attn_resolutions"),
            *("label_balance", "concat_balance"),
        ),
    ),
}
"""By class name: the kind of network, and the order of its positional arguments."""
_BLOCK = ("dropout", "res_balance", "attn_balance", "clip_act", "channels_per_head")
"""Arguments that EDM2's network hands on to its blocks."""
_RENAMED = {"img_resolution": "image_size", "in_channels": "channels", "img_channels": "channels"}
_RENAMED |= {"label_dim": "num_classes"}
_LOSSES = {"EDMLoss": "edm", "EDM2Loss": "edm2", "VPLoss": "vp", "VELoss": "ve"}
_DEPTH = 24
"""The deepest nesting of modules in modules, and of values in values; networks have 5."""
_MOST_MODULES = 20_000
_MOST_VALUES = 20_000
_MOST_TEXT = 10_000


@dataclass(frozen=True)
class ObjectNote:
    """An object of the file: the name of its class, what it was made with and what it holds."""

    class_name: str
    arguments: dict[str, Any]
    """By name; those given by place are under "args"."""
    attributes: dict[str, Any]


@dataclass(frozen=True)
class LatentScaling:
    """Latents are multiplied by `scale` and `bias` is added, by channel, for the network."""

    scale: tuple[float, ...]
    bias: tuple[float, ...]


@dataclass(frozen=True)
class Described:
    """A denoiser's note, understood."""

    net: EDMNet
    preconditioning: Preconditioning
    network: Note
    """The raw network's."""
    recorded: dict[str, Any]


def mapping(value: Any) -> dict[str, Any]:
    """A dict, or what an EasyDict holds.

    Raises:
        Refused: it is neither.
    """
    if isinstance(value, Note) and value.name == "EasyDict":
        return value.items
    if not isinstance(value, dict):
        raise Refused(f"it holds a {type(value).__name__} where a dict belongs")
    return value


def plain(value: Any) -> Any:
    """A value with lists, dicts and numbers alone; notes of objects become dicts.

    Raises:
        Refused: it is nested too deep or too large, as a few bytes can make it.
    """
    left = [_MOST_VALUES]

    def convert(value: Any, depth: int) -> Any:
        left[0] -= 1
        if depth > _DEPTH or left[0] < 0:
            raise Refused("values are nested without end")
        if isinstance(value, str) and len(value) > _MOST_TEXT:
            raise Refused(f"a setting of {len(value):,} characters")
        if value is None or isinstance(value, bool | int | float | str):
            return value
        if isinstance(value, list | tuple):
            return [convert(part, depth + 1) for part in value]
        if isinstance(value, set):
            return sorted(value)
        if isinstance(value, dict):
            return {key: convert(part, depth + 1) for key, part in value.items()}
        if isinstance(value, Note) and value.name == "ndarray":
            return array_values(value)
        if isinstance(value, Note) and value.name == "EasyDict":
            return convert(value.items, depth + 1)
        if isinstance(value, Note):
            return {"class_name": value.name, "state": convert(value.state, depth + 1)}
        return f"a {type(value).__name__}"

    return convert(value, 0)


def _state(note: Note) -> dict[str, Any]:
    return mapping(note.state) if note.state is not None else {}


def object_note(value: Any) -> ObjectNote | None:
    """The note of an object beside the network, None where there is none."""
    if not isinstance(value, Note):
        return None
    state = _state(value)
    arguments = dict(mapping(state.get("_init_kwargs", {})))
    if given := state.get("_init_args"):
        arguments["args"] = given
    attributes = {key: part for key, part in state.items() if not key.startswith("_")}
    return ObjectNote(value.name, plain(arguments), plain(attributes))


def _recorded(note: Note, order: Sequence[str]) -> dict[str, Any]:
    """The arguments that an object was made with, by name."""
    state = _state(note)
    given, named = state.get("_init_args", ()), mapping(state.get("_init_kwargs", {}))
    if not isinstance(given, tuple | list) or len(given) > len(order):
        raise Refused(f"{note.name} was made with arguments that it does not take")
    by_place = dict(zip(order, given, strict=False))
    if twice := sorted(by_place.keys() & named.keys()):
        raise Refused(f"{note.name} was given {twice[0]} twice")
    result: dict[str, Any] = plain(by_place | named)
    return result


def describe_denoiser(denoiser: Note) -> Described:
    """The network and the preconditioning that a denoiser's note says.

    Raises:
        Refused: it is none of EDM's and EDM2's.
        pydantic.ValidationError: the recorded arguments are out of bounds.
    """
    if denoiser.name not in _DENOISERS:
        raise Refused(
            f"its network is a {denoiser.name!r}; known are {', '.join(sorted(_DENOISERS))}"
        )
    kind, order = _DENOISERS[denoiser.name]
    recorded, state = _recorded(denoiser, order), _state(denoiser)
    modules = mapping(state.get("_modules", {}))
    network = modules.get("unet" if kind == "edm2" else "model")
    if not isinstance(network, Note) or network.name not in _NETWORKS:
        name = network.name if isinstance(network, Note) else "nothing"
        raise Refused(f"its raw network is {name!r}; known are {', '.join(sorted(_NETWORKS))}")
    fields = {"kind": kind}
    for key in _preconditioning_fields(kind):
        value = state.get(key, recorded.get(key))
        if value is not None and value != math.inf:
            fields[key] = value
    adapter: TypeAdapter[Preconditioning] = TypeAdapter(PreconditioningConfig)
    preconditioning = adapter.validate_python(fields)
    net = _describe_network(network, recorded)
    _check_agreement(net, preconditioning, recorded)
    return Described(net, preconditioning, network, recorded)


def _preconditioning_fields(kind: str) -> Sequence[str]:
    orders = dict(_DENOISERS.values())
    apart = (*_EDM, "model_type", "logvar_channels")
    return [name for name in orders[kind] if name not in apart]


def _describe_network(network: Note, outer: Mapping[str, Any]) -> EDMNet:
    """The configuration of a raw network from its recorded arguments."""
    kind, order = _NETWORKS[network.name]
    recorded = _recorded(network, order)
    known = (*order, *_BLOCK, "resample_filter") if kind == "edm2" else order
    if unknown := [name for name in recorded if name not in known]:
        raise Refused(f"{network.name} was made with {unknown[0][:100]!r}, which is not known here")
    fields = {_RENAMED.get(name, name): value for name, value in recorded.items()}
    fields["kind"] = kind
    if kind == "edm2" and "logvar_channels" in outer:
        fields["logvar_channels"] = outer["logvar_channels"]
    if fields.get("out_channels") == fields.get("channels"):
        fields.pop("out_channels", None)
    return edm_net_config(fields)


def _check_agreement(
    net: EDMNet, preconditioning: Preconditioning, recorded: Mapping[str, Any]
) -> None:
    """Raises Refused unless denoiser and network agree on the images and classes."""
    pairs = {"img_resolution": net.image_size, "img_channels": net.channels}
    pairs["label_dim"] = net.num_classes
    for name, value in pairs.items():
        if name in recorded and recorded[name] != value:
            raise Refused(f"the denoiser's {name} is {recorded[name]!r}, its network's is {value}")
    if (net.kind == "edm2") != (preconditioning.kind == "edm2"):
        raise Refused(f"a {net.kind} network in the preconditioning {preconditioning.kind}")
    outputs = net.channels if isinstance(net, EDM2Config) else net.outputs
    wanted = net.channels * (2 if isinstance(preconditioning, IDDPMPreconditioning) else 1)
    if outputs != wanted:
        raise Refused(f"its network predicts {outputs} channels, its denoiser wants {wanted}")


def tensors_of(module: Note, only: Sequence[str] | None = None) -> dict[str, TensorNote]:
    """Parameters and buffers of a module and those in it, by their names in its state.

    Args:
        only: names of the modules in it that are entered; None: all. Its own tensors are always
            among them.
    """
    found: dict[str, TensorNote] = {}
    waiting: list[tuple[str, Note, int]] = [("", module, 0)]
    entered = 0
    while waiting:
        prefix, note, depth = waiting.pop()
        entered += 1
        if depth > _DEPTH or entered > _MOST_MODULES:
            raise Refused("modules are nested without end")
        state = _state(note)
        for group in ("_parameters", "_buffers"):
            for name, tensor in mapping(state.get(group, {})).items():
                if isinstance(tensor, TensorNote):
                    found[prefix + name] = tensor
                elif tensor is not None:
                    raise Refused(f"{(prefix + name)[:200]} is no tensor")
        for name, child in mapping(state.get("_modules", {})).items():
            if depth == 0 and only is not None and name not in only:
                continue
            if isinstance(child, Note):
                waiting.append((f"{prefix}{name}.", child, depth + 1))
    return found


def check_blocks(network: Note, net: EDMNet) -> None:
    """Raises Refused where a block is missing or does other than its network's arguments give.

    Weights do not show it: attention heads and the weights of shortcuts.
    """
    modules = mapping(_state(network).get("_modules", {}))
    for part, plans in (("enc", net.layout.encoder), ("dec", net.layout.decoder)):
        holder = modules.get(part)
        blocks = mapping(_state(holder).get("_modules", {})) if isinstance(holder, Note) else {}
        for plan in plans:
            block = blocks.get(plan.name)
            if not isinstance(block, Note):
                raise Refused(
                    f"weights of another network than its arguments: no {part}.{plan.name}"
                )
            state = _state(block)
            for name, wanted in (("num_heads", plan.heads), *_block_attributes(net)):
                found = state.get(name, wanted)
                same = found == wanted or (
                    isinstance(found, float | int)
                    and isinstance(wanted, float | int)
                    and math.isclose(found, wanted, rel_tol=1e-6)
                )
                if not same:
                    raise Refused(
                        f"{part}.{plan.name} has {name} {str(found)[:50]}, where the recorded "
                        f"arguments give {wanted}"
                    )


def _block_attributes(net: EDMNet) -> list[tuple[str, Any]]:
    if isinstance(net, EDM2Config):
        names = ("res_balance", "attn_balance", "clip_act")
        return [(name, getattr(net, name)) for name in names]
    song = isinstance(net, SongUNetConfig)
    return [("skip_scale", math.sqrt(0.5) if song else 1.0), ("adaptive_scale", not song)]


def describe_loss(value: Any) -> Loss | None:
    """The loss that a file's note says; None where it has none of a form that is known."""
    if not isinstance(value, Note) or value.name not in _LOSSES:
        return None
    fields = {key: part for key, part in _state(value).items() if not key.startswith("_")}
    known = {"P_mean", "P_std", "sigma_data", "beta_d", "beta_min", "epsilon_t"}
    known |= {"sigma_min", "sigma_max"}
    if fields.keys() - known:
        return None
    adapter: TypeAdapter[Loss] = TypeAdapter(LossConfig)
    return adapter.validate_python({"kind": _LOSSES[value.name], **plain(fields)})


def latent_scaling(encoder: ObjectNote | None) -> LatentScaling | None:
    """How an encoder scales latents; None where it is none of latents.

    Raises:
        Refused: it is EDM2's encoder of latents without a scale.
    """
    if encoder is None or encoder.class_name != "StabilityVAEEncoder":
        return None
    scale, bias = (_numbers(encoder.attributes.get(name)) for name in ("scale", "bias"))
    if not scale or len(scale) != len(bias):
        raise Refused("its encoder of latents does not say how they are scaled")
    return LatentScaling(scale, bias)


def _numbers(value: Any) -> tuple[float, ...]:
    """A list of numbers as such; empty where it is none."""
    if not isinstance(value, list) or not all(isinstance(number, float) for number in value):
        return ()
    return tuple(value)
