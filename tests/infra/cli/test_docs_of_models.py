"""The worked examples of docs/models.md work, but for the files that are missing."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from infra.cli.main import app

TEXT = (Path(__file__).parents[3] / "docs" / "models.md").read_text()
ROWS = TEXT[TEXT.index("## Table 1") : TEXT.index("## diffusers")]
LINES = re.findall(r"^    (.*\bsims .*)$", ROWS, re.MULTILINE)
MISSING = re.compile(
    r"is no folder and no regular file|is no file: want|no such file or folder|"
    r"from what the store .* lacks|there is no store at"
)


def test_every_row_has_its_commands():
    text = "\n".join(LINES)
    assert (text.count("sims run "), text.count("sims model import ")) == (10, 9)


@pytest.mark.parametrize("line", LINES)
def test_a_command_stops_at_what_is_missing(line, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    settings, _, command = shlex.join(shlex.split(line, comments=True)).rpartition("sims ")
    for setting in settings.split():
        name, _, value = setting.partition("=")
        monkeypatch.setenv(name, "cpu" if name == "SIMS_DEVICE" else value)
    words = shlex.split(command)
    further = ["--dry-run"] if words[0] == "run" else []
    done = CliRunner().invoke(app, [*words, *further, "--store", str(tmp_path / "store")])
    if done.exit_code == 0:  # a plan, which says what a run would be refused for
        missing = [line for line in done.stdout.splitlines() if line.startswith("missing: ")]
        assert further
        assert missing
        assert all(re.fullmatch(r"missing: (model|data set) .*: `.*`", line) for line in missing)
        return
    assert done.exit_code in (1, 2)
    message, *parts = done.stderr.splitlines()
    assert MISSING.search(message), message
    assert all(re.fullmatch(r"  (model|data set) .*: `.*`", part) for part in parts), parts
    assert bool(parts) == message.endswith(" lacks:")
