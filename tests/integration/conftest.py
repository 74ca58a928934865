"""What whole trainings need is what the tests of `tune` need: a tiny ViT, folders, settings."""

from __future__ import annotations

from importlib.util import find_spec

if find_spec("torch") and find_spec("timm"):
    from tests.tune.conftest import (  # noqa: F401 -- fixtures
        make_config,
        make_folders,
        make_vit,
        splits,
        weights,
    )
