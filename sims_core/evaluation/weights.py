"""Which weights a feature extractor has: known files, where they are looked for, their digests.

A plan names weights by the SHA-256 of their file, never by its path. This module needs no torch.
"""

from __future__ import annotations

from pathlib import Path

from sims_core.common.digest import file_sha256
from sims_core.common.errors import BadInput
from sims_core.engine.execution import DataFiles
from sims_core.evaluation.config import EvaluationConfig

OFFICIAL_INCEPTION = "6726825d"
"""First digits of the SHA-256 of torch-fidelity's download, as in its file's name."""


INCEPTION_WITHOUT_LOGITS = "bdd5391f7cbe05f6f3648402795b827af3656d58c5c917326fedb58f4893f79f"
"""The same network of 2015 without its last layer: no Inception Score."""


KNOWN_INCEPTION = (OFFICIAL_INCEPTION, INCEPTION_WITHOUT_LOGITS)


IN_DATA_FOLDER = {
    "inception": Path("inception") / "inception-v3-compat-features.pth",
    "resnet20": Path("cifar10_resnet") / "resnet20-12fca82f.safetensors",
    "resnet56": Path("cifar10_resnet") / "resnet56-4bfd9763.safetensors",
}
"""Where each extractor's weights are in the data folder."""


RESNET_SHA256 = {
    "resnet20": "02926273efb1deadb6dc654c7087baea932ef2026d9f854680d6858146d85838",
    "resnet56": "cf29b05e3acebb9dc28868ebd84a604ff452971bb6770f22beaff48708079aee",
}


def pin_weights(evaluation: EvaluationConfig, files: DataFiles) -> EvaluationConfig:
    """The configuration with the digest of the weights that it will use.

    Those that it names; else the known ones of a ResNet; else, for Inception, the file of
    SIMS_INCEPTION_WEIGHTS or of the data folder; else torch-fidelity's own download.

    Raises:
        BadInput: SIMS_INCEPTION_WEIGHTS names no file, or one with unknown content.
    """
    features = evaluation.features
    if features == "classifier" or evaluation.weights_sha256 is not None:
        return evaluation
    if features != "inception":
        return evaluation.model_copy(update={"weights_sha256": RESNET_SHA256[features]})
    path = find_weights(features, files)
    sha256 = file_sha256(path) if path else OFFICIAL_INCEPTION
    if not sha256.startswith(KNOWN_INCEPTION):
        raise BadInput(
            f"{path} is not a known file of the Inception weights of 2015: its SHA-256 is {sha256}"
            "; a run uses it anyhow with evaluation.weights_sha256 set to that"
        )
    return evaluation.model_copy(update={"weights_sha256": sha256})


def find_weights(features: str, files: DataFiles) -> Path | None:
    """The file with an extractor's weights, if there is one here.

    Raises:
        BadInput: SIMS_INCEPTION_WEIGHTS names a file that does not exist.
    """
    if features == "inception" and files.inception is not None:
        if not files.inception.is_file():
            raise BadInput(f"SIMS_INCEPTION_WEIGHTS is {files.inception}: there is no such file")
        return files.inception
    path = files.source / IN_DATA_FOLDER[features] if files.source else None
    return path if path and path.is_file() else None
