"""Runs beside each other: figures are those of their tables, whatever they are shown as."""

import base64
import json
import re
import shutil
import subprocess

import numpy as np
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
import scipy.stats
from matplotlib.collections import PolyCollection

from sims_core.common.errors import BadInput
from sims_core.reports.citations import entries, keys_of
from sims_core.reports.drawing import written
from sims_core.reports.latex import escaped, latex_table
from sims_core.reports.past_runs import PastRun, find_run, past_runs
from sims_core.reports.side_by_side import compare_runs
from sims_core.reports.side_by_side_figure import comparison_figure
from sims_core.reports.side_by_side_files import grids, write_comparison
from sims_core.reports.upkeep import remove_run
from sims_core.store.store import Store

SEEDS = (0, 1, 2, 3, 4)
ARMS = ("standard |D_s|=1797", "sims omega=1 |D_s|=1797")


@pytest.fixture
def make_run(tmp_path):
    """Writes a folder as a run leaves it, with figures drawn from `base` and the seeds."""

    def make(name, base=0.0, seeds=SEEDS, arms=ARMS, old=False, **parameters):
        folder = tmp_path / "store" / "runs" / name
        folder.mkdir(parents=True)
        (tmp_path / "store" / "artifacts").mkdir(exist_ok=True)
        draw = np.random.default_rng([*name.encode(), *seeds])
        rows = [
            {
                "arm": arm,
                "t": t,
                **({"seed": 4711} if old else {"seed": seed, "metric_seed": 4711}),
                "fid": base + t + number + draw.random(),
                "kid": draw.random() / 100,
                "kid_std": 0.001,
                "precision": draw.random(),
                "recall": draw.random(),
                "n_generated": 1797,
                "n_real": 1797,
            }
            for number, arm in enumerate(arms)
            for seed in seeds
            for t in (1, 2, 3)
        ]
        pq.write_table(pyarrow.Table.from_pylist(rows), folder / "metrics.parquet")
        asked = {"preset": "digits", "seeds": list(seeds), "generations": 3, "overrides": {}}
        provenance = {
            "parameters": asked | parameters,
            "experiment": {"data": {"source": "digits"}},
            "seeds": list(seeds),
        }
        content = {
            **{"run": name, "flow": "sims-loop", "preset": "digits", "arms": []},
            "stages": {"computed": 3, "cached": 1, "seconds": 12.5},
            **({} if old else {"provenance": provenance}),
        }
        (folder / "run.json").write_text(json.dumps(content))
        return PastRun(folder)

    return make


@pytest.fixture
def three(make_run):
    """Three runs of five seeds, which differ in one parameter."""
    kimgs = (12, 25, 50)
    return [
        make_run(f"run-{kimg}", base=20 / kimg, overrides={"training.kimg": kimg}) for kimg in kimgs
    ]


def values_of(run, arm, t, name):
    return [row[name] for row in run.rows if (row["arm"], row["t"]) == (arm, t)]


def test_k_is_said_where_it_is_the_same_for_all(make_run):
    """Figures of other neighbourhoods are no figures of one scale."""
    runs = [make_run(name, overrides={"training.kimg": n}) for n, name in enumerate("abc")]

    def measured_at(run, k):
        content = dict(run.content)
        content["provenance"]["experiment"]["evaluation"] = {"prc_neighborhood": k}
        (run.folder / "run.json").write_text(json.dumps(content))
        return PastRun(run.folder)

    same = compare_runs([measured_at(run, 5) for run in runs[:2]])
    titles = {each.name: each.title for each in same.figures}
    assert (titles["precision"], titles["recall"]) == ("Precision (k = 5)", "Recall (k = 5)")
    assert "Recall (k = 5)" in {axes.get_title()[:14] for axes in comparison_figure(same).axes}
    others = compare_runs([measured_at(runs[0], 5), measured_at(runs[1], 3)])
    assert "precision_recall at k = 3 and 5: these do not compare" in others.notes
    unknown = compare_runs([measured_at(runs[0], 5), runs[2]])
    for comparison in (others, unknown):
        assert "Precision" in {each.title for each in comparison.figures}


def test_the_table_is_that_of_the_runs(three):
    comparison = compare_runs(three)
    assert comparison.labels == ("training.kimg=12", "training.kimg=25", "training.kimg=50")
    rows = comparison.table_rows()
    assert len(rows) == 3 * 2 * 3
    for row in rows:
        run = three[comparison.labels.index(row["run"])]
        for name in ("fid", "kid", "precision", "recall"):
            values = values_of(run, row["line"], row["t"], name)
            interval = scipy.stats.t.interval(
                0.95, 4, np.mean(values), scipy.stats.sem(values, ddof=1)
            )
            assert row[name] == pytest.approx(np.mean(values), rel=1e-12)
            assert (row[f"{name}_low"], row[f"{name}_high"]) == pytest.approx(interval)
        assert row["seeds"] == 5
    assert comparison.differences["training.kimg"] == [12, 25, 50]
    assert len(comparison.differences) == 1


def test_the_figure_has_bands(three):
    figure = comparison_figure(compare_runs(three))
    (fid, *_), run = figure.axes, three[0]
    bands = [each for each in fid.collections if isinstance(each, PolyCollection)]
    assert len(bands) == len(fid.lines) == 6
    means = [np.mean(values_of(run, ARMS[0], t, "fid")) for t in (1, 2, 3)]
    assert fid.lines[0].get_ydata() == pytest.approx(means)
    values = values_of(run, ARMS[0], 1, "fid")
    low, high = scipy.stats.t.interval(0.95, 4, np.mean(values), scipy.stats.sem(values))
    edges = bands[0].get_paths()[0].vertices
    at_first = edges[edges[:, 0] == 1][:, 1]
    assert (at_first.min(), at_first.max()) == pytest.approx((low, high))


def test_the_files_hold_the_figures(three, tmp_path):
    folder = tmp_path / "out"
    files = write_comparison(compare_runs(three), folder)
    assert sorted(path.name for path in files) == sorted(path.name for path in folder.iterdir())
    tidy = pq.read_table(folder / "runs.parquet").to_pylist()
    assert len(tidy) == 3 * 2 * 5 * 3
    for run in three:
        label = f"training.kimg={run.parameters['training.kimg']}"
        found = {
            (row["line"], row["t"], row["seed"]): row["fid"] for row in tidy if row["run"] == label
        }
        assert found == {(row["arm"], row["t"], row["seed"]): row["fid"] for row in run.rows}
    assert pyarrow.csv.read_csv(folder / "runs.csv").num_rows == len(tidy)
    assert (folder / "figure.pdf").read_bytes().startswith(b"%PDF")
    before = {path.name: path.read_bytes() for path in files}
    write_comparison(compare_runs(three), folder)
    assert {path.name: path.read_bytes() for path in files} == before
    (folder / "mine.txt").touch()
    with pytest.raises(BadInput, match=r"holds mine\.txt"):
        write_comparison(compare_runs(three), folder)


def test_the_latex_table_is_well_formed(three, tmp_path):
    text = latex_table(compare_runs(three))
    depth = 0
    for character in re.sub(r"\\[{}]", "", text):
        depth += {"{": 1, "}": -1}.get(character, 0)
        assert depth >= 0
    assert depth == 0
    columns = re.search(r"\\begin{tabular}{(\w+)}", text)[1]
    rows = [line for line in text.splitlines() if line.endswith(r"\\")]
    assert len(rows) == 1 + 6
    assert {len(re.findall(r"(?<!\\)&", row)) for row in rows} == {len(columns) - 1}
    values = values_of(three[0], ARMS[0], 1, "fid")
    reach = scipy.stats.sem(values) * scipy.stats.t.ppf(0.975, 4)
    assert rf"{np.mean(values):.3f} \pm {reach:.3f}$" in rows[1]
    # The best of each column alone is bold.
    assert text.count(r"\mathbf") == 3
    commands = set(re.findall(r"\\([a-zA-Z]+)", text))
    assert commands <= {
        *("usepackage", "begin", "end", "centering", "caption", "toprule", "midrule"),
        *("bottomrule", "pm", "mathbf", "textbar"),
    }
    if (latex := shutil.which("pdflatex")) is None:
        return
    document = rf"\documentclass{{article}}\usepackage{{booktabs}}\begin{{document}}{text}"
    (tmp_path / "a.tex").write_text(document + r"\end{document}")
    subprocess.run(
        [latex, "-halt-on-error", "a.tex"], cwd=tmp_path, check=True, capture_output=True
    )


def test_a_legend_fits_a_narrow_page(make_run):
    """500 pixels less the margins, at three quarters of a point each."""
    for number, name in enumerate(("omega={w}", "sims omega={w} |D_s|=1797 real_fraction=0.5")):
        arms = tuple(name.format(w=w) for w in range(7))
        comparison = compare_runs([make_run(f"x{number}", seeds=(0,), arms=arms)])
        page = written(comparison_figure(comparison), None, "figure")
        legend = re.search("<svg.*?</svg>", page, re.DOTALL)[0]
        width, height = map(float, re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', legend).groups())
        assert [text for text in arms if f">{text}<" in legend] == list(arms)
        assert width < 0.75 * 476
        assert (height > 80) == (number == 1), "short names stand two in a row"


def test_special_characters_are_printed():
    assert escaped("a_b & 50 % |D|\\") == r"a\_b \& 50 \% \textbar{}D\textbar{}\textbackslash{}"


def test_runs_that_differ_in_their_seed_are_one(make_run):
    runs = [make_run(f"s{seed}", seeds=(seed,), seed=seed) for seed in range(3)]
    comparison = compare_runs(runs)
    assert [line.label for line in comparison.lines] == list(ARMS)
    assert [line.seeds for line in comparison.lines] == [[0, 1, 2]] * 2
    found = comparison.lines[0].over_seeds("fid")[2.0]
    assert found.values == tuple(values_of(run, ARMS[0], 2, "fid")[0] for run in runs)
    assert comparison.notes == ()


def test_a_seed_that_is_there_twice_counts_once(make_run):
    runs = [make_run("a", seeds=(0, 1)), make_run("b", seeds=(1, 2))]
    comparison = compare_runs(runs)
    assert comparison.lines[0].seeds == [0, 1, 2]
    assert "seed 1 again in b" in comparison.notes[0]
    found = comparison.lines[0].points[1.0][1]["fid"]
    assert found == values_of(runs[0], ARMS[0], 1, "fid")[1]


def test_what_runs_share_is_shown_once(make_run):
    """The standard arm of two runs that differ in the strength of guidance is the same."""
    first, second = make_run("a", omegas=[1]), make_run("b", omegas=[2])
    rows = [
        theirs if ours["arm"] == ARMS[1] else ours
        for ours, theirs in zip(first.rows, second.rows, strict=True)
    ]
    pq.write_table(pyarrow.Table.from_pylist(rows), second.folder / "metrics.parquet")
    comparison = compare_runs([first, PastRun(second.folder)])
    labels = [f"omegas=1: {ARMS[0]}", f"omegas=1: {ARMS[1]}", f"omegas=2: {ARMS[1]}"]
    assert [line.label for line in comparison.lines] == labels
    assert comparison.notes == (
        f"omegas=2: {ARMS[0]}: the same figures as {labels[0]}, shown once",
    )


def test_grids_are_of_the_first_seed_and_each_is_shown_once(make_run, tmp_path):
    def run(name, omega, shared):
        made = make_run(name, seeds=(4, 5), omegas=[omega])
        arms = []
        for arm, seed in ((arm, seed) for arm in ("standard", f"sims {omega}") for seed in (4, 5)):
            picture = b"shared" if arm == "standard" and shared else f"{name} {arm}".encode()
            folder = tmp_path / "store" / "images" / name / arm / str(seed)
            folder.mkdir(parents=True)
            (folder / "grid.png").write_bytes(picture + bytes([seed]))
            made_of = {"preview": str(folder.relative_to(tmp_path / "store"))}
            generations = [{"t": t, "artifacts": made_of} for t in (1, 2)]
            arms.append({"name": f"{arm} seed={seed}", "seed": seed, "generations": generations})
        (made.folder / "run.json").write_text(json.dumps({**made.content, "arms": arms}))
        return PastRun(made.folder)

    comparison = compare_runs([run("a", 1, True), run("b", 2, True), run("c", 3, False)])
    shown = [
        (grid["name"], base64.b64decode(grid["uri"].partition(",")[2]))
        for grid in grids(comparison)
    ]
    assert shown == [
        ("omegas=1: standard", b"shared\x04"),
        ("omegas=1: sims 1", b"a sims 1\x04"),
        ("omegas=2: sims 2", b"b sims 2\x04"),
        ("omegas=3: standard", b"c standard\x04"),
        ("omegas=3: sims 3", b"c sims 3\x04"),
    ]


def test_a_table_of_an_earlier_version_can_be_read(make_run):
    """Its `seed` is that of KID's subsets, and it says none of its own."""
    comparison = compare_runs([make_run("new", seeds=(3,)), make_run("old", seeds=(0,), old=True)])
    assert comparison.labels == ("new", "old")
    assert [line.seeds for line in comparison.lines] == [[3], [3], [0], [0]]


def test_a_studys_selection_is_left_out_and_its_repeats_are_averaged(make_run):
    run = make_run("study")
    rows = [
        {"phase": "selection", "model": "SIMS", "seed": 0, "metric_seed": 1, "fid": 1.0},
        *(
            {"phase": "final", "model": "SIMS", "seed": seed, "metric_seed": 1, "fid": fid}
            for seed, fid in ((0, 3.0), (0, 5.0), (1, 8.0))
        ),
    ]
    pq.write_table(pyarrow.Table.from_pylist(rows), run.folder / "metrics.parquet")
    comparison = compare_runs([PastRun(run.folder)])
    assert comparison.axis == ""
    assert comparison.lines[0].over_seeds("fid")[0.0].values == (4.0, 8.0)
    assert "6.000" in latex_table(comparison)
    assert len(comparison_figure(comparison).axes) == 1


def test_what_cannot_be_compared_is_refused(make_run):
    run = make_run("a")
    with pytest.raises(BadInput, match="given twice"):
        compare_runs([run, run])
    other = make_run("b")
    (other.folder / "metrics.parquet").unlink()
    with pytest.raises(BadInput, match="b has not ended"):
        compare_runs([run, PastRun(other.folder)])


def test_of_a_run_that_goes_on_it_is_said_how_far_it_is(make_run, tmp_path):
    whole, going = make_run("whole"), make_run("going", overrides={"training.kimg": 9})
    assert compare_runs([whole, going]).notes == ()
    content = {**going.content, "unfinished": "21 of 219 stages"}
    (going.folder / "run.json").write_text(json.dumps(content))
    comparison = compare_runs([whole, PastRun(going.folder)])
    said = "going is unfinished (21 of 219 stages)"
    assert comparison.notes == (said,)
    write_comparison(comparison, tmp_path / "out")
    assert f"<b>Note:</b> {said}" in (tmp_path / "out" / "index.html").read_text()


def test_names_are_text_on_the_page(make_run, tmp_path):
    runs = [make_run("x", arms=("<b>&amp;",)), make_run("y", arms=("<b>&amp;",), loop="<i>")]
    write_comparison(compare_runs(runs), tmp_path / "out")
    page = (tmp_path / "out" / "index.html").read_text()
    assert "<b>&" not in page
    assert "<i>" not in page
    assert "&lt;i&gt;" in page


def test_every_citation_is_there_and_whole(make_run):
    known = entries()
    for text in known.values():
        assert text.count("{") == text.count("}")
        assert "title = {" in text
        assert "author = {" in text
    used = set(keys_of(make_run("a")))
    assert used <= known.keys()
    assert {"alemohammad2024self", "alpaydin1998optical", "heusel2017gans"} <= used
    assert "alemohammad2025neon" not in used


def test_every_method_and_known_set_has_its_citation():
    from sims_core.data.known_sets import KNOWN_SETS
    from sims_core.reports.citations import DATA, METHODS, METRICS, NETS

    assert {*DATA.values(), *METHODS.values(), *METRICS.values(), *NETS.values()} <= set(entries())
    assert set(KNOWN_SETS) <= set(DATA)


def test_runs_are_found_listed_and_removed(make_run, tmp_path):
    run = make_run("a")
    store = Store.open(tmp_path / "store")
    (run.folder / "arms").mkdir()
    artifact = store.root / "artifacts" / "model" / "x"
    artifact.mkdir(parents=True)
    (artifact / "weights").write_bytes(b"1234567")
    (run.folder / "arms" / "model").symlink_to(artifact)
    (found,) = past_runs(store)
    assert (found.name, found.state, found.seeds) == ("a", "finished", SEEDS)
    own = sum(path.stat().st_size for path in run.folder.glob("*") if path.is_file())
    link = (run.folder / "arms" / "model").lstat().st_size
    assert found.size in (own + 7, own + 7 + link)
    assert find_run(store, str(run.folder)).name == "a"
    with pytest.raises(BadInput, match=r"no run 'b' in the store .*; runs: a"):
        find_run(store, "b")
    shutil.rmtree(artifact)
    assert past_runs(store)[0].state == "damaged"
    (run.folder / "run.json").write_text("{")
    assert past_runs(store)[0].state == "unfinished"
    remove_run(store, found.folder)
    assert past_runs(store) == []
    assert not list((store.root / "progress").iterdir())
    with pytest.raises(BadInput, match="is no run of the store"):
        remove_run(Store.open(tmp_path / "other"), found.folder)
