"""Unions of configuration classes that a new module can add to.

pydantic's discriminated unions list their members where they are declared, so that every new
method, network or data set would be an edit of a central file. Here a class registers itself.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pkgutil import iter_modules
from typing import Any, Generic, TypeVar, cast

from sims_core.common.frozen import Frozen

F = TypeVar("F", bound=Frozen)
S = TypeVar("S")


class Variants(Generic[F]):
    """Classes of one base, told apart by the value of one of their fields.

    As a field's type: `Annotated[SerializeAsAny[Base], BeforeValidator(variants.read)]`.

    Args:
        what: what one of them is, for messages.
        key: the field that tells them apart.
        base: what all of them are.
        default: the value that is meant where the field is left out.
    """

    def __init__(self, what: str, key: str, base: type[F], default: str | None = None) -> None:
        self.what, self.key, self.base, self.default = what, key, base, default
        self._classes: dict[str, type[F]] = {}

    def add(self, *values: str) -> Callable[[S], S]:
        """A class decorator: these values of the key stand for the class."""

        def register(variant: S) -> S:
            if taken := self._classes.keys() & set(values):
                raise ValueError(f"{self.what} {min(taken)!r} is there already")
            self._classes.update(dict.fromkeys(values, cast(type[F], variant)))
            return variant

        return register

    def remove(self, value: str) -> None:
        """Takes a class out again."""
        del self._classes[value]

    def add_modules_of(self, package: str) -> None:
        """Imports every module of a package, so that the classes in them register themselves."""
        for info in iter_modules(import_module(package).__path__):
            import_module(f"{package}.{info.name}")

    @property
    def classes(self) -> dict[str, type[F]]:
        """Each class by its value of the key."""
        return dict(self._classes)

    def read(self, value: Any) -> F:
        """The object that a mapping with the key describes; one of them stays as it is.

        Raises:
            ValueError: no class has that value of the key; names the valid ones.
            ValidationError: the class refuses the other values.
        """
        if isinstance(value, self.base):
            return value
        if not isinstance(value, dict):
            raise ValueError(f"want an object with {self.key!r}, got {value!r}")
        name = value.get(self.key, self.default)
        if not isinstance(name, str) or name not in self._classes:
            raise ValueError(
                f"no {self.what} of {self.key} {name!r}; there are: {', '.join(self._classes)}"
            )
        return self._classes[name].model_validate(value)
