"""Autoguidance: what it trains and shares, what it samples, and what is refused."""

from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError

from sims_core.catalog import run_stage
from sims_core.common.errors import BadInput
from sims_core.data.config import GaussianData
from sims_core.data.image_set import read_images, read_index
from sims_core.engine.execution import Execution
from sims_core.methods.autoguidance import Autoguidance
from sims_core.methods.sims import Sims
from sims_core.methods.standard import Standard
from sims_core.nets.config import (
    ExactGaussianConfig,
    ImportedModel,
    MLPConfig,
    ModelConfig,
    NoiseSchedule,
    UNetConfig,
)
from sims_core.nets.names import MODELS
from sims_core.sampling.config import GenerateConfig
from sims_core.sampling.images import without_labels
from sims_core.sampling.stages import GENERATE
from sims_core.store.store import Store
from sims_core.studies.experiment import Experiment
from sims_core.studies.loop import Arm, LoopKind, plan_loop
from sims_core.studies.pollution import plan_pollution
from sims_core.studies.resolve import resolve_methods
from sims_core.studies.running import Runner
from sims_core.training.config import SnapshotConfig, TrainingConfig, TrainStageConfig
from sims_core.training.stages import SNAPSHOT, TRAIN

EXECUTION = Execution(threads=1, sampling_batch_size=8)
SMALLER = UNetConfig(block_out_channels=(4, 8), norm_num_groups=4)


def plan(experiment, *methods, generations=1):
    loop = LoopKind.synthetic_augmentation
    arms = tuple(Arm(method=method, loop=loop, pollution_size=32) for method in methods)
    return plan_loop(experiment, arms, generations, seed=3)


def requests(arm_plan, t=1):
    return {stage.role: stage.request for stage in arm_plan.stages if stage.t == t}


def images_of(store, request):
    folder = store.open_artifact(run_stage(store, request, EXECUTION))
    return read_images([folder / shard.file for shard in read_index(folder).shards])[0]


def test_the_auxiliary_is_trained_on_the_bases_data_and_on_nothing_else(tiny_experiment):
    method = Autoguidance(net=SMALLER, kimg=0.5)
    found = plan(tiny_experiment, Standard(), tiny_experiment.sims, method, generations=2)
    for t in (1, 2):
        own = requests(found.arms[2], t)
        auxiliary, base = own["train auxiliary"], own["train base"]
        assert auxiliary.inputs == base.inputs == {"data": own["mix"].ref}
        assert auxiliary.config["training"] == {**base.config["training"], "kimg": 0.5}
        assert auxiliary.config["model"]["net"]["block_out_channels"] == [4, 8]
        assert own["generate"].inputs == {"base": base.ref, "auxiliary": auxiliary.ref}
        assert "self-synthetic" not in own
    first = [requests(arm)["train base"].ref for arm in found.arms]
    assert len(set(first)) == 1, "the base is that of every other method"


def test_other_strengths_and_intervals_train_nothing(tiny_experiment):
    template = Autoguidance(kimg=0.5)
    arms = Autoguidance.arms(template, [0, 0.5, 1])
    arms += Autoguidance.arms(template.model_copy(update={"interval": (0.1, 5.0)}), [1])
    assert [arm.label for arm in arms] == [
        "autoguidance omega=0.5",
        "autoguidance omega=1",
        "autoguidance omega=1 sigma=0.1..5",
    ]
    found = plan(tiny_experiment, *arms)
    seen = {stage.ref for stage in found.arms[0].stages}
    for arm in found.arms[1:]:
        new = {stage.request.stage for stage in arm.stages if stage.ref not in seen}
        assert new == {"generate", "features", "evaluate"}


def test_the_base_as_its_own_auxiliary_is_no_guidance(tiny_experiment, tmp_path):
    """Trained as long as the base it is the base, to the last stage; guidance is then a no-op."""
    training = tiny_experiment.training.model_copy(update={"kimg": 0.32})
    experiment = tiny_experiment.model_copy(update={"training": training})
    found = plan(experiment, Standard(), Autoguidance(kimg=0.32, omega=2.0))
    ours, standard = requests(found.arms[1]), requests(found.arms[0])
    assert ours["train auxiliary"].ref == ours["train base"].ref
    store = Store.open(tmp_path / "store")
    for stage in (*found.setup[:1], *found.arms[1].stages[:3]):
        run_stage(store, stage.request, EXECUTION)
    few = {"count": 8}
    guided, plain = (
        images_of(
            store, GENERATE.request(GenerateConfig.model_validate(each.config | few), **each.inputs)
        )
        for each in (ours["generate"], standard["generate"])
    )
    assert (guided == plain).all()
    assert plain.std() > 10


def test_ended_early_it_is_the_snapshot_of_the_base(tiny_experiment, tmp_path):
    """At a constant rate: same weights to begin with, same batches, same average."""
    training = tiny_experiment.training.model_copy(update={"decay": "constant", "kimg": 0.64})
    experiment = tiny_experiment.model_copy(update={"training": training})
    own = requests(plan(experiment, Autoguidance(kimg=0.32)).arms[0])
    store = Store.open(tmp_path / "store")
    setup = plan(experiment, Standard()).setup[:1]
    for request in (*(stage.request for stage in setup), own["mix"], own["train auxiliary"]):
        run_stage(store, request, EXECUTION)
    config = TrainStageConfig.model_validate(own["train base"].config | {"snapshots_kimg": [0.32]})
    whole = run_stage(store, TRAIN.request(config, **own["train base"].inputs), EXECUTION)
    kept = run_stage(store, SNAPSHOT.request(SnapshotConfig(nimg=320), model=whole), EXECUTION)
    paths = [store.path(ref) / "net" for ref in (kept, own["train auxiliary"].ref)]
    first, second = (next(path.glob("*.safetensors")).read_bytes() for path in paths)
    assert first == second


def test_points_have_it_too(tmp_path):
    experiment = Experiment(
        data=GaussianData(covariance=((2, 1), (1, 2)), num_points=60, replicates=2),
        model=ModelConfig(net=MLPConfig(hidden_features=8, hidden_layers=1), sigma_data=1.4),
        training=TrainingConfig(kimg=1.6, batch_size=32),
        sims=Sims(n_s=40, budget_mimg=0.00032, batch_size=32),
        point_evaluation={"num_points": 50, "empirical_points": 10, "bootstrap": 100},
    )
    smaller = Autoguidance(net=MLPConfig(hidden_features=4, hidden_layers=1), interval=(0.1, 9.0))
    found = plan(experiment, Standard(), smaller)
    own = requests(found.arms[1])
    assert own["train auxiliary"].config["model"]["net"]["replicates"] == 2
    assert own["train auxiliary"].config["training"]["kimg"] == 0.2, "an eighth"
    store = Store.open(tmp_path / "store")
    Runner(store, EXECUTION).run_plan(found)
    levels = experiment.sampler.levels
    inside = [0.1 <= level <= 9 for level in levels]
    expected = experiment.sampler.nfe + inside[0] + 2 * sum(inside[1:])
    details = store.manifest(own["generate"].ref).details
    assert details["nfe"] == expected < 2 * experiment.sampler.nfe


def test_pollution_knows_it(tiny_experiment):
    methods = (Standard(), Autoguidance(kimg=0.5))
    found = plan_pollution(tiny_experiment, methods, (16,), (7,))
    trained = [stage for stage in found if stage.role == "train auxiliary"]
    assert len(trained) == 2, "on the real data, and on the polluted"
    for stage in trained:
        assert set(stage.request.inputs) == {"data"}


@pytest.fixture
def imported(tmp_path):
    """An experiment with an imported auxiliary, planned in a store that knows the name."""

    def make(experiment, model, **fields):
        store = Store.open(tmp_path / "store")
        MODELS.give(store, "gnet", ImportedModel(model=model, weights_sha256="5" * 64))
        method = {"auxiliary": {"imported": "gnet"}, **fields}
        told = {**dict(experiment), "methods": {"autoguidance": method}}
        return resolve_methods(Experiment.model_validate(told), store, ["autoguidance"])

    return make


def test_an_imported_auxiliary_is_not_trained(tiny_experiment, imported):
    model = ModelConfig(net=SMALLER)
    experiment = imported(tiny_experiment, model)
    template = experiment.template("autoguidance")
    own = requests(plan(experiment, template).arms[0])
    assert "train auxiliary" not in own
    assert own["imported auxiliary"].stage == "import_model"
    assert own["generate"].inputs["auxiliary"] == own["imported auxiliary"].ref
    with pytest.raises(BadInput, match="trained on the data of generation 1, this is generation 2"):
        plan(experiment, template, generations=2)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (
            ModelConfig(net=SMALLER.model_copy(update={"channels": 3})),
            r"gnet: its network\.channels 3 must be model\.net's, 1",
        ),
        (
            ModelConfig(net=SMALLER.model_copy(update={"num_classes": 7})),
            r"gnet: its network\.num_classes 7 must be model\.net's, 0",
        ),
        (
            ModelConfig(net=SMALLER, schedule=NoiseSchedule(num_train_timesteps=10)),
            r"gnet: it knows the noise levels 0 to \d.*asked for .* to 80: set its interval",
        ),
    ],
)
def test_an_imported_auxiliary_that_does_not_fit_is_refused(
    tiny_experiment, imported, model, message
):
    experiment = imported(tiny_experiment, model)
    with pytest.raises(BadInput, match=message):
        plan(experiment, experiment.template("autoguidance"))


def test_a_level_that_differs_by_rounding_is_known(tiny_experiment, imported):
    """A sampler computes its levels in single precision; a level that is really higher is not."""
    model = ModelConfig(net=SMALLER, schedule=NoiseSchedule(num_train_timesteps=10))
    experiment = imported(tiny_experiment, model)

    def up_to(sigma_max):
        sampler = experiment.sampler.model_copy(update={"sigma_max": sigma_max})
        changed = experiment.model_copy(update={"sampler": sampler})
        return plan(changed, experiment.template("autoguidance"))

    known = model.known_levels[1]
    assert up_to(known * (1 + 5e-7)).arms
    with pytest.raises(BadInput, match="it knows the noise levels 0 to "):
        up_to(known * 1.001)


def test_an_interval_keeps_an_auxiliary_within_what_it_knows(tiny_experiment, imported):
    model = ModelConfig(net=SMALLER, schedule=NoiseSchedule(num_train_timesteps=10))
    experiment = imported(tiny_experiment, model, interval=[0, model.known_levels[1] + 1e-9])
    with pytest.raises(BadInput, match="has none of the sampler's noise levels"):
        plan(
            experiment.model_copy(
                update={"sampler": experiment.sampler.model_copy(update={"num_steps": 1})}
            ),
            experiment.template("autoguidance"),
        )
    plan(experiment, experiment.template("autoguidance"))


def test_classifier_free_guidance_is_an_auxiliary_without_classes():
    """An unconditional auxiliary is not told of the classes that the base is told of."""

    def unconditional(x, sigma, labels=None):
        assert labels is None
        return x

    x = torch.ones(2, 1, 8, 8)
    assert without_labels(unconditional)(x, torch.tensor(1.0), torch.tensor([1, 2])) is x


@pytest.mark.parametrize(
    ("method", "message"),
    [
        (Autoguidance(kimg=3.0), r"kimg 3 of the base's own network is longer than the base's 2"),
        (
            Autoguidance(interval=(90, 100)),
            r"interval \[90, 100\] has none of the sampler's noise levels \(4 from 80 to 0\.002\): "
            "the nearest are 80$",
        ),
        (Sims(interval=(30, 40)), r"the nearest are 9\.723 and 80$"),
    ],
)
def test_what_cannot_be_is_refused_in_the_plan(tiny_experiment, method, message):
    with pytest.raises(BadInput, match=message):
        plan(tiny_experiment, method)


def test_a_model_that_is_fitted_at_once_has_no_shorter_one():
    data = GaussianData(replicates=2)
    experiment = Experiment(data=data, model=ModelConfig(net=ExactGaussianConfig()))
    with pytest.raises(BadInput, match="exact_gaussian has no shorter one"):
        plan(experiment, Autoguidance())


def test_an_imported_base_has_no_length_to_take_an_eighth_of(tiny_experiment):
    base = {"imported": "mine", "model": {"model": ModelConfig(), "weights_sha256": "1" * 64}}
    experiment = Experiment.model_validate({**dict(tiny_experiment), "base": base})
    with pytest.raises(BadInput, match="how long the imported base was trained is not known"):
        plan(experiment, Autoguidance())
    plan(experiment, Autoguidance(kimg=100))


@pytest.mark.parametrize(
    ("methods", "message"),
    [
        ({"autoguidance": {"interval": [3, 1]}}, "want 0 <= low < high, got 3 and 1"),
        ({"autoguidance": {"omega": 0}}, "greater than 0"),
        ({"autoguidance": {"kimg": 1, "auxiliary": {"imported": "x"}}}, "leave out kimg"),
        ({"autoguidance": {"net": {"kind": "mlp"}}}, "is a mlp network, which is none of images"),
        ({"autoguidance": {"net": {"channels": 3}}}, r"net\.channels 3 must be model\.net's, 1"),
        ({"autoguidance": {"kind": "neon"}}, r"methods\.autoguidance is of kind 'neon'"),
        ({"sims": {"omega": 2}}, r"methods\.sims is not looked at: the settings are sims itself"),
    ],
)
def test_settings_that_cannot_be_are_refused(tiny_experiment, methods, message):
    told = {**tiny_experiment.model_dump(), "methods": methods}
    with pytest.raises(ValidationError, match=message):
        Experiment.model_validate(told)


def test_what_a_network_leaves_out_is_as_in_the_bases(tiny_experiment):
    base = tiny_experiment.model_dump(mode="json")
    base["model"]["net"]["num_classes"] = 10
    methods = {"autoguidance": {"net": {"block_out_channels": [4, 8], "norm_num_groups": 4}}}
    read = Experiment.model_validate({**base, "methods": methods})
    assert read.methods["autoguidance"].net == SMALLER.model_copy(update={"num_classes": 10})
