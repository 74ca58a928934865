"""The demo backbone's pretraining, on a handful of generated images with a tiny random teacher."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import numpy as np
import pytest

torch = pytest.importorskip("torch")
timm = pytest.importorskip("timm")

from PIL import Image  # noqa: E402
from safetensors.torch import load_file  # noqa: E402

from vptkit.tune import distill  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

COUNT = 8


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Threads that wait for each other are slow on a busy machine, and add up in another order."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def make_images() -> list[Image.Image]:
    generator = np.random.default_rng(0)
    coarse = generator.integers(0, 256, (COUNT, 6, 8, 3), dtype=np.uint8)
    return [Image.fromarray(c).resize((80, 60), Image.Resampling.BICUBIC) for c in coarse]


def make_teacher() -> torch.nn.Module:
    torch.manual_seed(0)
    tiny = {"img_size": 64, "patch_size": 16, "embed_dim": 48, "depth": 1, "num_heads": 3}
    return timm.create_model(distill.ARCHITECTURE, pretrained=False, **tiny).eval()


@pytest.fixture(scope="module")
def targets() -> distill.Targets:
    return distill.teacher_pass(make_teacher(), make_images(), "0/0", 32)


def student_file(
    targets: distill.Targets, seed: int, path: Path, epochs: int
) -> tuple[str, list[float]]:
    torch.manual_seed(seed)
    student = distill.make_student()
    losses = distill.train(student, targets, epochs=epochs, seed=seed)
    return distill.write(student, path), losses


def test_augment_depends_on_its_random_numbers_alone() -> None:
    image = make_images()[0]
    looks = [distill.augment(image, random.Random(seed), 48) for seed in range(60)]
    again = [distill.augment(image, random.Random(seed), 48) for seed in range(60)]
    assert {(look.mode, look.size) for look in looks} == {("RGB", (48, 48))}
    assert [a.tobytes() for a in looks] == [a.tobytes() for a in again]
    assert len({look.tobytes() for look in looks}) == 60


def test_teacher_pass(targets: distill.Targets) -> None:
    assert targets.pixels.shape == (COUNT, 3, 32, 32)
    assert targets.token.shape == (COUNT, 48)
    assert targets.grid.shape == (COUNT, 48, distill.GRID, distill.GRID)
    again = distill.teacher_pass(make_teacher(), make_images(), "0/0", 32)
    assert all(torch.equal(a, b) for a, b in zip(targets, again, strict=True))
    other = distill.teacher_pass(make_teacher(), make_images(), "1/0", 32)
    assert not torch.equal(targets.pixels, other.pixels)


@pytest.mark.slow
def test_loss_falls_and_the_file_is_the_student(targets: distill.Targets, tmp_path: Path) -> None:
    path = tmp_path / "student.safetensors"
    _, losses = student_file(targets, 0, path, epochs=6)
    assert losses[-1] < losses[0] - 0.1
    assert path.stat().st_size < 3_000_000
    state = load_file(path)
    assert {value.dtype for value in state.values()} == {torch.float16}
    student = timm.create_model(distill.ARCHITECTURE, pretrained=False, **distill.STUDENT_ARGS)
    student.load_state_dict(state, strict=True)


@pytest.mark.slow
def test_a_seed_gives_one_file(targets: distill.Targets, tmp_path: Path) -> None:
    digest, again, other = (
        student_file(targets, seed, tmp_path / f"{i}.safetensors", epochs=1)[0]
        for i, seed in enumerate((0, 0, 1))
    )
    assert digest == again != other
    assert len(list(tmp_path.iterdir())) == 3


def test_loss_is_nothing_for_a_perfect_copy(targets: distill.Targets) -> None:
    teacher = make_teacher()
    heads = torch.nn.ModuleList(torch.nn.Identity() for _ in range(2))
    pixels = torch.nn.functional.interpolate(targets.pixels, 64)
    with torch.inference_mode():
        batch = distill.Targets(pixels, *distill.tokens(teacher, pixels))
        assert distill.batch_loss(teacher, heads, batch, 1.0).item() == pytest.approx(0, abs=1e-5)
        shuffled = batch._replace(token=batch.token.flip(0))
        assert distill.batch_loss(teacher, heads, shuffled, 1.0).item() > 1e-3


def test_only_train_and_val_images_are_used_and_passes_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = tmp_path / "data"
    splits = ("train", "val", "test", "ood")
    for split, image in zip(splits, make_images(), strict=False):
        folder = data / "set" / split / "class"
        folder.mkdir(parents=True)
        image.save(folder / "image.jpg")
    assert [p.parts[-3] for p in distill.find_images(data)] == ["train", "val"]
    with pytest.raises(FileNotFoundError, match="no images"):
        distill.find_images(data / "set")

    weights, cache = tmp_path / "weights", tmp_path / "cache"
    weights.write_bytes(b"any")
    monkeypatch.setattr(distill, "load_teacher", lambda _: make_teacher())
    first = distill.collect(weights, data, 2, 0, cache)
    assert len(first.pixels) == 4
    monkeypatch.setattr(distill, "load_teacher", lambda _: pytest.fail("the cache was not used"))
    second = distill.collect(weights, data, 2, 0, cache)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
