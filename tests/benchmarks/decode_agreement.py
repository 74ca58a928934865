"""Whether decoding JPEGs smaller changes answers (docs/benchmarks.md): `--decode fast` against `exact`.

The development sets' images (train and val; nothing of test or ood) are about as large as the network's
input, where both are the same to the bit. So each is enlarged to a shorter side of 520 to 2400 pixels, by
Lanczos, sharpened, given the noise of a sensor, and written as a JPEG. Beside them stand charts that are as
sharp as pixels allow: stars, gratings, checkers and text. Two heads answer: ImageNet's 1,000 classes, and a
linear probe for each set, trained on one half of its images (decoded exactly) and asked for the other.

    python -m tests.benchmarks.decode_agreement --shared ../shared [--spare 2 3 4] [--images 60]
"""

from __future__ import annotations

import argparse
import io
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from unittest import mock

import numpy as np
import timm
import torch
from PIL import Image, ImageDraw, ImageFilter
from safetensors.torch import load_file
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from vptkit.images import image_pixels
from vptkit.images.preprocess import Preprocess, normalize

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

SETS = ("flowers5", "caltech20", "photo2sketch5", "breakhis100x")
WEIGHTS = "vit_tiny_patch16_224.augreg_in21k_ft_in1k"
PREPROCESS = Preprocess(
    input_size=(3, 224, 224), mean=(0.5,) * 3, std=(0.5,) * 3, interpolation="bicubic", crop_pct=0.9
)


@dataclass(frozen=True, slots=True)
class Encoded:
    """A JPEG in memory, read like a file."""

    name: str
    content: bytes

    def read_bytes(self) -> bytes:
        """The JPEG."""
        return self.content


def photograph(path: Path, rng: np.random.Generator) -> Encoded:
    """An image as a camera would have given it: large, sharpened, noisy."""
    image = Image.open(path).convert("RGB")
    factor = math.exp(rng.uniform(math.log(520), math.log(2400))) / min(image.size)
    image = image.resize(
        [round(factor * side) for side in image.size], Image.Resampling.LANCZOS
    ).filter(ImageFilter.UnsharpMask(3, 120, 0))
    pixels = np.asarray(image, np.float32)
    noisy = pixels + rng.normal(0, 4, pixels.shape).astype(np.float32)
    return written(path.name, Image.fromarray(noisy.clip(0, 255).astype(np.uint8)))


def written(name: str, image: Image.Image) -> Encoded:
    """As a JPEG of a camera's quality, colours at full resolution."""
    place = io.BytesIO()
    image.save(place, "JPEG", quality=92, subsampling=0)
    return Encoded(name, place.getvalue())


def charts() -> Iterator[Encoded]:
    """Patterns as sharp as pixels allow, at odd sizes: where smaller decoding must show, if anywhere."""
    for height, width in ((800, 1200), (1337, 1001), (2000, 3000)):
        y, x = np.mgrid[:height, :width].astype(np.float32)
        centred = np.arctan2(y - height / 2, x - width / 2)
        for spokes in (24, 72, 144):
            yield chart(f"star {spokes}", np.sin(spokes * centred) > 0)
        for period in (2, 3, 5, 9, 17, 33):
            yield chart(f"grating {period}", x % period < period / 2)
            yield chart(f"checker {period}", (x // period + y // period) % 2 > 0)
        text = Image.new("L", (width, height), 255)
        pen = ImageDraw.Draw(text)
        for row in range(0, height, 24):
            pen.text(
                (3, row), "The quick brown fox jumps over the lazy dog 0123456789 " * 9, fill=0
            )
        yield written("text", text.convert("RGB"))


def chart(name: str, bright: NDArray[np.bool_]) -> Encoded:
    """Black and white."""
    return written(name, Image.fromarray(np.where(bright, 255, 0).astype(np.uint8)).convert("RGB"))


def network(shared: Path) -> torch.nn.Module:
    """ViT-Ti with its head."""
    model = timm.create_model(WEIGHTS, pretrained=False)
    model.load_state_dict(load_file(shared / "weights" / WEIGHTS / "model.safetensors"))
    return model.eval()


def answers(
    model: torch.nn.Module, images: list[NDArray[np.uint8]]
) -> tuple[NDArray[np.float32], NDArray[np.intp]]:
    """Features [N, D] and the best of 1,000 classes [N]."""
    features, best = [], []
    with torch.inference_mode():
        for i in range(0, len(images), 32):
            batch = torch.from_numpy(normalize(np.stack(images[i : i + 32]), PREPROCESS))
            one = model.forward_head(model.forward_features(batch), pre_logits=True)
            features.append(one.numpy())
            best.append(model.head(one).argmax(1).numpy())
    return np.concatenate(features), np.concatenate(best)


def probed(
    known: NDArray[np.float32], truth: NDArray[np.str_], asked: NDArray[np.float32]
) -> NDArray[np.str_]:
    """What probes say of `asked`: each half is answered by the probe of the other half of `known`."""
    found = np.empty(len(truth), dtype=truth.dtype)
    for half in (0, 1):
        rows = np.arange(len(truth)) % 2 == half
        scale = StandardScaler().fit(known[~rows])
        probe = LogisticRegression(C=0.01, max_iter=500).fit(
            scale.transform(known[~rows]), truth[~rows]
        )
        found[rows] = probe.predict(scale.transform(asked[rows]))
    return found


def pixels(images: list[Encoded], decode: str, spare: int = 2) -> list[NDArray[np.uint8]]:
    """All of them, decoded in one way."""
    with mock.patch.object(image_pixels, "_SPARE", spare):
        return [image_pixels.pixels_of(one, PREPROCESS.reading(decode)) for one in images]


def report(name: str, spare: int, same: NDArray[np.bool_]) -> None:
    """One line, with the upper end of the 95 % interval of Clopper and Pearson where all agree."""
    bound = f" (at least {0.05 ** (1 / len(same)):.2%} with 95 %)" if same.all() else ""
    print(f"{name:34} spare {spare}: {same.sum()} of {len(same)} agree, {same.mean():.2%}{bound}")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shared", type=Path, required=True)
    parser.add_argument("--spare", type=int, nargs="+", default=[2, 3, 4])
    parser.add_argument("--images", type=int, default=10_000, help="of each set, at most")
    args = parser.parse_args()
    model = network(args.shared)
    rng = np.random.default_rng(0)
    total: dict[tuple[str, int], list[NDArray[np.bool_]]] = {}
    for name in (*SETS, "charts"):
        if name == "charts":
            images, truth = list(charts()), None
        else:
            folders = [args.shared / "data" / name / split for split in ("train", "val")]
            paths = sorted(path for folder in folders for path in folder.rglob("*.jpg"))
            paths = [*rng.permutation(np.array(paths, dtype=object))][: args.images]
            images = [photograph(path, rng) for path in paths]
            truth = np.array([path.parent.name for path in paths])
        exact = pixels(images, "exact")
        features, best = answers(model, exact)
        for spare in args.spare:
            fast = pixels(images, "fast", spare)
            apart = [np.abs(a.astype(np.int16) - b) for a, b in zip(exact, fast, strict=True)]
            print(
                f"{name}, spare {spare}: mean difference {np.mean([d.mean() for d in apart]):.3f}, "
                f"largest {max(d.max() for d in apart)} grey levels; "
                f"{np.mean([(d > 0).any() for d in apart]):.0%} of the images differ",
                flush=True,
            )
            others, other_best = answers(model, fast)
            found = {"ImageNet's head": best == other_best}
            if truth is not None:
                found["the set's probe"] = probed(features, truth, features) == probed(
                    features, truth, others
                )
            for head, same in found.items():
                report(f"{name}, {head}", spare, same)
                kind = "charts" if truth is None else "photographs"
                total.setdefault((f"{kind}, {head}", spare), []).append(same)
    for (what, spare), parts in total.items():
        report(f"all {what}", spare, np.concatenate(parts))


if __name__ == "__main__":
    main()
