"""The documented place of the settings of a profile."""

from __future__ import annotations

import json

import pytest

from vptkit.errors import VptkitError
from vptkit.runtime import settings
from vptkit.runtime.profile import run_profile
from vptkit.runtime.settings import ProfileSettings


def test_it_is_the_same_function():
    assert settings.profile_bundles is run_profile.profile_bundles


def test_settings_come_through_json():
    made = ProfileSettings(batches=(1, 8), rounds=3, power="15W,MAXN", pin_clocks=True)
    assert ProfileSettings.from_json(json.loads(json.dumps(made.to_json()))) == made
    assert ProfileSettings.from_json({}) == ProfileSettings()
    with pytest.raises(VptkitError, match="'batch' is not known"):
        ProfileSettings.from_json({"batch": 8})
