"""Presets: one small module each, found by importing every module of this package.

Each says where its values are from: [K] known from the paper or its code, [P] a proxy from a
neighbouring paper or its code where the paper's own value is not public, [O] our own choice. A [P]
or [O] value is never the paper's.
"""

from __future__ import annotations

from difflib import get_close_matches
from importlib import import_module
from pkgutil import iter_modules
from typing import Any

from sims_core.common.errors import BadInput
from sims_core.common.frozen import Frozen
from sims_core.studies.experiment import Experiment


class Need(Frozen):
    """A model or data set that a preset starts from and that a user must bring."""

    model: str | None = None
    """The name that `sims model import` must give it."""
    data: str | None = None
    """The name that `sims data import` or `sims data encode` must give it."""
    commands: tuple[str, ...]
    """What gets it, one after the other."""
    source: str
    """What is fetched, and its size."""

    @property
    def line(self) -> str:
        """What is missing, and the commands that get it."""
        what = f"model {self.model}" if self.model else f"data set {self.data}"
        return f"{what} ({self.source}): " + ", then ".join(f"`{each}`" for each in self.commands)


class Preset(Frozen):
    """A named experiment: the defaults of a flow's flat parameters, and the science behind them."""

    flow: str
    name: str
    description: str
    hardware: str
    expected_time: str
    parameters: dict[str, Any] = {}
    """Where they differ from the flow's own defaults."""
    needs: tuple[Need, ...] = ()
    """What must be imported first."""
    experiment: Experiment
    fits_data: bool = False
    """Networks are for images of whatever size and channels the imported ones have."""

    @property
    def full_name(self) -> str:
        """`<flow>/<preset>`, the name of its deployment."""
        return f"{self.flow}/{self.name}"


def load_presets() -> dict[str, Preset]:
    """Every preset by its full name, in alphabetical order."""
    modules = (import_module(f"{__name__}.{info.name}") for info in iter_modules(__path__))
    presets = [preset for module in modules for preset in module.PRESETS]
    return {preset.full_name: preset for preset in sorted(presets, key=lambda p: p.full_name)}


def find_preset(full_name: str) -> Preset:
    """The preset of this name.

    Raises:
        BadInput: There is none; says which are called nearly so, or which there are.
    """
    presets = load_presets()
    if full_name in presets:
        return presets[full_name]
    flow, _, own = full_name.rpartition("/")
    of_flow = [p.name for p in presets.values() if flow in (p.flow, "")]
    likely = get_close_matches(own, of_flow, n=4)
    near = [name for name, p in presets.items() if p.name in likely and flow in (p.flow, "")]
    if near:
        raise BadInput(
            f"no preset {full_name!r}; close to it: {', '.join(near)} (`sims presets` has all)"
        )
    raise BadInput(f"no preset {full_name!r}; presets: {', '.join(presets)}")
