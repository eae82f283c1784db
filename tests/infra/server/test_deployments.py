"""prefect.yaml and prefect.toml say what presets and settings say."""

from __future__ import annotations

import json
import os
import pkgutil
from importlib import import_module
from pathlib import Path

import pytest
import yaml
from prefect.exceptions import ParameterTypeError

import flows.deployed
from flows.parameters import check_parameters
from flows.presets import load_presets
from flows.registry import load_flow
from infra.environment import ENVIRONMENT_DEFAULTS
from infra.server.deployments import FILE, prefect_yaml
from sims_core.common.errors import StoreError
from sims_core.settings import open_store
from tasks.names import ARM_DEPLOYMENT, ARM_TAG, ARMS_POOL

ROOT = Path(__file__).parents[3]
SETTINGS = """
import json, prefect.settings
print(json.dumps(prefect.settings.get_current_settings().model_dump(mode="json")))
"""


@pytest.fixture(scope="module")
def deployments():
    *presets, _ = yaml.safe_load((ROOT / FILE).read_text())["deployments"]
    return presets


def test_the_committed_file_is_what_the_presets_make():
    assert (ROOT / FILE).read_text() == prefect_yaml(), "run `sims deployments` and commit it"


def test_there_is_a_deployment_for_every_preset_and_its_parameters_are_valid(deployments):
    presets = load_presets()
    assert [row["name"] for row in deployments] == [preset.name for preset in presets.values()]
    for row, preset in zip(deployments, presets.values(), strict=True):
        given = {key: value for key, value in row["parameters"].items() if key != "preset"}
        function = load_flow(preset.flow).fn
        assert row["parameters"]["preset"] == preset.name
        assert check_parameters(function, preset, given) == check_parameters(function, preset, {})
        module, _, name = row["entrypoint"].rpartition(".")
        deployed = getattr(import_module(module), name)
        assert (deployed.name, deployed.fn.__module__) == (preset.flow, function.__module__)
    assert len({row["entrypoint"] for row in deployments}) == len(presets)


def test_a_deployment_takes_its_own_preset_and_offers_no_other():
    deployed = flows.deployed.sims_loop__cifar10_small
    field = deployed.parameters.properties["preset"]
    assert (field["enum"], field["default"]) == (["cifar10-small"], "cifar10-small")
    assert "experiment of this deployment" in field["description"]
    others = load_flow("sims-loop").parameters.properties
    assert {k: v for k, v in deployed.parameters.properties.items() if k != "preset"} == {
        k: v for k, v in others.items() if k != "preset"
    }
    assert deployed.validate_parameters({})["preset"] == "cifar10-small"
    with pytest.raises(ParameterTypeError, match="preset: Input should be 'cifar10-small'"):
        deployed.validate_parameters({"preset": "digits"})
    assert deployed.on_running_hooks == load_flow("sims-loop").on_running_hooks
    with pytest.raises(AttributeError, match="no preset is called so"):
        flows.deployed.sims_loop__nothing  # noqa: B018


def test_the_deployment_of_arms_takes_what_a_run_hands_over():
    *_, arms = yaml.safe_load((ROOT / FILE).read_text())["deployments"]
    assert (arms["name"], arms["work_pool"]["name"]) == (ARM_DEPLOYMENT, ARMS_POOL)
    assert arms["tags"] == [ARM_TAG], "what takes over lost runs knows them by it"
    assert "concurrency_limit" not in arms, "they are to run side by side"
    loaded = pkgutil.resolve_name(arms["entrypoint"].replace(".arm", ":arm"))
    assert loaded.name == ARM_DEPLOYMENT
    assert loaded.parameters.required == ["of_flow", "parameters", "part", "digest", "store"]
    assert arms["work_pool"]["job_variables"]["env"]["SIMS_STORE_MUST_EXIST"] == "true"


def test_the_form_has_choices_limits_and_descriptions():
    schema = load_flow("sims-loop").parameters
    fields = schema.properties
    assert all(field["description"] for field in fields.values())
    assert "digits" in fields["preset"]["enum"]
    assert fields["generations"]["minimum"] == 1
    assert fields["omegas"]["items"]["minimum"] == 0
    assert "fresh_data" in schema.definitions["LoopKind"]["enum"]


def test_a_run_under_a_worker_needs_a_store_that_is_there(deployments, monkeypatch, tmp_path):
    for name, value in deployments[0]["work_pool"]["job_variables"]["env"].items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("SIMS_STORE", str(tmp_path / "store"))
    with pytest.raises(StoreError, match=f"no store at {tmp_path}/store: mount it .* SIMS_STORE"):
        open_store()
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setenv("SIMS_STORE_MUST_EXIST", "false")
    open_store()
    monkeypatch.setenv("SIMS_STORE_MUST_EXIST", "true")
    open_store()


def test_prefects_own_commands_read_the_same_settings(python):
    """In the clone's folder, without a variable: server, worker and deploy."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith("PREFECT_")}
    given = {k: v for k, v in ENVIRONMENT_DEFAULTS.items() if k.startswith("PREFECT_")}
    from_file = python(SETTINGS, cwd=ROOT, env=clean)
    from_environment = python(SETTINGS, cwd="/", env={**clean, **given})
    neither = python(SETTINGS, cwd="/", env=clean)
    assert json.loads(from_file.stdout) == json.loads(from_environment.stdout)
    assert json.loads(from_file.stdout) != json.loads(neither.stdout)
