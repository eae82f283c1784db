"""What every command of `sims` shares: options, errors as one line, the store that is used."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sims_core.common.errors import BadInput, SimsError
from sims_core.common.shown import shown
from sims_core.common.values import counted

if TYPE_CHECKING:  # what a command needs is imported when it runs
    from sims_core.store.store import Store

StoreOption = Annotated[
    Path | None,
    typer.Option("--store", help="Folder of the artifact store (SIMS_STORE, else ./store)."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object to stdout.")]


def worded(message: str) -> str:
    """A message of the science with its options as a command line writes them: a single word in
    backticks, `skip_broken`, becomes --skip-broken."""
    return re.sub(r"`(\w+)`", lambda option: "--" + option[1].replace("_", "-"), message)


def _fail(message: str, code: int, parts: Sequence[str] = ()) -> typer.Exit:
    print(f"error: {shown(worded(message))}", file=sys.stderr)
    for part in parts:
        print(f"  {shown(worded(part))}", file=sys.stderr)
    return typer.Exit(code)


class _Terminated(BaseException):
    """SIGTERM came: from `kill`, `timeout`, or a job manager."""


def _terminate(*_: object) -> None:
    raise _Terminated


@contextmanager
def errors() -> Iterator[None]:
    """A user's mistake is one line, and one for each part that it has, and no traceback; and so is
    the end of a command by Ctrl-C or SIGTERM."""
    before = signal.signal(signal.SIGTERM, _terminate)
    go_on = "run the same command again and it goes on where it stopped"
    try:
        yield
    except BadInput as error:
        message, *parts = error.lines
        raise _fail(message, 2, parts) from None
    except SimsError as error:
        raise _fail(str(error), 1) from None
    except KeyboardInterrupt:
        raise _fail(f"interrupted; {go_on}", 130) from None
    except _Terminated:
        raise _fail(f"ended by SIGTERM; {go_on}", 143) from None
    finally:
        signal.signal(signal.SIGTERM, before)


def tell_renamed(before: str, now: str) -> None:
    """Says on standard error that a name is given to something else: what runs by that name
    compute from now on is not what they did.

    Args:
        before, now: what it stood for and stands for, in words that begin with the name.
    """
    name, _, was = before.partition(": ")
    print(shown(f"{name} stood for {was}"), file=sys.stderr)
    print(shown(f"{name} stands for {now.partition(': ')[2]} now"), file=sys.stderr)


def use_store(store: Path | None) -> None:
    """The settings of this process, and of the flow that it runs, name this store."""
    if store is not None:
        os.environ["SIMS_STORE"] = str(store.expanduser().absolute())


def existing_store(store: Path | None) -> Store:
    """The store that is named, if it is there."""
    from sims_core.settings import Settings
    from sims_core.store.store import Store

    use_store(store)
    return Store.open(Settings.read().store, create=False)


def print_list(
    store: Store | str,
    what: str,
    rows: Sequence[dict[str, Any]],
    text: Callable[[dict[str, Any]], str],
    as_json: bool,
    **more: Any,
) -> None:
    """What every `ls` prints: a line for each row and how many there are, or one JSON object.

    Args:
        store: where they are; a bucket by its URL.
        what: what the rows are, in the plural; without spaces it is their key in the JSON object.
        more: what the JSON object has beside the rows.
    """
    place = store if isinstance(store, str) else str(store.root)
    if as_json:
        print(json.dumps({"store": place, what.replace(" ", ""): rows, **more}))
        return
    for row in rows:
        print(text(row))
    print(f"{counted(len(rows), what.removesuffix('s'))} in {place}")
