"""The house in figures: import circles, long functions, large modules.

    python tests/house.py

prints them; tests/test_house.py holds them.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import grimp

ROOT = Path(__file__).parents[1]
PACKAGES = ("sims_core", "tasks", "flows", "infra")
MOST_LINES_OF_A_FUNCTION = 60
MOST_LINES_OF_A_MODULE = 400


def circles() -> list[set[str]]:
    """Modules that import each other in a loop, each loop's together (Tarjan's algorithm)."""
    sys.path.insert(0, str(ROOT))
    graph = grimp.build_graph(*PACKAGES)
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[set[str]] = []

    def visit(module: str) -> None:
        index[module] = low[module] = len(index)
        stack.append(module)
        for other in graph.find_modules_directly_imported_by(module):
            if other not in index:
                visit(other)
                low[module] = min(low[module], low[other])
            elif other in stack:
                low[module] = min(low[module], index[other])
        if low[module] == index[module]:
            loop = set()
            while module not in loop:
                loop.add(stack.pop())
            if len(loop) > 1:
                found.append(loop)

    for module in graph.modules:
        if module not in index:
            visit(module)
    return found


def sources() -> Iterator[Path]:
    """Every module of the project."""
    for package in PACKAGES:
        yield from sorted((ROOT / package).rglob("*.py"))


def functions() -> list[tuple[int, str]]:
    """Lines and place of every function, the longest first."""
    found = []
    for path in sources():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (node.end_lineno or node.lineno) - node.lineno + 1
                found.append((lines, f"{path.relative_to(ROOT)}:{node.lineno} {node.name}"))
    return sorted(found, reverse=True)


def modules() -> list[tuple[int, str]]:
    """Lines and path of every module, the largest first."""
    found = [(len(path.read_text().splitlines()), path) for path in sources()]
    return [(lines, str(path.relative_to(ROOT))) for lines, path in sorted(found, reverse=True)]


if __name__ == "__main__":
    loops = circles()
    print(f"import circles: {len(loops)}")
    for loop in loops:
        print("  " + ", ".join(sorted(loop)))
    print(f"modules: {len(modules())}, {sum(lines for lines, _ in modules())} lines")
    for title, rows in (("largest modules", modules()), ("longest functions", functions())):
        print(f"{title}:")
        for lines, place in rows[:5]:
            print(f"  {lines:4d} {place}")
