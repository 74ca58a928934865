"""What was asked of the accuracy: the bars, the default against the best method, 100 epochs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .evidence_cells import SETS, SINGLE
from .evidence_records import methods_in, right
from .evidence_report import amount, between, spread, table
from .evidence_statistics import image_interval

if TYPE_CHECKING:
    from .evidence_records import Records, Row

_OURS = ("vptkit", "vit-ti")
_FLOORS = (  # method, set, wanted on test; all images, at most 20 epochs
    ("linear", "flowers5", 86.0),
    ("linear", "photo2sketch5", 89.5),
    ("LN", "flowers5", 87.5),
    ("LN", "photo2sketch5", 92.0),
    ("VPT-deep", "flowers5", 89.0),
    ("VPT-deep", "photo2sketch5", 94.5),
    ("BPT-deep bilinear", "flowers5", 87.5),
    ("BPT-deep bilinear", "photo2sketch5", 93.5),
)
Bar = tuple[str, "list[str] | None", "bool | None"]  # what, measured, met; None: not run
_SLACK = 1e-6  # of points


def bars(records: Records) -> list[str]:
    """Each bar with what was measured; ViT-Ti, vptkit's own recipe."""
    found = [_floor(records, *floor) for floor in _FLOORS]
    found += [
        _best(records),
        _outside(records),
        _few(records),
        _worst(records),
        _histology(records),
    ]
    rows = [["bar", "measured", ""]]
    for text, measured, met in found:
        verdict = "not run" if met is None else "met" if met else "**missed**"
        rows.append([text, "; ".join(measured or []) or "-", verdict])
    note = "Steps' speed and the probe's share of a run: `step_time.py`, `probe.py`."
    return ["", "**Bars** (ViT-Ti, vptkit's recipe)", "", *table(rows), "", note]


def _percent(rows: list[Row], key: str = "test_top1") -> float:
    return 100 * float(np.mean([row[key] for row in rows]))


def _seeds(rows: list[Row]) -> str:
    return f"{len(rows)} seed{'s' * (len(rows) != 1)}"


def _floor(records: Records, method: str, data: str, wanted: float) -> Bar:
    text = f"{method}, {data}: test ≥ {wanted:g}"
    rows = records.of(*_OURS, 0, method, data)
    if not rows:
        return text, None, None
    met = _percent(rows) >= wanted - _SLACK
    return text, [f"{spread([row['test_top1'] for row in rows])} ({_seeds(rows)})"], met


def best_single(records: Records, backbone: str, shots: int) -> tuple[str, float] | None:
    """The one method that has the best mean over the four sets, and that mean, in percent."""
    means = {m: records.mean("vptkit", backbone, shots, m) for m in SINGLE}
    whole = {method: 100 * mean for method, mean in means.items() if mean is not None}
    return max(whole.items(), key=lambda item: item[1]) if whole else None


def _best(records: Records) -> Bar:
    text = "default: mean of four sets ≥ the best single method's − 0.5"
    default, best = records.mean(*_OURS, 0, "default"), best_single(records, _OURS[1], 0)
    if default is None or best is None:
        return text, None, None
    measured = [f"{100 * default:.1f}", f"{best[0]} {best[1]:.1f}"]
    return text, measured, 100 * default >= best[1] - 0.5 - _SLACK


def _outside(records: Records) -> Bar:
    text = "default, photo2sketch5: OOD ≥ 38 while test ≥ 92"
    rows = records.of(*_OURS, 0, "default", "photo2sketch5")
    if not rows:
        return text, None, None
    ood, test = _percent(rows, "ood_top1"), _percent(rows)
    met = ood >= 38 - _SLACK and test >= 92 - _SLACK
    return text, [f"OOD {ood:.1f}", f"test {test:.1f} ({_seeds(rows)})"], met


def _few(records: Records) -> Bar:
    text = "10 images a class in all: default ≥ linear + 2, mean of four sets"
    default, linear = (records.mean(*_OURS, 10, method) for method in ("default", "linear"))
    if default is None or linear is None:
        return text, None, None
    gain = 100 * (default - linear)
    return text, [f"{gain:+.1f}"], gain >= 2 - _SLACK


def _worst(records: Records) -> Bar:
    text = "10 images a class in all: default at no set more than 1 below linear"
    both = {
        data: [records.of(*_OURS, 10, method, data) for method in ("default", "linear")]
        for data in SETS
    }
    if not all(all(rows) for rows in both.values()):
        return text, None, None
    gains = {data: _percent(ours) - _percent(theirs) for data, (ours, theirs) in both.items()}
    measured = [f"{data} {gain:+.1f}" for data, gain in gains.items()]
    return text, measured, min(gains.values()) >= -1 - _SLACK


def _histology(records: Records) -> Bar:
    text = "breakhis100x, all images: default within 2 of the best method"
    default = records.of(*_OURS, 0, "default", "breakhis100x")
    found = {m: records.of(*_OURS, 0, m, "breakhis100x") for m in SINGLE}
    others = {method: _percent(rows) for method, rows in found.items() if rows}
    if not default or not others:
        return text, None, None
    best = max(others, key=lambda method: others[method])
    measured = [f"{_percent(default):.1f}", f"{best} {others[best]:.1f}"]
    return text, measured, _percent(default) >= others[best] - 2 - _SLACK


def against_best(records: Records) -> list[str]:
    """The default's mean over the four sets against the best single method's."""
    rows = [["", "default", "best single method", "difference"]]
    for backbone, shots in records.tables():
        default = records.mean("vptkit", backbone, shots, "default")
        best = best_single(records, backbone, shots)
        if default is not None and best is not None:
            texts = [f"{100 * default:.1f}", f"{best[0]} {best[1]:.1f}"]
            rows.append([f"{backbone}, {amount(shots)}", *texts, f"{100 * default - best[1]:+.1f}"])
    if len(rows) == 1:
        return []
    note = "The best of many by their own test is too good by some of the noise; so is that bar."
    return [
        "",
        "**The default − the best single method, mean of four sets**",
        "",
        *table(rows),
        "",
        note,
    ]


def long_runs(records: Records) -> list[str]:
    """Epochs to VPT-deep's last accuracy on val (mean curve of the seeds), and the final difference."""
    rows = [["recipe", "backbone, set", "method", "seeds", "epochs to VPT-deep's last val"]]
    rows[0] += ["last val − VPT-deep's", "test − VPT-deep's", "95 % interval"]
    for recipe in ("vptkit", "papers"):
        for backbone, shots in records.tables():
            for data in records.sets(backbone, shots):
                place = f"{backbone}, {data}, {amount(shots)}"
                for method in methods_in(records.rows):
                    ours = records.of(recipe, backbone, shots, method, data)
                    theirs = records.of(recipe, backbone, shots, "VPT-deep", data)
                    texts = _long(ours, theirs)
                    if texts:
                        rows.append([recipe, place, method, *texts])
    if len(rows) == 1:
        return []
    note = "Intervals: images of test and seeds drawn again; of one set each."
    return ["", f"**{records.epochs} epochs: BPT's claim**", "", *table(rows), "", note]


def _long(ours: list[Row], theirs: list[Row]) -> list[str]:
    """A row's texts; none without common seeds, or with curves that cannot be compared."""
    of = {row["seed"]: row for row in theirs}
    both = [(row, of[row["seed"]]) for row in ours if row["seed"] in of]
    curves = [[[point[1] for point in row["curve"]] for row in pair] for pair in both]
    lengths = {len(curve) for pair in curves for curve in pair}
    if not both or len(lengths) > 1 or any(None in curve for pair in curves for curve in pair):
        return []
    mine, other = np.mean(curves, axis=0)
    first = both[0][0]["curve"][0][0]  # 0 where the probe stands before the first epoch
    at = np.flatnonzero(mine >= other[-1])
    epochs = both[0][0]["curve"][-1][0]
    reached = f"{first + at[0]} of {epochs}" if len(at) else "never"
    gains = np.array([right(a).astype(float) - right(b) for a, b in both])
    return [
        str(len(both)),
        reached,
        f"{100 * (mine[-1] - other[-1]):+.1f}",
        f"{100 * gains.mean():+.1f}",
        between(image_interval(gains)),
    ]
