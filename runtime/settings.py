"""The documented name of `profile_bundles`; it lies in `profile.run_profile`."""

from vptkit.runtime.profile.run_profile import profile_bundles
from vptkit.runtime.profile.settings import ProfileSettings

__all__ = ["ProfileSettings", "profile_bundles"]
