"""A bank that is served while its adapters change, on disk and by an admin."""

from __future__ import annotations

import shutil
import threading
import time

import numpy as np
import pytest

pytest.importorskip("torch", reason="banks of the tests are made with torch")
pytest.importorskip("tests.support.serving")

from tests.support.bank_cases import family, write_family
from tests.support.serving import served
from tests.support.tolerances import PARITY_FP32, largest_difference
from vptkit.errors import BundleError
from vptkit.export.bank import edit_bank
from vptkit.export.bank.export_bank import BankOptions, export_bank
from vptkit.runtime.serving.served_model import ServedModel

pytestmark = pytest.mark.slow
MEMBERS = ("bilinear", "norms", "linear")
TOKEN = {"authorization": "Bearer 0123456789abcdef"}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bank")
    paths = write_family(family(), folder)
    export_bank(
        [paths[name] for name in MEMBERS],
        folder / "bank.vptk",
        weights=paths["weights"],
        bank=BankOptions(prompts=6),
    )
    return paths


@pytest.fixture
def bank(made, tmp_path):
    return shutil.copytree(made["weights"].parent / "bank.vptk", tmp_path / "bank.vptk")


@pytest.fixture
def ask(bank, tmp_path):
    (tmp_path / "admin").write_text("0123456789abcdef")
    with served([bank], editor=edit_bank, admin_token_file=tmp_path / "admin") as asker:
        yield asker


def infer(names, images=None, model="bank"):
    images = family().case.images[: len(names)] if images is None else images
    tensors = [
        {
            "name": "images",
            "shape": list(images.shape),
            "datatype": "UINT8",
            "data": images.ravel().tolist(),
        }
    ]
    if model == "bank":
        of_names = {"name": "adapter", "shape": [len(names)], "datatype": "BYTES"}
        tensors.append(of_names | {"data": list(names)})
    return {"method": "POST", "url": f"/v2/models/{model}/infer", "json": {"inputs": tensors}}


def logits(answer):
    found = answer.json()["outputs"][0]
    return np.float32(found["data"]).reshape(found["shape"])


def is_of(answer, name, image=0, row=0):
    """Whether a row is the reference's answer of an adapter for an image of the family."""
    expected = family().reference(name)[image]
    found = logits(answer)[row][: len(expected)]
    return largest_difference(found, expected) <= PARITY_FP32


def test_one_request_asks_many_adapters(ask):
    names = ["linear", "bilinear"]
    answer = ask.at_once(infer(names))[0]
    assert logits(answer).shape == (2, 5)
    assert logits(answer)[0, 3] == np.finfo(np.float32).min  # linear has three
    assert is_of(answer, "linear", 0, 0)
    assert is_of(answer, "bilinear", 1, 1)
    labels = answer.json()["outputs"][1]["data"]
    assert [label.split()[0] for label in labels] == names


def test_an_adapter_is_a_model_with_a_parent(ask):
    answer = ask.at_once(infer(["linear"], model="linear"))[0]
    assert logits(answer).shape == (1, 3)
    assert is_of(answer, "linear")
    listed = ask("GET", "/v2/models").json()["models"]
    assert {one["name"]: one["parent"] for one in listed} == {
        "bank": None,
        **dict.fromkeys(MEMBERS, "bank"),
    }
    assert [one["name"] for one in ask("GET", "/v2/models/linear").json()["inputs"]] == [
        "images",
        "image",
    ]


@pytest.mark.parametrize(
    ("change", "status", "message"),
    [
        ({"datatype": "FP32", "data": [1]}, 400, "expected BYTES [1], names, or INT32"),
        ({"shape": [2], "data": ["linear"] * 2}, 400, "2 came for 1 images"),
        ({"data": ["both"]}, 404, "expected one of bilinear, norms, linear"),
        ({"datatype": "INT32", "data": [3]}, 404, "expected 0 to 2"),
        ({"datatype": "INT32", "data": [2], "shape": [1, 1]}, 200, ""),
    ],
)
def test_adapters_as_an_input(ask, change, status, message):
    request = infer(["linear"])
    request["json"]["inputs"][1] |= change
    answer = ask.at_once(request)[0]
    assert answer.status_code == status
    assert message in answer.json().get("error", "")
    if status == 200:
        assert is_of(answer, "linear")


def test_the_request_names_one_for_all_or_none_is_known(ask):
    request = infer(["linear"])
    del request["json"]["inputs"][1]
    assert "expected one of bilinear" in ask.at_once(request)[0].json()["error"]
    request["json"]["parameters"] = {"adapter": "linear"}
    assert is_of(ask.at_once(request)[0], "linear")
    twice = infer(["linear"])
    twice["json"]["parameters"] = {"adapter": "linear"}
    assert "more than once" in ask.at_once(twice)[0].json()["error"]


def test_an_admin_adds_replaces_and_removes(ask, bank, made):
    put = {"method": "PUT", "url": "/adapters/whitened", "headers": TOKEN}
    content = {name: made[name].read_bytes() for name in ("whitened", "both")}
    assert ask("PUT", "/adapters/whitened", content=b"x").status_code == 401
    answer = ask.at_once({**put, "content": content["whitened"]})[0]
    assert (answer.status_code, answer.json()["added"]) == (201, "whitened")
    assert is_of(ask.at_once(infer(["whitened"]))[0], "whitened")
    answer = ask.at_once({**put, "content": content["both"]})[0]
    assert (answer.status_code, answer.json()["replaced"]) == (200, "whitened")
    assert is_of(ask.at_once(infer(["whitened"]))[0], "both")
    refused = ask.at_once({**put, "content": content["both"][:100]})[0]
    assert (refused.status_code, "the body: " in refused.json()["error"]) == (400, True)
    assert str(bank.parent) not in refused.text
    assert is_of(ask.at_once(infer(["whitened"]))[0], "both")
    assert ask("DELETE", "/adapters/whitened", headers=TOKEN).status_code == 200
    assert ask("DELETE", "/adapters/whitened", headers=TOKEN).status_code == 404
    assert ask.at_once(infer(["whitened"]))[0].status_code == 404
    for name in MEMBERS[1:]:
        assert ask("DELETE", f"/adapters/{name}", headers=TOKEN).status_code == 200
    last = ask("DELETE", f"/adapters/{MEMBERS[0]}", headers=TOKEN)
    assert (last.status_code, "last adapter" in last.json()["error"]) == (409, True)


def test_requests_end_with_what_they_began_with(ask, bank, made):
    """What is asked for is removed while its image is decoded; it is answered all the same."""
    model = ask.model
    assert isinstance(model, ServedModel)
    early = model.queue.ticket(1)
    edit_bank.remove(bank, "linear")
    edit_bank.replace(bank, made["both"], name="bilinear")
    following = threading.Thread(target=model.follow)
    following.start()
    while "linear" in model.bundle.adapter_names:
        time.sleep(0.001)
    late = model.queue.ticket(1)
    soon = time.monotonic() + 30
    image = family().case.images[:1]
    after = model.queue.submit(late, image, ["bilinear"], soon)
    before = model.queue.submit(early, image, ["linear"], soon).result(30)
    assert largest_difference(before[0, 0, :3], family().reference("linear")[0]) <= PARITY_FP32
    assert not after.done()
    model.queue.release(early)
    following.join(30)
    expected = family().reference("both")[0]
    assert largest_difference(after.result(30)[0, 0, : len(expected)], expected) <= PARITY_FP32
    model.queue.release(late)


def test_what_cannot_be_taken_over_changes_nothing(ask, bank, made):
    edit_bank.add(bank, made["whitened"])
    entry = next(e for e in ask.model.session.changed().bundle.manifest["adapters"] if e["name"] == "whitened")  # fmt: skip
    (bank / entry["file"]).write_bytes(b"")
    with pytest.raises(BundleError):
        ask.application.store.follow(ask.model)
    assert ask.model.bundle.adapter_names == MEMBERS
    assert is_of(ask.at_once(infer(["linear"]))[0], "linear")
    assert 'result="refused"} 1.0' in ask("GET", "/metrics").text
