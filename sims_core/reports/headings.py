"""What a page calls the columns of a run's table, whose names are for programs."""

from __future__ import annotations

from sims_core.evaluation.metric import Figure, Neighborhoods, load_metrics
from sims_core.reports.lines import POINTS

AGAINST_ALL = "_all"
"""Ends the names of figures against all real data, where others are against a target's."""

HEADINGS = {
    "pollution": "|D_p|",
    "budget_mimg": "budget, million images",
    "metric_seed": "seed of KID's subsets",
    "n_generated": "n generated",
    "n_real": "n real",
    "n_labelled": "n labelled",
    "n_empirical": "n of empirical W2",
    "tv": "total variation",
    "nfe": "evaluations a sample",
    "extra_training_percent": "extra training, %",
    "weights": "weights held",
    "first_seed": "first image's seed",
}
"""Of columns that are no figures; others are called by their words."""


def heading(key: str, neighborhoods: Neighborhoods) -> str:
    """The title of a column: a figure's with its k, what a deviation is over, or plain words."""
    whole = key.removesuffix(AGAINST_ALL)
    end = " (all real)" if whole != key else ""
    for figure in _figures(neighborhoods):
        if whole == figure.name:
            return figure.title + end
        if whole == figure.spread:
            return f"{figure.title}: deviation over {figure.spread_over}{end}"
    return HEADINGS.get(whole, whole.replace("_", " ")) + end


def _figures(neighborhoods: Neighborhoods) -> list[Figure]:
    """Every figure that a run can have, those with neighbourhoods with their k."""
    measured = [
        figure.at(neighborhoods[metric.name]) if metric.name in neighborhoods else figure
        for metric in load_metrics().values()
        for figure in metric.figures
    ]
    return [*POINTS, *measured]
