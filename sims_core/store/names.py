"""Names given to what was imported: <folder>/<name>.json in a store says what each stands for."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from sims_core.common.errors import BadInput, StoreError
from sims_core.common.files import read_regular, sync_name, write_atomically
from sims_core.common.frozen import Frozen
from sims_core.common.sealed import open_fields, seal_fields
from sims_core.store.locks import locked
from sims_core.store.store import Store

T = TypeVar("T", bound=Frozen)
GIVEN = re.compile(r"[a-z0-9][a-z0-9._-]*")
"""What a name looks like; see `check_name` of data and of models."""


@dataclass(frozen=True)
class Names(Generic[T]):
    """All names of one sort of thing."""

    what: str
    """What a message calls one of them."""
    folder: str
    """Under the store's root."""
    kind: type[T]
    command: str
    """What imports one, less its name."""
    hint: str = ""
    """What a message adds to that command."""

    def file(self, name: str) -> str:
        """The file of a name, in the store."""
        return f"{self.folder}/{name}.json"

    def _path(self, store: Store, name: str) -> Path:
        return store.root / self.file(name)

    def give(self, store: Store, name: str, thing: T) -> None:
        """Lets `name` stand for `thing` from now on."""
        path = self._path(store, name)
        try:
            if not path.parent.is_dir():
                path.parent.mkdir(exist_ok=True)
                sync_name(path.parent)
            fields = seal_fields(thing.model_dump(mode="json"))
            write_atomically(path, json.dumps(fields, ensure_ascii=False))
            sync_name(path)
        except (IsADirectoryError, FileExistsError, NotADirectoryError) as error:
            raise StoreError(
                f"{error.filename2 or error.filename} is in the way: move it"
            ) from None

    def give_again(
        self, store: Store, name: str, before: T | None, thing: T, place: Callable[[T], str]
    ) -> None:
        """Lets `name` stand for `thing`, if it stands for what it did when an import began.

        Args:
            before: what it stood for then (`stands_for`).
            place: where a thing lies in the store, for a message.

        Raises:
            BadInput: another import has given it to something else since.
        """
        lock = store.root / "locks" / f"{self.folder.removesuffix('s')}-{name}.lock"
        with locked(lock, f"the name {name}"):
            if (now := self.stands_for(store, name)) not in (before, thing):
                raise BadInput(
                    f"`name` {name}: another import has given this name to "
                    f"{place(now) if now else 'nothing'} meanwhile; this one's {self.what} is "
                    f"{place(thing)}: run it again under another name"
                )
            self.give(store, name, thing)

    def find(self, store: Store, name: str) -> T:
        """What `name` stands for.

        Raises:
            BadInput: nothing was imported under that name; says how to.
        """
        command = f"`{self.command} --name {name}`"
        try:
            fields = open_fields(json.loads(read_regular(self._path(store, name))))
            return self.kind.model_validate_json(json.dumps(fields))
        except FileNotFoundError:
            known = ", ".join(self.given(store)) or "none yet"
            raise BadInput(
                f"no {self.what} {name!r} in the store {store.root} (imported: {known}); import it "
                f"by {command}{self.hint}"
            ) from None
        except (ValueError, RecursionError, OSError):  # also pydantic's
            raise BadInput(
                f"{self._path(store, name)} is unreadable: import {name} again by {command}"
            ) from None

    def stands_for(self, store: Store, name: str) -> T | None:
        """What `name` stands for; None: nothing that can be read."""
        try:
            return self.find(store, name)
        except BadInput:
            return None

    def given(self, store: Store) -> list[str]:
        """Every name that was given, in order; files that are called otherwise are none."""
        stems = (path.stem for path in (store.root / self.folder).glob("*.json"))
        return sorted(stem for stem in stems if GIVEN.fullmatch(stem))
