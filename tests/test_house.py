"""The house stays in order: no import circle, functions and modules of a readable size."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

_spec = importlib.util.spec_from_file_location("house", Path(__file__).with_name("house.py"))
assert _spec is not None
assert _spec.loader is not None
house = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(house)


def test_no_module_is_in_an_import_circle():
    assert house.circles() == []


def test_every_function_fits_on_a_screen():
    lines, place = house.functions()[0]
    assert lines < house.MOST_LINES_OF_A_FUNCTION, place


def test_no_module_is_too_large():
    lines, path = house.modules()[0]
    assert lines <= house.MOST_LINES_OF_A_MODULE, path


def test_a_circle_is_found(monkeypatch):
    """The figures are those of a graph, whatever it is: one with a circle has one."""

    class Graph:
        edges = {"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}
        modules = set(edges)

        def find_modules_directly_imported_by(self, module):
            return self.edges[module]

    monkeypatch.setattr(house.grimp, "build_graph", lambda *packages: Graph())
    assert house.circles() == [{"a", "b", "c"}]


PINS = ["from sims_core.common.instructions import pin_instructions"]
"""What `sims_core` does before anything of it is imported; it hands nothing on either."""


@pytest.mark.parametrize("package", house.PACKAGES)
def test_packages_themselves_are_empty(package):
    """`__init__.py` hands nothing on, so that an import costs what it says."""
    for path in (house.ROOT / package).rglob("__init__.py"):
        lines = [line for line in path.read_text().splitlines() if line.startswith("from ")]
        if path == house.ROOT / "sims_core" / "__init__.py":
            assert lines == PINS
            continue
        assert not lines or path.parent.name == "presets", path
