"""The lock and the list of licences are of the versions that the constraints name."""

import re
import runpy
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
_script = runpy.run_path(str(ROOT / "tests" / "licences.py"))
locked, normalised = _script["locked"], _script["normalised"]


def test_the_lock_has_the_versions_of_the_constraints():
    pins = locked((ROOT / "constraints.txt").read_text())
    found = locked((ROOT / "requirements.lock").read_text())
    differ = {name: (version, pins[name]) for name, version in found.items() if name in pins}
    assert {name: both for name, both in differ.items() if both[0] != both[1]} == {}, "make lock"


def test_the_lock_has_all_that_the_project_asks_for_with_hashes_and_no_address():
    text = (ROOT / "requirements.lock").read_text()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    asked = [*project["dependencies"], *project["optional-dependencies"]["dev"]]
    names = {normalised(re.match(r"[A-Za-z0-9._-]+", each)[0]) for each in asked}
    assert names <= locked(text).keys(), "make lock"
    entries = re.split(r"(?m)^(?=[A-Za-z0-9])", text)[1:]
    assert len(entries) == len(locked(text))
    assert all("--hash=sha256:" in entry for entry in entries)
    assert "://" not in text


def test_every_locked_version_has_its_licence():
    listed = (ROOT / "docs" / "licences.md").read_text()
    for name, version in locked((ROOT / "requirements.lock").read_text()).items():
        assert f"| {name} | {version} | " in listed, "make licences"
