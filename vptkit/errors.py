"""What can go wrong, as exceptions that carry their exit code.

VptkitError             2    usage or bad input: the user can mend it
├── AdapterError        2    an adapter file is not what it says
├── BackboneError       2    a backbone is unknown, unsupported, or another one
├── BundleError         2    a bundle is incomplete or was changed
├── DataError           2    images or class folders
├── OutputError         2    the output cannot be written there
├── GateError           3    a parity or accuracy gate did not hold
├── TrainingError       3    a training diverged, or learned nothing
├── TargetError         4    the target cannot do what was asked
└── MissingError        5    a device, a driver, an engine or a package is missing
    └── MissingExtraError    an optional package (also an ImportError)

Messages say where, what came, what was expected, and what to do. Anything that is not a
VptkitError, nor the system's (OSError, MemoryError), is a defect of vptkit: the command line says so
and exits with 1.
"""

from __future__ import annotations

__all__ = [
    "AdapterError",
    "BackboneError",
    "BundleError",
    "DataError",
    "GateError",
    "MissingError",
    "MissingExtraError",
    "OutputError",
    "TargetError",
    "TrainingError",
    "VptkitError",
]


class VptkitError(Exception):
    """A fault that the user can mend; the message says how."""

    exit_code = 2


class AdapterError(VptkitError):
    """An adapter file is truncated, malformed, or belongs to something else."""


class BackboneError(VptkitError):
    """A backbone has a feature we do not know, or is not the one that was tuned."""


class BundleError(VptkitError):
    """A bundle is incomplete, or its files differ from its manifest."""


class DataError(VptkitError):
    """Images, class folders or labels are not usable."""


class OutputError(VptkitError):
    """The output cannot be written: it exists, or the disk is full or read-only."""


class GateError(VptkitError):
    """A parity or accuracy gate did not hold."""

    exit_code = 3


class TrainingError(VptkitError):
    """A training diverged, or its answers are no better than always the largest class."""

    exit_code = 3


class TargetError(VptkitError):
    """The chosen target cannot do what was asked."""

    exit_code = 4


class MissingError(VptkitError):
    """Something is missing in the environment: a device, a driver, an engine, a package."""

    exit_code = 5


class MissingExtraError(MissingError, ImportError):
    """An optional package is not installed; the message names the extra."""

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        super().__init__(
            f"{purpose} needs the package {package}, which is not installed: "
            f'pip install "vptkit[{extra}]"'
        )
