"""timm's own weights: the cache without a question, else one line that says where to get them."""

from __future__ import annotations

import socket
import time
import urllib.error
import urllib.request

import pytest

pytest.importorskip("torch")
timm = pytest.importorskip("timm")

import huggingface_hub.constants  # noqa: E402
from safetensors.torch import save_file  # noqa: E402
from timm.models._hub import has_hf_hub  # noqa: E402

from vptkit.errors import BackboneError  # noqa: E402
from vptkit.tune.backbone import hub_weights  # noqa: E402
from vptkit.tune.backbone.hub_weights import hub_repository, model_of_hub, weights_origin  # noqa: E402

NAME = "test_vit.r160_in1k"
PAGE = "https://huggingface.co/timm/test_vit.r160_in1k/resolve/main/model.safetensors"


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


@pytest.fixture
def asked(monkeypatch):
    """Requests that were tried; none leaves this machine."""
    found = []

    def refuse(request, timeout):
        found.append(request.full_url)
        raise urllib.error.URLError(socket.gaierror(-2, "Name or service not known"))

    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    return found


def test_without_a_network_one_line_and_one_question(asked, capfd):
    begun = time.perf_counter()
    with pytest.raises(BackboneError) as caught:
        model_of_hub(NAME, {})
    text = str(caught.value)
    assert "huggingface.co is not found" in text
    assert f"Fetch {PAGE} by other means, then pass --weights model.safetensors" in text
    assert asked == [PAGE]
    assert time.perf_counter() - begun < 5
    assert capfd.readouterr() == ("", "")


def test_nobody_waits_for_a_host_that_says_nothing(monkeypatch):
    def silent(*_, **__):
        time.sleep(0.3)
        raise TimeoutError

    monkeypatch.setattr(hub_weights, "_SECONDS", 0.05)
    monkeypatch.setattr(urllib.request, "urlopen", silent)
    with pytest.raises(BackboneError, match=r"no answer within 0\.05 s"):
        model_of_hub(NAME, {})


def test_told_to_stay_offline(monkeypatch, asked):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(BackboneError, match="HF_HUB_OFFLINE is set"):
        model_of_hub(NAME, {})
    assert asked == []


@pytest.mark.skipif(
    not has_hf_hub(), reason="this timm does not know the huggingface_hub that is installed"
)
def test_what_is_in_the_cache_is_taken_without_asking(cache, asked, capfd):
    saved = timm.create_model("test_vit")
    place = cache / "models--timm--test_vit.r160_in1k"
    (place / "refs").mkdir(parents=True)
    (place / "refs" / "main").write_text("0" * 40)
    (place / "snapshots" / ("0" * 40)).mkdir(parents=True)
    save_file(saved.state_dict(), place / "snapshots" / ("0" * 40) / "model.safetensors")
    model = model_of_hub(NAME, {})
    assert (model.cls_token == saved.cls_token).all()
    assert asked == []
    assert capfd.readouterr() == ("", "")


def test_a_failure_behind_the_first_answer_is_one_line_too(monkeypatch, capfd):
    monkeypatch.setattr(hub_weights, "_out_of_reach", lambda _: None)

    def broken(*_, **__):
        raise OSError("Connection broken")

    monkeypatch.setattr(timm, "create_model", broken)
    with pytest.raises(BackboneError, match=rf"could not be fetched \(OSError\).*{PAGE}"):
        model_of_hub(NAME, {})
    assert capfd.readouterr() == ("", "")


def test_a_name_without_weights_or_with_an_unknown_tag(asked):
    with pytest.raises(BackboneError, match="timm has no weights of this name"):
        model_of_hub("vit_base_patch16_plus_240", {})
    with pytest.raises(BackboneError, match="nonsense"):
        model_of_hub("test_vit.nonsense", {})


def test_what_an_adapter_keeps(tmp_path):
    (tmp_path / "w.safetensors").write_bytes(b"weights")
    kept = weights_origin(NAME, tmp_path)
    assert kept["file"] == "w.safetensors"
    assert len(kept["sha256"]) == 64
    assert str(tmp_path) not in str(kept)
    assert weights_origin(NAME, None) == {"hub": hub_repository(NAME)}
