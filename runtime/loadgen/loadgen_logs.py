"""What LoadGen wrote: mlperf_log_summary.txt and mlperf_log_accuracy.json, which are its own words."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np

from vptkit.errors import VptkitError
from vptkit.strict_json import parse_json

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

__all__ = ["read_answers", "read_summary"]

SUMMARY, ACCURACY = "mlperf_log_summary.txt", "mlperf_log_accuracy.json"
_PERCENTILE = re.compile(r"(\d+\.\d+) percentile latency \(ns\)")
_KEPT = {"50.00": "p50", "90.00": "p90", "99.00": "p99"}


def read_summary(folder: Path) -> dict[str, Any]:
    """The verdict and the figures of a performance run.

    Returns:
        {"verdict", "reasons", "ms", "images_per_s", "summary"}: VALID or INVALID, the lines below
        it that say why, percentiles in ms, samples a second where the scenario counts them, and
        every "name : value" of the file as it stands.

    Raises:
        VptkitError: it holds no verdict: LoadGen did not end its run.
    """
    text = (folder / SUMMARY).read_text(encoding="utf-8", errors="replace")
    values = {
        name.strip(): value.strip()
        for name, found, value in (line.partition(":") for line in text.splitlines())
        if found and value.strip()
    }
    verdict = values.get("Result is")
    if verdict is None:
        raise VptkitError(f"{folder / SUMMARY}: no verdict: LoadGen did not end its run")
    ms = {
        _KEPT[match[1]]: int(value) / 1e6
        for name, value in values.items()
        if (match := _PERCENTILE.fullmatch(name)) and match[1] in _KEPT
    }
    ms["mean"] = int(values["Mean latency (ns)"]) / 1e6
    rate = values.get("Samples per second") or values.get("Completed samples per second")
    return {
        "verdict": verdict,
        "reasons": [] if verdict == "VALID" else _reasons(text),
        "ms": ms,
        "images_per_s": None if rate is None else float(rate),
        "summary": values,
    }


def _reasons(text: str) -> list[str]:
    """What stands between the verdict and the statistics, without what was satisfied."""
    part = text.partition("Result is")[2].partition("====")[0].splitlines()[1:]
    lines = [line.strip() for line in part]
    return [line for line in lines if line and not re.search(r"satisfied\s*:\s*Yes$", line)]


def read_answers(folder: Path, count: int, classes: int) -> NDArray[np.float32]:
    """The logits that LoadGen logged, by number of the sample, float32 [count, classes].

    Raises:
        VptkitError: an image has no answer, or one of another size.
    """
    file = folder / ACCURACY
    answers = np.full((count, classes), np.nan, np.float32)
    log = parse_json(b'{"log":' + file.read_bytes() + b"}", file, VptkitError)["log"]
    for entry in log:
        row = np.frombuffer(bytes.fromhex(entry["data"]), np.float32)
        if len(row) != classes or not 0 <= entry["qsl_idx"] < count:
            raise VptkitError(f"{file}: an answer of {len(row)} numbers, expected {classes}")
        answers[entry["qsl_idx"]] = row
    if np.isnan(answers).any():
        raise VptkitError(f"{file}: images are without an answer: LoadGen did not end its run")
    return answers
