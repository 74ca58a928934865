"""What the tests ask of timm, and what an older timm that `pyproject.toml` allows lacks.

timm gains models, options and classes from release to release. A test of one that the installed
timm lacks is skipped, always for the same reason; with `COMPLETE` or a newer one none is.
"""

from __future__ import annotations

import inspect
import re
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import timm
import torch

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["COMPLETE", "NO_VALUES", "OLDER", "REASON", "create_model", "make", "needs", "takes"]

COMPLETE = (1, 0, 31)
OLDER = tuple(int(part) for part in timm.__version__.split(".")[:3]) < COMPLETE
REASON = f"timm {timm.__version__} lacks or mistakes something that this test asks for"


def make(kind: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    """Call something of timm's; skip the test if this timm is older and doesn't know of it."""
    try:
        return kind(*arguments, **options)
    except (AssertionError, RuntimeError, TypeError) as error:
        unknown = re.search(r"^Unknown model|unexpected keyword argument|^$", str(error))
        if OLDER and unknown:
            pytest.skip(REASON)
        raise


# Where a model is made of which only the shapes are asked; older releases compute while they build.
NO_VALUES = torch.device("cpu" if OLDER else "meta")
create_model = partial(make, timm.create_model, pretrained=False)


def takes(kind: Callable[..., Any], option: str) -> bool:
    """Whether a timm class has an option; always so in a timm in which nothing is missing."""
    return not OLDER or option in inspect.signature(kind).parameters


def needs(module: Any, name: str) -> Any:
    """A class or function of timm's; skip the test if this timm is older and lacks it."""
    if OLDER and not hasattr(module, name):
        pytest.skip(REASON)
    return getattr(module, name)
