"""What every command of `sims` shares: options, errors as one line, the store that is used."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from sims_core.common.errors import BadInput, SimsError
from sims_core.common.shown import shown

StoreOption = Annotated[
    Path | None,
    typer.Option("--store", help="Folder of the artifact store (SIMS_STORE, else ./store)."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object to stdout.")]


def _fail(message: str, code: int) -> typer.Exit:
    print(f"error: {shown(message)}", file=sys.stderr)
    return typer.Exit(code)


@contextmanager
def errors() -> Iterator[None]:
    """A user's mistake is one line and no traceback."""
    try:
        yield
    except BadInput as error:
        raise _fail(str(error), 2) from None
    except SimsError as error:
        raise _fail(str(error), 1) from None
    except KeyboardInterrupt:
        message = "interrupted; run the same command again and it goes on where it stopped"
        raise _fail(message, 130) from None


def use_store(store: Path | None) -> None:
    """The settings of this process, and of the flow that it runs, name this store."""
    if store is not None:
        os.environ["SIMS_STORE"] = str(store.expanduser().absolute())
