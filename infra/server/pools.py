"""Work pools of containers for arms, from the short files of infra/pools/.

A file names the pool's type, what is different from Prefect's own defaults of that type's
variables, and what is added to its job. Prefect's template itself is that of the installed version.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import prefect
import yaml
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.utilities.schema_tools.validation import validate
from pydantic import BaseModel, ConfigDict, ValidationError

from sims_core.common.errors import BadInput
from sims_core.common.frozen import one_line

TEMPLATES = Path(prefect.__file__).parent / (
    "server/api/collections_data/views/aggregate-worker-metadata.json"
)
"""What Prefect ships of all types of pools; asking its server for them would ask a host outside."""


class PoolFile(BaseModel):
    """A file of infra/pools/."""

    model_config = ConfigDict(extra="forbid")

    type: str
    variables: dict[str, Any] = {}
    """Defaults of the template's variables."""
    job_configuration: dict[str, Any] = {}
    """Merged into the template's; a list replaces that which is there."""


def templates() -> dict[str, dict[str, Any]]:
    """Prefect's own base job template of every type of work pool that runs elsewhere."""
    known = json.loads(TEMPLATES.read_text())
    return {
        kind: found["default_base_job_configuration"]
        for package in known.values()
        for kind, found in package.items()
        if kind != "process"
    }


def read_pool(file: Path, name: str) -> WorkPoolCreate:
    """The pool that the file describes, checked against Prefect's schema of its type.

    Raises:
        BadInput: the file cannot be read, or names what Prefect's template does not have.
    """
    try:
        given = PoolFile.model_validate(yaml.safe_load(file.read_text()))
    except ValidationError as error:
        raise BadInput(f"{file}: {one_line(error)}") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise BadInput(f"cannot read {file}: {error}") from None
    known = templates()
    if given.type not in known:
        raise BadInput(f"{file}: no type {given.type!r}; there are: {', '.join(known)}")
    template = copy.deepcopy(known[given.type])
    properties = template["variables"]["properties"]
    if unknown := [each for each in given.variables if each not in properties]:
        raise BadInput(
            f"{file}: no variable {unknown[0]!r} of type {given.type}; there are: "
            + ", ".join(properties)
        )
    schema = {**template["variables"], "required": []}
    if problems := validate(dict(given.variables), schema, preprocess=False):
        first = problems[0]
        raise BadInput(f"{file}: {'.'.join(map(str, first.path))}: {first.message}")
    for variable, value in given.variables.items():
        properties[variable]["default"] = value
    job = _merged(template["job_configuration"], given.job_configuration)
    return WorkPoolCreate(
        name=name, type=given.type, base_job_template={**template, "job_configuration": job}
    )


def _merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Both; where both have a value, that of `above`, of mappings their union."""
    merged = dict(below)
    for key, value in above.items():
        under = merged.get(key)
        if isinstance(value, Mapping) and isinstance(under, Mapping):
            merged[key] = _merged(under, value)
        else:
            merged[key] = value
    return merged
