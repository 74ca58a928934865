"""Values that are plainly what an option takes, without the library that judges all others.

typer 0.29 has pydantic turn words into values: 60 ms of every command, of which `vptkit run` of one
image takes 900. A word that is plainly right needs no judge; whatever is not, goes to typer's own and
gets its error. Versions of typer that judge another way are left alone.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any, get_args, get_origin

__all__ = ["take_plain_values"]

_INT = re.compile(r"-?(0|[1-9][0-9]{0,14})")
_FLOAT = re.compile(r"-?[0-9]{1,15}(\.[0-9]{1,15})?")
_UNSURE = object()


def take_plain_values(parameters: list[Any]) -> list[Any]:
    """Have options and arguments of a command take plain values as they are.

    Args:
        parameters: as typer has made them.

    Returns:
        The same.
    """
    for parameter in parameters:
        judge = getattr(parameter, "get_runtime_param", None)
        if judge is not None and not isinstance(getattr(judge, "__self__", None), _Plain):
            parameter.get_runtime_param = _Plain(parameter, judge).itself
    return parameters


class _Plain:
    """Stands before what typer judges a parameter's values with."""

    def __init__(self, parameter: Any, judge: Any) -> None:
        self._judge = judge
        described = parameter.type_descriptor
        self._annotation, self._info = described.annotation, described.parameter_info

    def itself(self) -> _Plain:
        """Where typer asks for its own."""
        return self

    def coerce(self, value: Any, param: Any, ctx: Any) -> Any:
        """The value of a parameter, as typer's own gives it."""
        found = self._plain(value, several=param.multiple or param.nargs == -1)
        return self._judge().coerce(value, param=param, ctx=ctx) if found is _UNSURE else found

    def _plain(self, value: Any, *, several: bool) -> Any:
        if value is None:
            return () if several else None
        if get_origin(self._annotation) is not list:
            return _UNSURE if several else _plain(value, self._annotation, self._info)
        if not several or not isinstance(value, list | tuple):
            return _UNSURE
        (kind,) = get_args(self._annotation)
        found = [_plain(item, kind, self._info) for item in value]
        return _UNSURE if any(item is _UNSURE for item in found) else found


def _plain(value: Any, kind: Any, info: Any) -> Any:
    if info.parser is not None:
        return _UNSURE
    if kind is str:
        return value if type(value) is str else _UNSURE
    if kind is Path:
        return _path(value, info)
    if kind is int or kind is float:
        return _number(value, kind, info)
    return _UNSURE


def _path(value: Any, info: Any) -> Any:
    """A path of which nothing is asked, but that what is there can be read."""
    asked = info.exists or info.writable or info.resolve_path or info.path_type is not None
    if asked or not (info.file_okay and info.dir_okay) or not isinstance(value, str | Path):
        return _UNSURE
    if info.readable and os.path.exists(value) and not os.access(value, os.R_OK):  # noqa: PTH110
        return _UNSURE
    return Path(value)


def _number(value: Any, kind: type, info: Any) -> Any:
    shape = _INT if kind is int else _FLOAT
    written = type(value) is str and shape.fullmatch(value)
    if info.clamp or not (written or type(value) is kind):
        return _UNSURE
    number = kind(value)
    low, high = info.min, info.max
    inside = (low is None or number >= low) and (high is None or number <= high)
    return number if inside else _UNSURE
