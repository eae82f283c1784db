"""The main figure of each arm over its generations, while some have more of them than others."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO

from sims_core.reports.summary import ArmSummary


def so_far(arms: Sequence[ArmSummary], figure: str) -> bytes:
    """A PNG: a line for each arm, through as many generations as it has."""
    from matplotlib.figure import Figure  # takes a second to import

    from sims_core.reports.drawing import COLOURS, generation_ticks

    drawn = Figure(figsize=(6.4, 3.6), layout="constrained")
    axes = drawn.subplots()
    for number, arm in enumerate(arms):
        t = [generation.t for generation in arm.generations]
        values = [generation.metrics[figure] for generation in arm.generations]
        colour = COLOURS[number % len(COLOURS)]
        axes.plot(t, values, marker="o", linewidth=1.6, color=colour, label=arm.name)
    generation_ticks(axes)
    axes.set(xlabel="generation t", ylabel=f"{figure.upper()} (lower is better)")
    axes.grid(alpha=0.25)
    axes.legend(fontsize=8, frameon=False)
    buffer = BytesIO()
    drawn.savefig(buffer, format="png", dpi=100)
    return buffer.getvalue()
