"""A comparison as a LaTeX table of booktabs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sims_core.evaluation.metric import Figure
from sims_core.reports.estimates import Estimate
from sims_core.reports.lines import Line
from sims_core.reports.side_by_side import RunComparison
from sims_core.reports.summary import shown_generations

SPECIAL = {
    "\\": r"\textbackslash{}",
    "|": r"\textbar{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    **{each: "\\" + each for each in "&%$#_{}"},
}


def escaped(text: str) -> str:
    """Plain text as LaTeX that prints it."""
    return "".join(SPECIAL.get(each, each) for each in text)


def latex_table(comparison: RunComparison) -> str:
    """The main figure over what was varied; where nothing was, every figure. The best are bold.

    Of several seeds mean and half the width of the 95 % interval.
    """
    lines, axis = comparison.lines, comparison.axis
    xs = sorted({x for line in lines for x in line.points})
    if axis and len(xs) > 1:
        figure = comparison.figures[0]
        shown = [xs[number - 1] for number in shown_generations(len(xs))]
        symbol = {"t": "t", "pollution": r"|\mathcal{D}_p|"}[axis]
        heads = [f"${symbol} = {x:g}$" for x in shown]
        columns = [_column(lines, figure, x) for x in shown]
        figures = [figure] * len(shown)
        told = f"{escaped(figure.title)} ({figure.better})"
    else:
        figures = list(comparison.figures)
        arrows = {"lower": r"$\downarrow$", "higher": r"$\uparrow$"}
        heads = [f"{escaped(each.title)} {arrows[each.direction]}" for each in figures]
        columns = [
            [[*line.over_seeds(each.name).values()][-1] for line in lines] for each in figures
        ]
        told = "Figures"
    cells = [_cells(column, figure) for column, figure in zip(columns, figures, strict=True)]
    rows = [
        " & ".join([escaped(line.label), str(len(line.seeds)), *(column[n] for column in cells)])
        for n, line in enumerate(lines)
    ]
    return "\n".join(
        [
            r"% \usepackage{booktabs}",
            r"\begin{table}",
            r"  \centering",
            rf"  \caption{{{told}{_counts(lines)}.{_spread(lines)}}}",
            rf"  \begin{{tabular}}{{lr{'r' * len(heads)}}}",
            r"    \toprule",
            "    " + " & ".join(["", "seeds", *heads]) + r" \\",
            r"    \midrule",
            *(f"    {row} \\\\" for row in rows),
            r"    \bottomrule",
            r"  \end{tabular}",
            r"\end{table}",
            "",
        ]
    )


def _column(lines: Sequence[Line], figure: Figure, x: float) -> list[Estimate | None]:
    return [line.over_seeds(figure.name).get(x) for line in lines]


def _cells(column: Sequence[Estimate | None], figure: Figure) -> list[str]:
    """A column's numbers, the best of them bold."""
    means = [each.mean for each in column if each is not None]
    best = min if figure.direction == "lower" else max
    return [
        "--" if each is None else _cell(each, figure.decimals, each.mean == best(means))
        for each in column
    ]


def _cell(found: Estimate, decimals: int, is_best: bool) -> str:
    mean = f"{found.mean:.{decimals}f}"
    mean = rf"\mathbf{{{mean}}}" if is_best else mean
    if found.high is None:
        return f"${mean}$"
    return rf"${mean} \pm {found.high - found.mean:.{decimals}f}$"


def _counts(lines: Sequence[Line]) -> str:
    """On how many data figures were measured."""
    every: list[Mapping[str, float]] = [
        found for line in lines for by_seed in line.points.values() for found in by_seed.values()
    ]
    parts = []
    for name, what in (("n_generated", "generated"), ("n_real", "real")):
        counts = sorted({each[name] for each in every if name in each})
        if counts:
            parts.append(f"{', '.join(f'{count:g}' for count in counts)} {what}")
    text = f" on {' and '.join(parts)} data" if parts else ""
    samples = sorted({each["n_real_prc"] for each in every if "n_real_prc" in each})
    if samples:
        text += f", precision and recall against {', '.join(f'{n:g}' for n in samples)} real ones"
    return text


def _spread(lines: Sequence[Line]) -> str:
    if all(len(line.seeds) < 2 for line in lines):
        return ""
    return r" Mean over seeds $\pm$ half of its 95\,\% interval by Student's $t$."
