"""Golden digests: the artifact that every stage of every preset's plan will make.

A digest is an artifact's name. If one changes, every store that holds that artifact computes it
again, so a change of the code that is not meant to change results must change none of these. Where
a change is meant (a stage's version goes up, a configuration gains a field), make the file anew and
say in the commit why:

    python tests/golden/test_digests.py
"""

from __future__ import annotations

import tempfile
from collections import defaultdict
from hashlib import sha256
from pathlib import Path

import pytest

from flows.parameters import check_parameters, make_plan
from flows.presets import find_preset, load_presets
from flows.registry import load_flow
from sims_core.data.config import ImportedSet
from sims_core.data.names import DATASETS
from sims_core.nets.config import ImportedModel, ModelConfig, UNetConfig
from sims_core.nets.names import MODELS
from sims_core.store.store import Store

FOLDER = Path(__file__).parent / "digests"

ALL_SHOWN = 400
"""A plan of more stages is given by one line an arm: the digest of all its lines."""

FIXED_WEIGHTS = {"evaluation.weights_sha256": "ab" * 32}
"""Whatever weights this machine has: features of Inception are named by these."""

ODD: dict[str, tuple[str, dict[str, object]]] = {
    "fully-synthetic": ("sims-loop/digits", {"loop": "fully_synthetic", "generations": 4}),
    "accumulate": ("sims-loop/digits", {"accumulation": "accumulate", "generations": 4}),
    "fixed-budget": ("sims-loop/digits", {"accumulation": "fixed_budget", "generations": 4}),
    "odd-seed": ("sims-loop/digits", {"seeds": [12345], "omegas": [0.5, 2.0], "generations": 2}),
    "real-too": (
        "sims-loop/digits",
        {"generations": 1, "overrides": {"sims.aux_data": "real+synthetic"}},
    ),
    "other-auxiliary": (
        "sims-loop/digits",
        {"generations": 1, "overrides": {"sims.auxiliary_net": {"block_out_channels": [8, 16]}}},
    ),
    "autoguidance": (
        "sims-loop/digits",
        {
            "generations": 2,
            "methods": ["autoguidance"],
            "omegas": [0.5],
            "overrides": {"methods.autoguidance.net": {"block_out_channels": [16, 32]}},
        },
    ),
    "interval": (
        "sims-loop/digits",
        {"generations": 1, "overrides": {"sims.interval": [0.1, 5.0]}},
    ),
    "real-fraction": ("sims-loop/digits", {"generations": 2, "real_fraction": 0.618}),
    "resnet-features": (
        "sims-loop/cifar10-smoke",
        {"generations": 1, "overrides": {"evaluation.features": "resnet20"}},
    ),
    "class-conditional": (
        "sims-loop/digits",
        {"generations": 1, "overrides": {"model.net.num_classes": 10}},
    ),
    "imported-base": (
        "sims-loop/digits",
        {"generations": 1, "overrides": {"base.imported": "mine"}},
    ),
    "imported-base-sweep": (
        "self-improvement/digits",
        {"overrides": {"base.imported": "mine"}},
    ),
    "sweep": ("self-improvement/digits", {"omegas": [0.3, 3.0], "budgets": [0.01], "n_s": 100}),
    "fresh-data": (
        "sims-loop/gaussian2d-quick",
        {"loop": "fresh_data", "generations": 3, "pollution_sizes": [10], "omegas": [1.0]},
    ),
    "scan": (
        "sims-loop/gaussian2d-quick",
        {"generations": 2, "scan_omegas": [0, 1.5], "scan_budgets": [0.1, 0.2]},
    ),
    "points-real-too": (
        "sims-loop/gaussian2d-quick",
        {"generations": 2, "overrides": {"sims.aux_data": "real+synthetic"}},
    ),
    "latents-loop": ("sims-loop/imagenet512", {"generations": 2}),
    "exact-gaussian": (
        "sims-loop/gaussian2d-quick",
        {
            "generations": 2,
            "overrides": {"model.net": {"kind": "exact_gaussian", "sampling_bias": 0.8}},
        },
    ),
}
"""Plans that no preset has, by name: a preset and what differs from it."""

LABELLED = {"distribution-shift/ffhq64": 2}
"""Classes of a user's label file, by the preset that names them."""

CASES = {name: (name, {}) for name in load_presets()} | ODD


def _give_names(store: Store, preset_name: str) -> None:
    """Lets the names that presets use stand for sets and models that fit them."""
    experiment = find_preset(preset_name).experiment
    net, encoding = experiment.model.net, None
    if experiment.data.source == "imported":
        channels, size = net.channels, net.image_size
        if channels == 4:
            autoencoder = {
                **{"config": {}, "in_channels": 3, "latent_channels": 4, "downsampling": 8},
                "weights_sha256": "1" * 64,
            }
            encoding = {"autoencoder": autoencoder, "encode": {}}
            channels, size = 3, 8 * size
        contents = {"channels": channels, "height": size, "width": size}
        classes = net.num_classes or LABELLED.get(preset_name, 10)
        imported = ImportedSet.model_validate(
            {
                "config": {"content": "0" * 64, "layout": "folder"},
                "contents": {"count": 100_000, "num_classes": classes, **contents},
                "encoding": encoding,
            }
        )
        DATASETS.give(store, experiment.data.name, imported)
    for number, need in enumerate(n for n in find_preset(preset_name).needs if n.model):
        sha256 = str(3 + number) * 64
        MODELS.give(store, need.model, ImportedModel(model=experiment.model, weights_sha256=sha256))
    model = ModelConfig(net=UNetConfig(block_out_channels=(16, 32)), sigma_data=0.6)
    MODELS.give(store, "mine", ImportedModel(model=model, weights_sha256="2" * 64))


def plan_lines(case: str, folder: Path) -> list[str]:
    """One line a stage, `<group>: <label> <kind>/<digest>`; of a long plan one line a group."""
    preset_name, given = CASES[case]
    preset, store = find_preset(preset_name), Store(folder)
    _give_names(store, preset_name)
    overrides = given.get("overrides", {})
    features = overrides.get("evaluation.features", preset.experiment.evaluation.features)
    if features != "classifier":
        given = given | {"overrides": {**overrides, **FIXED_WEIGHTS}}
    parameters = check_parameters(load_flow(preset.flow).fn, preset, given)
    plan = make_plan(preset.flow, parameters, store)
    if case in ("sweep", "self-improvement/digits"):  # finals, as if the base had been best
        fid = {each.candidate.name: float(n) for n, each in enumerate(plan.selection)}
        plan = plan.with_finals(fid)
    groups: dict[str, list[str]] = defaultdict(list)
    for group, stages in plan.groups:
        for stage in stages:
            groups[group].append(f"{group}: {stage.label} {stage.ref.kind}/{stage.ref.digest}")
    if sum(map(len, groups.values())) <= ALL_SHOWN:
        return [line for lines in groups.values() for line in lines]
    return [
        f"{group}: all {len(lines)} {sha256(chr(10).join(lines).encode()).hexdigest()}"
        for group, lines in groups.items()
    ]


def _file(case: str) -> Path:
    return FOLDER / f"{case.replace('/', '--')}.txt"


@pytest.mark.parametrize("case", CASES)
def test_every_stage_keeps_its_name(case, tmp_path):
    assert plan_lines(case, tmp_path) == _file(case).read_text().splitlines()


def test_there_is_no_digest_of_a_plan_that_is_gone():
    assert {path.name for path in FOLDER.iterdir()} == {_file(case).name for case in CASES}


def test_a_changed_seed_is_noticed(tmp_path, monkeypatch):
    monkeypatch.setitem(CASES, "sweep", ("self-improvement/digits", {"seeds": [1]}))
    assert plan_lines("sweep", tmp_path) != _file("sweep").read_text().splitlines()


def _write_all() -> None:
    FOLDER.mkdir(exist_ok=True)
    for path in FOLDER.iterdir():
        path.unlink()
    for case in CASES:
        with tempfile.TemporaryDirectory() as folder:
            _file(case).write_text("\n".join(plan_lines(case, Path(folder))) + "\n")


if __name__ == "__main__":
    _write_all()
