"""The table and the references of one run, as a paper takes them."""

from __future__ import annotations

from pathlib import Path

from sims_core.reports.citations import bibliography
from sims_core.reports.files import BIBLIOGRAPHY, LATEX_TABLE, REPORT
from sims_core.reports.latex import latex_table
from sims_core.reports.lines import has_table
from sims_core.reports.past_runs import PastRun
from sims_core.reports.side_by_side import compare_runs


def write_paper_files(folder: Path) -> None:
    """Reads the tables that lie in a run's folder, and writes table.tex and references.bib."""
    run = PastRun(folder)
    (folder / REPORT / BIBLIOGRAPHY).write_text(bibliography([run]))
    if has_table(run.rows):
        (folder / REPORT / LATEX_TABLE).write_text(latex_table(compare_runs([run])))
