"""Which code a stage runs: a digest of its source, found without importing it.

A stage's source is the module that its entry names and every module of ours that this imports,
directly or not, also late (in a function) or by name (`module:object` strings, packages whose
modules register themselves) where that lies in the stage's own room or in one below. Comments,
docstrings and layout do not count.

Left out is what carries bytes and says when to compute but makes none: engine, store, and the rooms
that plan, report and read settings; errors and how they are worded.
"""

from __future__ import annotations

import ast
import hashlib
import re
import subprocess
import sys
from functools import cache
from importlib.machinery import PathFinder
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGE = "sims-loop"
ROOT = Path(__file__).parents[2]
OURS = "sims_core"
MAKES_NO_BYTES = tuple(
    f"{OURS}.{room}"
    for room in (
        *("engine", "store", "studies", "reports", "methods", "catalog", "worker", "settings"),
        *("common.errors", "common.files", "common.kept", "common.shown"),
    )
)
FLOORS = (("common",), ("diffusion",), ("nets", "data"), ("sampling", "latents", "evaluation"))
"""Rooms from below; those above all of them come last. What a configuration names for a room above
is not run by the stages of the rooms below: a network's training by what samples it."""
DECLARATIONS = "stages"
"""The module of a package that declares its stages names the code of all of them."""
NAMED = re.compile(r"([A-Za-z_]\w*(?:\.\w+)+)(:\w+)?")


@cache
def code_digest() -> str:
    """SHA-256 of every module of ours, whatever of them a stage runs: cheap, and first to be asked.

    Where it is the same, so is each stage's source.
    """
    root = Path(__file__).parents[1]
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        digest.update(f"{path.relative_to(root)}\0".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()


@cache
def source_digest(entry: str) -> str:
    """SHA-256 of the source that a stage runs; empty if it cannot be found.

    Args:
        entry: `module:function` of what computes it.
    """
    sources = modules_of(entry)
    if not sources:
        return ""
    text = "".join(f"{name} {_parsed(path)[0]}\n" for name, path in sorted(sources.items()))
    return hashlib.sha256(text.encode()).hexdigest()


def modules_of(entry: str) -> dict[str, Path]:
    """The modules that a stage runs, by name: its own and those of ours that it needs."""
    start = entry.partition(":")[0]
    roots = {OURS, start.partition(".")[0]}
    found: dict[str, Path] = {}
    waiting = [start]
    while waiting:
        name = waiting.pop()
        path = _file(name) if name.partition(".")[0] in roots else None
        if path is None or name in found or (name != start and _makes_no_bytes(name)):
            continue
        found[name] = path
        _, imported, named = _parsed(path)
        waiting += [*imported, *(other for other in named if _floor(other) <= _floor(start))]
    return found


def package_version() -> str | None:
    """This package's version, None where it is not installed."""
    try:
        return version(PACKAGE)
    except PackageNotFoundError:  # run from a folder that was copied
        return None


def code_commit(root: Path = ROOT) -> str | None:
    """The commit of the clone whose top is `root`, with `-dirty` if a file differs; None if there
    is none, or no git."""
    if not (root / ".git").exists():  # git would look for one further up, of something else
        return None
    command = ["git", "--no-optional-locks", "-C", str(root), "describe", "--always", "--dirty"]
    try:
        told = subprocess.run(  # noqa: S603 - no part of it is a user's
            [*command, "--abbrev=40", "--exclude=*"],
            capture_output=True,
            text=True,
            check=True,
            timeout=20,
        )
    except (OSError, subprocess.SubprocessError):  # no git here, or it refuses the folder
        return None
    return told.stdout.strip() or None


@cache
def made_by() -> dict[str, str]:
    """Version of the package and, in a clone, the commit, as manifests have them."""
    return {"version": package_version() or "unknown", "commit": code_commit() or ""}


def _makes_no_bytes(name: str) -> bool:
    inside = any(name == room or name.startswith(f"{room}.") for room in MAKES_NO_BYTES)
    return inside or (name.startswith(f"{OURS}.") and name.endswith(f".{DECLARATIONS}"))


def _floor(name: str) -> int:
    """How high a module's room lies."""
    room = name.removeprefix(f"{OURS}.").partition(".")[0]
    return next((floor for floor, rooms in enumerate(FLOORS) if room in rooms), len(FLOORS))


@cache
def _folder(root: str) -> Path | None:
    """Where a top-level package or module lies; None if it is not in files."""
    if root == OURS:
        return Path(__file__).parents[1]
    loaded = getattr(sys.modules.get(root), "__file__", None)
    if loaded is None:
        spec = PathFinder.find_spec(root)
        loaded = spec.origin if spec is not None else None
    if loaded is None or not loaded.endswith(".py"):
        return None
    path = Path(loaded)
    return path.parent if path.name == "__init__.py" else path


@cache
def _file(name: str) -> Path | None:
    """The file of a module or of a package's `__init__`; None if there is no such module."""
    root, *parts = name.split(".")
    folder = _folder(root)
    if folder is None:
        return None
    if folder.is_file():
        return None if parts else folder
    path = folder.joinpath(*parts)
    for candidate in (path / "__init__.py", path.with_suffix(".py") if parts else path):
        if candidate.is_file():
            return candidate
    return None


@cache
def _parsed(path: Path) -> tuple[str, tuple[str, ...], tuple[str, ...]]:
    """Digest of a module's source; what may be modules that it imports, and that it names."""
    tree = ast.parse(path.read_bytes())
    words: list[str] = []
    _spell(tree, words)
    digest = hashlib.sha256("\0".join(words).encode(errors="surrogatepass")).hexdigest()
    imported: dict[str, None] = {}
    named: dict[str, None] = {}
    _look_for_names(tree, imported, named)
    return digest, tuple(imported), tuple(named)


def _spell(node: Any, words: list[str]) -> None:
    """The tree in words, the same for every version of Python, without docstrings."""
    if isinstance(node, ast.AST):
        words.append(type(node).__name__)
        for field in node._fields:
            value = getattr(node, field, None)
            if value is not None and value != [] and field not in ("ctx", "kind"):
                words.append(field)
                _spell(value, words)
    elif isinstance(node, list):
        words.append("[")
        for each in node:
            if not (isinstance(each, ast.Expr) and _text(each.value) is not None):
                _spell(each, words)
        words.append("]")
    else:
        words.append(repr(node))


def _text(node: ast.AST) -> str | None:
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else None


def _look_for_names(node: ast.AST, imported: dict[str, None], named: dict[str, None]) -> None:
    """Notes what may be modules; what is imported for types alone is not run."""
    if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
        node = ast.Module(body=node.orelse, type_ignores=[])
    if isinstance(node, ast.Call) and "getLogger" in ast.dump(node.func):
        return
    if isinstance(node, ast.Import):
        imported.update({alias.name: None for alias in node.names})
    elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
        imported[node.module] = None
        imported.update({f"{node.module}.{alias.name}": None for alias in node.names})
    elif (text := _text(node)) is not None and (match := NAMED.fullmatch(text)):
        named[match[1]] = None
        path = _file(match[1]) if match[1].startswith(f"{OURS}.") else None
        if match[2] is None and path is not None and path.name == "__init__.py":
            inside = (each.stem for each in sorted(path.parent.glob("[!_]*.py")))
            named.update({f"{match[1]}.{stem}": None for stem in inside})
    for child in ast.iter_child_nodes(node):
        _look_for_names(child, imported, named)
