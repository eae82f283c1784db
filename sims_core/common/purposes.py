"""Purposes of seeds: every random draw comes from (run seed, purpose, index).

A purpose is part of what a seed is derived from: with another text every number that is drawn for
it is another one. So none of these is ever changed, whatever the stage that draws is called.
"""

from __future__ import annotations

from typing import Final

# Of a plan: with the run's seed, and where a generation has its own with its number.
DATA: Final = "data"
FRESH_DATA: Final = "fresh data"
REFERENCE: Final = "reference"
CLASSIFIER: Final = "classifier"
TRAIN_BASE: Final = "train base"
SELF_SYNTHETIC: Final = "self-synthetic"
FINE_TUNE_AUXILIARY: Final = "fine-tune auxiliary"
TRAIN_AUXILIARY: Final = "train auxiliary"
GENERATE: Final = "generate"
PREVIEW: Final = "preview"
EVALUATE: Final = "evaluate"
SAMPLE: Final = "sample"
IMAGES: Final = "images"
HALVES: Final = "halves"
LABELLER: Final = "labeller"
JUDGE: Final = "judge"
REWEIGH: Final = "re-weigh"
REJECT: Final = "reject"
SELECT: Final = "select"

# Of a stage: with the seed in its configuration.
INITIALISE: Final = "initialise"
EPOCH: Final = "epoch"
REAL_EPOCH: Final = "real epoch"
SYNTHETIC_EPOCH: Final = "synthetic epoch"
SHARE: Final = "share"
NOISE: Final = "noise"
FLIP: Final = "flip"
DROPOUT: Final = "dropout"
AUGMENT: Final = "augment"
BATCHES: Final = "batches"
GRID: Final = "grid"
LABEL: Final = "label"
PICK: Final = "pick"
POSTERIOR: Final = "posterior"
FLOOR: Final = "floor"
BOOTSTRAP: Final = "bootstrap"
REAL_SAMPLE: Final = "real sample"
