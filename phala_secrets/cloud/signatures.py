"""Readable signatures for ``help``: annotations without quotes.

Annotations are text, since a run never evaluates them. Before Python 3.14 ``help`` shows text in quotes.
"""

from __future__ import annotations

import inspect
from functools import cache
from types import FunctionType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from types import ModuleType


class _Annotation(str):
    """The text of an annotation, shown without quotes."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


@cache
def made_legible(module: ModuleType) -> ModuleType:
    """Make ``help`` show a module's functions and classes without quotes. Return the module."""
    for value in [*vars(module).values()]:
        if getattr(value, "__module__", None) == module.__name__:
            for owner in value.__mro__ if inspect.isclass(value) else ():
                _make_legible(owner)
            _unquote(value)
    return module


@cache
def _make_legible(owner: type) -> None:
    annotations = vars(owner).get("__annotations__", {}) if _is_ours(owner) else {}
    for name, annotation in annotations.items():
        annotations[name] = _text(annotation)
    for member in [*vars(owner).values()]:
        if type(member) is property:
            _unquote(member.fget)
        else:
            _unquote(member.__func__ if type(member) in (classmethod, staticmethod) else member)


def _unquote(function: Any) -> None:
    # Compare the type: isinstance would make pydantic build deferred models.
    if type(function) is FunctionType and _is_ours(function):
        function.__signature__ = _unquoted(inspect.signature(function))  # type: ignore[attr-defined]


def _is_ours(value: Any) -> bool:
    return str(value.__module__).partition(".")[0] == __name__.partition(".")[0]


def _unquoted(signature: inspect.Signature) -> inspect.Signature:
    parameters = [one.replace(annotation=_text(one.annotation)) for one in signature.parameters.values()]
    return signature.replace(parameters=parameters, return_annotation=_text(signature.return_annotation))


def _text(annotation: Any) -> Any:
    return _Annotation(annotation) if isinstance(annotation, str) else annotation
