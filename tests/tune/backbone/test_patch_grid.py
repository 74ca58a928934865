from types import SimpleNamespace

import pytest

from vptkit.errors import BackboneError
from vptkit.tune.backbone.patch_grid import require_whole_patches


def _spec(size, patch):
    return SimpleNamespace(image_size=(size, size), patch_size=(patch, patch))


@pytest.mark.parametrize(
    ("size", "patch", "told"),
    [(100, 14, "100 is no multiple of the patch, 14: 98 or 112"), (9, 16, "9 .*, 16: 16$")],
)
def test_both_sizes_beside_it_are_named(size, patch, told):
    with pytest.raises(BackboneError, match=told):
        require_whole_patches(_spec(size, patch), {"img_size": size})


def test_whole_patches_and_a_models_own_size_are_taken():
    require_whole_patches(_spec(112, 14), {"img_size": 112})
    require_whole_patches(_spec(384, 14), {})
