"""prefect.yaml from the presets: a deployment <flow>/<preset> for each, and nothing by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from flows.deployed import entrypoint
from flows.presets import Preset, load_presets
from infra.environment import ENVIRONMENT_DEFAULTS
from tasks.names import ARM_DEPLOYMENT, ARM_TAG, ARMS_POOL

FILE = Path("prefect.yaml")
WORK_POOL = "sims"
HEADER = """\
# Made by `sims deployments` from flows/presets/; a test compares. Deploy with
#
#     prefect --no-prompt deploy --all
#
# The store and the device are the worker's own: it is started with SIMS_STORE and SIMS_DEVICE.
"""


def _job_environment() -> dict[str, str]:
    """What the process of a run is given, whoever started its worker, and wherever."""
    own = {
        name: value
        for name, value in ENVIRONMENT_DEFAULTS.items()
        if not name.startswith("PREFECT_SERVER_")
    }
    return {**own, "SIMS_STORE_MUST_EXIST": "true"}


def deployment(preset: Preset, work_pool: dict[str, Any]) -> dict[str, Any]:
    """One preset as prefect.yaml has it."""
    return {
        "name": preset.name,
        "entrypoint": entrypoint(preset),
        "description": (
            f"{preset.description}. Needs {preset.hardware}; takes {preset.expected_time}."
        ),
        "tags": [preset.flow],
        "parameters": {"preset": preset.name, **preset.model_dump(mode="json")["parameters"]},
        # A second run of the same preset waits: it would compute the same stages.
        "concurrency_limit": {"limit": 1, "collision_strategy": "ENQUEUE"},
        "work_pool": work_pool,
    }


def arm_deployment() -> dict[str, Any]:
    """What computes an arm of a run that has its arms computed in the pool."""
    return {
        "name": ARM_DEPLOYMENT,
        "entrypoint": "flows.pool.arm",
        "description": "One arm of a run with arms=pool, which starts it; not to be run by hand.",
        "tags": [ARM_TAG],
        "parameters": {},
        "work_pool": {"name": ARMS_POOL, "job_variables": {"env": _job_environment()}},
    }


class _Dumper(yaml.SafeDumper):  # type: ignore[misc]
    """Writes what the deployments share once, under a name that says what it is."""

    def generate_anchor(self, node: Any) -> str:
        return "work_pool"


def prefect_yaml() -> str:
    """The whole file."""
    pool = {"name": WORK_POOL, "job_variables": {"env": _job_environment()}}
    content = {
        "name": "sims-loop",
        "definitions": {"work_pool": pool},
        "deployments": [
            *(deployment(preset, pool) for preset in load_presets().values()),
            arm_deployment(),
        ],
    }
    text: str = yaml.dump(content, Dumper=_Dumper, sort_keys=False, width=96)
    return HEADER + text
