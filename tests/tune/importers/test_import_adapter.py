"""Foreign checkpoints: other backbones, objects and files that are none are refused; choices of the user."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
timm = pytest.importorskip("timm")

from tests.support.foreign_checkpoints import HEAD, NAME, TINY, C, D, bpt_state, draw, vpt_state  # noqa: E402
from vptkit.errors import AdapterError, BackboneError, OutputError, VptkitError  # noqa: E402
from vptkit.tune.importers.import_adapter import ImportConfig, import_adapter  # noqa: E402


def test_another_backbone_is_refused(bring, make_vit):
    for layout, state in (("vpt", vpt_state(make_vit())[0]), ("bpt", bpt_state(make_vit()))):
        key = next(k for k in state if "fc1.weight" in k)
        state[key] = state[key].clone()
        state[key][0, 0] += 1e-3
        with pytest.raises(BackboneError, match=r"blocks\.0\.mlp\.fc1\.weight differs"):
            bring(state, layout, pool="token")
    state = bpt_state(make_vit(img_size=40))
    with pytest.raises(BackboneError, match=r"pos_embed is .* Pass --image-size"):
        bring(state, "bpt", pool="token")


class Trap:
    """Unpickling this would call `print`."""

    def __reduce__(self) -> Any:
        return print, ("unpickled!",)


def test_objects_are_refused(bring, tmp_path, capsys, make_vit):
    with pytest.raises(AdapterError, match=r"not a file of tensors: \S*print\. Other") as refused:
        bring({"model": {"prompt_embeddings": Trap()}}, "vpt")
    assert str(refused.value).count("foreign.pth") == 1
    with pytest.raises(AdapterError, match="not tensors of real numbers: note"):
        bring(bpt_state(make_vit()) | {"note": "hello"}, "bpt", pool="token")
    with pytest.raises(AdapterError, match="holds list"):
        bring([draw(3)], "bpt", pool="token")
    assert "unpickled" not in capsys.readouterr().out


@pytest.mark.filterwarnings("ignore:Validating sparse tensor invariants")
@pytest.mark.parametrize(
    "change",
    [lambda x: x.to_sparse(), lambda x: x.to("meta"), lambda x: x.to(torch.complex64)],
    ids=["sparse", "meta", "complex"],
)
def test_tensors_of_other_kinds_are_refused(bring, make_vit, change):
    state = bpt_state(make_vit())
    state["conv1x1.weight"] = change(state["conv1x1.weight"])
    with pytest.raises(AdapterError, match=r"not tensors of real numbers: conv1x1\.weight"):
        bring(state, "bpt", pool="token")


def test_files_that_are_none(tmp_path, weights):
    config = ImportConfig(layout="bpt", backbone=NAME, backbone_args=dict(TINY), weights=weights)
    output = tmp_path / "a.safetensors"
    with pytest.raises(AdapterError, match="no such file"):
        import_adapter(tmp_path / "none.pth", output, config)
    (tmp_path / "noise.pth").write_bytes(b"noise")
    with pytest.raises(AdapterError, match="not a file of tensors"):
        import_adapter(tmp_path / "noise.pth", output, config)
    with pytest.raises(AdapterError, match="a folder"):
        import_adapter(tmp_path, output, config)
    with pytest.raises(OutputError, match=r"ends in \.safetensors"):
        import_adapter(tmp_path / "noise.pth", tmp_path / "a.pth", config)
    assert not output.exists()


def test_head_and_labels_by_option(bring, make_vit, head_file, tmp_path):
    state = bpt_state(make_vit())
    with pytest.raises(AdapterError, match="leave --head out"):
        bring(state, "bpt", pool="token", head=head_file)
    names = tmp_path / "names.txt"
    names.write_text("daisy\nrose\n\ntulip\n")
    assert bring(state, "bpt", pool="token", labels=names).labels == ("daisy", "rose", "tulip")
    names.write_text("daisy\nrose\n")
    with pytest.raises(AdapterError, match="2 names for a head of 3 classes"):
        bring(state, "bpt", pool="token", labels=names)
    del state["head.weight"], state["head.bias"]
    adapter = bring(state, "bpt", pool="token", head=head_file)
    np.testing.assert_array_equal(adapter.tensors["head.weight"], HEAD["weight"].numpy())
    torch.save({"a": draw(C, D)}, head_file)
    with pytest.raises(AdapterError, match=r"expected one weight and one bias, found \['a'\]"):
        bring(state, "bpt", pool="token", head=head_file)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"layout": "lora"},
            "--format 'lora': expected one of vpt, bpt, e2vpt, peft, linear, ssf, repadapter",
        ),
        ({"pool": "max"}, "--pool 'max'"),
        ({"preprocess": "mine"}, "--preprocess 'mine'"),
        ({"layout": "peft", "preprocess": "authors"}, "PEFT prescribes none"),
    ],
)
def test_choices(options, message):
    with pytest.raises(VptkitError, match=re.escape(message)):
        ImportConfig(**{"layout": "vpt", "backbone": NAME, **options})


def test_the_preprocessing_of_the_model(bring, make_vit):
    adapter = bring(bpt_state(make_vit()), "bpt", pool="token", preprocess="model")
    assert adapter.preprocess.mean == (0.5, 0.5, 0.5)
