"""What a server answers, without a network: its routes on a tiny bundle."""

from __future__ import annotations

import base64
import io
import json
import struct
import time

import numpy as np
import pytest

pytest.importorskip("tests.support.serving")

from tests.support.serving import encoded, huge_png, served
from vptkit.errors import VptkitError
from vptkit.runtime import open_session
from vptkit.runtime.http_server.application import Application
from vptkit.runtime.http_server.request_log import RequestLog
from vptkit.runtime.serving.inference_protocol import HEADER_LENGTH
from vptkit.runtime.serving.metrics import Metrics
from vptkit.runtime.session.prediction import predict

SIZE = (24, 16, 3)
PIXELS = np.random.default_rng(0).integers(0, 256, (3, *SIZE), dtype=np.uint8)
INFER = "/v2/models/tiny-0/infer"


@pytest.fixture
def ask(make_bundle):
    with served([make_bundle()], max_body_mb=0.05, queue_size=12) as asker:
        yield asker


def inputs(**changes):
    images = {"name": "images", "shape": [3, *SIZE], "datatype": "UINT8"}
    return {"inputs": [images | {"data": PIXELS.ravel().tolist()} | changes]}


def in_binary(*tensors, **fields):
    """Tensors of name → array, or a list of bytes: the body and its header."""
    parts, listed = [], []
    for name, values in tensors:
        if isinstance(values, list):
            content = b"".join(struct.pack("<I", len(one)) + one for one in values)
            shape, datatype = [len(values)], "BYTES"
        else:
            content, shape, datatype = values.tobytes(), list(values.shape), "UINT8"
        parts.append(content)
        listed.append(
            {
                "name": name,
                "shape": shape,
                "datatype": datatype,
                "parameters": {"binary_data_size": len(content)},
            }
        )
    text = json.dumps({"inputs": listed, **fields}).encode()
    return {"content": text + b"".join(parts), "headers": {HEADER_LENGTH: str(len(text))}}


def test_logits_labels_and_scores_are_the_sessions(ask, tiny_model):
    answer = ask("POST", INFER, json=inputs() | {"id": "seven"})
    assert answer.status_code == 200
    document = answer.json()
    assert (document["id"], document["model_name"]) == ("seven", "tiny-0")
    found = {one["name"]: one for one in document["outputs"]}
    logits = np.float32(found["logits"]["data"]).reshape(found["logits"]["shape"])
    np.testing.assert_array_equal(logits, ask.model.session.run(PIXELS))
    assert found["label"]["data"] == [
        ("red", "green", "blue")[i] for i in tiny_model.logits(PIXELS).argmax(1)
    ]
    assert found["score"]["shape"] == [3]


def test_several_labels_have_the_graphs_scores(make_bundle):
    bundle = make_bundle(gives=("logits", "scores"), thresholds=(0.2, 0.999, 0.5))
    with served([bundle]) as ask:
        found = {
            o["name"]: o
            for o in ask("POST", f"/v2/models/{bundle.stem}/infer", json=inputs()).json()["outputs"]
        }
        expected = ask.model.session.answers(PIXELS)
        for name in ("logits", "scores"):
            values = np.float32(found[name]["data"]).reshape(found[name]["shape"])
            np.testing.assert_array_equal(values, expected[name])
        (entry,) = ask("POST", "/predict", content=encoded(PIXELS[0])).json()["predictions"]
        (told,) = ask.model.session.predict(PIXELS[:1])
    assert [one["label"] for one in entry["labels"]] == [label for label, _ in told.labels]


def test_binary_in_and_out_is_the_same(ask):
    answer = ask("POST", INFER, **in_binary(("images", PIXELS), outputs=[
        {"name": "logits", "parameters": {"binary_data": True}}]))  # fmt: skip
    size = int(answer.headers[HEADER_LENGTH])
    assert [one["name"] for one in json.loads(answer.content[:size])["outputs"]] == ["logits"]
    logits = np.frombuffer(answer.content[size:], dtype="<f4").reshape(3, 3)
    np.testing.assert_array_equal(logits, ask.model.session.run(PIXELS))


@pytest.mark.parametrize("as_text", [False, True])
def test_encoded_images_are_decoded_as_the_sessions_are(ask, tmp_path, as_text):
    files = [encoded(np.kron(one, np.ones((2, 3, 1), np.uint8))) for one in PIXELS]
    (tmp_path / "one.png").write_bytes(files[1])
    if as_text:
        data = [base64.b64encode(one).decode() for one in files]
        image = {"name": "image", "shape": [3], "datatype": "BYTES", "data": data}
        answer = ask("POST", INFER, json={"inputs": [image]})
    else:
        answer = ask("POST", INFER, **in_binary(("image", files)))
    found = {one["name"]: one["data"] for one in answer.json()["outputs"]}
    (expected,) = ask.model.session.predict(tmp_path / "one.png")
    assert found["label"][1] == expected.label
    assert found["logits"][3:6] == expected.logits.tolist()


def test_large_jpegs_are_decoded_as_the_server_was_told(make_bundle, tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (300, 200, 3), dtype=np.uint8)
    (tmp_path / "a.jpg").write_bytes(encoded(noise, "JPEG"))
    found = {}
    for decode in ("exact", "fast"):
        with served([make_bundle()], decode=decode) as ask:
            name = ask.model.name
            assert ask("GET", f"/v2/models/{name}").json()["decode"] == decode
            (expected,) = predict(ask.model.session, tmp_path / "a.jpg", decode=decode)
            answer = ask("POST", "/predict?top_k=3", content=(tmp_path / "a.jpg").read_bytes())
            (found[decode],) = answer.json()["predictions"]
            found[decode] = {one["label"]: one["score"] for one in found[decode]["top"]}
            assert found[decode] == pytest.approx(dict(expected.top), abs=1e-7)  # float32
    assert found["exact"] != pytest.approx(found["fast"], abs=1e-6)


def test_another_way_to_decode_is_refused_before_anybody_asks(make_bundle):
    bundle = make_bundle()
    with (
        pytest.raises(VptkitError, match="decode is 'quick', expected one of exact, fast"),
        served([bundle], decode="quick"),
    ):
        pass


def test_predict_takes_a_file_as_the_body_or_files_as_a_form(ask):
    good, broken = encoded(PIXELS[0], "JPEG"), encoded(PIXELS[1], "JPEG")[:300]
    one = ask("POST", "/predict?top_k=2", content=good).json()
    assert one["model_name"] == "tiny-0"
    (entry,) = one["predictions"]
    assert entry["label"] == entry["top"][0]["label"]
    assert len(entry["top"]) == 2
    form = [("a", ("a.jpg", good)), ("b", ("b.jpg", broken)), ("c", ("c.jpg", good))]
    answer = ask("POST", "/predict?top_k=2", files=form)
    first, second, third = answer.json()["predictions"]
    assert first == {**entry, "name": "a.jpg"}
    assert third == {**entry, "name": "c.jpg"}
    assert (second["name"], "b.jpg: the image is broken" in second["error"]) == ("b.jpg", True)


def test_what_there_is(ask):
    assert ask("GET", "/v2").json()["name"] == "vptkit"
    assert ask("GET", "/v2/health/live").status_code == 200
    assert ask("GET", "/v2/health/ready").status_code == 200
    assert ask("GET", "/v2/models/tiny-0/ready").status_code == 200
    models = ask("GET", "/v2/models").json()["models"]
    assert [(one["name"], one["parent"]) for one in models] == [
        ("tiny-0", None),
        ("tiny", "tiny-0"),
    ]
    model = ask("GET", "/v2/models/tiny-0/versions/1").json()
    assert model["inputs"][0] == {"name": "images", "datatype": "UINT8", "shape": [-1, *SIZE]}
    assert model["adapters"][0]["labels"] == ["red", "green", "blue"]
    assert ask("POST", "/v2/repository/index").json()[0]["state"] == "READY"
    assert ask("GET", "/v2/models/tiny").json()["parent"] == "tiny-0"


JPEG = encoded(PIXELS[0], "JPEG")
ONE = {"name": "image", "shape": [1], "datatype": "BYTES"}
# what is asked → status, and what the message says was expected
BAD = {
    "another size": ({"json": inputs(shape=[3, 16, 24, 3])}, 400, "expected UINT8 [B, 24, 16, 3]"),
    "another type": ({"json": inputs(datatype="INT32")}, 400, "expected UINT8 [B, 24, 16, 3]"),
    "no image": ({"json": inputs(shape=[0, *SIZE], data=[])}, 400, "expected UINT8 [B,"),
    "another input": ({"json": inputs(name="pixels")}, 400, "expected images (UINT8"),
    "no adapter": ({"json": {**inputs(), "parameters": {"adapter": "b"}}}, 404, "one of tiny"),
    "no output": ({"json": {**inputs(), "outputs": [{"name": "l"}]}}, 400, "expected logits"),
    "no base64": ({"json": {"inputs": [{**ONE, "data": ["ä"]}]}}, 400, "no base64"),
    "an empty image": (in_binary(("image", [b""])), 400, "image 0: is empty"),
    "a truncated JPEG": (in_binary(("image", [JPEG, JPEG[:99]])), 400, "image 1: "),
    "a bomb": (in_binary(("image", [huge_png()])), 400, "decompression bomb"),
    "no picture": (in_binary(("image", [b"%PDF-1.7"])), 400, "expected|one of JPEG"),
    "another body": ({"content": b"x", "headers": {"content-type": "text/html"}}, 415, "json"),
    "too large": ({"content": b"x" * 50_001}, 413, "at most 50,000 bytes"),
    "compressed": ({"content": b"x", "headers": {"content-encoding": "gzip"}}, 415, "none"),
    "too many": (in_binary(("image", [b"x"] * 13)), 413, "at most 12 in a request"),
    "no time": ({"json": {**inputs(), "parameters": {"timeout": 1}}}, 503, "deadline"),
}


@pytest.mark.parametrize("fault", BAD)
def test_a_bad_request_is_told_what_was_expected(ask, fault):
    """And what is asked beside it is answered as if it were alone."""
    request, status, message = BAD[fault]
    good = {"method": "POST", "url": INFER, "json": inputs()}
    before, bad, after = ask.at_once(good, {"method": "POST", "url": INFER, **request}, good)
    assert bad.status_code == status
    assert any(part in bad.json()["error"] for part in message.split("|")), bad.json()
    expected = ask.model.session.run(PIXELS).ravel().tolist()
    for answer in (before, after):
        assert answer.json()["outputs"][0]["data"] == expected
    assert ask.model.queue.held == 0


@pytest.mark.parametrize(
    ("method", "url", "settings", "status", "message"),
    [
        ("GET", "/nothing", {}, 404, "no such path"),
        ("PUT", "/predict", {}, 405, "PUT is not answered"),
        ("POST", "/v2/models/other/infer", {"json": inputs()}, 404, "expected tiny-0"),
        ("POST", "/v2/models/tiny-0/versions/2/infer", {"json": inputs()}, 404, "expected 1"),
        ("POST", "/predict?top_k=0", {"content": JPEG}, 400, "1 to 1000"),
        ("POST", "/predict?adapter=b", {"content": JPEG}, 404, "expected one of tiny"),
        ("POST", "/predict", {"content": b""}, 400, "is empty"),
        ("POST", "/predict", {"json": {}}, 415, "expected image/*"),
        ("POST", "/predict", {"files": {}, "data": {"a": "b"}}, 400, "not an image"),
        ("PUT", "/adapters/b", {"content": b"x"}, 403, "--admin-token-file"),
    ],
)
def test_other_refusals(ask, method, url, settings, status, message):
    answer = ask(method, url, **settings)
    assert (answer.status_code, message in answer.json()["error"]) == (status, True), answer.text


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"--b\r\nnonsense", "cut off"),
        (b'--b\r\nContent-Disposition: form-data; name="a"; filename="a"\r\n\r\nx', "cut off"),
        (b'--b\r\nContent-Disposition: form-data; name="a"\r\n\r\nx\r\n--b--\r\n', "no file in"),
    ],
)
def test_a_form_without_a_file(ask, content, message):
    headers = {"content-type": "multipart/form-data; boundary=b"}
    answer = ask("POST", "/predict", content=content, headers=headers)
    assert (answer.status_code, message in answer.json()["error"]) == (400, True), answer.text


def test_a_full_queue_is_a_503_at_once(ask):
    ticket = ask.model.queue.ticket(12)
    begun = time.monotonic()
    answer = ask("POST", "/predict", content=JPEG)
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    assert time.monotonic() - begun < 2
    ask.model.queue.release(ticket)
    assert ask("POST", "/predict", content=JPEG).status_code == 200


def test_a_server_that_drains_takes_no_work(ask):
    ask.application.draining = True
    assert ask("GET", "/v2/health/ready").status_code == 503
    assert ask("GET", "/v2/health/live").status_code == 200
    assert ask("POST", "/predict", content=JPEG).status_code == 503
    assert isinstance(ask.application, Application)


def test_tokens(make_bundle, tmp_path):
    (tmp_path / "t").write_text("0123456789abcdef\n")
    with served([make_bundle()], token_file=tmp_path / "t", host="0.0.0.0") as ask:
        assert ask("GET", "/v2/health/ready").status_code == 200
        for url in ("/v2", "/metrics", "/v2/models"):
            assert ask("GET", url).status_code == 401
        answer = ask("POST", "/predict", content=JPEG)
        assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
        headers = {"authorization": "Bearer 0123456789abcdef", "host": "example.org"}
        assert ask("POST", "/predict", content=JPEG, headers=headers).status_code == 200


def test_a_page_of_another_name_is_refused_on_loopback(ask):
    answer = ask("POST", "/predict", content=JPEG, headers={"host": "evil.example:8000"})
    assert answer.status_code == 403


def test_metrics_and_the_log_have_numbers_and_no_content(ask):
    lines = io.StringIO()
    ask.application.log = RequestLog(lines)
    assert isinstance(ask.application.metrics, Metrics)
    ask("POST", INFER, json=inputs() | {"id": "sev\nen"})
    ask("POST", "/predict?secret=1", content=JPEG[:99])
    text = ask("GET", "/metrics").text
    assert 'vptkit_requests_total{model="tiny-0",status="200"} 1.0' in text
    assert 'vptkit_batch_images_sum{model="tiny-0"} 3.0' in text
    assert 'vptkit_queue_images{model="tiny-0"} 0.0' in text
    first, second, _ = map(json.loads, lines.getvalue().splitlines())
    assert (first["status"], first["images"], first["adapters"], first["id"]) == (
        *(200, 3, ["tiny"]),
        "sev\nen",
    )
    assert (second["status"], second["path"], second["bytes"]) == (400, "/predict", 99)
    assert "secret" not in lines.getvalue()


def test_a_fixed_batch_and_pixels_as_the_input(make_bundle):
    """Runs are as large as the bundle takes them."""
    path = make_bundle(feed="pixels", batch=2)
    with served([path]) as ask:
        assert ask.model.max_batch == 2
        answer = ask("POST", INFER, json=inputs())
        logits = np.float32(answer.json()["outputs"][0]["data"]).reshape(3, 3)
        np.testing.assert_array_equal(logits, open_session(path, threads=1).run(PIXELS))


def mutated(random, request):
    """A request with some of its bytes changed, cut off, or made twice."""
    content = bytearray(request["content"])
    for _ in range(random.integers(1, 6)):
        at = int(random.integers(len(content))) if content else 0
        kind = random.integers(4)
        if kind == 0:
            content[at : at + 1] = bytes([random.integers(256)])
        elif kind == 1:
            del content[at:]
        elif kind == 2:
            content[at:at] = content[at : at + int(random.integers(40))]
        else:
            del content[at : at + int(random.integers(9))]
    return {**request, "content": bytes(content)}


def fuzz(ask, count):
    """Statuses of mutated requests, asked beside a good one, which is answered as ever."""
    random = np.random.default_rng(0)
    form = {"content-type": "multipart/form-data; boundary=b"}
    part = b'--b\r\nContent-Disposition: form-data; name="a"; filename="a"\r\n\r\n'
    sources = [
        {"url": INFER, **in_binary(("images", PIXELS[:1]))},
        {"url": INFER, **in_binary(("image", [JPEG]), parameters={"adapter": "tiny"})},
        {"url": INFER, "content": json.dumps({"inputs": [{**ONE, "data": ["aGFsbG8="]}]}).encode()},
        {"url": "/predict", "content": JPEG},
        {"url": "/predict", "content": part + JPEG + b"\r\n--b--\r\n", "headers": form},
    ]
    good = {"method": "POST", "url": INFER, "json": inputs()}
    expected = ask.model.session.run(PIXELS).ravel().tolist()
    statuses = set()
    for _ in range(count // 5):
        bad = [{"method": "POST", **mutated(random, one)} for one in sources]
        *answers, as_ever = ask.at_once(*bad, good)
        statuses |= {one.status_code for one in answers}
        assert as_ever.json()["outputs"][0]["data"] == expected
    return statuses


@pytest.mark.slow
def test_whatever_comes_is_answered_or_refused(ask):
    """By hand with 10,000: python -c "…fuzz(ask, 10_000)" gave the same statuses."""
    assert fuzz(ask, 100) <= {200, 400, 404}
    assert ask.model.queue.held == 0
    assert ask.application.limits.held == 0
