"""The flat parameters of the flows: their types, and how they expand into a plan.

A flow's signature (flows/signatures/) is the one source of its parameters. The command line and the
deployments check against the model made from it, so that all refuse the same values with the same
words.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Collection, Mapping
from importlib import import_module
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    WithJsonSchema,
    create_model,
)

from flows.presets import Preset, find_preset
from flows.registry import load_signature
from sims_core.common.digest import digest_of
from sims_core.common.errors import BadInput
from sims_core.common.frozen import one_line
from sims_core.common.seeding import MOST_SEED
from sims_core.common.values import shown_value
from sims_core.data.names import DATASETS
from sims_core.evaluation.weights import pin_weights
from sims_core.methods.catalog import Method, all_methods
from sims_core.methods.neon import Extrapolation
from sims_core.nets.names import MODELS
from sims_core.settings import Settings
from sims_core.store.store import Store
from sims_core.studies.candidates import RANGE
from sims_core.studies.experiment import Experiment
from sims_core.studies.image_counts import told_with_remedy
from sims_core.studies.loop import MOST_ARMS
from sims_core.studies.plan import Plan
from sims_core.studies.planner import kind_of
from sims_core.studies.resolve import (
    fit_networks_to_data,
    resolve_base,
    resolve_data,
    resolve_methods,
    resolve_reference,
)

FOLDER_NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
MOST_LETTERS = 100


def _no_value_twice(values: list[Any]) -> list[Any]:
    """Each value of a list is an arm or a model of its own: one that comes twice is a slip."""
    seen = set()
    for value in values:
        is_mix = isinstance(value, dict)
        key = frozenset(value.items()) if is_mix else value
        if key in seen:
            told = shown_value(value if is_mix else [value])
            raise ValueError(f"{told} is given twice: leave one out")
        seen.add(key)
    return values


NoneTwice = AfterValidator(_no_value_twice)
"""Of a list: refuses a value that comes twice."""


def _is_a_folders_name(name: Any) -> Any:
    """Says in words what the pattern says."""
    if isinstance(name, str) and not (FOLDER_NAME.fullmatch(name) and len(name) <= MOST_LETTERS):
        raise ValueError(
            "want letters, digits, dots, hyphens and underscores, a letter or digit first, and at "
            f"most {MOST_LETTERS} of them"
        )
    return name


Generations = Annotated[int, Field(ge=1, le=10_000)]
Strength = Annotated[float, Field(ge=0, le=1e6, allow_inf_nan=False)]
Omega = Strength
Omegas = Annotated[list[Omega], Field(min_length=1, max_length=MOST_ARMS), NoneTwice]
Ws = Annotated[list[Extrapolation], Field(min_length=1, max_length=MOST_ARMS), NoneTwice]
PollutionSizes = Annotated[
    list[Annotated[int, Field(ge=1, le=RANGE)]],
    Field(min_length=1, max_length=MOST_ARMS),
    NoneTwice,
]
RealFraction = Annotated[float, Field(ge=0, le=1)]
ClassGuidances = Annotated[list[Strength], Field(max_length=MOST_ARMS), NoneTwice]
Budget = Annotated[float, Field(gt=0, le=1e5, allow_inf_nan=False)]
Budgets = Annotated[list[Budget], Field(min_length=1, max_length=MOST_ARMS), NoneTwice]
ImageCount = Annotated[int, Field(ge=2, le=RANGE)]
Repeats = Annotated[int, Field(ge=1, le=100)]
Finalists = Annotated[int, Field(ge=1, le=100)]
ScanOmegas = Annotated[list[Omega], Field(max_length=MOST_ARMS), NoneTwice]
ScanBudgets = Annotated[list[Budget], Field(max_length=MOST_ARMS), NoneTwice]
Seed = Annotated[int, Field(ge=0, le=MOST_SEED)]
Seeds = Annotated[
    list[Seed],
    Field(min_length=1),
    BeforeValidator(lambda given: [given] if isinstance(given, int) else given),
    NoneTwice,
]
"""Several, or a single one as a number: 3 is the seed 3, not three seeds."""
Arms = Literal["here", "pool"]
RunName = Annotated[
    str,
    Field(pattern=FOLDER_NAME.pattern, max_length=MOST_LETTERS),
    BeforeValidator(_is_a_folders_name),
]


def choice(values: list[str]) -> WithJsonSchema:
    """Shown as a list to choose from, and checked by Prefect before a run is made."""
    return WithJsonSchema({"type": "string", "enum": values})


def _known_method(name: str) -> str:
    if name not in all_methods():
        raise ValueError(f"no method {name!r}; there are: {', '.join(all_methods())}")
    return name


MethodName = Annotated[str, AfterValidator(_known_method), choice(list(all_methods()))]
Methods = Annotated[list[MethodName], Field(min_length=1), NoneTwice]


HOW = ("arms", "run_name")
"""Parameters that change no result: where arms are computed, what the run's folder is called."""
REPLACED = {"seed": "seeds, a list or a single number"}
"""What stands for a parameter that there was."""


def parameter_model(flow_function: Callable[..., Any]) -> type[BaseModel]:
    """A model with a field for each parameter of the function; unknown names are refused."""
    fields: dict[str, Any] = {
        name: (parameter.annotation, parameter.default)
        for name, parameter in inspect.signature(flow_function, eval_str=True).parameters.items()
    }
    return create_model(
        "Parameters", __config__=ConfigDict(extra="forbid", ser_json_inf_nan="constants"), **fields
    )


def checked(signature: Callable[..., Any], parameters: Mapping[str, Any]) -> dict[str, Any]:
    """A flow's parameters, as Prefect hands them over, as the JSON values that a plan is made of.

    Raises:
        ValidationError: One of them is not what the signature allows.
    """
    return parameter_model(signature).model_validate(dict(parameters)).model_dump(mode="json")


def check_parameters(
    flow_function: Callable[..., Any], preset: Preset, given: Mapping[str, Any]
) -> dict[str, Any]:
    """The flow's whole set of parameters: its defaults, the preset's, then `given`.

    Returns:
        JSON values for every parameter.

    Raises:
        BadInput: an unknown name (the valid ones are named) or an invalid value.
    """
    model = parameter_model(flow_function)
    names = [name for name in model.model_fields if name != "preset"]
    if unknown := [name for name in given if name not in names]:
        now = f": it is {REPLACED[unknown[0]]}" if unknown[0] in REPLACED else ""
        if unknown[0] in Experiment.model_fields:
            now = (
                f": it is a setting of the experiment, set in parts, {unknown[0]}.NAME=VALUE, or "
                f'whole, overrides={{"{unknown[0]}": {{...}}}}'
            )
        raise BadInput(
            f"no parameter {unknown[0]!r} of flow {preset.flow}{now}; parameters: "
            + ", ".join(names)
        )
    try:
        checked = model.model_validate({**preset.parameters, **given, "preset": preset.name})
    except ValidationError as error:
        raise BadInput(f"parameter {one_line(error)}") from None
    return checked.model_dump(mode="json")


def apply_overrides(experiment: Experiment, overrides: Mapping[str, Any]) -> Experiment:
    """The experiment with dotted names replaced: {"training.kimg": 10}.

    Raises:
        BadInput: a name that does not exist (the valid ones are named) or an invalid value.
    """
    config = experiment.settings
    for name, value in overrides.items():
        path = name.split(".")
        if path[0] == "methods" and len(path) > 1:
            _open_method(config["methods"], path)
        level: Any = config
        for depth, key in enumerate(path):
            if not isinstance(level, dict) or key not in level:
                where = ".".join(path[:depth]) or "the experiment"
                valid = ", ".join(level) if isinstance(level, dict) else "none: it is a value"
                raise BadInput(f"overrides: no {'.'.join(path)!r}; names in {where}: {valid}")
            if depth < len(path) - 1:
                level = level[key]
        level[path[-1]] = value
    try:
        return Experiment.model_validate(config)
    except ValidationError as error:
        told = told_with_remedy(error)
        if error.errors(include_url=False)[0]["type"] in ("tuple_type", "list_type"):
            told += '; a list is written in brackets, [1, 2] or ["a", "b"]'
        raise BadInput(f"overrides: {told}") from None


def _open_method(methods: dict[str, Any], path: list[str]) -> None:
    """Puts the default of a method's setting where an override wants to find it.

    Raises:
        BadInput: no such method, or no such setting of it.
    """
    kind, *fields = path[1:3]
    if kind not in all_methods():
        raise BadInput(f"overrides: no method {kind!r}; there are: {', '.join(all_methods())}")
    given = methods.setdefault(kind, {"kind": kind})
    whole = all_methods()[kind].model_validate({}).model_dump(mode="json")
    for field in fields:
        if field not in whole:
            raise BadInput(
                f"overrides: no {'.'.join(path[:3])!r}; names in methods.{kind}: {', '.join(whole)}"
            )
        given.setdefault(field, whole[field])


def chosen_methods(experiment: Experiment, parameters: Mapping[str, Any]) -> list[Method]:
    """Every method asked for at every strength; a strength of 0 is the baseline, however it was
    asked for."""
    names, methods = parameters["methods"], list[Method]()
    listed = [v.STRENGTHS for kind, v in all_methods().items() if kind in names and v.STRENGTHS]
    zero = any(0 in parameters[each] for each in ("omegas", *listed))
    for kind, variant in all_methods().items():
        if kind in names:
            strengths = parameters[variant.STRENGTHS] if variant.STRENGTHS else []
            methods += variant.arms(experiment.template(kind), strengths)
        if variant.IS_BASELINE and kind not in names and zero:
            methods.append(experiment.template(kind))
    return methods


def make_experiment(flow: str, parameters: Mapping[str, Any], store: Store) -> Experiment:
    """The preset's experiment with the overrides, and what this machine and store have for it.

    Args:
        store: where imported data sets and models are looked up; nothing is written.
    """
    preset = find_preset(f"{flow}/{parameters['preset']}")
    experiment = apply_overrides(preset.experiment, parameters["overrides"])
    asked = parameters.get("methods", [])
    check_needs(preset, experiment, store, asked)
    chosen = set(parameters["overrides"])
    for name, value in parameters["overrides"].items():
        chosen |= {f"{name}.{part}" for part in value} if isinstance(value, dict) else set()
    if preset.fits_data:
        experiment = fit_networks_to_data(experiment, store, chosen)
    experiment = resolve_data(resolve_base(experiment, store, chosen), store)
    experiment = resolve_reference(resolve_methods(experiment, store, asked), store)
    evaluation = pin_weights(experiment.evaluation, Settings.read().files())
    return experiment.model_copy(update={"evaluation": evaluation})


def check_needs(
    preset: Preset, experiment: Experiment, store: Store, asked: Collection[str]
) -> None:
    """Raises BadInput, with the commands that bring it, if something that the preset starts from is
    not in the store; what was replaced by something else is not needed, nor what only methods use
    that are not `asked` for."""
    models, data_sets = MODELS.given(store), DATASETS.given(store)
    data = getattr(experiment.data, "name", None)
    guides = (m.imported for kind, m in experiment.methods.items() if kind in asked)
    named = {experiment.base.imported}.union(*guides)
    missing = [
        need.line
        for need in preset.needs
        if (need.model and need.model in named and need.model not in models)
        or (need.data and need.data == data and need.data not in data_sets)
    ]
    if missing:
        raise BadInput(
            f"{preset.full_name} starts from what the store {store.root} lacks:", missing
        )


def make_plan(flow: str, parameters: Mapping[str, Any], store: Store) -> Plan:
    """Expands checked flat parameters into what the flow runs.

    How is said by function `plan` of the flow's module in flows/signatures/.
    """
    experiment = make_experiment(flow, parameters, store)
    signature = import_module(f"flows.signatures.{flow.replace('-', '_')}")
    plan: Plan = signature.plan(experiment, parameters)
    kind_of(experiment.data).check_machine(experiment, Settings.read().execution(), plan)
    return plan


def asked(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters that say what is computed: all but those of how."""
    return {name: value for name, value in parameters.items() if name not in HOW}


def differing(preset: Preset, given: Mapping[str, Any]) -> dict[str, Any]:
    """Those of a run's parameters that are not the preset's own; seeds are left out.

    Args:
        given: Parameters of the flow, and overrides by their dotted names.
    """
    own = check_parameters(load_signature(preset.flow), preset, {})
    return {
        name: value
        for name, value in given.items()
        if name not in ("preset", "seed", "seeds", "overrides")
        and (name not in own or own[name] != value)
    }


def default_run_name(flow: str, parameters: Mapping[str, Any]) -> str:
    """The preset and eight digits of the parameters' digest: the same command, the same name."""
    return f"{parameters['preset']}-{digest_of({'flow': flow, **asked(parameters)})[:8]}"
