"""A folder of `vptkit export --target web` in a real browser: the same numbers as `vptkit run`."""

from __future__ import annotations

import base64
import io
import json
import os
from dataclasses import replace
from shutil import copytree
from types import SimpleNamespace

import numpy as np
import PIL
import pytest
from PIL import Image

pytest.importorskip("onnx")
pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

from tests.support.bank_cases import family, write_family
from tests.support.browser import another, browser
from tests.support.web_pages import answer_of, opened, static_host, web_package
from vptkit.export import BankOptions, ExportOptions, Lowering, export, export_bank
from vptkit.formats.adapter import read_adapter, write_adapter
from vptkit.images.image_file import open_image
from vptkit.images.preprocess import Preprocess, prepare
from vptkit.runtime import open_session
from vptkit.runtime.web.onnxruntime_web import library_files
from vptkit.runtime.web.web_folder import write_web

pytestmark = pytest.mark.long
CLOSE = 1e-4  # of logits of single digits: two builds of one library
GPU = ("--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader")  # WebGPU on the processor


@pytest.fixture(scope="module")
def chromium():
    with browser() as found:
        yield found


def written(folder, *bundles):
    write_web(bundles, folder, onnxruntime_web=web_package())
    return folder


def picture(width=60, height=40, mode="RGB", seed=0):
    channels = {"RGB": 3, "RGBA": 4, "LA": 2, "L": 1}[mode]
    shape = (height, width, channels)[: 2 + (channels > 1)]
    values = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    return Image.fromarray(values, mode)


def encoded(image, form="PNG", **settings):
    stream = io.BytesIO()
    image.save(stream, form, **settings)
    return stream.getvalue()


def turned(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def smooth(width=300, height=200):
    """As photographs are: neighbours are alike, so that JPEG keeps it."""
    small = picture(9, 7)
    return small.resize((width, height), Image.Resampling.BICUBIC)


# What a decoder and Pillow's arithmetic have to get right, to the last bit
EXACT = {
    "landscape": encoded(picture()),
    "portrait": encoded(picture(37, 91)),
    "enlarged": encoded(picture(5, 3)),
    "one pixel": encoded(picture(1, 1)),
    "long": encoded(picture(900, 6)),
    "as large": encoded(picture(32, 32)),
    "grey": encoded(picture(mode="L")),
    "palette": encoded(picture().quantize(16)),
    "transparent palette": encoded(picture().quantize(16), transparency=3),
    "alpha": encoded(picture(mode="RGBA")),
    "grey and alpha": encoded(picture(mode="LA")),
    "lossless WebP with alpha": encoded(picture(mode="RGBA"), "WEBP", lossless=True, exact=True),
    "GIF": encoded(picture().quantize(16), "GIF"),
    "BMP": encoded(picture(), "BMP"),
    **{f"turned {n}": encoded(picture(), exif=turned(n)) for n in (2, 3, 4, 5, 6, 7, 8)},
}
# Where decoders may round in their own ways: grey levels that they may be apart
NEAR = {
    "JPEG": (encoded(smooth(), "JPEG", quality=90), 2),
    "JPEG, turned": (encoded(smooth(), "JPEG", quality=90, exif=turned(6)), 2),
    "grey JPEG": (encoded(smooth().convert("L"), "JPEG"), 2),
    "progressive JPEG": (encoded(smooth(), "JPEG", progressive=True), 2),
}
PREPROCESS = (
    *(
        Preprocess(input_size=(3, 32, 32), mean=(0.5,) * 3, std=(0.5,) * 3, interpolation=name)
        for name in ("bicubic", "bilinear", "lanczos", "nearest")
    ),
    Preprocess(input_size=(3, 24, 16), mean=(0.5,) * 3, std=(0.5,) * 3, crop_pct=0.9),
    Preprocess(input_size=(3, 31, 31), mean=(0.5,) * 3, std=(0.5,) * 3, crop_pct=1.0),
)
_PIXELS = """async ([images, all, pillow]) => {
  const { pixelsOf } = await import("./image_pixels.js");
  const found = [];
  for (const image of images) {
    const blob = new Blob([Uint8Array.from(atob(image), (letter) => letter.charCodeAt(0))]);
    for (const preprocess of all) {
      const pixels = await pixelsOf(blob, preprocess, pillow);
      found.push(Array.from(pixels));
    }
  }
  return found;
}"""


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """One page with a bank, a bank whose tables are in the graph, fp16 and int8: name → bundle."""
    folder = tmp_path_factory.mktemp("site")
    members = family(kinds=("bilinear", "norms", "linear"))
    paths = write_family(members, folder)
    adapters = [paths[name] for name in members.adapters]
    bundles = {"bank": folder / "bank.vptk", "constant": folder / "constant.vptk"}
    for name, tables in (("bank", "inputs"), ("constant", "constant")):
        room = BankOptions(tables=tables)
        export_bank(adapters, bundles[name], weights=paths["weights"], bank=room)
    for i in range(8):
        (folder / "images").mkdir(exist_ok=True)
        picture(40, 40, seed=i).save(folder / "images" / f"{i}.png")
    for precision in ("fp16", "int8"):
        bundles[precision] = folder / f"{precision}.vptk"
        lowering = Lowering(precision=precision, target="cpu", min_agreement=0.0)
        renamed = replace(read_adapter(paths["bilinear"]), name=precision)
        write_adapter(folder / f"{precision}.safetensors", renamed)
        export(
            folder / f"{precision}.safetensors",
            bundles[precision],
            weights=paths["weights"],
            options=ExportOptions(lowering=lowering),
            calibration=folder / "images",
        )
    written(folder / "web", *bundles.values())
    return SimpleNamespace(folder=folder / "web", bundles=bundles)


@pytest.fixture(scope="module")
def bank(site):
    return site.bundles["bank"]


@pytest.fixture(scope="module")
def host(site):
    with static_host(site.folder) as found:
        yield found


@pytest.fixture(scope="module")
def page(chromium, host):
    with opened(chromium, host) as found:
        yield found


def assert_same(page, bundle, image, path, adapters, close=CLOSE):
    path.write_bytes(image)
    with open_session(bundle, "cpu", threads=1) as session:
        for adapter in adapters:
            expected = next(session.predict(path, adapter=adapter))
            found = answer_of(page, image, session.bundle.name, adapter)
            np.testing.assert_allclose(found["logits"], expected.logits, rtol=0, atol=close)
            for one, (label, score) in zip(found["top"], expected.top, strict=True):
                assert one["label"] == label
                assert one["score"] == pytest.approx(score, abs=close)
            yield found, expected


def test_pixels_are_those_of_the_command_line_to_the_bit(page):
    images = {**EXACT, **{name: image for name, (image, _) in NEAR.items()}}
    texts = [base64.b64encode(image).decode() for image in images.values()]
    found = iter(
        page.evaluate(
            _PIXELS,
            [texts, [one.to_json() for one in PREPROCESS], int(PIL.__version__.split(".")[0])],
        )
    )
    worst = {}
    for name, image in images.items():
        whole = open_image(Encoded(image))
        for preprocess in PREPROCESS:
            expected = prepare(whole, preprocess).ravel().astype(int)
            apart = np.abs(np.array(next(found)) - expected).max()
            worst[name] = max(worst.get(name, 0), int(apart))
    assert {
        name: apart for name, apart in worst.items() if apart > NEAR.get(name, (b"", 0))[1]
    } == {}


class Encoded:
    """An encoded image that is read like a file."""

    name = "image"

    def __init__(self, content):
        self.read_bytes = lambda: content


@pytest.mark.parametrize("name", ["landscape", "enlarged", "alpha", "turned 6", "grey"])
def test_logits_are_those_of_the_command_line(page, bank, tmp_path, name):
    adapters = ("bilinear", "norms", "linear")
    assert len(list(assert_same(page, bank, EXACT[name], tmp_path / "image", adapters))) == 3


def test_a_host_without_the_headers_has_one_thread_and_says_so(page):
    assert page.evaluate("crossOriginIsolated") is False
    status = page.inner_text("#status")
    assert "1 thread" in status
    assert "COOP and COEP" in status
    assert "stay in this browser" in page.inner_text("#state")
    assert "(allowed 1e-4)" in page.inner_text("#state")


@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="one core")
def test_a_host_with_the_headers_has_several(chromium, site, bank, tmp_path):
    with static_host(site.folder, isolated=True) as host, opened(chromium, host) as page:
        assert page.evaluate("crossOriginIsolated") is True
        cores = page.evaluate("navigator.hardwareConcurrency")
        threads = cores if cores < 4 else min(8, -(-cores // 2))
        assert f"WebAssembly, {threads} threads" in page.inner_text("#status")
        assert "headers" not in page.inner_text("#status")
        list(assert_same(page, bank, EXACT["landscape"], tmp_path / "image", ["bilinear"]))


def test_several_labels_and_labels_that_are_markup(chromium, make_bundle, tmp_path):
    markup = "<img src=x onerror=alert(1)>"
    labels = (markup, "green", "blue")
    several = make_bundle(name="several", labels=labels, thresholds=(0.5, 0.5, 0.001))
    folder = written(tmp_path / "web", several)
    red = encoded(Image.new("RGB", (30, 30), (250, 5, 5)))
    with static_host(folder) as host, opened(chromium, host) as page:
        (tmp_path / "image").write_bytes(red)
        with open_session(several, "cpu", threads=1) as session:
            expected = next(session.predict(tmp_path / "image"))
        found = answer_of(page, red, "several", "several")
        assert [one["label"] for one in found["labels"]] == [label for label, _ in expected.labels]
        assert found["top"][0]["score"] == pytest.approx(expected.scores.max(), abs=1e-6)
        page.set_input_files("#file", tmp_path / "image")
        page.wait_for_selector(".answer li")
        assert markup in page.inner_text(".answer")
        assert page.locator(".answer img").count() == 0
        assert not [path for path in host.asked if path.endswith("/x")]


def test_tables_that_are_in_the_graph(page, site, host, tmp_path):
    names = ("bilinear", "norms", "linear")
    red = EXACT["landscape"]
    found = assert_same(page, site.bundles["constant"], red, tmp_path / "image", names)
    assert len(list(found)) == 3
    assert not [path for path in host.asked if path.startswith("/models/1/adapter")]


# The graphs are the same; what a kernel rounds in 16 or 8 bits differs from processor to processor.
@pytest.mark.parametrize(("precision", "close"), [("fp16", 0.02), ("int8", 0.05)])
def test_lower_precisions(page, site, tmp_path, precision, close):
    bundle = site.bundles[precision]
    images = EXACT["landscape"], EXACT["portrait"]
    for image in images:
        ((found, expected),) = assert_same(
            page, bundle, image, tmp_path / "image", [precision], close
        )
        assert found["label"] == expected.label


def test_webgpu_and_where_it_fails(chromium, site, host, bank, tmp_path):
    with another(chromium, *GPU) as with_gpu, opened(with_gpu, host) as page:
        if not page.evaluate("navigator.gpu?.requestAdapter().then(Boolean) ?? false"):
            pytest.skip("this Chromium has no WebGPU on the processor")
        assert "WebGPU" in page.inner_text("#status")
        list(assert_same(page, bank, EXACT["portrait"], tmp_path / "image", ["norms"]))
    copytree(site.folder, tmp_path / "web", copy_function=os.link)
    for name in library_files("webgpu"):  # as where a host does not take such large files
        (tmp_path / "web" / name).unlink()
    with (
        another(chromium, *GPU) as with_gpu,
        static_host(tmp_path / "web") as bare,
        opened(with_gpu, bare) as page,
    ):
        assert "WebAssembly" in page.inner_text("#status")
        assert "WebGPU failed" in page.inner_text("#status")
        list(assert_same(page, bank, EXACT["portrait"], tmp_path / "image", ["norms"]))


def test_a_browser_that_answers_otherwise_says_so(chromium, site, tmp_path):
    copytree(site.folder, tmp_path / "web", copy_function=os.link)
    document = json.loads((site.folder / "manifest.json").read_text())
    (tmp_path / "web" / "manifest.json").unlink()
    document["models"][0]["check"]["logits"][0] += 1.0
    (tmp_path / "web" / "manifest.json").write_text(json.dumps(document))
    context = chromium.new_context()
    with static_host(tmp_path / "web") as host:
        page = context.new_page()
        page.goto(host.address)
        page.get_by_text("answers the golden image otherwise").wait_for()
    context.close()


@pytest.mark.parametrize(
    "lost", ["models/0/model.onnx", "onnxruntime-web/ort-wasm-simd-threaded.wasm"]
)
def test_a_folder_that_was_not_copied_whole_says_so(chromium, site, tmp_path, lost):
    copytree(site.folder, tmp_path / "web", copy_function=os.link)
    (tmp_path / "web" / lost).unlink()
    context = chromium.new_context()
    with static_host(tmp_path / "web") as host:
        page = context.new_page()
        page.goto(host.address)
        page.get_by_text("The graph cannot run").wait_for()
    context.close()
