"""Distil a ViT-Ti into the 1.2 M parameter backbone of `vptkit demo`.

    python -m vptkit.tune.distill --teacher model.safetensors --data shared/data -o demo_backbone.safetensors

The teacher sees strongly augmented crops at 224 px, the student the same crops at 32 px and copies
what the teacher makes of them. Teacher answers are computed once. Only `train` and `val` images are
used; results on `test` and `ood` stay honest.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import random
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import numpy as np
import timm
import torch
import torch.nn.functional as F
from PIL import Image, ImageEnhance, ImageFilter, ImageOps
from safetensors.torch import save_file
from torch import Tensor, nn

from vptkit.atomic_files import atomic_file, sha256_of_file
from vptkit.errors import DataError
from vptkit.formats.tensor_file import read_tensors
from vptkit.images.image_file import open_image
from vptkit.regular_files import require_regular

if TYPE_CHECKING:
    from timm.models import VisionTransformer

ARCHITECTURE = "vit_tiny_patch16_224"
STUDENT_ARGS: dict[str, Any] = {
    "img_size": 32,
    "patch_size": 4,
    "embed_dim": 128,
    "depth": 6,
    "num_heads": 4,
    "num_classes": 0,
}
GRID = 4  # patch tokens are averaged to GRID x GRID cells before they are compared
BATCH = 64
TEACHER_BATCH = 32
REPORT_SECONDS = 15.0


class Targets(NamedTuple):
    """Crops as the student sees them and what the teacher said about each."""

    pixels: Tensor  # uint8 (n, 3, s, s)
    token: Tensor  # float16 (n, d), class token after the final norm
    grid: Tensor  # float16 (n, d, GRID, GRID), patch tokens after the final norm, averaged


def say(line: str) -> None:
    """Progress goes to standard error."""
    print(line, file=sys.stderr, flush=True)


def make_student() -> VisionTransformer:
    """The demo backbone with timm's initialisation (seed torch first)."""
    student = timm.create_model(ARCHITECTURE, pretrained=False, **STUDENT_ARGS)
    return cast("VisionTransformer", student)


def load_teacher(weights: Path) -> VisionTransformer:
    """The 224 px ViT-Ti, strictly loaded, ready for inference."""
    teacher = timm.create_model(ARCHITECTURE, pretrained=False)
    teacher.load_state_dict(load(weights), strict=True)
    return cast("VisionTransformer", teacher.eval())


def load(path: Path) -> dict[str, Tensor]:
    """The tensors of a file, which must be a regular one."""
    return {name: torch.from_numpy(value) for name, value in read_tensors(path, DataError).items()}


def find_images(data: Path) -> list[Path]:
    """All `SET/train` and `SET/val` images under `data`, sorted."""
    paths = sorted(p for split in ("train", "val") for p in data.glob(f"*/{split}/*/*.jpg"))
    if not paths:
        raise FileNotFoundError(f"{data}: no images; expected SET/train/CLASS/NAME.jpg")
    return paths


def augment(image: Image.Image, rng: random.Random, size: int) -> Image.Image:
    """One crop of `size` pixels: place, turn, then one of several looks, some of them digit-like."""
    area = math.exp(rng.uniform(math.log(0.08), 0.0)) * image.width * image.height
    ratio = math.exp(rng.uniform(math.log(3 / 4), math.log(4 / 3)))
    width = min(image.width, math.sqrt(area * ratio))
    height = min(image.height, math.sqrt(area / ratio))
    left, top = rng.uniform(0, image.width - width), rng.uniform(0, image.height - height)
    box = (left, top, left + width, top + height)
    crop = image.resize((size, size), Image.Resampling.BICUBIC, box=box)

    ground = rng.choice([(0, 0, 0), (255, 255, 255), tuple(rng.randrange(256) for _ in range(3))])
    if rng.random() < 0.5:
        crop = ImageOps.mirror(crop)
    if rng.random() < 0.3:
        crop = crop.rotate(rng.uniform(-30, 30), Image.Resampling.BICUBIC, fillcolor=ground)
    if rng.random() < 0.15:
        inner = int(size * rng.uniform(0.4, 0.9))
        small, crop = crop.resize((inner, inner)), Image.new("RGB", (size, size), ground)
        crop.paste(small, (rng.randint(0, size - inner), rng.randint(0, size - inner)))

    look = rng.random()
    if look < 0.15:  # bright strokes on black
        coarse = crop.convert("L").resize((size // 4, size // 4), Image.Resampling.BICUBIC)
        edges = ImageOps.crop(coarse.filter(ImageFilter.FIND_EDGES), 1)  # its rim is not filtered
        edges = ImageOps.autocontrast(edges, cutoff=(0, 2))
        crop = edges.resize((size, size), Image.Resampling.BICUBIC).convert("RGB")
    elif look < 0.30:  # few tones
        soft = crop.convert("L").filter(ImageFilter.GaussianBlur(size / rng.uniform(30, 120)))
        crop = ImageOps.posterize(ImageOps.autocontrast(soft), rng.randint(1, 3)).convert("RGB")
    elif look < 0.55:  # grey
        crop = ImageOps.grayscale(crop).convert("RGB")
    else:
        crop = ImageEnhance.Color(crop).enhance(rng.uniform(0.3, 1.8))
    crop = ImageEnhance.Contrast(crop).enhance(rng.uniform(0.6, 1.8))
    crop = ImageEnhance.Brightness(crop).enhance(rng.uniform(0.6, 1.4))
    return ImageOps.invert(crop) if rng.random() < 0.2 else crop


def normalise(pixels: Tensor) -> Tensor:
    """Uint8 pixels to the range that mean = std = 0.5 gives."""
    return pixels.float() / 127.5 - 1.0


def to_tensor(images: list[Image.Image]) -> Tensor:
    """RGB images of one size to uint8 (n, 3, h, w)."""
    stacked = np.stack([np.asarray(i) for i in images])
    return torch.from_numpy(stacked).permute(0, 3, 1, 2).contiguous()


def tokens(model: VisionTransformer, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Class token (n, d) and patch tokens averaged to (n, d, GRID, GRID), after the final norm."""
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = model.forward_features(normalise(pixels))
    out = out.float()
    patches = (
        out[:, model.num_prefix_tokens :].transpose(1, 2).unflatten(2, model.patch_embed.grid_size)
    )
    return out[:, 0], F.adaptive_avg_pool2d(patches, GRID)


def teacher_pass(
    teacher: VisionTransformer, images: list[Image.Image], seed: str, size: int, note: str = ""
) -> Targets:
    """One crop of every image and the teacher's answers; crops depend on `seed` and order alone."""
    full = teacher.patch_embed.img_size[0]

    def prepare(start: int) -> tuple[Tensor, Tensor]:
        batch = range(start, min(start + TEACHER_BATCH, len(images)))
        crops = [augment(images[i], random.Random(f"{seed}/{i}"), full) for i in batch]
        small = [c.resize((size, size), Image.Resampling.BICUBIC) for c in crops]
        return to_tensor(crops), to_tensor(small)

    parts, begun = [], time.perf_counter()
    with ThreadPoolExecutor(1) as pool, torch.inference_mode():
        for large, small in pool.map(prepare, range(0, len(images), TEACHER_BATCH)):
            token, grid = tokens(teacher, large)
            parts.append((small, token.half(), grid.half()))
    rate = len(images) / (time.perf_counter() - begun)
    say(f"teacher {note}: {len(images)} crops, {rate:.0f} images/s")
    return Targets(*(torch.cat(column).contiguous() for column in zip(*parts, strict=True)))


def batch_loss(
    student: VisionTransformer, heads: nn.ModuleList, batch: Targets, relation: float
) -> Tensor:
    """Cosine distance of class token and grid to the teacher's, and the divergence of likenesses.

    The relational term reads the class token itself, without a projection: for each image, how like
    is it to every other image of the batch (softmax of cosines at temperature 0.1), in the teacher's
    eyes and in the student's.
    """
    token, grid = tokens(student, batch.pixels)
    loss = 1 - F.cosine_similarity(heads[0](token), batch.token).mean()
    cells = heads[1](grid.permute(0, 2, 3, 1))
    loss = loss + 0.5 * (
        1 - F.cosine_similarity(cells, batch.grid.permute(0, 2, 3, 1), dim=-1).mean()
    )
    others = ~torch.eye(len(token), dtype=torch.bool)
    mine, theirs = (
        (n @ n.T / 0.1)[others].view(len(n), -1).log_softmax(-1)
        for n in (F.normalize(token), F.normalize(batch.token))
    )
    return loss + relation * F.kl_div(mine, theirs, log_target=True, reduction="batchmean")


def vary(pixels: Tensor, rng: random.Random) -> Tensor:
    """Sometimes takes detail away, as when 8 px digits are enlarged; the target stays sharp."""
    if rng.random() < 0.7:
        return pixels
    size = pixels.shape[-1]
    coarse = F.interpolate(pixels.float(), size // rng.choice([2, 3, 4]), mode="area")
    return F.interpolate(coarse, size, mode="bicubic").clamp(0, 255)


def pace(step: int, warm: int, steps: int) -> float:
    """Share of the highest learning rate: a linear rise, then a half cosine to nothing."""
    if step < warm:
        return (step + 1) / warm
    return 0.5 + 0.5 * math.cos(math.pi * (step - warm) / max(1, steps - warm))


def train(
    student: VisionTransformer,
    targets: Targets,
    *,
    epochs: int,
    seed: int,
    rate: float = 1e-3,
    relation: float = 0.5,
    checkpoint: Path | None = None,
) -> list[float]:
    """Trains `student` in place; returns the mean loss of each epoch.

    Equal arguments give equal weights on the same machine with the same number of threads.
    """
    torch.manual_seed(seed)
    rng = random.Random(seed)
    for block in student.blocks:  # on a CPU in bfloat16 twice as fast as the fused kernel
        attention: Any = block.attn
        attention.fused_attn = False
    token, grid = targets.token.float(), targets.grid
    cell_std, cell_mean = torch.std_mean(grid.float(), (0, 2, 3), keepdim=True)
    token = (token - token.mean(0)) / token.std(0)
    width = token.shape[1]
    heads = nn.ModuleList(nn.Linear(student.embed_dim, width) for _ in range(2))
    weights = [p for m in (student, heads) for p in m.parameters()]
    groups = [
        {"params": [p for p in weights if p.ndim == 2], "weight_decay": 0.05},
        {"params": [p for p in weights if p.ndim != 2], "weight_decay": 0.0},
    ]
    optimiser = torch.optim.AdamW(groups, lr=rate, betas=(0.9, 0.98))
    count, size = len(token), min(BATCH, len(token))
    steps = epochs * (count // size)
    warm = max(1, steps // 20)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: pace(step, warm, steps))
    history: list[float] = []
    begun = told = time.perf_counter()
    for epoch in range(epochs):
        student.train()
        losses: list[float] = []
        order = torch.randperm(count)[: count - count % size]
        for rows in order.view(-1, size):
            pixels, cells = targets.pixels[rows], (grid[rows].float() - cell_mean) / cell_std
            if rng.random() < 0.5:
                pixels, cells = pixels.flip(-1), cells.flip(-1)
            batch = Targets(vary(pixels, rng), token[rows], cells)
            loss = batch_loss(student, heads, batch, relation)
            optimiser.zero_grad()
            torch.autograd.backward(loss)
            nn.utils.clip_grad_norm_(weights, 1.0)
            optimiser.step()
            schedule.step()
            losses.append(loss.item())
            now, done = time.perf_counter(), epoch * (count // size) + len(losses)
            if now - told > REPORT_SECONDS or len(losses) == count // size:
                told, speed = now, done / (now - begun)
                mean = sum(losses) / len(losses)
                say(
                    f"epoch {epoch + 1}/{epochs}, step {done}/{steps}: loss {mean:.4f}, "
                    f"{speed * size:.0f} images/s, {(steps - done) / speed:.0f} s left"
                )
        history.append(sum(losses) / len(losses))
        if checkpoint:
            write(student, checkpoint)
    student.eval()
    return history


def write(student: VisionTransformer, path: Path) -> str:
    """Writes the student as float16 without metadata, atomically; returns the file's sha256."""
    state = {k: v.detach().half().contiguous() for k, v in student.state_dict().items()}
    with atomic_file(path) as part:
        save_file(state, part)
    return sha256_of_file(path)


def collect(weights: Path, data: Path, crops: int, seed: int, cache: Path | None) -> Targets:
    """`crops` teacher passes over the images; passes found in `cache` are not computed again."""
    paths = find_images(data)
    images: list[Image.Image] = []
    teacher: VisionTransformer | None = None
    require_regular(weights, DataError)
    digest = hashlib.sha256(weights.read_bytes())
    digest.update(json.dumps([[str(p.relative_to(data)) for p in paths], seed]).encode())
    passes = []
    if cache:
        cache.mkdir(parents=True, exist_ok=True)
    for number in range(crops):
        kept = cache / f"{digest.hexdigest()[:12]}_{number:03d}.safetensors" if cache else None
        if kept and kept.exists():
            passes.append(Targets(**load(kept)))
            continue
        teacher = teacher or load_teacher(weights)
        images = images or [open_image(p) for p in paths]
        note = f"pass {number + 1}/{crops}"
        one = teacher_pass(teacher, images, f"{seed}/{number}", STUDENT_ARGS["img_size"], note)
        passes.append(one)
        if kept:
            with atomic_file(kept) as part:
                save_file(one._asdict(), part)
    return Targets(*(torch.cat(column) for column in zip(*passes, strict=True)))


def main() -> None:
    """Parses the command line, distils, writes and prints one JSON document."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--teacher", type=Path, required=True, help="ViT-Ti weights, safetensors")
    parser.add_argument("--data", type=Path, required=True, help="folder of image sets")
    parser.add_argument("-o", "--output", type=Path, default=Path("demo_backbone.safetensors"))
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--crops", type=int, default=18, help="crops of every image")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rate", type=float, default=1e-3, help="highest learning rate")
    parser.add_argument("--relation", type=float, default=0.5, help="weight of the relational term")
    parser.add_argument("--cache", type=Path, help="keep teacher passes and the last epoch here")
    args = parser.parse_args()
    begun = time.perf_counter()
    targets = collect(args.teacher, args.data, args.crops, args.seed, args.cache)
    torch.manual_seed(args.seed)
    student = make_student()
    checkpoint = args.cache / "last_epoch.safetensors" if args.cache else None
    losses = train(
        student,
        targets,
        epochs=args.epochs,
        seed=args.seed,
        rate=args.rate,
        relation=args.relation,
        checkpoint=checkpoint,
    )
    digest, seconds = write(student, args.output), round(time.perf_counter() - begun, 1)
    report = {"output": str(args.output), "sha256": digest, "losses": losses, "seconds": seconds}
    print(json.dumps(report))


if __name__ == "__main__":
    main()
