"""Reads network pickles, each in a fork of this process, and says how much memory each took.

    python tests/sims_core/nets/peak_worker.py < paths, a line each

A line for each path: by how many bytes the fork's resident memory grew to its peak. The peak of a
fork begins at what is resident when it begins, so that no file hides behind one before it.
"""

from __future__ import annotations

import contextlib
import os
import resource
import sys
from pathlib import Path

import torch

from sims_core.common.errors import BadInput
from sims_core.nets.edm_pickles import read_network_pickle


def peak() -> int:
    """The most bytes of this process that were resident at once."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def growth_in_fork(path: Path) -> int:
    """Bytes; raises ChildProcessError if anything but BadInput ended the fork."""
    out, into = os.pipe()
    child = os.fork()
    if not child:
        code = 1
        try:
            before = peak()
            with contextlib.suppress(BadInput):
                read_network_pickle(path)
            os.write(into, str(peak() - before).encode())
            code = 0
        finally:
            os._exit(code)
    os.close(into)
    with os.fdopen(out) as answer:
        text = answer.read()
    _, status = os.waitpid(child, 0)
    if status:
        raise ChildProcessError(f"{path}: ended with {os.waitstatus_to_exitcode(status)}")
    return int(text)


def main() -> None:
    torch.set_num_threads(1)
    for line in sys.stdin:
        print(growth_in_fork(Path(line.rstrip("\n"))), flush=True)


if __name__ == "__main__":
    main()
