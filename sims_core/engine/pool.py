"""A function in processes of its own: fresh interpreters that import its module and no more.

Not multiprocessing's pool: a fork of a process with threads may hang, and its spawn imports this
process's main module again, whatever that is.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import traceback
from contextlib import suppress
from multiprocessing.connection import Connection, Pipe
from pkgutil import resolve_name
from queue import SimpleQueue
from types import TracebackType
from typing import Any

from sims_core.common.errors import SimsError


class Pool:
    """Calls of one function of one argument, each by whichever process is free.

    To be called from as many threads as there are processes; what is sent and returned is pickled.

    Args:
        entry: `module:function`.
    """

    def __init__(self, entry: str, processes: int) -> None:
        self._processes: list[tuple[subprocess.Popen[bytes], Connection]] = []
        self._free: SimpleQueue[Connection] = SimpleQueue()
        for _ in range(processes):
            ours, theirs = Pipe()
            with theirs:
                process = subprocess.Popen(  # noqa: S603 - our own module
                    [sys.executable, "-m", __name__, entry, str(theirs.fileno())],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    pass_fds=[theirs.fileno()],
                )
            self._processes.append((process, ours))
            self._free.put(ours)

    def __call__(self, item: Any) -> Any:
        """The function's value, or what it raised.

        Raises:
            SimsError: the process has gone.
        """
        process = self._free.get()
        try:
            process.send(item)
            done, value = process.recv()
        except (EOFError, OSError):
            raise SimsError(
                "a process ended without a word (killed, or out of memory): run the same command "
                "again: it goes on where it stopped"
            ) from None
        finally:
            self._free.put(process)
        if not done:
            raise value
        return value

    def __enter__(self) -> Pool:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for process, connection in self._processes:
            connection.close()
            process.kill()
            process.wait()


def serve(entry: str, connection: Connection) -> None:
    """Answers until the other end is closed."""
    function = resolve_name(entry)
    with suppress(EOFError, OSError):
        while True:
            item = connection.recv()
            try:
                answer = (True, function(item))
            except (SimsError, OSError) as error:
                answer = (False, error)
            except Exception:
                answer = (False, RuntimeError(traceback.format_exc()))
            connection.send(answer)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for who started this, who ends this
    serve(sys.argv[1], Connection(int(sys.argv[2])))
