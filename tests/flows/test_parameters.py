from __future__ import annotations

import re
from pathlib import Path

import pytest
from pydantic import ValidationError

from flows.parameters import (
    apply_overrides,
    check_parameters,
    default_run_name,
    make_plan,
    parameter_model,
)
from flows.presets import find_preset, load_presets
from flows.registry import load_flow, load_signature
from flows.sims_loop import sims_loop
from infra.cli.runs import check_run
from sims_core.common.errors import BadInput
from sims_core.data.config import ImportedSet
from sims_core.data.names import DATASETS
from sims_core.nets.config import ImportedModel
from sims_core.nets.names import MODELS
from sims_core.store.store import Store
from sims_core.studies.experiment import Experiment

STORE = Store(Path("absent"))  # no preset of these needs one
PRESET = find_preset("sims-loop/digits")


def _checked(**given):
    return check_parameters(sims_loop.fn, PRESET, given)


def _arms(**given):
    return [arm.arm.name for arm in make_plan("sims-loop", _checked(**given), STORE).arms]


@pytest.mark.parametrize("flow", ["sims-loop", "self-improvement", "pollution"])
def test_a_seed_has_64_bits(flow):
    preset = find_preset(f"{flow}/digits")
    for value in (2**64, -1):
        with pytest.raises(BadInput, match=rf"parameter seeds.*got {value}"):
            check_parameters(load_flow(flow).fn, preset, {"seeds": [value]})
    given = [2**64 - 1]
    assert check_parameters(load_flow(flow).fn, preset, {"seeds": given})["seeds"] == given


def as_imported(preset):
    """What an import of the preset's data (and their encoding) would leave, without an image."""
    net, encoding = preset.experiment.model.net, None
    groups = preset.parameters.get("groups", {}).values()  # of all classes, if there are any
    classes = net.num_classes or sum(map(len, groups)) or 10
    channels, size = net.channels, net.image_size
    if channels == 4:
        autoencoder = {
            **{"config": {}, "in_channels": 3, "latent_channels": 4, "downsampling": 8},
            "weights_sha256": "1" * 64,
        }
        encoding = {"autoencoder": autoencoder, "encode": {}}
        channels, size = 3, 8 * size
    contents = {"channels": channels, "height": size, "width": size}
    return ImportedSet.model_validate(
        {
            "config": {"content": "0" * 64, "layout": "folder"},
            "contents": {"count": 100_000, "num_classes": classes, **contents},
            "encoding": encoding,
        }
    )


@pytest.mark.parametrize("name", load_presets())
def test_every_preset_is_valid_for_its_flow(name, tmp_path):
    preset = find_preset(name)
    flow = load_flow(preset.flow)
    assert flow.name == preset.flow
    parameters = check_parameters(flow.fn, preset, {})
    assert preset.full_name == name
    data, store = preset.experiment.data, Store(tmp_path)
    if preset.needs:
        lines = "; ".join(need.line for need in preset.needs)
        with pytest.raises(BadInput, match=rf"lacks: {re.escape(lines)}$") as refused:
            make_plan(preset.flow, parameters, store)
        assert refused.value.lines[1:] == tuple(need.line for need in preset.needs)
        model = preset.experiment.model
        base = ImportedModel(model=model, weights_sha256="3" * 64)
        for need in (each for each in preset.needs if each.model):
            MODELS.give(store, need.model, base)
    if data.source == "imported":
        with pytest.raises(BadInput, match=rf"`sims data import \w+ --name {data.name}"):
            make_plan(preset.flow, parameters, store)
        imported = as_imported(preset)
        if imported.encoding is not None:
            DATASETS.give(store, data.name, imported.model_copy(update={"encoding": None}))
            fixed = "so" if preset.experiment.base.imported else "or"
            with pytest.raises(BadInput, match=f"{fixed} encode the images by `sims data encode`"):
                make_plan(preset.flow, parameters, store)
        DATASETS.give(store, data.name, imported)
    plan = make_plan(preset.flow, parameters, store)
    if preset.flow == "distribution-shift":
        assert len(plan.seeds) == len(parameters["seeds"])
        return
    if preset.flow == "pollution":
        sizes, seeds = {0, *parameters["pollution_sizes"]}, parameters["seeds"]
        assert len(plan.first) == len(seeds)
        assert len(plan.second) == len(sizes) * len(seeds) * len(
            {each.scenario.curve for each in plan.second}
        )
        return
    if preset.flow == "self-improvement":
        # Samples, features and metrics of each set of images, one preview; latents are decoded.
        repeats = parameters["final_repeats"]
        stages = 4 * repeats + 2 if plan.experiment.data.encoding else 3 * repeats + 1
        assert plan.undecided == stages * (2 + parameters["finalists"])
        assert {each.candidate.strength for each in plan.selection} == {0, *parameters["omegas"]}
        return
    assert plan.generations == parameters["generations"]
    wanted = 2  # points: data and reference
    if data.source != "gaussian":
        wanted = 5 if plan.experiment.data.encoding else 3
    assert len({stage.label for stage in plan.setup}) == wanted
    for arm in plan.arms:
        assert {stage.t for stage in arm.stages} == set(range(1, plan.generations + 1))


def test_an_unknown_preset_names_the_valid_ones():
    with pytest.raises(BadInput, match="sims-loop/digits"):
        find_preset("digits")


def test_parameters_are_the_flows_then_the_presets_then_the_given():
    preset = PRESET.model_copy(update={"parameters": {"generations": 7, "seeds": [5]}})
    checked = check_parameters(sims_loop.fn, preset, {"seeds": 9})
    assert checked["generations"] == 7
    assert checked["seeds"] == [9], "a number is a single seed"
    assert checked["loop"] == "synthetic_augmentation"
    assert checked["preset"] == "digits"


def test_the_model_refuses_what_the_flow_does_not_take():
    model = parameter_model(sims_loop.fn)
    assert set(model.model_fields) == set(sims_loop.parameters.properties)
    with pytest.raises(ValidationError, match="extra"):
        model.model_validate({"epochs": 3})
    with pytest.raises(BadInput, match="generations, methods, omegas"):
        _checked(epochs=3)


def test_the_preset_is_chosen_by_name_and_by_nothing_else():
    with pytest.raises(BadInput, match="'preset'"):
        _checked(preset="other")


@pytest.mark.parametrize(
    "given",
    [
        {"omegas": [-1]},
        {"omegas": [float("nan")]},
        {"omegas": [float("inf")]},
        {"omegas": []},
        {"methods": []},
        {"methods": ["sim"]},
        {"generations": 0},
        {"generations": "two"},
        {"pollution_sizes": [0]},
        {"pollution_sizes": [1.5]},
        {"seeds": -1},
        {"seeds": []},
        {"seeds": [1, 0.5]},
        {"real_fraction": 1.01},
        {"real_fraction": -0.1},
        {"loop": "open"},
        {"run_name": "../../etc"},
        {"run_name": ".hidden"},
        {"run_name": ""},
        {"run_name": "a" * 101},
    ],
)
def test_values_outside_their_limits_are_refused_by_name(given):
    (name,) = given
    with pytest.raises(BadInput, match=f"parameter {name}"):
        _checked(**given)


def test_a_run_name_is_refused_in_words():
    words = "want letters, digits, dots, hyphens and underscores, a letter or digit first"
    with pytest.raises(BadInput, match=rf"^parameter run_name: {words}.*, got 'my run'$"):
        _checked(run_name="my run")
    longest = "A.b_c-1" + "x" * 93
    assert _checked(run_name=longest)["run_name"] == longest


@pytest.mark.parametrize(
    ("flow", "given", "twice"),
    [
        ("sims-loop", {"seeds": [0, 1, 0]}, "0"),
        ("sims-loop", {"omegas": [0, 1.0, 1]}, "1"),
        ("sims-loop", {"ws": [0.5, 0.5]}, "0.5"),
        ("sims-loop", {"pollution_sizes": [900, 900]}, "900"),
        ("sims-loop", {"methods": ["sims", "standard", "sims"]}, "sims"),
        ("sims-loop", {"class_guidances": [0, 0]}, "0"),
        ("sims-loop", {"scan_omegas": [1, 1]}, "1"),
        ("sims-loop", {"scan_budgets": [0.01, 0.01]}, "0.01"),
        ("self-improvement", {"budgets": [0.01, 0.02, 0.01]}, "0.01"),
        ("pollution", {"pollution_sizes": [0, 0]}, "0"),
        ("distribution-shift", {"targets": [0.7, 0.3, 0.7]}, "0.7"),
        (
            "distribution-shift",
            {"targets": [{"a": 1, "b": 0}, {"b": 0, "a": 1.0}]},
            '{"b": 0.0, "a": 1.0}',
        ),
        ("distribution-shift", {"exponents": [2, 2]}, "2"),
    ],
)
def test_a_value_that_comes_twice_is_refused_and_not_dropped(flow, given, twice):
    (name,) = given
    preset, signature = find_preset(f"{flow}/digits"), load_signature(flow)
    told = f"^parameter {name}: {re.escape(twice)} is given twice: leave one out, got "
    with pytest.raises(BadInput, match=told):
        check_parameters(signature, preset, given)
    alone = check_parameters(signature, preset, {name: given[name][:1]})
    assert len(alone[name]) == 1


def test_overrides_replace_one_value_and_leave_the_rest():
    changed = apply_overrides(
        PRESET.experiment, {"training.kimg": 3, "model.net.block_out_channels": [8, 16]}
    )
    assert changed.training.kimg == 3
    assert changed.model.net.block_out_channels == (8, 16)
    before, after = PRESET.experiment.model_dump(), changed.model_dump()
    after["training"]["kimg"] = before["training"]["kimg"]
    after["model"]["net"]["block_out_channels"] = before["model"]["net"]["block_out_channels"]
    assert after == before
    assert apply_overrides(PRESET.experiment, {}) == PRESET.experiment


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"trainin.kimg": 3}, f"names in the experiment: {', '.join(Experiment.model_fields)}"),
        ({"training.kimgs": 3}, "names in training: kimg, batch_size,"),
        ({"model.net.depth": 3}, "names in model.net: kind, image_size,"),
        ({"training.kimg.x": 3}, "names in training.kimg: none: it is a value"),
        ({"": 3}, "names in the experiment"),
        ({"training.kimg": "long"}, "training.kimg: .*'long'"),
        ({"training.kimg": 0}, "training.kimg"),
        ({"model.net.block_out_channels": [8, 9]}, "norm_num_groups"),
        ({"methods.ddo.kimg": 3}, "no method 'ddo'; there are: standard, autoguidance,"),
        ({"methods.neon.omega": 3}, "names in methods.neon: kind, n_s, .*, w$"),
        ({"methods.neon.w": -2}, "methods.neon.w: must be at least -1"),
        (
            {"evaluation.metrics": "kid"},
            r"metrics: .* got 'kid'; a list is written in brackets, \[1, 2\]",
        ),
        (
            {"evaluation.num_images": 128},
            "evaluation: kid_subset_size 500 exceeds num_images 128: lower "
            "evaluation.kid_subset_size to 128 or less$",
        ),
        ({"evaluation.num_images": 8}, "num_images 8 is too few for an FID .*allow_small_n=true$"),
        ({"sims.interval": [2, 1]}, "sims.interval: want 0 <= low < high, got 2 and 1"),
    ],
)
def test_an_override_that_does_not_fit_names_what_would(overrides, message):
    with pytest.raises(BadInput, match=message):
        apply_overrides(PRESET.experiment, overrides)


def test_a_methods_settings_are_overrides_like_any_other():
    """What is not said of a method is as `sims` has it, also where something else of it is said."""
    changed = apply_overrides(
        PRESET.experiment,
        {
            "methods.neon.budget_mimg": 0.005,
            "methods.autoguidance.net": {"block_out_channels": [16, 32]},
            "methods.autoguidance.interval": [0.1, 5],
            "sims.n_s": 333,
        },
    )
    neon, guided = changed.template("neon"), changed.template("autoguidance")
    assert (neon.n_s, neon.budget_mimg) == (333, 0.005)
    assert (guided.kimg, guided.interval) == (4, (0.1, 5.0)), "the preset's, and what was said"
    assert guided.net.block_out_channels == (16, 32)
    again = apply_overrides(changed, {"sims.n_s": 444})
    assert again.template("neon").n_s == 444
    imported = apply_overrides(
        find_preset("sims-loop/mnist").experiment,
        {"methods.autoguidance.auxiliary.imported": "gnet", "methods.neon": {"w": 0.5}},
    )
    assert imported.template("neon").w == 0.5
    assert imported.template("autoguidance").auxiliary.imported == "gnet"


def test_an_imported_auxiliary_is_looked_up_by_its_name(tmp_path):
    given = {
        "methods": ["autoguidance"],
        "generations": 1,
        "overrides": {
            "methods.autoguidance": {"auxiliary": {"imported": "gnet"}},
        },
    }
    store = Store.open(tmp_path / "store")
    with pytest.raises(BadInput, match="gnet"):
        make_plan("sims-loop", _checked(**given), store)
    MODELS.give(
        store, "gnet", ImportedModel(model=PRESET.experiment.model, weights_sha256="7" * 64)
    )
    plan = make_plan("sims-loop", _checked(**given), store)
    (request,) = [s.request for s in plan if s.role == "imported auxiliary"]
    assert request.config["weights_sha256"] == "7" * 64


def test_what_guides_a_method_that_is_not_asked_for_is_not_needed(tmp_path):
    preset, store = find_preset("sims-loop/autoguidance-imagenet64"), Store.open(tmp_path / "store")
    base, guide, _ = preset.needs
    MODELS.give(
        store,
        base.model,
        ImportedModel(model=preset.experiment.model, weights_sha256="7" * 64),
    )
    DATASETS.give(store, preset.experiment.data.name, as_imported(preset))
    flow = load_flow(preset.flow).fn
    with pytest.raises(BadInput) as refused:
        make_plan(preset.flow, check_parameters(flow, preset, {}), store)
    assert refused.value.lines[1:] == (guide.line,)
    for methods in (["standard"], ["standard", "sims"]):
        plan = make_plan(preset.flow, check_parameters(flow, preset, {"methods": methods}), store)
        assert "imported auxiliary" not in {stage.role for stage in plan}


@pytest.mark.parametrize(
    ("given", "methods"),
    [
        ({}, ["standard", "sims omega=1"]),
        ({"omegas": [2, 0.5]}, ["standard", "sims omega=0.5", "sims omega=2"]),
        ({"omegas": [0, 1]}, ["standard", "sims omega=1"]),
        ({"methods": ["sims"], "omegas": [1]}, ["sims omega=1"]),
        ({"methods": ["sims"], "omegas": [0, 1]}, ["standard", "sims omega=1"]),
        ({"methods": ["sims"], "omegas": [0]}, ["standard"]),
        ({"methods": ["standard"], "omegas": [1, 2]}, ["standard"]),
        ({"methods": ["sims", "standard"]}, ["standard", "sims omega=1"]),
        ({"methods": ["autoguidance"], "omegas": [0, 0.5]}, ["standard", "autoguidance omega=0.5"]),
    ],
)
def test_methods_and_omegas_expand_into_arms(given, methods):
    assert _arms(**given, pollution_sizes=[32]) == [f"{method} |D_s|=32" for method in methods]


def test_pollution_sizes_multiply_the_arms():
    assert _arms(pollution_sizes=[64, 32]) == [
        "standard |D_s|=64",
        "sims omega=1 |D_s|=64",
        "standard |D_s|=32",
        "sims omega=1 |D_s|=32",
    ]


def test_omega_0_is_standard_training_digest_for_digest():
    asked_by_omega = make_plan("sims-loop", _checked(methods=["sims"], omegas=[0]), STORE)
    asked_by_name = make_plan("sims-loop", _checked(methods=["standard"]), STORE)
    assert list(asked_by_omega) == list(asked_by_name)


def test_the_run_name_follows_from_the_parameters():
    name = default_run_name("sims-loop", _checked())
    assert name == default_run_name("sims-loop", _checked(generations=3))
    assert name.startswith("digits-")
    assert _checked(run_name=name)["run_name"] == name, "is itself a valid run name"
    assert name == default_run_name("sims-loop", _checked(run_name="mine"))
    others = [_checked(seeds=[1]), _checked(omegas=[2]), _checked(overrides={"training.kimg": 1})]
    names = {default_run_name("sims-loop", other) for other in others}
    assert len(names) == 3
    assert name not in names
    assert name != default_run_name("pollution", _checked())


def test_gaussian2d_is_24_arms_of_100_generations():
    preset = find_preset("sims-loop/gaussian2d")
    plan = make_plan("sims-loop", check_parameters(sims_loop.fn, preset, {}), STORE)
    assert len(plan.arms) == 24
    assert plan.generations == 100
    assert len({stage.ref for stage in plan}) > 10_000


def test_a_scan_is_every_omega_at_every_budget():
    preset = find_preset("sims-loop/gaussian2d-quick")
    given = {"scan_omegas": [0, 1, 2], "scan_budgets": [0.1, 0.2], "generations": 1}
    plan = make_plan("sims-loop", check_parameters(sims_loop.fn, preset, given), STORE)
    methods = [arm.arm.method for arm in plan.scan]
    assert methods[0].kind == "standard"
    assert [(m.budget_mimg, m.omega) for m in methods[1:]] == [
        *((0.1, 1), (0.1, 2), (0.2, 1), (0.2, 2))
    ]
    assert all(len(arm.stages) in (4, 6) for arm in plan.scan)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("omegas=[1e308]", "less than or equal to 1000000"),
        (f"omegas={[*range(1, 20_001)]}", "at most 1000 items"),
        (f"seeds={[*range(600)]}", "1,200 arms are asked for, of at most 1,000"),
        (f"pollution_sizes={[*range(1, 900)]}", "1,798 arms are asked for"),
        ("sampler.num_steps=1" + "0" * 12, "less than or equal to 10000"),
        ("sampler.sigma_max=1e308", "sampler.sigma_max"),
        ("model.net.channels=1" + "0" * 12, "less than or equal to 1024"),
        ("model.net.image_size=1" + "0" * 400, "model.net.image_size"),
        ("model.net.block_out_channels=[4194304]", "model.net.block_out_channels"),
        ("model.net.layers_per_block=10000", "less than or equal to 100"),
        ("sims.n_s=1" + "0" * 30, "sims.n_s"),
        ("training.batch_size=1" + "0" * 20, "training.batch_size"),
        ("training.learning_rate=1e308", "training.learning_rate"),
        ("training.kimg=1e300", "training.kimg"),
        ("evaluation.num_images=1" + "0" * 30, "evaluation.num_images"),
        ("data.num_images=" + "9" * 5000, "data.num_images"),
    ],
    ids=lambda value: value[:30],
)
def test_parameters_are_bounded(given, message):
    with pytest.raises(BadInput, match=message) as caught:
        check_run("sims-loop/digits", [given])
    assert len(str(caught.value)) < 3000
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("sims-loop/digit", "close to it: sims-loop/digits"),
        ("mnist", "close to it: distribution-shift/mnist, pollution/mnist, sims-loop/mnist "),
        ("zzz", "presets: distribution-shift/cifar10, "),
    ],
)
def test_of_a_mistyped_preset_what_is_close_is_named(name, said):
    with pytest.raises(BadInput, match=f"^no preset '{name}'; {said}"):
        find_preset(name)


COUNT = re.compile(
    r"\b(\d+|one|two|three|four|five|six|eight|ten|thirty|a hundred)k? "
    r"(seeds?|generations?|arms?|sizes?|replicates?|points?|polluting samples)\b|\bto \d+k\b"
    r"|\d %|(omega|lambda) [=\d]"
)


def test_a_description_counts_nothing_that_parameters_can_change():
    """It is the heading of every page of the preset, whatever was asked of it."""
    found = {name: COUNT.search(preset.description) for name, preset in load_presets().items()}
    assert {name: each[0] for name, each in found.items() if each} == {}
