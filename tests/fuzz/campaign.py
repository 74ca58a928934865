"""Inputs one after the other in a child, which is ended where it takes too long or too much memory."""

from __future__ import annotations

import collections
import json
import os
import random
import re
import select
import shutil
import signal
import sys
import tempfile
import time
import traceback
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from .subjects import SUBJECTS, Subject
from .watch import Watch

__all__ = ["Report", "open_honest", "run_campaign"]

SECONDS, BYTES = 10.0, 2 << 30  # the most that one input may take, of the processor and of memory
_WAITS = 12  # times as long by the clock, on a busy machine; whatever waits for ever is noticed
_PAUSE = 0.05  # seconds
# What a terminal would obey or turn round in what is printed for people.
_CONTROL = re.compile("[\0-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


@dataclass
class Report:
    """What came of the inputs.

    Attributes:
        counts: subject → exit code, as text → how often.
        failures: {"input": number, "subject": name, "what": words} each.
    """

    inputs: int = 0
    counts: dict[str, collections.Counter[str]] = field(default_factory=dict)
    failures: list[dict[str, Any]] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """Ready to be written."""
        return {"inputs": self.inputs, "counts": self.counts, "failures": self.failures}


def run_campaign(
    seeds: Path,
    *,
    seed: int,
    count: int,
    seconds: float = float("inf"),
    first: int = 0,
    only: str = "",
    every: Any = None,
) -> Report:
    """Open spoilt files until a number of them or a time is over.

    Args:
        seeds: folder that `make_seeds` filled.
        seed: of all; input number i depends on it and on i alone.
        count: how many inputs.
        seconds: stop after so many.
        first: number of the first input, to repeat one.
        only: name of a subject.
        every: called with each line of progress.
    """
    subjects = [s for s in SUBJECTS if only in ("", s.name)]
    report, end = Report(), time.monotonic() + seconds
    number, last = first, first + count
    while number < last and time.monotonic() < end:
        number = _one_child(seeds, subjects, seed, range(number, last), report, end, every)
    return report


def _one_child(
    seeds: Path,
    subjects: list[Subject],
    seed: int,
    numbers: range,
    report: Report,
    end: float,
    every: Any,
) -> int:
    """Fork a child that works until it fails; the number of the input that is next."""
    with tempfile.TemporaryDirectory(prefix="vptkit-fuzz-") as folder:
        place = Path(folder)
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(reader)
            _work(seeds, place, subjects, seed, numbers, os.fdopen(writer, "w", buffering=1))
            os._exit(0)
        os.close(writer)
        try:
            with os.fdopen(reader, "r", encoding="utf-8") as lines:
                return _follow(child, lines, subjects, numbers, report, end, every)
        finally:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)


def _follow(
    child: int,
    lines: IO[str],
    subjects: list[Subject],
    numbers: range,
    report: Report,
    end: float,
    every: Any,
) -> int:
    for number in numbers:
        subject = subjects[number % len(subjects)]
        line, why = _await(child, lines, SECONDS if number > numbers[0] else 6 * SECONDS)
        report.inputs += 1
        counts = report.counts.setdefault(subject.name, collections.Counter())
        result = json.loads(line) if line else {"failed": why}
        if "failed" in result:
            about = {"input": number, "subject": subject.name, "what": result["failed"]}
            report.failures.append(about)
            counts["failed"] += 1
            if every:
                every(about)
        else:
            counts[str(result["code"])] += 1
        if every and report.inputs % 1000 == 0:
            every({"inputs": report.inputs, "failures": len(report.failures)})
        if not line or time.monotonic() > end:
            return number + 1
    return numbers.stop


def _await(child: int, lines: IO[str], seconds: float) -> tuple[str, str]:
    """The child's next line, or why there is none."""
    waits, computed = int(_WAITS * seconds / _PAUSE), _computed(child)
    while not select.select([lines], [], [], _PAUSE)[0]:
        waits -= 1  # counted: the clock runs on while a virtual machine stands still
        if waits < 0 or _computed(child) - computed > seconds:
            return "", f"took more than {seconds:g} s"
        if _resident(child) > BYTES:
            return "", f"took more than {BYTES >> 20} MiB"
    line = lines.readline()
    return line, "" if line else "the process crashed"


def _computed(process: int) -> float:
    """Seconds of CPU that a process took."""
    try:
        text = Path(f"/proc/{process}/stat").read_text()
    except OSError:
        return 0.0
    fields = text.rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _resident(process: int) -> int:
    try:
        text = Path(f"/proc/{process}/statm").read_text()
    except OSError:
        return 0
    return int(text.split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _work(
    seeds: Path, place: Path, subjects: list[Subject], seed: int, numbers: range, out: IO[str]
) -> None:
    outside, case = place / "outside", place / "case"
    temporary = place / "tmp"
    for folder in (outside, temporary):
        folder.mkdir()
    for source in ("a.safetensors", "images/png.png", "tune.toml", "all.csv"):
        shutil.copyfile(seeds / source, outside / f"secret{Path(source).suffix}")
    (outside / "secret.txt").write_text("private")
    before = _state(outside)
    tempfile.tempdir = str(temporary)
    os.environ |= {"TMPDIR": str(temporary), "XDG_CACHE_HOME": str(temporary / "cache")}
    os.environ |= {"HF_HUB_OFFLINE": "1", "VPTKIT_CACHE": str(temporary / "engines")}
    os.chdir(place)
    nowhere = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):  # what libraries print themselves is not for the report
        os.dup2(nowhere, descriptor)
    watch = Watch((place / "case", place / "moved", temporary), outside)
    warm = random.Random(0)
    _open(subjects[numbers[0] % len(subjects)], seeds, case, warm, outside, spoil=False)
    parent = os.getppid()
    for number in numbers:
        if os.getppid() != parent:
            return  # it was killed
        subject = subjects[number % len(subjects)]
        result = _result(subject, f"{seed}:{number}", seeds, case, outside, watch)
        if _state(outside) != before:
            result = {"failed": f"a file outside was changed: {_state(outside)}"}
        out.write(json.dumps(result) + "\n")


def open_honest(subject: Subject, seeds: Path, case: Path) -> int:
    """The exit code of a subject as it was made."""
    nothing = random.Random(0)
    return int(_open(subject, seeds, case, nothing, case, spoil=False).code)


def _result(
    subject: Subject, seed: str, seeds: Path, case: Path, outside: Path, watch: Watch
) -> dict[str, Any]:
    generator = random.Random(seed)
    try:
        outcome = _open(subject, seeds, case, generator, outside, watch=watch)
    except BaseException as error:
        return {"failed": _words(error)}
    if watch.seen:
        return {"failed": f"forbidden: {watch.seen[:5]}"}
    if found := _CONTROL.search(outcome.printed):
        around = outcome.printed[max(0, found.start() - 60) : found.end() + 20]
        return {"failed": f"printed raw {found[0]!r} in {around!r}"}
    return {"code": outcome.code}


def _words(error: BaseException) -> str:
    """The error, and the places of vptkit that it went through."""
    frames = traceback.extract_tb(error.__traceback__)
    places = [f"{f.filename}:{f.lineno} {f.name}" for f in frames if "/vptkit/" in f.filename]
    return f"{type(error).__name__}: {str(error)[:300]} at {' < '.join(reversed(places[-4:]))}"


def _open(
    subject: Subject,
    seeds: Path,
    case: Path,
    generator: random.Random,
    outside: Path,
    *,
    spoil: bool = True,
    watch: Watch | None = None,
) -> Any:
    shutil.rmtree(case, ignore_errors=True)
    shutil.rmtree(case.parent / "moved", ignore_errors=True)
    case.mkdir()
    for name in subject.seeds:
        source = seeds / name
        if source.is_dir():
            shutil.copytree(source, case / name)
        else:
            shutil.copyfile(source, case / name)
    if spoil:
        subject.spoil(generator, case, outside)
    if watch is None:
        return subject.open(case, seeds)
    with watch.on(reads=subject.closed):
        return subject.open(case, seeds)


def _state(folder: Path) -> dict[str, tuple[int, int]]:
    return {p.name: (p.stat().st_size, p.stat().st_mtime_ns) for p in sorted(folder.iterdir())}


if sys.platform != "linux":
    raise ImportError("the fuzzer reads /proc")
