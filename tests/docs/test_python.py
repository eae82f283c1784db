"""Every example of docs/python.md runs, in the order in which it stands there; and the notebook."""

from __future__ import annotations

import re
import shutil
from importlib.util import find_spec
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"
EXAMPLES = re.findall(r"^```python\n(.*?)^```$", (DOCS / "python.md").read_text(), re.M | re.S)
NOTEBOOK = DOCS / "sims_on_digits.ipynb"


@pytest.fixture
def digits_run(sims, tmp_path, monkeypatch):
    """The run that the page starts from, with a network and budgets that take seconds."""
    arguments = sims.run_arguments(
        tmp_path / "store",
        "--direct",
        generations="1",
        pollution_sizes="1797",
        run_name="digits",
    )
    done = sims(*arguments)
    assert done.returncode == 0, done.stderr
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SIMS_DEVICE", "cpu")
    return tmp_path


def test_the_examples_run(digits_run, capsys):
    import torch

    assert len(EXAMPLES) >= 9
    names = {}
    for example in EXAMPLES:
        if "to_pandas" in example and find_spec("pandas") is None:
            continue
        exec(compile(example, "docs/python.md", "exec"), names)  # noqa: S102
    assert names["base"].shape == (1, 8, 8)
    assert (names["better"].shape, names["better"].dtype) == ((64, 1, 8, 8), torch.float32)
    assert not torch.equal(names["better"], names["images"])
    assert names["figures"]["n_generated"] == 128
    assert (digits_run / "better.png").read_bytes().startswith(b"\x89PNG")
    printed = capsys.readouterr().out
    assert "'arm': 'sims omega=1" in printed
    assert f"{names['figures']['fid']} 128.0" in printed


def test_the_notebook_runs(tmp_path):
    """With budgets that take seconds in the place of its own, which its cell of parameters has."""
    nbclient = pytest.importorskip("nbclient", reason="installed by the extra `docs`")
    nbformat = pytest.importorskip("nbformat")
    pytest.importorskip("ipykernel")
    notebook = nbformat.read(shutil.copy(NOTEBOOK, tmp_path), as_version=4)
    (parameters,) = [
        cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])
    ]
    parameters.source = (
        "base_kimg, auxiliary_kimg, drawn, generated = 0.2, 0.13, 130, 130\nomegas = [0, 1]"
    )
    client = nbclient.NotebookClient(
        notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": tmp_path}}
    )
    client.execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert sum("image/png" in output.get("data", {}) for output in outputs) >= 3
    assert "omega 1" in "".join(output.get("text", "") for output in outputs)


def test_the_notebook_is_stored_with_its_results():
    """A reader of the page sees figures, of the numbers that stand in it."""
    import json

    cells = json.loads(NOTEBOOK.read_text())["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    outputs = [output for cell in code for output in cell["outputs"]]
    assert all(output["output_type"] != "error" for output in outputs)
    assert sum("image/png" in output.get("data", {}) for output in outputs) >= 3
