"""Imported models are exactly what their schedulers say, and mistakes are one clear line."""

import json
import shutil

import pytest
import torch
from diffusers import DDIMScheduler, DDPMPipeline, DDPMScheduler, UNet2DModel
from pydantic import ValidationError
from safetensors.torch import load_file, save_file

from sims_core.catalog import run_stage
from sims_core.common.errors import BadInput
from sims_core.diffusion.config import NoiseSchedule
from sims_core.diffusion.ddpm import VPDenoiser, noise_levels
from sims_core.diffusion.denoiser import edm_loss
from sims_core.engine.execution import Execution
from sims_core.nets.config import BaseConfig, EDM2Config, ImportedModel, UNetConfig
from sims_core.nets.importing import find_model_source
from sims_core.nets.names import MODELS
from sims_core.nets.saved import load_model
from sims_core.nets.stages import IMPORT_MODEL
from sims_core.studies.loop import Arm, LoopKind, plan_loop
from sims_core.studies.resolve import resolve_base
from sims_core.training.config import TrainingConfig

EXECUTION = Execution(threads=1)
SCHEDULES = {
    "linear epsilon": {},
    "scaled_linear v": {"beta_schedule": "scaled_linear", "prediction_type": "v_prediction"},
    "cosine sample": {"beta_schedule": "squaredcos_cap_v2", "prediction_type": "sample"},
    "zero SNR v": {"rescale_betas_zero_snr": True, "prediction_type": "v_prediction"},
    "50 steps": {"num_train_timesteps": 50, "beta_end": 0.3},
}


def network(**changes):
    torch.manual_seed(0)
    arguments = {
        "sample_size": 8,
        "in_channels": 1,
        "out_channels": 1,
        "block_out_channels": (8, 16),
        "layers_per_block": 1,
        "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
        "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
        "norm_num_groups": 4,
        "attention_head_dim": 8,
        "flip_sin_to_cos": False,
        "freq_shift": 1,
    }
    return UNet2DModel(**{**arguments, **changes}).eval()


def saved(folder, schedule=(), **changes):
    """A pipeline's folder as diffusers writes it."""
    pipeline = DDPMPipeline(network(**changes), DDPMScheduler(**dict(schedule)))
    pipeline.save_pretrained(folder)
    return folder


def imported(store, folder):
    model = find_model_source(folder).imported
    files = EXECUTION.files.model_copy(update={"imported": folder})
    ref = run_stage(
        store, IMPORT_MODEL.request(model), EXECUTION.model_copy(update={"files": files})
    )
    return model, ref


@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
def test_the_denoiser_is_the_schedulers_own_prediction(store, tmp_path, schedule):
    """float64, every kind of prediction, first, middle and last timesteps, DDPM's and DDIM's x0."""
    folder = saved(tmp_path / "model", schedule)
    _, ref = imported(store, folder)
    ours, _ = load_model(store.open_artifact(ref))
    ours, theirs = ours.double(), UNet2DModel.from_pretrained(folder / "unet").double().eval()
    steps = schedule.get("num_train_timesteps", 1000)
    ddim = DDIMScheduler.from_pretrained(folder / "scheduler", clip_sample=False)
    ddpm = DDPMScheduler.from_pretrained(folder / "scheduler", clip_sample=False)
    ddim.set_timesteps(steps)
    levels = noise_levels(NoiseSchedule.model_validate(schedule))
    last = steps - 2 if "rescale_betas_zero_snr" in schedule else steps - 1
    for t in (0, 1, steps // 3, last):
        x = torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(t)).double()
        # The schedulers' products are float32; taken as they are, in float64.
        kept = ddpm.alphas_cumprod[t].double()
        for scheduler in (ddim, ddpm):
            scheduler.alphas_cumprod = scheduler.alphas_cumprod.double()
        noisy = kept.sqrt() * x  # what the network sees, of variance-preserving scale
        with torch.no_grad():
            raw = theirs(noisy, t).sample
            got = ours(x, levels[t])
        for scheduler in (ddim, ddpm):
            expected = scheduler.step(raw, t, noisy).pred_original_sample
            scale = expected.abs().max()
            torch.testing.assert_close(got / scale, expected / scale, rtol=0, atol=1e-6)
        assert got.std() > 1e-3


def test_a_wrong_scale_would_be_noticed(store, tmp_path):
    """The check above at a neighbouring timestep fails by far more than its tolerance."""
    folder = saved(tmp_path / "model")
    _, ref = imported(store, folder)
    denoiser = load_model(store.open_artifact(ref))[0].double()
    x, levels = torch.randn(3, 1, 8, 8).double(), noise_levels(NoiseSchedule())
    with torch.no_grad():
        near, far = denoiser(x, levels[300]), denoiser(x, levels[301])
    assert (near - far).abs().max() / near.abs().max() > 1e-4


def test_timesteps_are_exact_on_the_schedule_and_monotone_between():
    schedule = NoiseSchedule()
    denoiser = VPDenoiser(torch.nn.Identity(), 0.5, schedule)
    levels = noise_levels(schedule)
    torch.testing.assert_close(denoiser.timestep(levels), torch.arange(1000.0).double())
    middle = denoiser.timestep((levels[:-1] * levels[1:]).sqrt())
    torch.testing.assert_close(middle, torch.arange(999.0).double() + 0.5)
    assert denoiser.timestep(torch.tensor([1e-9, 1e9])).tolist() == [0, 999]
    # float32 noise levels, as samplers give them, are within a hundredth of a step.
    error = (denoiser.timestep(levels.float()).double() - torch.arange(1000.0)).abs()
    assert error.max() < 0.01


def test_zero_terminal_snr_has_no_finite_last_level():
    levels = noise_levels(NoiseSchedule(**SCHEDULES["zero SNR v"]))
    assert levels[-1] > 1e3 or levels[-1].isinf()
    assert levels[:-1].isfinite().all()


def test_the_stored_network_is_theirs_byte_for_byte(store, tmp_path):
    folder = saved(tmp_path / "model", num_class_embeds=10, dropout=0.1)
    model, ref = imported(store, folder)
    assert (model.model.net.num_classes, model.model.net.drops_out) == (10, True)
    artifact = store.open_artifact(ref)
    mine = load_file(artifact / "net/diffusion_pytorch_model.safetensors")
    theirs = load_file(folder / "unet/diffusion_pytorch_model.safetensors")
    assert mine.keys() == theirs.keys()
    assert all(torch.equal(mine[name], theirs[name]) for name in mine)
    again = UNet2DModel.from_pretrained(artifact / "net").eval()
    x, labels = torch.randn(2, 1, 8, 8), torch.tensor([1, 2])
    with torch.no_grad():
        torch.testing.assert_close(
            again(x, 17, labels).sample, UNet2DModel.from_pretrained(folder / "unet").eval()(
                x, 17, labels).sample, rtol=1e-5, atol=1e-6
        )  # fmt: skip


def test_names_of_attention_before_diffusers_0_15(store, tmp_path):
    folder = saved(tmp_path / "model")
    path = folder / "unet/diffusion_pytorch_model.safetensors"
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    weights = load_file(path)
    for new_part, old_part in old.items():
        weights = {
            name.replace(f".{new_part}.", f".{old_part}."): tensor
            for name, tensor in weights.items()
        }
    assert any(".query." in name for name in weights)
    _, ref = imported(store, folder)
    save_file(weights, path)
    _, renamed = imported(store, folder)
    first, second = (load_model(store.open_artifact(r))[0].state_dict() for r in (ref, renamed))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_our_own_artifacts_can_be_imported(tiny_run, store):
    folder = tiny_run.folder(0, 1, "train base")
    model, ref = imported(store, folder)
    assert model.model.schedule is None
    ours, theirs = (load_model(f)[0] for f in (store.open_artifact(ref), folder))
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.equal(a, b)


# -- mistakes -------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused_and_leave_nothing(store, tmp_path, value):
    path = saved(tmp_path / "theirs") / "unet" / "diffusion_pytorch_model.safetensors"
    weights = load_file(path)
    weights["conv_in.bias"][0] = value
    save_file(weights, path)
    with pytest.raises(BadInput, match=r"safetensors: conv_in\.bias is not finite"):
        imported(store, tmp_path / "theirs")
    assert not any((store.root / "progress").iterdir())


def edit(path, **changes):
    content = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({key: value for key, value in content.items() if value != "gone"}))


@pytest.mark.parametrize(
    ("file", "changes", "message"),
    [
        ("unet", {"_class_name": "UNet2DConditionModel"}, "describes a UNet2DConditionModel: only"),
        ("unet", {"out_channels": 3}, "out_channels 3 are neither in_channels 1 nor twice as many"),
        ("unet", {"sample_size": [8, 4]}, "sample_size must be the size of square images"),
        ("unet", {"time_embedding_type": "fourier"}, "time_embedding_type must be positional"),
        ("unet", {"class_embed_type": "identity"}, "class_embed_type 'identity' takes vectors"),
        ("unet", {"class_embed_type": "timestep"}, "how many classes there are: pass `num_class"),
        ("unet", {"width": 3}, "UNet2DModel has no argument 'width'"),
        ("scheduler", {"_class_name": "TCDScheduler"}, "noise is known here: DDPMScheduler, "),
        ("scheduler", {"trained_betas": [0.1, 2]}, r"trained_betas\.1: .*less than 1, got 2"),
        ("scheduler", {"trained_betas": 3}, "trained_betas: .*tuple, got 3"),
        ("scheduler", {"beta_schedule": "laplace"}, "beta_schedule: .*'laplace'"),
        ("scheduler", {"rescale_betas_zero_snr": True}, "zero_snr with .*epsilon cannot be used"),
        ("scheduler", {"use_flow_sigmas": True}, "use_flow_sigmas True means other noise"),
        ("scheduler", {"prediction_type": "flow"}, "prediction_type: .*'flow'"),
    ],
)
def test_what_cannot_be_wrapped_exactly_is_refused(tmp_path, file, changes, message):
    folder = saved(tmp_path / "model")
    name = {"unet": "unet/config.json", "scheduler": "scheduler/scheduler_config.json"}[file]
    edit(folder / name, **changes)
    with pytest.raises(BadInput, match=message) as error:
        find_model_source(folder)
    assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("remove", "message"),
    [
        ("scheduler", "neither scheduler/scheduler_config.json"),
        ("unet/config.json", "neither unet/config.json"),
        ("unet/diffusion_pytorch_model.safetensors", "has no diffusion_pytorch_model.safetensors"),
    ],
)
def test_missing_files_are_named(tmp_path, remove, message):
    path = saved(tmp_path / "model") / remove
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(BadInput, match=message):
        find_model_source(tmp_path / "model")
    with pytest.raises(BadInput, match="is no folder"):
        find_model_source(tmp_path / "elsewhere")


def test_a_pickle_is_never_opened(tmp_path):
    folder = saved(tmp_path / "model") / "unet"
    (folder / "diffusion_pytorch_model.safetensors").rename(folder / "diffusion_pytorch_model.bin")
    with pytest.raises(BadInput, match=r"\.bin is of pickles.*use_safetensors=False"):
        find_model_source(tmp_path / "model")


def test_weights_of_another_architecture_name_the_first_difference(store, tmp_path):
    folder = saved(tmp_path / "model")
    weights = folder / "unet/diffusion_pytorch_model.safetensors"
    other = saved(tmp_path / "other", block_out_channels=(16, 16))
    shutil.copy(other / "unet" / weights.name, weights)
    with pytest.raises(BadInput, match=r"conv_in\.weight is of shape \[16, 1, 3, 3\], .*\[8, 1"):
        imported(store, folder)
    classes = saved(tmp_path / "classes", num_class_embeds=3)
    shutil.copy(classes / "unet" / weights.name, weights)
    with pytest.raises(BadInput, match=r"another architecture: no class_embedding\.weight in"):
        imported(store, folder)
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(BadInput, match="no whole safetensors file"):
        imported(store, folder)
    assert store.artifacts() == []


def test_a_model_that_left_the_store_must_be_brought_again(store, tmp_path):
    model, ref = imported(store, saved(tmp_path / "model"))
    shutil.rmtree(store.path(ref))
    with pytest.raises(BadInput, match="import it again by `sims model import`"):
        run_stage(store, IMPORT_MODEL.request(model), EXECUTION)


# -- experiments that start from one --------------------------------------------------------------


def test_names_stand_for_models(store, tmp_path, tiny_experiment):
    with pytest.raises(BadInput, match=r"no model 'mine' .*imported: none yet.*sims model import"):
        MODELS.find(store, "mine")
    model, _ = imported(store, saved(tmp_path / "model"))
    MODELS.give(store, "mine", model)
    assert MODELS.given(store) == ["mine"]
    assert MODELS.find(store, "mine") == model
    asked = tiny_experiment.model_copy(update={"base": BaseConfig(imported="mine")})
    resolved = resolve_base(asked, store)
    assert (resolved.model, resolved.base.model) == (model.model, model)
    assert resolve_base(tiny_experiment, store) is tiny_experiment
    (store.root / "models/mine.json").write_text("{}")
    with pytest.raises(BadInput, match="unreadable: import mine again"):
        MODELS.find(store, "mine")


def arms(experiment):
    return (Arm(method=experiment.sims, loop=LoopKind.fully_synthetic, pollution_size=48),)


def test_a_run_from_an_imported_base_trains_only_the_auxiliary(store, tmp_path, tiny_experiment):
    model, ref = imported(store, saved(tmp_path / "model"))
    MODELS.give(store, "mine", model)
    asked = tiny_experiment.model_copy(update={"base": BaseConfig(imported="mine")})
    with pytest.raises(BadInput, match="was not looked up"):
        plan_loop(asked, arms(asked), 1, seed=0)
    experiment = resolve_base(asked, store)
    plan = plan_loop(experiment, arms(experiment), 1, seed=0)
    roles = [stage.role for stage in plan.arms[0].stages]
    assert "train base" not in roles
    made = plan.arms[0].artifacts(1)
    assert made["imported base"] == ref
    for stage in plan:
        run_stage(store, stage.request, EXECUTION)
    base, auxiliary = (
        load_model(store.open_artifact(made[role]))[0]
        for role in ("imported base", "fine-tune auxiliary")
    )
    assert isinstance(auxiliary, VPDenoiser)
    difference = torch.cat(
        [(a - b).flatten() for a, b in zip(base.parameters(), auxiliary.parameters(), strict=True)]
    )
    assert 0 < difference.abs().max() < 0.05


def later_bases(experiment, **base):
    """Requests that make the bases of generations 2 and 3."""
    followed = experiment.base.model_copy(update=base)
    changed = experiment.model_copy(update={"base": followed})
    plan = plan_loop(changed, arms(changed), 3, seed=0)
    made = plan.arms[0]
    assert made.artifacts(1)["imported base"]
    roles = ("train base", "fine-tune base")
    found = [stage for stage in made.stages if stage.role in roles]
    assert [stage.t for stage in found] == [2, 3]
    for stage in found:
        assert stage.request.inputs["data"] == made.artifacts(stage.t)["mix"]
    return found


@pytest.fixture
def from_mine(store, tmp_path, tiny_experiment):
    model, _ = imported(store, saved(tmp_path / "model"))
    MODELS.give(store, "mine", model)
    asked = tiny_experiment.model_copy(update={"base": BaseConfig(imported="mine")})
    return resolve_base(asked, store)


def test_later_generations_are_trained_from_scratch_unless_it_is_said_otherwise(from_mine, caplog):
    found = later_bases(from_mine)
    assert "generation 1 is the imported mine; later ones are trained from scratch" in caplog.text
    caplog.clear()
    assert [s.ref for s in later_bases(from_mine, later="recipe")] == [s.ref for s in found]
    assert not caplog.text
    for stage in found:
        assert stage.role == "train base"
        assert set(stage.request.inputs) == {"data"}
        assert stage.request.config["training"] == from_mine.training.model_dump(mode="json")
        assert stage.request.config["model"] == from_mine.model.model_dump(mode="json")
    assert len({stage.request.config["seed"] for stage in found}) == 2


def test_later_generations_can_be_fine_tuned_from_the_imported_model(from_mine):
    found = later_bases(from_mine, later="fine_tune", later_mimg=0.0005)
    base = IMPORT_MODEL.request(from_mine.base.model).ref
    for stage in found:
        assert stage.role == "fine-tune base"
        assert stage.request.inputs["initial"] == base
        training = stage.request.config["training"]
        sims = from_mine.sims
        assert (training["kimg"], training["batch_size"]) == (0.5, sims.batch_size)
        assert (training["learning_rate"], training["decay"]) == (sims.learning_rate, "constant")
    (own, _) = later_bases(from_mine, later="fine_tune")
    assert own.request.config["training"]["kimg"] == 1000 * from_mine.sims.budget_mimg


def test_a_recipe_that_a_network_cannot_follow_is_refused(from_mine):
    training = from_mine.training.model_copy(update={"augment": 0.12})
    augmented = from_mine.model_copy(update={"training": training})
    plan_loop(augmented, arms(augmented), 1, seed=0)
    with pytest.raises(BadInput, match=r"mine cannot be told of its augmentation \(0\.12\)"):
        later_bases(augmented)
    (tuned, _) = later_bases(augmented, later="fine_tune")
    assert tuned.request.config["training"]["augment"] == 0


@pytest.mark.parametrize(
    ("base", "message"),
    [
        ({"later": "recipe"}, r"base\.later says how an imported base is followed"),
        ({"later_mimg": 1.0}, r"base\.later_mimg says how an imported base is followed"),
        ({"imported": "mine", "later_mimg": 1.0}, r"set base\.later=fine_tune"),
        ({"imported": "mine", "later": "chain"}, "'recipe' or 'fine_tune'"),
    ],
)
def test_what_says_nothing_about_later_generations_is_refused(base, message):
    with pytest.raises(ValidationError, match=message):
        BaseConfig.model_validate(base)


def test_training_through_the_wrapper_learns(store, tmp_path):
    """EDM's loss of D falls, whatever the network predicts."""
    from sims_core.training.trainer import Training

    data = 0.5 * torch.randn(64, 1, 8, 8, generator=torch.Generator().manual_seed(1)).clamp(-2, 2)
    for kind in ("epsilon", "v_prediction", "sample"):
        folder = saved(tmp_path / kind, {"prediction_type": kind})
        model, ref = imported(store, folder)
        start, _ = load_model(store.open_artifact(ref))
        recipe = TrainingConfig(kimg=0.64, batch_size=32, learning_rate=2e-3)
        training = Training(model.model, recipe, data, 0, start)

        def loss(denoiser):
            with torch.no_grad():
                return edm_loss(denoiser, data, torch.Generator().manual_seed(5), -1.2, 1.2).item()

        before = loss(training.denoiser)
        for _ in range(20):
            training.advance()
        assert loss(training.denoiser.eval()) < 0.9 * before


def test_an_auxiliary_of_another_architecture_is_trained_from_scratch(store, tiny_experiment):
    net = EDM2Config(
        image_size=8, channels=1, model_channels=4, channel_mult=(1,), num_blocks=1,
        attn_resolutions=(), logvar_channels=4,
    )  # fmt: skip
    sims = tiny_experiment.sims.model_copy(update={"auxiliary_net": net})
    experiment = type(tiny_experiment).model_validate({**dict(tiny_experiment), "sims": sims})
    plan = plan_loop(experiment, arms(experiment), 1, seed=0)
    (stage,) = [s for s in plan.arms[0].stages if s.role == "train auxiliary"]
    assert set(stage.request.inputs) == {"data"}
    for planned in plan:
        run_stage(store, planned.request, EXECUTION)
    _, config = load_model(store.open_artifact(stage.ref))
    assert config.net == net
    assert config.sigma_data == experiment.model.sigma_data
    assert config.conditioned.kind == "edm2"
    generated = plan.arms[0].artifacts(1)["generate"]
    assert store.manifest(generated).details["count"] == 64


def test_an_auxiliary_of_another_shape_is_refused(tiny_experiment):
    net = UNetConfig(block_out_channels=(4,), norm_num_groups=2, num_classes=10)
    sims = tiny_experiment.sims.model_copy(update={"auxiliary_net": net})
    with pytest.raises(ValueError, match=r"auxiliary_net\.num_classes 10 must be model\.net's, 0"):
        type(tiny_experiment).model_validate({**dict(tiny_experiment), "sims": sims})


def test_an_imported_model_keeps_its_digest():
    """It names artifacts: the same content must name the same one for ever."""
    model = ImportedModel.model_validate(
        {"model": {"net": UNetConfig().model_dump()}, "weights_sha256": "0" * 64}
    )
    assert ImportedModel.model_validate_json(model.model_dump_json()) == model
