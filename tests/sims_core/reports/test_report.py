"""The report: self-contained, complete, escaped."""

import base64
import io
import math
import re
from html.parser import HTMLParser

import numpy as np
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from PIL import Image

from sims_core.data.image_set import stream_images
from sims_core.reports.base import RunDetails, report_of
from sims_core.reports.curves import curves
from sims_core.reports.drawing import written
from sims_core.reports.page import percent, render_report, write_metrics
from sims_core.reports.summary import (
    ArmSummary,
    GenerationSummary,
    RunSummary,
    count_stages,
    kimg,
    shown_generations,
)
from sims_core.reports.tables import ratios, table_rows

VOID = {"meta", "img", "br", "hr", "link", "input", "col", "wbr"}


class Page(HTMLParser):
    """Checks that tags nest; collects text, tags and attributes."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.open, self.text, self.tags, self.attributes, self.cells = [], [], [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)
        if tag == "td":
            self.cells.append("")

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_endtag(self, tag):
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)
        if "td" in self.open:
            self.cells[-1] += data


@pytest.fixture(scope="module")
def summary(tiny_run):
    return RunSummary(
        run="tiny run",
        flow="sims-loop",
        preset="digits",
        store=str(tiny_run.store.root),
        report="index.html",
        stages=count_stages(tiny_run.outcomes),
        **report_of(tiny_run.plan).findings(tiny_run.store, tiny_run.plan),
    )


@pytest.fixture(scope="module")
def details(tiny_run):
    return RunDetails("A tiny loop", {"seed": 7, "omegas": [1.0]}, tiny_run.plan, tiny_run.outcomes)


@pytest.fixture(scope="module")
def html(tiny_run, summary, details):
    return render_report(tiny_run.store, summary, details)


def arm_summary(name, fids):
    metrics = {"kid": 0.1, "kid_std": 0.01, "precision": 0.5, "recall": 0.5}
    counts = {"n_generated": 10, "n_real": 20, "seed": 3}
    return ArmSummary(
        name=name,
        generations=tuple(
            GenerationSummary(t=t, metrics={"fid": fid, **metrics, **counts}, artifacts={})
            for t, fid in enumerate(fids, 1)
        ),
    )


def test_summary_holds_every_generation(tiny_run, summary):
    assert [arm.name for arm in summary.arms] == [arm.arm.name for arm in tiny_run.plan.arms]
    for number, arm in enumerate(summary.arms):
        assert [generation.t for generation in arm.generations] == [1, 2]
        for generation in arm.generations:
            ref = tiny_run.request(number, generation.t, "evaluate").ref
            assert generation.metrics == tiny_run.store.manifest(ref).details
            for location in generation.artifacts.values():
                assert (tiny_run.store.root / location / "manifest.json").exists()
    assert RunSummary.model_validate_json(summary.model_dump_json()) == summary


def test_shared_stages_count_as_cached(tiny_run, summary):
    # SIMS takes mix and base of G^1 from the standard arm; all else is its own.
    assert summary.stages.cached == 2
    assert summary.stages.computed == len(list(tiny_run.plan)) - 2
    assert summary.stages.seconds > 0


def test_page_is_well_formed(html):
    page = Page(html)
    assert html.startswith("<!doctype html>")
    assert {"html", "head", "body", "table", "svg", "img"} <= set(page.tags)


def test_page_needs_nothing_from_the_network(html):
    without_names = re.sub(r'xmlns(:\w+)?="[^"]*"', "", html)
    assert "http" not in without_names.replace("http-equiv", "").lower()
    page = Page(html)
    assert not {"script", "link", "iframe", "object", "embed", "base"} & set(page.tags)
    for tag, name, value in page.attributes:
        assert not name.startswith("on"), (tag, name)
        if name == "src":
            assert value.startswith("data:image/png;base64,")
        if name.endswith("href"):
            assert re.fullmatch(r"#\w+|(\.\./)?\w+\.\w+", value), (tag, value)
    assert "@import" not in html
    assert not re.search(r"url\((?!#)", html)


def test_page_holds_every_arm_and_figure(html, summary, details):
    page = Page(html)
    text = " ".join(page.text)
    assert "A tiny loop" in text
    assert "tiny run" in text
    for arm in summary.arms:
        assert arm.name in text
    for row in table_rows(summary.arms, "fid", [0, 0], [7, 7]):
        cells = [row["arm"], str(row["t"]), f"{row['fid']:.3f}", f"{row['fid_ratio_own']:.3f}"]
        cells += [f"{row['fid_ratio_standard']:.3f}", f"{row['kid']:.5f} ± {row['kid_std']:.5f}"]
        cells += [f"{row['precision']:.3f}", f"{row['recall']:.3f}"]
        cells += [str(row["n_generated"]), str(row["n_real"]), str(row["nfe"])]
        cells += [percent(row["extra_training_percent"]), str(row["metric_seed"])]
        starts = [i for i in range(len(page.cells)) if page.cells[i : i + 2] == cells[:2]]
        assert len(starts) == 1
        assert page.cells[starts[0] : starts[0] + len(cells)] == cells
    for outcome in details.outcomes:
        assert outcome.stage.ref.short in text


def test_page_shows_the_stored_grids(html, tiny_run):
    page = Page(html)
    shown = [value for tag, name, value in page.attributes if (tag, name) == ("img", "src")]
    folders = [tiny_run.store.open_artifact(tiny_run.plan.setup[0].ref)]
    folders += [tiny_run.folder(arm, t, "preview") for arm in (0, 1) for t in (1, 2)]
    pictures = [base64.b64decode(uri.split(",")[1]) for uri in shown]
    assert pictures[2:] == [(folder / "grid.png").read_bytes() for folder in folders]
    # 16 images of 8 pixels in one row with gaps of one.
    assert Image.open(io.BytesIO(pictures[3])).size == (143, 8)
    labels = [value for tag, name, value in page.attributes if name == "aria-label"]
    assert len(labels) == page.tags.count("input") == len(pictures)


def test_a_strip_shows_one_noise_through_the_generations(html, tiny_run):
    page = Page(html)
    shown = [value for tag, name, value in page.attributes if (tag, name) == ("img", "src")]
    for arm, uri in enumerate(shown[:2]):
        strip = np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.split(",")[1]))))
        samples = [list(stream_images(tiny_run.folder(arm, t, "preview"), 0, 6)) for t in (1, 2)]
        assert strip.shape == (6 * 9 - 1, 2 * 9 - 1)
        for column, of_generation in enumerate(samples):
            for row, image in enumerate(of_generation):
                place = strip[9 * row : 9 * row + 8, 9 * column : 9 * column + 8]
                assert (place == image[0]).all()
        assert not np.array_equal(samples[0], samples[1])


def test_names_are_escaped(tiny_run, summary, details):
    evil = "\"><script>alert(1)</script>&amp;'<b>"
    names = [f"{evil} {i}" for i in range(len(summary.arms))]
    arms = tuple(
        arm.model_copy(update={"name": name}) for arm, name in zip(summary.arms, names, strict=True)
    )
    changed = summary.model_copy(update={"run": evil, "preset": evil, "arms": arms})
    parameters = {**details.parameters, "run_name": evil, evil: evil}
    page_text = render_report(
        tiny_run.store,
        changed,
        RunDetails(evil, parameters, details.plan, details.outcomes),
    )
    page = Page(page_text)
    assert "script" not in page.tags
    assert page.tags.count("b") == len(arms)  # the cards' own
    for name in names:  # card, legend, two rows of the table, cost
        assert "".join(page.text).count(name) == 5


def test_budgets_are_asked_in_million_images_and_said_in_kimg(tiny_run, summary, details):
    overrides = {"sims": {"budget_mimg": 0.0064}, "training.kimg": 3}
    asked = {"budgets": [0.0032, 2.0], "scan_budgets": [], "overrides": overrides}
    told = RunDetails("x", asked, details.plan, details.outcomes)
    page = render_report(tiny_run.store, summary, told)
    rows = re.findall(r"<tr><td><code>(.*?)</code></td><td class=.text.>(.*?)</td></tr>", page)
    assert rows == [
        ("budgets", "<code>[0.0032, 2.0]</code> (3.2, 2000 kimg)"),
        ("scan_budgets", "<code>[]</code>"),
        ("sims.budget_mimg", "<code>0.0064</code> (6.4 kimg)"),
        ("training.kimg", "<code>3</code>"),
    ]


def test_rendering_twice_gives_the_same_bytes(html, tiny_run, summary, details):
    assert render_report(tiny_run.store, summary, details) == html


def test_each_metric_is_a_panel_of_its_own(summary, tmp_path):
    """So that a narrow page can stack them: the legend, then each figure over its ratio."""
    found = str(written(curves(summary.arms), tmp_path, "figure", rows=2))
    svgs = [" ".join(Page(svg).text) for svg in re.findall(r"<svg.*?</svg>", found, re.DOTALL)]
    names = ("FID", "KID", "Precision", "Recall")
    legend, *panels = svgs
    for svg, name in zip(panels, names, strict=True):
        assert f"{name} (" in svg
        assert "generation t" in svg
        assert not any(f"{other} (" in svg for other in names if other != name)
    assert [name in legend for name in (summary.arms[1].name, "generation t")] == [True, False]
    assert "n = 64 generated, real = 256" in found
    whole = " ".join(Page((tmp_path / "figure.svg").read_text().partition("?>")[2]).text)
    for word in (*names, "generation t", summary.arms[1].name, "real = 256"):
        assert word in whole
    assert (tmp_path / "figure.pdf").read_bytes().startswith(b"%PDF")
    assert found == written(curves(summary.arms), None, "figure", rows=2)


def test_axes_of_shares_end_at_0_and_1(summary):
    axes = {each.get_title().partition(" (")[0]: each for each in curves(summary.arms).axes}
    for name in ("Precision", "Recall"):
        assert axes[name].get_ylim() == (0, 1)
    assert axes["FID"].get_ylim() != (0, 1)


def test_generations_are_counted_in_whole_numbers(summary):
    for count in (1, 2):
        arms = [
            arm.model_copy(update={"generations": arm.generations[:count]}) for arm in summary.arms
        ]
        for axes in curves(arms).axes:
            low, high = axes.get_xlim()
            shown = [tick for tick in axes.get_xticks() if low <= tick <= high]
            assert shown == list(range(1, count + 1))


def test_a_card_of_one_generation_says_its_figure_once(tiny_run, summary, details, html):
    first = [arm.model_copy(update={"generations": arm.generations[:1]}) for arm in summary.arms]
    page = render_report(tiny_run.store, summary.model_copy(update={"arms": first}), details)
    cards, both = (re.findall(r'class="card">.*?</div>', each, re.DOTALL) for each in (page, html))
    for card, longer, arm in zip(cards, both, summary.arms, strict=True):
        fid, n = arm.generations[0].metrics["fid"], arm.generations[0].metrics["n_generated"]
        text = [said.strip() for said in Page(f"<div {card}").text if said.strip()]
        assert text == [arm.name, f"{fid:.2f}", f"FID (n = {n}) at t = 1"]
        assert f"{fid:.2f} → " in longer
        assert "at t = 1 → t = 2, ratio" in longer


def test_what_lies_beside_the_page_is_linked(html):
    page = Page(html)
    links = [value for tag, name, value in page.attributes if (tag, name) == ("a", "href")]
    figure = [f"figure.{end}" for end in ("pdf", "svg", "png")]
    tables = ["../metrics.parquet", "../metrics.csv", "table.tex"]
    assert links == [*figure, *tables, "references.bib", "../run.json"]


def test_results_come_first_and_machinery_last(html):
    titles = re.findall(r"<h2>(.*?)</h2>", html)
    assert titles[0] == "Metrics over generations"
    assert titles[-2:] == ["What was run", "Time and cache"]


def test_budgets_are_in_kimg(html, tiny_run):
    assert f"budget {1000 * tiny_run.plan.experiment.sims.budget_mimg:g} kimg" in html
    assert [kimg(mimg) for mimg in (0.0005, 0.0128, 40, 2147)] == [
        "0.5",
        "12.8",
        "40000",
        "2147000",
    ]


@pytest.mark.parametrize(
    ("generations", "shown"),
    [
        (1, [1]),
        (2, [1, 2]),
        (6, [1, 2, 3, 4, 5, 6]),
        (11, [1, 3, 5, 7, 9, 11]),
        (100, [1, 21, 41, 60, 80, 100]),
    ],
)
def test_grids_are_spread_from_the_first_to_the_last(generations, shown):
    assert shown_generations(generations) == shown


def test_ratios_to_the_own_and_to_the_standard_first_generation():
    arms = [
        arm_summary("standard |D_s|=250", [2.0, 5.0]),
        arm_summary("sims omega=1 |D_s|=250", [1.0, 3.0]),
        arm_summary("sims omega=1 |D_s|=99", [4.0, 8.0]),
    ]
    rows = table_rows(arms, "fid", [0, 0, 2], [7, 7, 7])
    assert [row["fid_ratio_own"] for row in rows] == [1, 2.5, 1, 3, 1, 2]
    # No standard arm of size 99: its own first generation stands in.
    assert [row["fid_ratio_standard"] for row in rows] == [1, 2.5, 0.5, 1.5, 1, 2]


def test_ratio_to_nothing_is_not_a_number():
    assert all(math.isnan(value) for value in ratios(arm_summary("x", [0.0, 1.0]), "fid", 0.0))


def test_metrics_table_as_parquet_and_csv(tmp_path, summary):
    table = table_rows(summary.arms, "fid", [0, 0], [7, 7])
    write_metrics(tmp_path, table)
    rows = pq.read_table(tmp_path / "metrics.parquet").to_pylist()
    assert pyarrow.csv.read_csv(tmp_path / "metrics.csv").to_pylist() == rows
    assert rows == table
    assert [row["seed"] for row in rows] == [7] * 4
    assert {row["metric_seed"] for row in rows} == {summary.arms[0].generations[0].metrics["seed"]}
