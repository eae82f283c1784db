"""MAD's loops on images: fresh data, sampling bias, and what is refused before any work."""

from itertools import chain

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from sims_core.catalog import run_stage
from sims_core.common.errors import BadInput
from sims_core.data.config import DigitsData, KnownImages
from sims_core.data.image_set import read_images, read_index
from sims_core.data.mixing import load_training_set
from sims_core.data.stages import data_request
from sims_core.diffusion.config import SamplerConfig
from sims_core.diffusion.guidance import class_guidance, negative_guidance
from sims_core.diffusion.sampler import make_sampler
from sims_core.engine.execution import Execution
from sims_core.methods.sims import Sims
from sims_core.methods.standard import Standard
from sims_core.nets.config import ModelConfig, UNetConfig
from sims_core.nets.saved import load_model
from sims_core.sampling.images import sample_images
from sims_core.studies.experiment import Experiment
from sims_core.studies.loop import Arm, LoopKind, plan_loop

EXECUTION = Execution(threads=1)
NET = UNetConfig(block_out_channels=(8, 16), norm_num_groups=4, num_classes=10, label_dropout=0.1)


def arm(loop=LoopKind.fresh_data, size=20, method=None, **changes):
    return Arm(method=method or Standard(), loop=loop, pollution_size=size, **changes)


def fresh(experiment=None, **data):
    changed = DigitsData(**{"initial_images": 60, "fresh_images": 30, **data})
    return (experiment or Experiment()).model_copy(update={"data": changed})


# -- the fresh-data loop --------------------------------------------------------------------------


def test_each_generation_sees_real_images_that_none_has_seen(store, tiny_experiment):
    """To the pixels: what the training sets of four generations hold is disjoint, and real."""
    experiment = fresh(tiny_experiment)
    plan = plan_loop(experiment, (arm(),), 4, seed=3)
    (real,) = [stage for stage in plan.setup if stage.role == "prepare data"]
    run_stage(store, real.request, EXECUTION)
    folder = store.open_artifact(real.ref)
    whole, _ = read_images([folder / shard.file for shard in read_index(folder).shards])
    places = {image.tobytes(): number for number, image in enumerate(whole)}
    seen = []
    for stage in plan.arms[0].stages:
        if stage.role in ("initial data", "fresh data"):
            assert stage.request.inputs == {"images": real.ref}
            folder = store.open_artifact(run_stage(store, stage.request, EXECUTION))
            images, labels = read_images([folder / s.file for s in read_index(folder).shards])
            assert labels is not None
            seen.append([places[image.tobytes()] for image in images])
    assert [len(each) for each in seen] == [60, 30, 30, 30]
    assert len(set(chain(*seen))) == 150


def test_training_sets_are_n_ini_then_n_r_and_n_s():
    plan = plan_loop(fresh(), (arm(),), 3, seed=0)
    made = {t: plan.arms[0].artifacts(t) for t in (1, 2, 3)}
    mixes = {s.t: s.request for s in plan.arms[0].stages if s.role == "mix"}
    assert mixes[1].inputs == {"kept": made[1]["initial data"]}
    for t in (2, 3):
        assert mixes[t].inputs == {
            "kept": made[t]["fresh data"],
            "synthetic": made[t - 1]["generate"],
        }
        assert [part.get("count") for part in mixes[t].config["parts"]] == [None, 20]
    # What measures is still the whole set.
    assert plan.setup[-1].request.config["count"] == 1797


def test_arms_share_the_draws_and_seeds_do_not():
    def draws(seed):
        arms = arm(), arm(method=Sims())
        return [
            {s.ref for s in each.stages if s.role in ("initial data", "fresh data")}
            for each in plan_loop(fresh(), arms, 2, seed).arms
        ]

    first, second = draws(0)
    assert first == second
    assert not first & draws(1)[0]


def test_the_real_images_are_the_artifact_of_every_other_loop():
    data = KnownImages(source="mnist")
    changed = data.model_copy(update={"initial_images": 2000, "fresh_images": 500})
    assert data_request(data) == data_request(changed)
    assert "initial_images" not in data_request(changed).config


def test_the_last_image_can_be_drawn_and_no_more():
    """300 + 3 x 499 = 1,797, the whole set."""
    experiment = fresh(initial_images=300, fresh_images=499)
    plan_loop(experiment, (arm(),), 4, 0)
    with pytest.raises(
        BadInput,
        match=r"300 and 4 times data\.fresh_images 499 are 2,296, and "
        r"digits has 1,797: set generations=4",
    ):
        plan_loop(experiment, (arm(),), 5, 0)


def test_as_many_fresh_as_initial_ones_where_nothing_is_said():
    plan = plan_loop(fresh(fresh_images=None), (arm(),), 2, 0)
    assert [
        (s.request.config["start"], s.request.config["count"])
        for s in plan.arms[0].stages
        if s.role in ("initial data", "fresh data")
    ] == [(0, 60), (60, 60)]


@pytest.mark.parametrize(
    ("data", "loop", "message"),
    [
        ({"initial_images": None}, LoopKind.fresh_data, r"set data\.initial_images, how many of "
         r"its 1,797"),
        ({"initial_images": 1798}, LoopKind.fresh_data, r"digits has 1,797: lower them"),
        ({}, LoopKind.fully_synthetic, r"data\.initial_images belongs to loop=fresh_data"),
        (
            {"initial_images": None},
            LoopKind.synthetic_augmentation,
            r"data\.fresh_images belongs to loop=fresh_data",
        ),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_when_planned(data, loop, message):
    with pytest.raises(BadInput, match=message):
        plan_loop(fresh(**data), (arm(loop),), 2, 0)


def test_training_sets_hold_every_label(store, tiny_experiment):
    """Real draws and synthetic images join: a conditional network gets every label."""
    experiment = fresh(tiny_experiment.model_copy(update={"model": ModelConfig(net=NET)}))
    plan = plan_loop(experiment, (arm(),), 2, seed=1)
    for stage in plan:
        if stage.t < 2 or stage.role in ("fresh data", "mix"):
            run_stage(store, stage.request, EXECUTION)
    images, labels = load_training_set(store, store.path(plan.arms[0].artifacts(2)["mix"]))
    assert images[torch.arange(len(images))].shape == (50, 1, 8, 8)
    assert labels is not None
    assert set(labels.tolist()) <= set(range(10))


# -- sampling bias --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def biased(tiny_experiment, tmp_path_factory):
    """SIMS at w = 1 from a class-conditional base, one generation, run."""
    from sims_core.store.store import Store
    from sims_core.studies.running import Runner

    store = Store.open(tmp_path_factory.mktemp("biased") / "store")
    experiment = tiny_experiment.model_copy(update={"model": ModelConfig(net=NET)})
    arms = [arm(LoopKind.fully_synthetic, method=method, class_guidance=w)
            for method in (Standard(), experiment.sims) for w in (0.0, 1.0)]  # fmt: skip
    plan = plan_loop(experiment, tuple(arms), 1, seed=2)
    Runner(store, EXECUTION).run_plan(plan)
    return store, plan


def test_evaluations_of_every_network_are_counted(biased):
    store, plan = biased
    nfe = [store.manifest(each.artifacts(1)["generate"]).details["nfe"] for each in plan.arms]
    assert nfe == [7, 14, 14, 28]  # Heun with 4 steps is 7


def test_generated_images_are_those_of_both_guidances(biased):
    store, plan = biased
    made = plan.arms[3].artifacts(1)
    base, auxiliary = (
        load_model(store.open_artifact(made[role]))[0]
        for role in ("train base", "fine-tune auxiliary")
    )
    denoiser = negative_guidance(class_guidance(base, 1.0), class_guidance(auxiliary, 1.0), 1.0)
    folder = store.open_artifact(made["preview"])
    images, labels = read_images([folder / shard.file for shard in read_index(folder).shards])
    (stage,) = [s for s in plan.arms[3].stages if s.role == "preview"]
    first = stage.request.config["first_seed"]
    seeds = range(first, first + len(images))
    sample = make_sampler(SamplerConfig(num_steps=4))
    expected = sample_images(denoiser, sample, seeds, (1, 8, 8), 64, labels=labels.tolist())
    assert np.abs(expected.astype(int) - images.astype(int)).max() <= 1
    alone = sample_images(base, sample, seeds, (1, 8, 8), 64, labels=labels.tolist())
    assert (np.abs(alone.astype(int) - images.astype(int)) > 1).mean() > 0.01


def test_no_guidance_is_the_same_artifact_however_it_is_said(biased):
    _, plan = biased
    again = plan_loop(plan.experiment, (arm(LoopKind.fully_synthetic),), 1, seed=2)
    assert again.arms[0].stages == plan.arms[0].stages


def test_the_self_synthetic_set_is_drawn_as_the_model_is_used(biased):
    _, plan = biased
    drawn = [s.request.config for s in plan.arms[3].stages if s.role == "self-synthetic"]
    assert [each["sampler"]["class_guidance"] for each in drawn] == [1.0]
    assert drawn[0]["omega"] == 0


def test_arms_share_the_training_and_are_compared_within_a_bias(biased):
    _, plan = biased
    assert len({each.artifacts(1)["train base"] for each in plan.arms}) == 1
    assert [each.arm.name for each in plan.arms] == [
        "standard |D_s|=20",
        "standard |D_s|=20 lambda=0.5",
        "sims omega=1 |D_s|=20",
        "sims omega=1 |D_s|=20 lambda=0.5",
    ]
    assert plan.baselines == [0, 1, 0, 1]
    assert plan.arms[1].arm.slug == "standard_D_s20_lambda0.5"


def test_a_network_that_knows_no_class_is_needed():
    plain = ModelConfig(net=NET.model_copy(update={"label_dropout": 0.0}))
    wanted = r"class_guidance 1 needs .*set model\.net\.num_classes and model\.net\.label_dropout"
    with pytest.raises(ValidationError, match=wanted):
        Experiment(model=plain, sampler=SamplerConfig(class_guidance=1))
    experiment = Experiment(model=plain)
    with pytest.raises(BadInput, match=r"arm standard \|D_s\|=20 lambda=0\.5: .*class_guidance 1"):
        plan_loop(experiment, (arm(LoopKind.fully_synthetic, class_guidance=1.0),), 1, 0)


def test_an_auxiliary_of_its_own_needs_label_dropout_too():
    other = {"block_out_channels": (8,), "norm_num_groups": 4}
    given = {"model": {"net": NET.model_dump()}, "sampler": {"class_guidance": 1}}
    filled = Experiment.model_validate({**given, "sims": {"auxiliary_net": other}})
    assert filled.sims.auxiliary_net.label_dropout == 0.1
    net = {**other, "label_dropout": 0}
    with pytest.raises(ValidationError, match=r"sims\.auxiliary_net\.label_dropout=0\.1"):
        Experiment.model_validate({**given, "sims": {"auxiliary_net": net}})


def test_points_have_no_classes():
    with pytest.raises(ValidationError, match=r"points have no classes: .*sampling_bias"):
        Experiment.model_validate(
            {
                "data": {"source": "gaussian"},
                "model": {"net": {"kind": "exact_gaussian"}},
                "sampler": {"class_guidance": 1},
            }
        )
