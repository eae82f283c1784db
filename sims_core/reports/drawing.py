"""What every figure of a report is drawn with."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
from markupsafe import Markup
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from matplotlib.transforms import Bbox

from sims_core.data.grid import GRID_FILE
from sims_core.store.artifacts import ArtifactRef
from sims_core.store.store import Store

COLOURS = ("#5b6472", "#0b7285", "#d9480f", "#5f3dc4", "#2b8a3e", "#c2255c", "#1864ab", "#a67c00")


NO_METADATA = dict.fromkeys(("Date", "Creator", "Format", "Type"))


def generation_ticks(axes: Axes) -> None:
    """Ticks of the x axis at whole generations only, also where there is but one."""
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))


def svg_text(figure: Figure, part: Bbox | None = None) -> str:
    """The figure as an <svg> element, or a part of it in inches: the same text for the same
    figure."""
    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": "sims-loop", "svg.fonttype": "none"}):
        figure.savefig(buffer, format="svg", metadata=NO_METADATA, bbox_inches=part)
    svg = buffer.getvalue()
    return svg[svg.index("<svg") :]


def save(figure: Figure, folder: Path, name: str) -> None:
    """<name>.pdf, <name>.svg and <name>.png: the same bytes for the same figure."""
    with matplotlib.rc_context({"pdf.fonttype": 42}):  # TrueType, which journals ask for
        dated: dict[str, Any] = {"CreationDate": None, "Producer": None}
        figure.savefig(folder / f"{name}.pdf", metadata=dated)
    declared = '<?xml version="1.0" encoding="utf-8"?>\n' + svg_text(figure)
    (folder / f"{name}.svg").write_text(declared)
    figure.savefig(folder / f"{name}.png", dpi=150, metadata={"Software": None})


def written(
    figure: Figure, folder: Path | None, name: str, rows: int = 1, small: bool = False
) -> Markup:
    """Saves the figure's files, if there is a folder, and returns its panels for the page.

    Args:
        rows: so many axes that stand one under the other are one panel.
        small: two panels stand side by side also on a narrow screen.
    """
    figure.draw_without_rendering()
    figure.set_layout_engine("none")  # all that follows shows the same places
    if folder is not None:
        save(figure, folder, name)
    return panels(figure, rows, small)


def panels(figure: Figure, rows: int, small: bool = False) -> Markup:
    """The legends, panels and title of a figure that has been laid out, one by one, so that a page
    can put panels side by side or below each other as it is wide."""
    parts = [svg_text(figure, box) for box in _shown_in_turn(figure, _parts(figure, rows))]
    svgs = [Markup(part) for part in parts]  # noqa: S704 - drawn by matplotlib
    count, lines = len(figure.legends), Markup("\n")
    return Markup(
        '<div class="drawn">{}<div class="{}" style="max-width: {:.0f}px">{}</div></div>{}'
    ).format(
        lines.join(svgs[:count]),
        "panels small" if small else "panels",
        100 * figure.get_figwidth(),  # inches of 96 pixels and the gaps between panels
        lines.join(svgs[count:]),
        Markup('<p class="note">{}</p>').format(title) if (title := figure.get_suptitle()) else "",
    )


def _parts(figure: Figure, rows: int) -> list[list[Artist]]:
    """Each legend, then the axes of each panel; those that are empty are left out."""
    found: dict[tuple[int, int], list[Artist]] = {}
    for axes in figure.axes:
        spec = axes.get_subplotspec()
        if spec is not None and axes.axison:
            place = (spec.rowspan.start // rows, spec.colspan.start)
            found.setdefault(place, []).append(axes)
    legends: list[list[Artist]] = [[legend] for legend in figure.legends]
    return [*legends, *found.values()]


def _shown_in_turn(figure: Figure, parts: Sequence[Sequence[Artist]]) -> Iterator[Bbox]:
    """Makes all but one part invisible, one after the other, and gives where that one is."""
    every = [artist for part in parts for artist in part] + list(figure.texts)
    for part in parts:
        boxes = [box for artist in part if (box := artist.get_tightbbox()) is not None]
        inches = Bbox.union(boxes).transformed(figure.dpi_scale_trans.inverted())
        with _hidden([artist for artist in every if artist not in part]):
            yield inches.padded(0.03)


@contextmanager
def _hidden(artists: Sequence[Artist]) -> Iterator[None]:
    for artist in artists:
        artist.set_visible(False)
    try:
        yield
    finally:
        for artist in artists:
            artist.set_visible(True)


def png_uri(png: bytes) -> str:
    """A picture as a page holds it."""
    return "data:image/png;base64," + base64.b64encode(png).decode()


def grid_uri(store: Store, ref: ArtifactRef) -> str:
    """The picture of the first images of an artifact."""
    return png_uri((store.open_artifact(ref) / GRID_FILE).read_bytes())
