"""What a metric is, and every metric by its name.

A metric is one module of `sims_core.evaluation.metrics` with a constant `METRIC`; it is found by
listing that package. Code outside of it adds its own by `register`. Declarations import no torch,
so that a plan can name metrics, and a report their titles, at once; the functions import what they
compute with.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from importlib import import_module
from pkgutil import iter_modules
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar

from sims_core.common.errors import BadInput
from sims_core.common.frozen import Frozen

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Statistics = dict[str, NDArray[Any]]

PACKAGE = "sims_core.evaluation.metrics"


STANDARD_METRICS = ("fid", "kid", "precision_recall", "inception_score")
"""Measured by the stage `evaluate` of every run, the last where there are logits; every other
metric is a stage of its own."""


COUNTS = ("n_generated", "n_real", "n_real_prc", "seed")
"""They stand beside the figures in metrics.json, so no figure has such a name."""


Part = Literal["features", "statistics", "logits", "labels"]
"""What is known of a set of images."""


@dataclass(frozen=True)
class MeasuredSet:
    """A set of images as metrics see it: of each image a row, and no pixels.

    Reading a part that is not there (or that the metric has not declared) raises KeyError.
    """

    parts: Mapping[Part, Any]

    @property
    def features(self) -> NDArray[np.float32]:
        """Float32 [n, d]."""
        found: NDArray[np.float32] = self.parts["features"]
        return found

    @property
    def statistics(self) -> Statistics:
        """Mean and covariance of the features: `mu` float32 [d] and `sigma` float64 [d, d]."""
        found: Statistics = self.parts["statistics"]
        return found

    @property
    def logits(self) -> NDArray[np.float32]:
        """Float32 [n, classes]: the last layer of a network that classifies."""
        found: NDArray[np.float32] = self.parts["logits"]
        return found

    @property
    def labels(self) -> NDArray[np.int64]:
        """The class of each image, int64 [n]."""
        found: NDArray[np.int64] = self.parts["labels"]
        return found


@dataclass(frozen=True)
class Figure:
    """One number that a metric gives."""

    name: str
    """Its key in metrics.json, `--json` and metrics.parquet."""
    title: str
    direction: Literal["lower", "higher"]
    """Which is better."""
    decimals: int = 3
    """Digits after the point in a report."""
    spread: str = ""
    """Key of the figure's deviation, if the metric gives one."""
    spread_over: str = ""
    """What the deviation is taken over: "subsets"."""
    limits: tuple[float, float] | None = None
    """Where its axis ends: of a share (0, 1). None: where the values do."""
    remark: str = ""
    """What a reader must know to compare the number with others': its scale."""

    @property
    def better(self) -> str:
        return f"{self.direction} is better"

    def at(self, k: int) -> Figure:
        """The figure with the neighbourhood that it was measured with in its title."""
        return replace(self, title=f"{self.title} (k = {k})")

    @property
    def heading(self) -> str:
        """The title of a table's column."""
        return f"{self.title} ± over {self.spread_over}" if self.spread else self.title

    def text(self, found: Mapping[str, Any]) -> str:
        """The figure as a report shows it, with its deviation."""
        shown = f"{found[self.name]:.{self.decimals}f}"
        return f"{shown} ± {found[self.spread]:.{self.decimals}f}" if self.spread else shown


class NoOptions(Frozen):
    """The options of a metric that has none."""


O = TypeVar("O", bound=Frozen)  # noqa: E741

Compute = Callable[[MeasuredSet, MeasuredSet, O, int], Mapping[str, float]]
"""(generated, real, options, seed) to the figures and their deviations by name."""


@dataclass(frozen=True)
class Metric(Generic[O]):
    """A way to compare generated images with real ones."""

    name: str
    version: int
    """Goes up whenever a result changes for the same options; of a metric in `STANDARD_METRICS` the
    version of the stage `evaluate` goes up as well."""
    figures: tuple[Figure, ...]
    needs: tuple[Part, ...]
    """The parts of both sets that `compute` is given."""
    options: type[O]
    """Its defaults are those of a run that says nothing else."""
    compute: Compute[O] = field(repr=False)
    random: bool = False
    """Whether it draws anything from the seed."""

    @property
    def keys(self) -> list[str]:
        """The names of all that `compute` returns."""
        return [key for each in self.figures for key in (each.name, each.spread) if key]


@cache
def _own_metrics() -> dict[str, Metric[Any]]:
    """Those of the package, in the order of their files."""
    package = import_module(PACKAGE)
    modules = (import_module(f"{PACKAGE}.{info.name}") for info in iter_modules(package.__path__))
    return {module.METRIC.name: module.METRIC for module in modules}


_REGISTERED: dict[str, Metric[Any]] = {}


def register(metric: Metric[Any]) -> None:
    """Adds a metric that is not in the package, in this process.

    A process that plans, computes or reports a run with it registers it first; most simply where
    the metric is declared, so that importing its module does.

    Raises:
        ValueError: its name is no lower-case word, or it or a figure's key is taken.
    """
    if not re.fullmatch("[a-z][a-z0-9_]*", metric.name):
        raise ValueError(f"a metric's name is of a-z, 0-9 and _, not {metric.name!r}")
    known = load_metrics()
    if known.get(metric.name) == metric:
        return
    taken = {key for each in known.values() for key in each.keys} | set(COUNTS)
    if metric.name in known or not taken.isdisjoint(metric.keys):
        raise ValueError(f"a metric {metric.name}, or one with a key of {metric.keys}, is known")
    _REGISTERED[metric.name] = metric


def load_metrics() -> dict[str, Metric[Any]]:
    """Every metric by its name, those of every run first."""
    found = _own_metrics() | _REGISTERED
    return {name: found[name] for name in STANDARD_METRICS} | found


def find_metric(name: str, version: int) -> Metric[Any]:
    """The metric that a stage is to compute.

    Raises:
        BadInput: there is none of that name, or only another version of it.
    """
    known = load_metrics()
    if name not in known or known[name].version != version:
        raise BadInput(
            f"no metric {name} version {version} here; metrics: "
            + ", ".join(f"{each.name} v{each.version}" for each in known.values())
        )
    return known[name]


def further_metrics() -> dict[str, Metric[Any]]:
    """Those that a run may name: all but the ones of every run."""
    return {name: each for name, each in load_metrics().items() if name not in STANDARD_METRICS}


Neighborhoods = Mapping[str, int]
"""k of each metric that is made of nearest neighbours, by the metric's name."""


def column(key: str, neighborhoods: Neighborhoods) -> str:
    """A key of a table as its column is called: with k where the figure hangs on one."""
    for metric in load_metrics().values():
        for figure in metric.figures:
            if metric.name in neighborhoods and f"{key}_".startswith(f"{figure.name}_"):
                return f"{key} (k = {neighborhoods[metric.name]})"
    return key


def figures_in(
    found: Mapping[str, Any], neighborhoods: Neighborhoods | None = None
) -> list[Figure]:
    """The figures that are among these results, in the order in which reports show them.

    Args:
        neighborhoods: what the titles say of k; None: nothing.
    """
    return [
        figure if (k := (neighborhoods or {}).get(metric.name)) is None else figure.at(k)
        for metric in load_metrics().values()
        for figure in metric.figures
        if figure.name in found
    ]
