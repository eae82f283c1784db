"""Damages good files in every way that hypothesis thinks of, and reads them.

    python tests/sims_core/fuzz/worker.py SECONDS SEED

Run in a process of its own, with bounded memory and processor time, so that what it finds harms
nobody. Prints how many files of each form were read; ends with a traceback at the first that raises
anything but a SimsError, takes more than SLOW_S or more than MOST_MIB of memory.
"""

from __future__ import annotations

import copy
import json
import resource
import runpy
import shutil
import sys
import tempfile
import time
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, Verbosity, given, seed, settings
from hypothesis import strategies as st

from sims_core.common.errors import SimsError

SLOW_S = 10.0
MOST_MIB = 700
ADDRESS_SPACE = 12 << 30
HOSTILE = st.sampled_from(
    [
        *(None, True, -1, 0, 10**13, 10**400, 1e308, -1e-308, float("nan"), float("inf"), "", "x"),
        *("\x1b[31m\n", "a" * 5000, "../..", "/dev/zero", "\ud800", [], {}, [[]], [1] * 1000),
        {"\x1b": {"": None}},
    ]
)


def spots(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Where something stands in a JSON value."""
    found = [path]
    if isinstance(value, dict):
        found += [spot for key, each in value.items() for spot in spots(each, (*path, key))]
    elif isinstance(value, list):
        found += [spot for n, each in enumerate(value[:20]) for spot in spots(each, (*path, n))]
    return found


@st.composite
def changed_json(draw: st.DrawFn, content: bytes) -> bytes:
    """One or two values of a JSON text are others, or are named otherwise."""
    value = json.loads(content)
    for _ in range(draw(st.integers(1, 2))):
        path = draw(st.sampled_from(spots(value)))
        if not path:
            value = draw(HOSTILE)
            break
        value = copy.deepcopy(value)
        place = value
        for step in path[:-1]:
            place = place[step]
        if isinstance(place, dict) and draw(st.booleans()):
            place[draw(st.sampled_from(["\x1b[1m", "x", "kind", ""]))] = place.pop(path[-1])
        else:
            place[path[-1]] = draw(HOSTILE)
    return json.dumps(value).encode()


@st.composite
def damaged(draw: st.DrawFn, content: bytes) -> bytes:
    """Bytes are changed, put in, taken out; the end is cut."""
    found = bytearray(content)
    for _ in range(draw(st.integers(1, 6))):
        at = draw(st.integers(0, max(0, len(found) - 1)))
        some = draw(st.binary(min_size=1, max_size=8) | st.sampled_from([b"\xff" * 8, b"\0" * 8]))
        how = draw(st.sampled_from(["over", "over", "in", "out"]))
        found[at : at + (0 if how == "in" else len(some))] = b"" if how == "out" else some
    return bytes(found[: draw(st.just(len(found)) | st.integers(0, len(found)))])


def peak_mib() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10


def main(seconds: float, first: int) -> None:
    corpus = runpy.run_path(str(Path(__file__).with_name("corpus.py")))
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as root:
        home = Path(root)
        good = [*corpus["sources"](), *corpus["labels"](), *corpus["figures"]()]
        good = [(home / "none", each) for each in good]
        good += [(home / "models", each) for each in corpus["models"](home / "models")]
        good += [(home / "store", each) for each in corpus["store_files"](home / "store")]
        work = home / "work"

        def read(base: Path, each: Any, content: bytes) -> None:
            shutil.rmtree(work, ignore_errors=True)
            shutil.copytree(base, work) if base.is_dir() else work.mkdir()
            path = work / each.name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
            each.read(work)

        for base, each in good:
            read(base, each, each.content)  # what is not damaged is read
        before = peak_mib()
        resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))
        counts: Counter[str] = Counter()

        @given(st.data())
        @settings(
            max_examples=100,
            deadline=None,
            database=None,
            phases=[Phase.generate],
            verbosity=Verbosity.normal,
            suppress_health_check=list(HealthCheck),
        )
        def damage(data: st.DataObject) -> None:
            base, each = data.draw(st.sampled_from(good))
            if each.name.endswith(".json") and data.draw(st.booleans()):
                content = data.draw(changed_json(each.content))
            else:
                content = data.draw(damaged(each.content))
            (home / "last").write_bytes(content)
            started, said = time.process_time(), ""
            try:
                read(base, each, content)
            except SimsError as error:
                said = str(error)
            took, grown = time.process_time() - started, peak_mib() - before
            where = f"{each.name}: {content[:200]!r}"
            assert len(said.splitlines()) <= 1, f"{where}: {said!r}"
            assert took < SLOW_S, f"{where}: {took:.1f} s"
            assert grown < MOST_MIB, f"{where}: {grown} MiB"
            counts[each.name] += 1

        ends, number = time.monotonic() + seconds, first
        while time.monotonic() < ends:
            seed(number)(damage)()
            number += 1
    print(json.dumps({"seeds": number - first, "files": counts.total(), **counts}))


if __name__ == "__main__":
    main(float(sys.argv[1]), int(sys.argv[2]))
