"""What reading Parquet costs, against another checkout of vptkit, and by the size of the buffer.

For docs/benchmarks.md. The other checkout reads as pyarrow does by itself, a row group at once; both are
loaded in one process, and take turns. Counted is the processor's time.

    git worktree add /tmp/before b11a367
    python -m tests.benchmarks.parquet_reading /tmp/before [--buffers 64 1024 …] [--rounds 15]
"""

from __future__ import annotations

import argparse
import functools
import json
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet

from tests.support.checkouts import Checkout, in_turns, ratios
from vptkit.devices.probes.machine import detect_machine

MODULE = "vptkit.tune.data.arrow_dataset"
# Name → images, bytes of each, rows of a group, compression; 100 is what Hugging Face writes images by.
FILES = {
    "20,000 of 3 kB, groups of 1,000": (20_000, 3_000, 1_000, "snappy"),
    "20,000 of 3 kB, groups of 100": (20_000, 3_000, 100, "snappy"),
    "20,000 of 3 kB, one group, zstd": (20_000, 3_000, 20_000, "zstd"),
    "1,500 of 100 kB, groups of 100": (1_500, 100_000, 100, "snappy"),
}


def write(folder: Path, images: int, size: int, group: int, compression: str) -> Path:
    """A file as Hugging Face has them; its images are noise, as encoded images nearly are."""
    rng = np.random.default_rng(0)
    column = [{"bytes": rng.bytes(size), "path": f"{i}.jpg"} for i in range(images)]
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    labels = [i % 10 for i in range(images)]
    table = pa.table({"image": pa.array(column, kind), "label": labels})
    label = {"names": [f"c{i}" for i in range(10)], "_type": "ClassLabel"}
    about = {"info": {"features": {"image": {"_type": "Image"}, "label": label}}}
    table = table.replace_schema_metadata({"huggingface": json.dumps(about)})
    path = folder / "train.parquet"
    pa.parquet.write_table(table, path, row_group_size=group, compression=compression)
    return path


class Buffered:
    """This checkout, with a buffer of its own."""

    def __init__(self, checkout: Checkout, kilobytes: int) -> None:
        """0 for none: a row group at once."""
        self._checkout, self._bytes = checkout, kilobytes << 10

    def seconds(self, path: Path) -> float:
        """Of reading a file."""
        self._checkout.set(MODULE, "_BUFFER", self._bytes)
        return self._checkout.seconds(MODULE, "read_parquet", [path], path.parent)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("before", type=Path)
    sizes = [0, 16, 64, 256, 1024, 4096]
    parser.add_argument("--buffers", nargs="*", type=int, default=sizes, help="kB")
    parser.add_argument("--rounds", type=int, default=15)
    args = parser.parse_args()
    before = Checkout(args.before, [MODULE])
    now = Checkout(Path(__file__).resolve().parents[2], [MODULE])
    print(f"pyarrow {pa.__version__}, {args.rounds} rounds, {detect_machine()}")
    print("\n| file | buffer, kB | median ms of CPU | ÷ before, paired | fastest |")
    print("| --- | --- | --- | --- | --- |")
    for title, about in FILES.items():
        with tempfile.TemporaryDirectory() as folder:
            path = write(Path(folder), *about)
            calls = {"before": functools.partial(before.seconds, MODULE, "read_parquet", [path])}
            calls["before"] = functools.partial(calls["before"], path.parent)
            for size in args.buffers:
                calls[f"{size}"] = functools.partial(Buffered(now, size).seconds, path)
            found = in_turns(calls, args.rounds)
        for name, seconds in found.items():
            row = f"{1000 * np.median(seconds):.0f} | {ratios(found['before'], seconds)}"
            print(f"| {title} | {name} | {row} |", flush=True)


if __name__ == "__main__":
    main()
