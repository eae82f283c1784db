"""The plan of a loop: what arms share, what they never share, and what changes with what."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sims_core.common.errors import BadInput
from sims_core.diffusion.config import SamplerConfig
from sims_core.engine.execution import Execution
from sims_core.evaluation.config import EvaluateConfig
from sims_core.evaluation.stages import EVALUATE
from sims_core.methods.self_synthetic import AuxData
from sims_core.methods.sims import Sims
from sims_core.methods.standard import Standard
from sims_core.sampling.config import GenerateConfig
from sims_core.sampling.stages import GENERATE
from sims_core.store.artifacts import ArtifactRef
from sims_core.studies.experiment import Experiment
from sims_core.studies.loop import Arm, LoopKind, plan_loop

FULL, AUGMENT = LoopKind.fully_synthetic, LoopKind.synthetic_augmentation
IMAGE_LOOPS = (FULL, AUGMENT)  # a fixed set of images has no fresh data
EXPERIMENT = Experiment()
AUXILIARY_ROLES = {"self-synthetic", "auxiliary data", "fine-tune auxiliary"}


def standard(size=500, loop=FULL):
    return Arm(method=Standard(), loop=loop, pollution_size=size)


def sims(omega=1.0, size=500, loop=FULL, **changes):
    return Arm(method=Sims(omega=omega, **changes), loop=loop, pollution_size=size)


def plan(*arms, generations=3, seed=0, experiment=EXPERIMENT):
    return plan_loop(experiment, arms, generations, seed)


def requests(loop_plan):
    return {stage.ref: stage.request for stage in loop_plan}


def mixes(arm_plan):
    """Generation to the parts of D^t, as (artifact, synthetic, count)."""
    found = {}
    for stage in arm_plan.stages:
        if stage.role == "mix":
            found[stage.t] = [
                (stage.request.inputs[part["input"]], part["synthetic"], part["count"])
                for part in stage.request.config["parts"]
            ]
    return found


def test_stages_of_a_generation():
    loop_plan = plan(standard(), sims(), generations=2)
    assert [s.role for s in loop_plan.setup] == [
        "prepare data",
        "train classifier",
        "real features",
    ]
    common = ["generate", "preview", "features", "evaluate"]
    roles = [[s.role for s in arm.stages if s.t == 2] for arm in loop_plan.arms]
    assert roles[0] == ["mix", "train base", *common]
    assert roles[1] == [
        *("mix", "train base", "self-synthetic", "auxiliary data", "fine-tune auxiliary"),
        *common,
    ]


@given(
    loop=st.sampled_from(IMAGE_LOOPS),
    generations=st.integers(1, 4),
    size=st.integers(1, 3000),
    omega=st.floats(0.01, 10),
    seed=st.integers(0, 2**32),
    aux_data=st.sampled_from(AuxData),
)
def test_every_input_is_made_by_an_earlier_stage(loop, generations, size, omega, seed, aux_data):
    made = set()
    arms = standard(size, loop), sims(omega, size, loop, aux_data=aux_data)
    for stage in plan(*arms, generations=generations, seed=seed):
        assert set(stage.request.inputs.values()) <= made
        made.add(stage.ref)


def test_arms_share_the_first_base():
    first, second, third = plan(standard(), sims(1.0), sims(2.0, size=900)).arms
    for role in ("mix", "train base"):
        assert first.artifacts(1)[role] == second.artifacts(1)[role] == third.artifacts(1)[role]
    # Two omegas share S and the auxiliary as well,
    for role in AUXILIARY_ROLES:
        assert second.artifacts(1)[role] == third.artifacts(1)[role]
    # and nobody shares what comes after.
    for t, role in [(1, "generate"), (2, "mix"), (2, "train base")]:
        assert len({arm.artifacts(t)[role] for arm in (first, second, third)}) == 3


@pytest.mark.parametrize("loop", IMAGE_LOOPS)
def test_more_generations_extend_a_plan(loop):
    arms = standard(loop=loop), sims(loop=loop)
    three, four = plan(*arms, generations=3), plan(*arms, generations=4)
    for shorter, longer in zip(three.arms, four.arms, strict=True):
        assert longer.stages[: len(shorter.stages)] == shorter.stages
        assert {stage.t for stage in longer.stages[len(shorter.stages) :]} == {4}
    assert requests(three).keys() < requests(four).keys()


def test_another_arm_adds_its_own_stages_only():
    before, after = plan(standard(), sims(1.0)), plan(standard(), sims(1.0), sims(2.0))
    assert after.arms[:2] == before.arms
    new = requests(after).keys() - requests(before).keys()
    assert new < {stage.ref for stage in after.arms[2].stages}
    # Its G^1 costs sampling and evaluation, no training.
    assert {s.role for s in after.arms[2].stages if s.t == 1 and s.ref in new} == {
        *("generate", "preview", "features", "evaluate"),
    }


def test_omega_changes_sampling_and_later_generations_only():
    def by_place(loop_plan):
        return {(s.t, s.role): s.ref for s in loop_plan.arms[0].stages}

    one, two = by_place(plan(sims(1.0))), by_place(plan(sims(1.5)))
    assert one.keys() == two.keys()
    changed = {role for (t, role), ref in one.items() if t == 1 and two[t, role] != ref}
    assert changed == {"generate", "preview", "features", "evaluate"}
    assert all(two[place] != ref for place, ref in one.items() if place[0] > 1)


def test_fully_synthetic_has_real_data_in_the_first_generation_only():
    loop_plan = plan(standard(300), generations=3)
    (arm,), real = loop_plan.arms, loop_plan.setup[0].ref
    found = mixes(arm)
    assert found[1] == [(real, False, None)]
    for t in (2, 3):
        assert found[t] == [(arm.artifacts(t - 1)["generate"], True, 300)]


def test_synthetic_augmentation_keeps_the_real_data():
    loop_plan = plan(sims(size=300, loop=AUGMENT), generations=3)
    (arm,), real = loop_plan.arms, loop_plan.setup[0].ref
    found = mixes(arm)
    assert found[1] == [(real, False, None)]
    for t in (2, 3):
        assert found[t] == [(real, False, None), (arm.artifacts(t - 1)["generate"], True, 300)]


def test_auxiliary_is_fine_tuned_from_the_base_on_its_own_samples():
    (arm,) = plan(sims(n_s=123, budget_mimg=0.05)).arms
    for t in (1, 2, 3):
        made = arm.artifacts(t)
        stages = {s.role: s.request for s in arm.stages if s.t == t}
        assert stages["self-synthetic"].inputs == {"base": made["train base"]}
        assert stages["self-synthetic"].config["omega"] == 0
        assert stages["self-synthetic"].config["count"] == 123
        assert stages["auxiliary data"].inputs == {"synthetic": made["self-synthetic"]}
        assert stages["fine-tune auxiliary"].inputs == {
            "data": made["auxiliary data"],
            "initial": made["train base"],
        }
        assert stages["fine-tune auxiliary"].config["training"]["kimg"] == 50
        assert stages["train base"].inputs == {"data": made["mix"]}  # from scratch
        for role in ("generate", "preview"):
            assert stages[role].config["omega"] == 1
            assert stages[role].inputs == {
                "base": made["train base"],
                "auxiliary": made["fine-tune auxiliary"],
            }


def test_auxiliary_may_see_its_bases_data_too():
    (arm,) = plan(sims(aux_data=AuxData.real_and_synthetic)).arms
    request = next(s.request for s in arm.stages if (s.t, s.role) == (2, "auxiliary data"))
    made = arm.artifacts(2)
    assert request.inputs == {"kept": made["mix"], "synthetic": made["self-synthetic"]}


@pytest.mark.parametrize("loop", IMAGE_LOOPS)
def test_self_synthetic_and_pollution_are_never_the_same(loop):
    """Same models, same count, nearly no guidance: still two sets with seeds of their own."""
    (arm,) = plan(sims(omega=1e-9, size=4000, n_s=4000, loop=loop), generations=3).arms
    artifacts, seeds = [], []
    for stage in arm.stages:
        if stage.role in ("self-synthetic", "generate"):
            config = stage.request.config
            artifacts.append(stage.ref)
            seeds.append(range(config["first_seed"], config["first_seed"] + config["count"]))
    assert len(set(artifacts)) == len(artifacts) == 6
    ordered = sorted(seeds, key=lambda r: r.start)
    assert all(a.stop <= b.start for a, b in zip(ordered[:-1], ordered[1:], strict=True))
    pollution = {ref for t, parts in mixes(arm).items() for ref, fake, _ in parts if fake}
    assert pollution == {arm.artifacts(t)["generate"] for t in (1, 2)}


def test_every_purpose_and_generation_has_its_own_seed():
    seeds = {}
    for stage in plan(standard(), sims(), generations=4):
        config = stage.request.config
        if "seed" in config or "first_seed" in config:
            shared = stage.role in ("preview", "evaluate")  # the same for all t, on purpose
            place = stage.role if shared else (stage.role, stage.t)
            seed = config["first_seed" if "first_seed" in config else "seed"]
            assert seeds.setdefault(place, seed) == seed
    # 1 classifier, 4 x (train base, self-synthetic, fine-tune, generate), preview, evaluate
    assert len(seeds) == 1 + 4 * 4 + 2
    assert len(set(seeds.values())) == len(seeds)


def test_run_seed_changes_all_but_the_data():
    first, second = requests(plan(sims())), requests(plan(sims(), seed=1))
    common = first.keys() & second.keys()
    assert {first[ref].stage for ref in common} == {"prepare", "mix"}


def test_pollution_larger_than_the_evaluation_is_generated_in_full():
    (arm,) = plan(standard(5000), generations=2).arms
    stages = {s.role: s.request for s in arm.stages if s.t == 1}
    assert stages["generate"].config["count"] == 5000
    assert stages["features"].config["count"] == EXPERIMENT.evaluation.num_images
    (arm,) = plan(standard(5)).arms
    stages = {s.role: s.request for s in arm.stages if s.t == 1}
    assert stages["generate"].config["count"] == EXPERIMENT.evaluation.num_images


def test_plan_knows_nothing_of_the_execution():
    text = "".join(request.model_dump_json() for request in requests(plan(sims())).values())
    assert not any(f'"{name}"' in text for name in Execution.model_fields)


def test_equal_plans_are_equal():
    assert plan(standard(), sims()) == plan(standard(), sims())


@pytest.mark.parametrize(
    ("arms", "generations", "message"),
    [
        ((), 3, "at least one"),
        ((standard(), standard()), 3, "all different"),
        ((standard(), standard(loop=AUGMENT)), 3, "all different"),
        ((sims(1), sims(1, n_s=7)), 3, "all different"),
        ((standard(),), 0, "generations is 0"),
        ((standard(),), -1, "generations is -1"),
    ],
)
def test_impossible_plans_are_refused(arms, generations, message):
    with pytest.raises(BadInput, match=message):
        plan(*arms, generations=generations)


def test_names_of_arms_and_stages():
    arm = sims(1.5, 250)
    assert arm.name == "sims omega=1.5 |D_s|=250"
    assert arm.slug == "sims_omega1.5_D_s250"
    loop_plan = plan(arm)
    assert loop_plan.setup[0].label == "prepare data"
    assert loop_plan.arms[0].stages[0].label == "t=01 mix"


def test_digests_are_stable():
    """A regression guard: these digests name artifacts in stores that exist.

    A change means that every stored artifact of the stage is computed again. That is right when
    its result changes (and then the stage's version goes up too); it is a deliberate break when a
    field is renamed, added or given another default. Then, and only then, pin the new values.
    """
    ref = ArtifactRef(kind="features", digest="0" * 64)
    config = EvaluateConfig(kid_subsets=1, kid_subset_size=2, prc_neighborhood=3, seed=4)
    written_out = (
        '{"config":{"kid_subset_size":2,"kid_subsets":1,"prc_neighborhood":3,"seed":4},'
        '"inputs":{"generated":"' + "0" * 64 + '","real":"' + "0" * 64 + '"},'
        '"stage":"evaluate","version":2}'
    )
    request = EVALUATE.request(config, generated=ref, real=ref)
    assert request.digest == hashlib.sha256(written_out.encode()).hexdigest()
    base = ArtifactRef(kind="model", digest="1" * 64)
    sampling = GenerateConfig(sampler=SamplerConfig(), count=1, first_seed=0)
    assert GENERATE.request(sampling, base=base).digest == (
        "83183dffa55b522225098740bf896ef02f743d6b6b31a507ad6a2acd0efd6330"
    )


def test_a_seed_more_computes_its_own_stages_only():
    arms = standard(), sims()
    before = {stage.ref for stage in plan_loop(EXPERIMENT, arms, 2, 7)}
    both = plan_loop(EXPERIMENT, arms, 2, 7, further_seeds=(8,))
    assert both.setup == plan_loop(EXPERIMENT, arms, 2, 7).setup
    assert before < {stage.ref for stage in both}
    new = {stage.ref: stage for stage in both if stage.ref not in before}
    assert {stage.t for stage in new.values()} == {1, 2}
    assert set(new) <= {stage.ref for arm in both.arms if arm.seed == 8 for stage in arm.stages}
    # The mix of G^1 is the real data, whatever the seed.
    first_mix = both.arms[0].artifacts(1)["mix"]
    assert {arm.artifacts(1)["mix"] for arm in both.arms} == {first_mix}


def test_every_arm_of_every_seed_has_its_own_name_baseline_and_links():
    loop_plan = plan_loop(EXPERIMENT, (sims(), standard(), sims(size=9)), 1, 7, further_seeds=(8,))
    names = ["sims omega=1 |D_s|=500", "standard |D_s|=500", "sims omega=1 |D_s|=9"]
    assert [name for name, _ in loop_plan.groups[1:-1]] == [
        f"{name} seed={seed}" for seed in (7, 8) for name in names
    ]
    assert loop_plan.baselines == [1, 1, 2, 4, 4, 5]
    paths = [path for path, _ in loop_plan.links]
    assert len(set(paths)) == len(paths)
    assert "arms/standard_D_s500_seed8/t=01/train_base" in paths
    with pytest.raises(BadInput, match=r"seeds must be all different, got \[7, 7\]"):
        plan_loop(EXPERIMENT, (standard(),), 1, 7, further_seeds=(7,))
