"""The source of every stage, as it was when its version was last raised or its change explained.

An artifact's name has its stage's version, not its source: a change of what a stage computes is
seen by a store only if the version goes up. So whoever changes the source of a stage raises its
version, or says why the bytes are the same. Either way:

    python tests/golden/test_stage_sources.py --because "why the results are the same"

writes stage_sources.json anew, one line a stage; --because is needed if a version stays. After a
merge that conflicts there, take either side and write it anew.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from sims_core.catalog import STAGES
from sims_core.engine import source

FILE = Path(__file__).with_name("stage_sources.json")
OWN = {name for name, stage in STAGES.items() if stage.entry.startswith("sims_core.")}
"""Tests add stages of their own."""


def current() -> dict[str, tuple[int, str]]:
    """Version and source of each stage."""
    return {
        name: (STAGES[name].version, source.source_digest(STAGES[name].entry)[:16])
        for name in sorted(OWN)
    }


def explained(known: dict[str, Any], because: str) -> tuple[dict[str, Any], list[str]]:
    """The file's content as it should be, and the stages whose change nobody explained."""
    lines, open_questions = {}, []
    for name, (version, digest) in current().items():
        old = known.get(name)
        note = old["note"] if old else "first"
        if old and old["version"] != version:
            note = f"version {version}"
        elif old and old["source"] != digest:
            if not because:
                open_questions.append(name)
            note = because
        lines[name] = {"version": version, "source": digest, "note": note}
    return lines, open_questions


def text(lines: dict[str, Any]) -> str:
    """One line a stage."""
    rows = [f"{json.dumps(name)}: {json.dumps(line)}" for name, line in lines.items()]
    return "{\n" + ",\n".join(rows) + "\n}\n"


def test_a_changed_stage_has_a_new_version_or_a_reason():
    known = json.loads(FILE.read_text())
    assert {name: (line["version"], line["source"]) for name, line in known.items()} == current(), (
        "the source of these stages changed: raise their versions, or say why the results are the "
        'same: python tests/golden/test_stage_sources.py --because "..."'
    )
    assert all(line["note"] for line in known.values())


def test_what_nobody_explains_is_asked_for():
    known = json.loads(FILE.read_text())
    known["train"]["source"] = "0" * 16
    assert explained(known, "")[1] == ["train"]
    lines, left = explained(known, "only a name")
    assert (lines["train"]["note"], left) == ("only a name", [])
    known["train"]["version"] = 0
    lines, left = explained(known, "")
    assert (lines["train"]["note"], left) == (f"version {STAGES['train'].version}", [])


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package of our own with a stage; says its digest after a change of some files."""
    monkeypatch.syspath_prepend(str(tmp_path))
    files = {
        "theirs/__init__.py": "",
        "theirs/stage.py": (
            '"""Doc."""\nfrom theirs import deep\nfrom theirs.typed import T\n'
            'NAMED = "theirs.named:make"\nTOO = "theirs.several"\n\n\ndef run(context):\n'
            '    """Doc."""\n    from theirs.late import f\n    return f(deep.x)\n'
        ),
        "theirs/deep.py": "from theirs.deeper import y\nx = y\n",
        "theirs/deeper.py": "y = 1\n",
        "theirs/late.py": "def f(x):\n    return x\n",
        "theirs/named.py": "def make():\n    pass\n",
        "theirs/typed.py": (
            "from typing import TYPE_CHECKING\n"
            "if TYPE_CHECKING:\n    import theirs.types_only\nT = 1\n"
        ),
        "theirs/types_only.py": "a = 1\n",
        "theirs/unused.py": "a = 1\n",
    }

    def digest(**changes):
        for name, content in {**files, **changes}.items():
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).write_text(content)
        for cached in (source.source_digest, source._parsed, source._file, source._folder):
            cached.cache_clear()
        return source.source_digest("theirs.stage:run")

    return digest


CHANGES = {
    "its own": ("stage.py", lambda text: text.replace("f(deep.x)", "0 * f(deep.x)")),
    "imported by what it imports": ("deeper.py", lambda text: "y = 2\n"),
    "imported late": ("late.py", lambda text: text.replace("x\n", "-x\n")),
    "named by a string": ("named.py", lambda text: text.replace("pass", "return 1")),
}
NO_CHANGES = {
    "a docstring": ("stage.py", lambda text: text.replace("Doc.", "Other words.")),
    "a comment": ("deeper.py", lambda text: text + "# why\n"),
    "layout": ("late.py", lambda text: text.replace("return x", "return (\n        x\n    )")),
    "imported for types": ("types_only.py", lambda text: "a = 2\n"),
    "not imported": ("unused.py", lambda text: "a = 2\n"),
}


@pytest.mark.parametrize("change", [*CHANGES, *NO_CHANGES])
def test_what_a_stage_runs_is_its_source(package, change, tmp_path):
    before = package()
    name, edit = {**CHANGES, **NO_CHANGES}[change]
    path = tmp_path / "theirs" / name
    edited = edit(path.read_text())
    assert edited != path.read_text()
    after = package(**{f"theirs/{name}": edited})
    assert before
    assert (after != before) == (change in CHANGES)


def test_a_network_is_the_source_of_what_trains_and_samples_it():
    for name in ("train", "generate", "merge"):
        assert "sims_core.nets.unet" in source.modules_of(STAGES[name].entry), name
    assert "sims_core.evaluation.metrics.kid" in source.modules_of(STAGES["metric"].entry)
    assert "sims_core.training.trainer" in source.modules_of(STAGES["train"].entry)
    assert "sims_core.training.trainer" not in source.modules_of(STAGES["generate"].entry)
    for name in OWN:
        modules = source.modules_of(STAGES[name].entry)
        assert not [m for m in modules if m.startswith(("sims_core.store.", "sims_core.studies."))]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--because", default="", help="why the results are the same")
    made, left = explained(json.loads(FILE.read_text()), parser.parse_args().because)
    if left:
        sys.exit(f"changed, with the version that they had: {', '.join(left)}: --because is needed")
    FILE.write_text(text(made))
    print(f"wrote {FILE.name}: {len(made)} stages")
