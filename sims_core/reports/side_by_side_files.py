"""A comparison of runs as files: a page, tables, a figure for a paper, what to cite."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
from markupsafe import Markup

from sims_core.common import roles
from sims_core.common.errors import BadInput
from sims_core.data.grid import GRID_FILE
from sims_core.reports.citations import bibliography
from sims_core.reports.drawing import png_uri, written
from sims_core.reports.files import BIBLIOGRAPHY, FORMATS, LATEX_TABLE, PAGE
from sims_core.reports.latex import latex_table
from sims_core.reports.page import page_environment
from sims_core.reports.past_runs import PastRun
from sims_core.reports.side_by_side import RunComparison
from sims_core.reports.side_by_side_figure import comparison_figure
from sims_core.reports.summary import with_unit

FILES = (
    *(PAGE, "runs.csv", "runs.parquet", "table.csv", LATEX_TABLE),
    *(*(f"figure.{end}" for end in FORMATS), BIBLIOGRAPHY),
)


def write_comparison(comparison: RunComparison, folder: Path) -> list[Path]:
    """Writes all files into `folder`, which is made if it is not there; those of an earlier
    comparison are replaced.

    Returns:
        The files.

    Raises:
        BadInput: the folder is a file, or holds something else.
    """
    if folder.exists() and not folder.is_dir():
        raise BadInput(f"{folder} is a file: give the name of a folder")
    if folder.is_dir() and (others := {path.name for path in folder.iterdir()} - set(FILES)):
        raise BadInput(f"{folder} holds {min(others)}, which is no part of a comparison")
    folder.mkdir(parents=True, exist_ok=True)
    tidy = pa.Table.from_pylist(comparison.tidy_rows())
    pq.write_table(tidy, folder / "runs.parquet")
    pa.csv.write_csv(tidy, folder / "runs.csv")
    pa.csv.write_csv(pa.Table.from_pylist(comparison.table_rows()), folder / "table.csv")
    (folder / LATEX_TABLE).write_text(latex_table(comparison))
    (folder / BIBLIOGRAPHY).write_text(bibliography(comparison.runs))
    figure = comparison_figure(comparison)
    (folder / PAGE).write_text(_page(comparison, written(figure, folder, "figure")))
    return [folder / name for name in FILES]


def _page(comparison: RunComparison, figure: Markup) -> str:
    template = page_environment().get_template("side_by_side.html.j2")
    return template.render(
        comparison=comparison,
        figure=figure,
        files=[name for name in FILES if name != PAGE],
        rows=comparison.table_rows(),
        costs=comparison.cost_rows(),
        grids=list(grids(comparison)),
        shown=with_unit,
    )


def grids(comparison: RunComparison) -> Iterator[dict[str, Any]]:
    """Samples of the last generation of every arm, of the first seed of each group; of images only.
    What runs share is shown once."""
    shown: set[bytes] = set()
    for group, label in zip(comparison.groups, comparison.labels, strict=True):
        run, seeds = group[0], set(group[0].seeds[:1])
        for arm in run.content.get("arms") or ():
            seed, last = arm.get("seed"), arm["generations"][-1]
            grid = _grid(run, last["artifacts"])
            is_first = seed is None or seed in seeds
            if grid is not None and grid not in shown and is_first:
                shown.add(grid)
                name = arm["name"].removesuffix(f" seed={seed}")
                told = f"{label}: {name}" if label else name
                yield {"name": told, "t": last["t"], "uri": png_uri(grid)}


def _grid(run: PastRun, artifacts: dict[str, str]) -> bytes | None:
    """The picture of a generation, the preview's where there is one; None of points."""
    store = run.folder.parents[1]
    for role in (roles.PREVIEW, roles.GENERATE):
        path = store / artifacts.get(role, "") / GRID_FILE
        if role in artifacts and path.is_file():
            return path.read_bytes()
    return None
