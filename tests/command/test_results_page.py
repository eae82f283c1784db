"""The command that writes the results page of CIFAR-10, at small size and without Prefect."""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "results_cifar10.py"
WITHOUT_PREFECT = (
    "import runpy, sys; sys.modules['prefect'] = None; sys.argv = sys.argv[1:];"
    "runpy.run_path(sys.argv[0], run_name='__main__')"
)


def run(data_folder, tmp_path, *options):
    where = ("--store", str(tmp_path / "store"), "--out", str(tmp_path / "out"))
    return subprocess.run(
        [sys.executable, "-c", WITHOUT_PREFECT, str(SCRIPT), "--smoke", *where, *options],
        env={"SIMS_DATA": str(data_folder), "PATH": "", "OMP_NUM_THREADS": "1"},
        cwd=SCRIPT.parents[2],
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )


@pytest.mark.slow
def test_the_page_at_small_size(data_folder, tmp_path):
    done = run(data_folder, tmp_path, "--parts", "check,study")
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "out" / "cifar10.md").read_text()
    assert "smoke: shows that the command works, nothing else" in page
    assert "(n = 256 against 256, resnet20 features" in page
    assert "| sims omega=1 B=0.256k |" in page
    pictures = {path.name for path in (tmp_path / "out").glob("*.png")}
    for name in pictures:
        assert f"({name})" in page
    assert pictures == {
        *("cifar10.png", "cifar10-base.png", "cifar10-fine-tuned.png", "cifar10-sims.png")
    }
    again = run(data_folder, tmp_path, "--parts", "study", "--override", "training.kimg=1")
    assert again.returncode == 0, again.stderr
    text = (tmp_path / "out" / "cifar10.md").read_text()
    assert text.split("## Check")[1] == page.split("## Check")[1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--parts", "checks"), "--parts checks: want some of check, study, speed"),
        (("--preset", "sims-loop/digits"), "--preset: --smoke has its own"),
        (("--parts", "study", "--override", "foo=1"), "error: overrides: no 'foo'; names in"),
        (("--parts", "study", "--sweep", "foo=1"), "error: --sweep foo: "),
    ],
)
def test_a_mistake_is_one_line(options, message, tmp_path):
    done = run(tmp_path, tmp_path, *options)
    assert done.returncode == 2
    assert message in done.stderr.splitlines()[-1]
