"""The names of the files of a run's folder, and of a comparison's."""

from __future__ import annotations

SUMMARY_FILE = "run.json"
METRICS_TABLE = "metrics.parquet"
METRICS_CSV = "metrics.csv"

REPORT = "report"
"""The folder of these, in a run's folder."""
PAGE = "index.html"
LATEX_TABLE = "table.tex"
BIBLIOGRAPHY = "references.bib"
FORMATS = ("pdf", "svg", "png")
"""A figure is a file in each of these: for a paper, for other programs, for a look."""
