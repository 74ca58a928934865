"""Ray keeps quiet while it works."""

from __future__ import annotations

import contextlib
import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING

from vptkit.python_child import child_environment

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["quiet"]

# Ray shall not phone home, and leave GPUs as they are for who asks for none.
_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}


@contextlib.contextmanager
def quiet(settings: Mapping[str, str] | None = None) -> Iterator[None]:
    """Ray's own words go nowhere, its settings are put back afterwards.

    Args:
        settings: further variables of the environment, in which Ray starts its processes.
    """
    # Ray starts its processes with our environment: no search path leads to the current folder.
    clean = child_environment()
    searched = {"PATH": clean.get("PATH", os.defpath), "PYTHONPATH": clean.get("PYTHONPATH", "")}
    wanted = {**_ENVIRONMENT, **(settings or {}), **searched}
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    logger = logging.getLogger("ray")
    level, disabled = logger.level, logging.root.manager.disable
    logger.setLevel(logging.CRITICAL)
    logging.disable(logging.ERROR)  # Ray sets levels of its own loggers while it starts
    try:
        # What nodes say, as the last words of one that died, Ray prints, whatever it was told.
        # Our progress keeps the stream that it began with.
        with (
            Path(os.devnull).open("w") as nowhere,
            contextlib.redirect_stdout(nowhere),
            contextlib.redirect_stderr(nowhere),
        ):
            yield
    finally:
        logging.disable(disabled)
        logger.setLevel(level)
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
