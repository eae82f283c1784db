"""Roles: what each stage is in its plan, in words that a person reads.

A role is a stage's label in the terminal and in Prefect's pages, the key by which a report finds an
artifact, and part of a link's path in a run's folder. No digest and no random number depends on it:
the seeds' purposes are in `sims_core.common.purposes`.
"""

from __future__ import annotations

from typing import Final

PREPARE_DATA: Final = "prepare data"
LOAD_AUTOENCODER: Final = "load autoencoder"
ENCODE_DATA: Final = "encode data"
DECODE_DATA: Final = "decode data"
TRAIN_CLASSIFIER: Final = "train classifier"
LOAD_EXTRACTOR: Final = "load extractor"
REAL_FEATURES: Final = "real features"
REFERENCE: Final = "reference"
IMPORT_REFERENCE: Final = "import reference"

INITIAL_DATA: Final = "initial data"
FRESH_DATA: Final = "fresh data"
MIX: Final = "mix"
TRAIN_BASE: Final = "train base"
IMPORTED_BASE: Final = "imported base"
FINE_TUNE_BASE: Final = "fine-tune base"
SELF_SYNTHETIC: Final = "self-synthetic"
AUXILIARY_DATA: Final = "auxiliary data"
FINE_TUNE_AUXILIARY: Final = "fine-tune auxiliary"
TRAIN_AUXILIARY: Final = "train auxiliary"
IMPORTED_AUXILIARY: Final = "imported auxiliary"
MERGE: Final = "merge"
GENERATE: Final = "generate"
PREVIEW: Final = "preview"
FEATURES: Final = "features"
EVALUATE: Final = "evaluate"

TRAIN_LABELLER: Final = "train labeller"
TRAIN_JUDGE: Final = "train judge"
TARGET_REAL: Final = "real of the target mix"
LABEL: Final = "label"
REWEIGH: Final = "re-weigh"
REJECT: Final = "reject"
SHARES: Final = "shares"
AGAINST_REAL: Final = "against all real"
"""Ends the role of a stage that measures against the whole real set instead of the target's."""


def latents_of(role: str) -> str:
    """The role of the stage that samples the latents which the stage of `role` decodes."""
    return f"{role} latents"


def metric(name: str) -> str:
    """The role of the stage that measures one further metric."""
    return f"metric {name}"
