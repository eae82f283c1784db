"""Small files that say themselves whether they are as they were written."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

from sims_core.common.digest import digest_of
from sims_core.common.frozen import Frozen

CHECKSUM = "checksum"


class Sealed(Frozen):
    """What is written with its own checksum."""

    checksum: str = ""
    """SHA-256 of all other fields that are not as usual; empty where an older program wrote it."""

    def sealed(self) -> Self:
        """With its checksum."""
        return self.model_copy(update={CHECKSUM: self._digest()})

    def unsealed(self) -> Self:
        """Without it, to be compared."""
        return self.model_copy(update={CHECKSUM: ""})

    def is_intact(self) -> bool:
        """Whether it is as it was written; what is older cannot tell."""
        return not self.checksum or self.checksum == self._digest()

    def _digest(self) -> str:
        return digest_of(self.model_dump(mode="json", exclude={CHECKSUM}, exclude_defaults=True))


def seal_fields(fields: Mapping[str, Any]) -> dict[str, Any]:
    """JSON values with their checksum among them."""
    return {**fields, CHECKSUM: digest_of(dict(fields))}


def open_fields(fields: Any) -> Any:
    """What was sealed, without its checksum; as it is where an older program wrote it.

    Raises:
        ValueError: it is not as it was written.
    """
    if not isinstance(fields, dict) or CHECKSUM not in fields:
        return fields
    said = {name: value for name, value in fields.items() if name != CHECKSUM}
    if digest_of(said) != fields[CHECKSUM]:
        raise ValueError("differs from its checksum")
    return said
