"""A base of EDM2's guided by an imported network of another size, as EDM2's presets do it."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from infra.cli.main import app
from infra.cli.runs import check_run
from sims_core.nets.edm_config import EDM2Config
from sims_core.nets.saved import load_model
from sims_core.store.store import Store

BASE = EDM2Config(
    image_size=8, channels=3, model_channels=16, channel_mult=(1, 2), num_blocks=1,
    attn_resolutions=(4,), channels_per_head=8, num_classes=3, logvar_channels=8,
)  # fmt: skip
GUIDING = BASE.model_copy(update={"model_channels": 8, "num_blocks": 2, "attn_resolutions": ()})
SETTINGS = [
    "base.imported=base", "methods.autoguidance.auxiliary.imported=gnet", "generations=1",
    "pollution_sizes=[8]", "methods=standard,autoguidance", "omegas=[0.7]",
    "evaluation.features=resnet20", "evaluation.num_images=8", "evaluation.num_preview=4",
    "evaluation.allow_small_n=true", "evaluation.kid_subset_size=4", "sampler.num_steps=3",
]  # fmt: skip


@pytest.fixture
def sims_here(data_folder, tmp_path, monkeypatch):
    """The command in this process, with a store of its own; what it prints as JSON."""
    monkeypatch.setenv("SIMS_DATA", str(data_folder))
    monkeypatch.setenv("SIMS_STORE", str(tmp_path / "store"))
    monkeypatch.chdir(tmp_path)

    def run(*words):
        done = CliRunner().invoke(app, [*map(str, words), "--json"])
        assert done.exit_code == 0, done.output
        return json.loads(done.stdout)

    return run


@pytest.fixture
def imported(sims_here, tmp_path, write, checkpoint_of, random_net):
    """Both networks and pictures of three classes in the store; the networks."""
    nets = {"base": random_net(BASE, 1), "gnet": random_net(GUIDING, 2)}
    for name, net in nets.items():
        row = sims_here("model", "import", write(checkpoint_of(net, "Precond")), "--name", name)
        assert row["network"]["model_channels"] == net.config.model_channels
    random = np.random.default_rng(0)
    for label in "abc":
        (tmp_path / "pictures" / label).mkdir(parents=True)
        for number in range(6):
            pixels = random.integers(0, 256, (8, 8, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "pictures" / label / f"{number}.png")
    sims_here("data", "import", tmp_path / "pictures", "--name", "own")
    return nets


def test_a_base_is_guided_by_an_imported_network_of_another_size(sims_here, imported, tmp_path):
    words = [word for text in SETTINGS for word in ("-p", text)]
    summary = sims_here("run", "sims-loop/own-images", "--direct", *words)
    assert len(summary["arms"]) == 2
    store = Store.open(tmp_path / "store")
    plain, guided = check_run("sims-loop/own-images", SETTINGS).plan.arms
    base, gnet = (guided.artifacts(1)[f"imported {who}"] for who in ("base", "auxiliary"))
    (drawn,) = [stage.request for stage in guided.stages if stage.role == "generate"]
    assert drawn.inputs == {"base": base, "auxiliary": gnet}
    assert drawn.config["omega"] == 0.7
    assert not [stage for stage in guided.stages if "train" in stage.role]
    made = [store.open_artifact(arm.artifacts(1)["generate"]) for arm in (plain, guided)]
    assert len({(folder / "images-00000.tar").read_bytes() for folder in made}) == 2
    assert store.manifest(drawn.ref).details["nfe"] == 10, "five of each network"
    for ref, net in zip((base, gnet), imported.values(), strict=True):
        denoiser, _ = load_model(store.open_artifact(ref))
        found = denoiser.net.state_dict()
        assert found.keys() == net.state_dict().keys()
        assert all(torch.equal(found[key], value) for key, value in net.state_dict().items())
