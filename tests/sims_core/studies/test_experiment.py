"""Configuration: mistakes are found before any work, and named in one line."""

import pytest
from pydantic import TypeAdapter, ValidationError

from sims_core.common.frozen import one_line
from sims_core.data.config import DigitsData, ImportedImages, KnownImages
from sims_core.diffusion.config import SamplerConfig
from sims_core.engine.execution import Execution
from sims_core.evaluation.config import ClassifierConfig, EvaluationConfig
from sims_core.methods.catalog import MethodConfig
from sims_core.methods.sims import Sims
from sims_core.methods.standard import Standard
from sims_core.nets.config import UNetConfig
from sims_core.studies.experiment import Experiment
from sims_core.training.config import TrainingConfig


@pytest.mark.parametrize(
    ("model", "fields", "message"),
    [
        (SamplerConfig, {"step": 3}, r"^step: extra inputs are not permitted$"),
        (SamplerConfig, {"num_steps": 0}, r"^num_steps: .*greater than or equal to 1, got 0$"),
        (SamplerConfig, {"sigma_min": 90}, r"sigma_min 90\.0 must be below sigma_max 80\.0"),
        (SamplerConfig, {"sigma_max": float("inf")}, r"^sigma_max: .*finite number, got inf$"),
        (SamplerConfig, {"solver": "dpm"}, r"^solver: .*'heun' or 'euler', got 'dpm'$"),
        (TrainingConfig, {"kimg": 0}, r"^kimg: .*greater than 0, got 0$"),
        (TrainingConfig, {"P_std": "x"}, r"^P_std: .*valid number.*got 'x'$"),
        (UNetConfig, {"image_size": 10, "block_out_channels": (8, 8, 8)}, "cannot be halved 2 "),
        (UNetConfig, {"norm_num_groups": 5}, r"must be a multiple of norm_num_groups 5"),
        (UNetConfig, {"attention_levels": (2,)}, r"must be in 0\.\.1"),
        (UNetConfig, {"attention_levels": (-1,)}, r"must be in 0\.\.1"),
        (UNetConfig, {"block_out_channels": (1, 8)}, r"^block_out_channels\.0: .*got 1$"),
        (UNetConfig, {"dropout": 1.0}, r"^dropout: .*less than 1, got 1\.0$"),
        (UNetConfig, {"num_classes": -1}, r"^num_classes: .*got -1$"),
        (
            UNetConfig,
            {"block_out_channels": (16, 24), "attention_levels": (0,), "attention_head_dim": 16},
            r"the 24 channels of a level with attention .*multiple of attention_head_dim 16",
        ),
        (
            Experiment,
            {"model": {"net": {"kind": "unet", "num_classes": 9}}},
            r"num_classes is 9, digits has 10 classes: set it to 10, or to 0 for none",
        ),
        (
            Experiment,
            {"model": {"net": {"kind": "unet", "num_classes": 11}}},
            r"num_classes is 11, digits has 10 classes: set it to 10",
        ),
        (Sims, {"n_s": 10**18}, r"^n_s: .*less than or equal to 1073741824"),
        (TrainingConfig, {"kimg": 1e30}, r"^kimg: .*less than or equal to 100000000"),
        (EvaluationConfig, {"num_images": 2**31}, r"^num_images: .*less than or equal to"),
        (
            Experiment,
            {
                "sims": {"auxiliary_net": {"kind": "unet", "image_size": 16}},
                "model": {"net": {"kind": "unet"}},
            },
            r"sims\.auxiliary_net\.image_size 16 must be model\.net's, 8",
        ),
        (TrainingConfig, {"precision": "fp8"}, r"^precision: .*'bf16' or 'fp16', got 'fp8'$"),
        (Execution, {"compile": "jit"}, r"^compile: .*got 'jit'$"),
        (EvaluationConfig, {"num_images": 100}, r"kid_subset_size 500 exceeds num_images 100"),
        (EvaluationConfig, {"prc_neighborhood": 1797}, r"prc_neighborhood 1797 must be below"),
        (DigitsData, {"num_images": 1798}, r"less than or equal to 1797, got 1798"),
        (Experiment, {"data": {"num_images": 500}}, r"kid_subset_size 500 must be below.*, 500"),
        (Experiment, {"data": {"num_images": 64}}, r"64 real images are too few .* least 65"),
        (KnownImages, {"source": "mnist", "num_images": 60001}, r"at most 60000, .* got 60001"),
        (KnownImages, {"source": "mnist", "split": "val"}, r"^split: .*'train' or 'test'"),
        (
            Experiment,
            {"data": {"source": "cifar100"}},
            r"'cifar100'; there are: digits, cifar10, mnist, fashion, imported, gaussian",
        ),
        (
            Experiment,
            {"data": {"source": "cifar10"}},
            r"images of 1 x 8 x 8 .* those of cifar10 have 3 x 32 x 32: set model\.net",
        ),
        (
            Experiment,
            {"model": {"net": {"kind": "unet", "num_classes": 3}}},
            r"is 3, digits has 10",
        ),
        (ImportedImages, {"name": "../x"}, r"^name: .*pattern"),
        (Experiment, {"sims": {"omega": 0}}, r"^sims\.omega: .*greater than 0, got 0$"),
        (Sims, {"omega": -1}, r"greater than 0, got -1"),
        (Sims, {"omega": float("nan")}, r"^omega: "),
        (Execution, {"device": "gpu"}, r"^device: .*got 'gpu'$"),
        (Execution, {"threads": 0}, r"^threads: "),
    ],
)
def test_mistakes_are_one_line_that_names_the_field(model, fields, message):
    with pytest.raises(ValidationError) as error:
        model.model_validate(fields)
    line = one_line(error.value)
    assert len(line.splitlines()) == 1
    assert "pydantic.dev" not in line
    with pytest.raises(ValueError, match=message):
        raise ValueError(line)


def test_configuration_is_frozen():
    with pytest.raises(ValidationError, match="frozen"):
        SamplerConfig().num_steps = 3


def test_defaults_survive_json():
    experiment = Experiment()
    assert Experiment.model_validate_json(experiment.model_dump_json()) == experiment


def test_methods_are_told_apart_by_kind():
    method = TypeAdapter(MethodConfig)
    assert method.validate_python({"kind": "standard"}) == Standard()
    assert method.validate_python({"kind": "sims", "omega": 2}) == Sims(omega=2)
    with pytest.raises(
        ValidationError,
        match=r"no method of kind 'ddo'; there are: .*standard",
    ):
        method.validate_python({"kind": "ddo"})
    assert (Standard().label, Sims(omega=1.5).label) == ("standard", "sims omega=1.5")


@pytest.mark.parametrize(
    ("kimg", "batch_size", "steps"), [(1, 100, 10), (1, 64, 16), (0.001, 64, 1), (0.3, 100, 3)]
)
def test_training_length_is_whole_batches(kimg, batch_size, steps):
    assert TrainingConfig(kimg=kimg, batch_size=batch_size).num_steps == steps


def test_auxiliary_recipe_has_the_methods_budget():
    sims = Sims(budget_mimg=0.02, batch_size=50, learning_rate=3e-5)
    base = TrainingConfig(P_mean=-0.8, ramp_kimg=10, decay="cosine")
    recipe = sims.auxiliary_training(base, UNetConfig())
    assert recipe.kimg == 20
    assert recipe.num_steps * recipe.batch_size == 20_000
    assert (recipe.batch_size, recipe.learning_rate, recipe.P_mean) == (50, 3e-5, -0.8)
    # A ramp of EDM's length would starve the fine-tune.
    assert (recipe.ramp_kimg, recipe.decay, recipe.ema_halflife_kimg) == (0, "constant", 2)


def test_published_defaults():
    """EDM, arXiv 2206.00364, Table 1."""
    sampler, training = SamplerConfig(), TrainingConfig()
    assert (sampler.rho, sampler.sigma_min, sampler.sigma_max) == (7, 0.002, 80)
    assert (training.P_mean, training.P_std) == (-1.2, 1.2)
    assert Experiment().model.sigma_data == 0.5
    assert ClassifierConfig().num_features >= 2


@pytest.mark.parametrize("kind", ["song", "adm", "edm2"])
def test_an_auxiliary_may_be_any_network_of_images(kind):
    base = {"kind": "unet", "image_size": 8, "num_classes": 10, "augment_labels": True}
    values = Experiment(model={"net": base}).model_dump(mode="json")
    values["sims"]["auxiliary_net"] = {"kind": kind, "model_channels": 8, "channel_mult": [1]}
    made = Experiment.model_validate(values).sims.auxiliary_net
    assert (made.kind, made.image_size, made.channels, made.num_classes) == (kind, 8, 1, 10)
    again = Experiment.model_validate_json(Experiment.model_validate(values).model_dump_json())
    assert again.sims.auxiliary_net == made
    values["model"]["net"] = {"kind": "song", "image_size": 8, "channels": 1, "augment_dim": 9}
    values["sims"]["auxiliary_net"] |= {"num_classes": 0}
    told = Experiment.model_validate(values).sims.auxiliary_net.is_told_of_augmentation
    assert told is (kind != "edm2")


@pytest.mark.parametrize(
    ("net", "message"),
    [
        ({"kind": "mlp"}, "auxiliary_net is a mlp network, which is none of images"),
        ({"kind": "transformer"}, "no network of kind 'transformer'; there are: song, adm"),
        (3, "want an object with 'kind', got 3"),
    ],
)
def test_an_auxiliary_of_no_images_is_refused(net, message):
    values = Experiment().model_dump(mode="json")
    values["sims"]["auxiliary_net"] = net
    with pytest.raises(ValueError, match=message):
        Experiment.model_validate(values)


def test_an_auxiliary_of_another_network_is_for_the_bases_images():
    net = {"kind": "unet", "image_size": 8, "num_classes": 10, "block_out_channels": [8, 16]}
    values = Experiment(model={"net": net}).model_dump(mode="json")
    values["sims"]["auxiliary_net"] = {"block_out_channels": [16]}
    made = Experiment.model_validate(values)
    assert made.sims.auxiliary_net == UNetConfig(
        image_size=8, channels=1, num_classes=10, block_out_channels=(16,)
    )
