"""What commands print, and what they say of a package that is missing."""

from __future__ import annotations

import pytest

from vptkit.cli.shared.output import needs_extra
from vptkit.errors import VptkitError


def test_a_missing_module_of_ours_is_a_defect_and_keeps_its_traceback():
    with pytest.raises(ModuleNotFoundError) as caught, needs_extra("tune", "x"):
        raise ModuleNotFoundError(name="vptkit.tune.gone")
    assert not isinstance(caught.value, VptkitError)
