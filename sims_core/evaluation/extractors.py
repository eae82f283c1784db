"""Feature spaces: a classifier of the data, the CIFAR ResNets, Inception v3 of 2015.

Each is an artifact that holds its weights, and an extractor of torch-fidelity that reads them from
the artifact's folder, so that any figure can be checked from outside:

    torch_fidelity.calculate_metrics(
        feature_extractor="sims-inception", feature_extractor_weights_path=<folder>, ...)
"""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torch_fidelity import register_feature_extractor
from torch_fidelity.feature_extractor_base import FeatureExtractorBase
from torch_fidelity.feature_extractor_inceptionv3 import (
    URL_INCEPTION_V3,
    FeatureExtractorInceptionV3,
)
from torch_fidelity.utils import create_feature_extractor

from sims_core.common.digest import canonical_json, file_sha256
from sims_core.common.errors import BadInput
from sims_core.engine.stage import StageContext
from sims_core.evaluation.classifier import Classifier, load_classifier
from sims_core.evaluation.config import ExtractorConfig
from sims_core.evaluation.resnet import CifarResNet
from sims_core.evaluation.weights import IN_DATA_FOLDER, OFFICIAL_INCEPTION, find_weights

LAYER = "penultimate"


CLASSIFIER_EXTRACTOR = "sims-classifier"


INCEPTION_EXTRACTOR = "sims-inception"


EXTRACTOR_WEIGHTS = "extractor.safetensors"


EXTRACTOR_CONFIG = "extractor.json"


class _OneLayer(FeatureExtractorBase):  # type: ignore[misc]  # torch-fidelity is untyped
    """A network with one feature layer, read from an artifact's folder by `load`."""

    def __init__(
        self,
        name: str,
        features_list: list[str],
        feature_extractor_weights_path: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(name, features_list)
        if feature_extractor_weights_path is None:
            raise ValueError(f"feature_extractor_weights_path must name a folder for {name}")
        self.network = self.load(Path(feature_extractor_weights_path))

    def load(self, folder: Path) -> Classifier | CifarResNet:
        raise NotImplementedError

    @staticmethod
    def get_provided_features_list() -> tuple[str, ...]:
        return (LAYER,)

    @staticmethod
    def get_default_feature_layer_for_metric(metric: str) -> str:
        return LAYER

    @staticmethod
    def can_be_compiled() -> bool:
        return False

    @staticmethod
    def get_dummy_input_for_compile() -> Tensor:
        return torch.zeros(1, 3, 8, 8, dtype=torch.uint8)


class ClassifierFeatures(_OneLayer):
    """A classifier artifact. Input: uint8 [N, 3, H, W]; a grey one reads the first channel."""

    def load(self, folder: Path) -> Classifier:
        classifier = load_classifier(folder)
        self.in_channels = next(classifier.body.parameters()).shape[1]
        return classifier

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        scaled = images[:, : self.in_channels].float() / 127.5 - 1
        return (self.network.features(scaled),)


class ResNetFeatures(_OneLayer):
    """A CIFAR ResNet. Input: uint8 [N, 3, H, W]."""

    def load(self, folder: Path) -> CifarResNet:
        depth = int(read_config(folder).features.removeprefix("resnet"))
        network = CifarResNet(depth)
        network.load_state_dict(load_file(folder / EXTRACTOR_WEIGHTS))
        return network

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        return (self.network.features(images),)


class InceptionFeatures(FeatureExtractorInceptionV3):  # type: ignore[misc]
    """torch-fidelity's Inception v3, which would unpickle what it reads, from safetensors."""

    def __init__(
        self,
        name: str,
        features_list: list[str],
        feature_extractor_weights_path: str | None = None,
        **kwargs: Any,
    ) -> None:
        if feature_extractor_weights_path is None:
            raise ValueError(f"feature_extractor_weights_path must name a folder for {name}")
        buffer = io.BytesIO()  # pickled here and now, from checked numbers
        torch.save(load_file(Path(feature_extractor_weights_path) / EXTRACTOR_WEIGHTS), buffer)
        buffer.seek(0)
        super().__init__(name, features_list, feature_extractor_weights_path=buffer, **kwargs)


register_feature_extractor(CLASSIFIER_EXTRACTOR, ClassifierFeatures)


register_feature_extractor(INCEPTION_EXTRACTOR, InceptionFeatures)


for _depth in ("resnet20", "resnet56"):
    register_feature_extractor(f"sims-{_depth}", ResNetFeatures)


LOGITS = "logits_unbiased"
"""Inception's layer that the Inception Score is made from."""


def read_config(folder: Path) -> ExtractorConfig:
    return ExtractorConfig.model_validate_json((folder / EXTRACTOR_CONFIG).read_bytes())


def create_extractor(folder: Path, cuda: bool) -> tuple[FeatureExtractorBase, str]:
    """The extractor whose artifact lies in `folder`, and the layer of its features."""
    name, layers = CLASSIFIER_EXTRACTOR, [LAYER]
    if (folder / EXTRACTOR_CONFIG).exists():
        config = read_config(folder)
        name = f"sims-{config.features}"
        if config.features == "inception":
            layers = ["2048", LOGITS] if config.inception_score else ["2048"]
    extractor = create_feature_extractor(
        name, layers, cuda=cuda, verbose=False, feature_extractor_weights_path=str(folder)
    )
    return extractor, layers[0]


def fold_batch_norms(module: nn.Module) -> None:
    """Gives every convolution the batch norm that follows it among `module`'s parts, at any depth.

    The same function of the input in evaluation mode, to the last digits, in one pass less.
    """
    parts = list(module.named_children())
    for (name, part), (next_name, after) in zip(parts, parts[1:], strict=False):
        if isinstance(part, nn.Conv2d) and isinstance(after, nn.BatchNorm2d):
            setattr(module, name, fuse_conv_bn_eval(part, after))
            setattr(module, next_name, nn.Identity())
    for _, part in parts:
        fold_batch_norms(part)


def speed_up(extractor: FeatureExtractorBase, channels_last: bool) -> None:
    """Makes an extractor that is only read from faster, in place; figures move by float noise.

    Args:
        channels_last: weights in memory as [out, height, width, in], and with them all that is
            computed: 1.2 to 2 times as fast on a CPU.
    """
    fold_batch_norms(extractor)
    if channels_last:
        extractor.to(memory_format=torch.channels_last)


def _download(folder: Path) -> Path:
    """torch-fidelity's own file, from torch's cache or from its publisher into `folder`.

    Raises:
        OSError, RuntimeError: it cannot be fetched, or is cut.
    """
    name = str(URL_INCEPTION_V3).rpartition("/")[2]
    cached = Path(torch.hub.get_dir()) / "checkpoints" / name
    if cached.is_file():
        return cached
    path = folder / name
    torch.hub.download_url_to_file(
        URL_INCEPTION_V3, str(path), hash_prefix=OFFICIAL_INCEPTION, progress=False
    )
    return path


def locate_weights(context: StageContext[ExtractorConfig]) -> Path:
    """The file that the configuration's digest names.

    Raises:
        BadInput: it is not here, or what is here has another content.
    """
    config = context.config
    path, problem = find_weights(config.features, context.execution.files), ""
    if path is None and config.sha256 == OFFICIAL_INCEPTION:
        try:
            path = _download(context.state)
        except (OSError, RuntimeError) as error:
            problem = f" (fetching them failed: {error})"
    if path is None:
        is_inception = config.features == "inception"
        named = "SIMS_INCEPTION_WEIGHTS to their file, or " if is_inception else ""
        raise BadInput(
            f"no weights for evaluation.features={config.features}{problem}: set {named}SIMS_DATA "
            f"to a folder with {IN_DATA_FOLDER[config.features]}"
        )
    if not (found := file_sha256(path)).startswith(config.sha256):
        raise BadInput(f"{path}: its SHA-256 is {found}, this run needs {config.sha256}")
    return path


def load_weights(path: Path) -> dict[str, Tensor]:
    """A state dict from safetensors, or from torch's format without unpickling objects.

    Raises:
        BadInput: it is neither.
    """
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise BadInput(f"{path}: not a state dict: {str(error).splitlines()[0]}") from None
    return state


def prepare_extractor(context: StageContext[ExtractorConfig]) -> dict[str, Any]:
    """Stage `extractor`: the weights into the store, as safetensors.

    Raises:
        BadInput: there are no such weights, they are of another network, or an Inception Score is
            wanted of weights without the last layer.
    """
    config, path = context.config, locate_weights(context)
    state = load_weights(path)
    logits = bool(state.get("fc.weight", torch.zeros(1)).any())
    if config.features == "inception" and not logits:
        if config.inception_score:
            raise BadInput(
                f"{path} has no logits layer (fc is {'zero' if 'fc.weight' in state else 'absent'})"
                ", which the Inception Score is made from: set evaluation.inception_score=false, "
                "or SIMS_INCEPTION_WEIGHTS to weights with that layer"
            )
        state |= {"fc.weight": torch.zeros(1008, 2048), "fc.bias": torch.zeros(1008)}
    state = {name: tensor.contiguous() for name, tensor in state.items()}
    save_file(state, context.directory / EXTRACTOR_WEIGHTS)
    (context.directory / EXTRACTOR_CONFIG).write_text(
        canonical_json(config.model_dump(mode="json"))
    )
    try:
        create_extractor(context.directory, cuda=False)
    except RuntimeError as error:  # torch's list of missing and unexpected names
        reason = " ".join(str(error).split())[:200]
        raise BadInput(f"{path}: not the weights of {config.features}: {reason}") from None
    return {"weights_sha256": file_sha256(path), "logits": logits}
