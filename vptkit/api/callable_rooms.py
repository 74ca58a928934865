"""`vptkit.tune(...)`, `vptkit.export(...)`, `vptkit.report(...)`: packages that are also the function of their name.

`import vptkit.tune.config`, `from vptkit.tune import TuneConfig` and `vptkit.tune.TuneConfig` work as
of any package. Type checkers see the classes below, in `vptkit/__init__.py`; that of `report` is its own package's.
"""

from __future__ import annotations

import inspect
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vptkit.export.bank.export_bank import BankOptions
    from vptkit.export.bundle.export_options import ExportOptions
    from vptkit.tune.config import TuneConfig
    from vptkit.tune.run.run_result import TuneResult

    from .compiling import export, export_bank
    from .tuning import tune

__all__ = ["CallableRoom", "ExportRoom", "TuneRoom", "make_callable"]


class CallableRoom(ModuleType):
    """A package that passes a call on to the function that has its own name."""

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        """Call the function."""
        return self._function()(*arguments, **options)

    @property
    def __signature__(self) -> inspect.Signature:
        """That of the function, for `help` and editors."""
        return inspect.signature(self._function())

    def _function(self) -> Any:
        return getattr(self, self.__name__.rpartition(".")[2])


class TuneRoom(CallableRoom):
    """`vptkit.tune`."""

    if TYPE_CHECKING:
        TuneConfig: type[TuneConfig]
        TuneResult: type[TuneResult]
        tune = staticmethod(tune)
        __call__ = staticmethod(tune)


class ExportRoom(CallableRoom):
    """`vptkit.export`."""

    if TYPE_CHECKING:
        BankOptions: type[BankOptions]
        ExportOptions: type[ExportOptions]
        export = staticmethod(export)
        export_bank = staticmethod(export_bank)
        __call__ = staticmethod(export)


def make_callable(package: str, room: type[CallableRoom]) -> None:
    """Let a package that is being imported be called."""
    sys.modules[package].__class__ = room
