"""Every method there is: importing this module finds each file of the package."""

from __future__ import annotations

from sims_core.methods.base import METHODS, Method, MethodConfig

__all__ = ["METHODS", "Method", "MethodConfig", "all_methods"]

METHODS.add_modules_of("sims_core.methods")


def all_methods() -> dict[str, type[Method]]:
    """Every method by its kind: what others are compared with first, then by name."""
    classes = METHODS.classes.items()
    return dict(sorted(classes, key=lambda item: (not item[1].IS_BASELINE, item[0])))
