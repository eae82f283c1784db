"""What every figure of a report is drawn with."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from markupsafe import Markup
from matplotlib.figure import Figure

from sims_core.data.grid import GRID_FILE
from sims_core.store.artifacts import ArtifactRef
from sims_core.store.store import Store

COLOURS = ("#5b6472", "#0b7285", "#d9480f", "#5f3dc4", "#2b8a3e", "#c2255c", "#1864ab", "#a67c00")


NO_METADATA = dict.fromkeys(("Date", "Creator", "Format", "Type"))


def svg_text(figure: Figure) -> str:
    """The figure as an <svg> element: the same text for the same figure."""
    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": "sims-loop", "svg.fonttype": "none"}):
        figure.savefig(buffer, format="svg", metadata=NO_METADATA)
    svg = buffer.getvalue()
    return svg[svg.index("<svg") :]


def written(figure: Figure, folder: Path | None, name: str) -> Markup:
    """Saves <name>.png and <name>.svg, if there is a folder, and returns the SVG for the page."""
    svg = svg_text(figure)
    if folder is not None:
        (folder / f"{name}.svg").write_text('<?xml version="1.0" encoding="utf-8"?>\n' + svg)
        figure.savefig(folder / f"{name}.png", dpi=150, metadata={"Software": None})
    return Markup(svg)  # noqa: S704 - drawn by matplotlib


def grid_uri(store: Store, ref: ArtifactRef) -> str:
    png = (store.open_artifact(ref) / GRID_FILE).read_bytes()
    return "data:image/png;base64," + base64.b64encode(png).decode()
