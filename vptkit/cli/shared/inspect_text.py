"""`vptkit inspect` for people: the dozen lines that one looks for. All the rest is in --all.

What a file notes of its own making is free form and may be a stranger's: each entry is taken only if it
is of the kind that vptkit writes.

No future import of annotations here: typer reads them at run time.
"""

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeGuard

from vptkit.errors import VptkitError
from vptkit.scores.score_interval import percent, share_text
from vptkit.shown_text import shown

from .precision_evidence import merging_text

__all__ = ["bundle_lines", "inspect_text", "made_of", "size_text"]

_CLASSES = 10  # that are named
_WIDE = 76  # characters behind the heading, where a line is cut at a comma


def inspect_text(
    document: Mapping[str, Any],
    train: Mapping[str, Any] | None = None,
    engines: Sequence[str] = (),
) -> str:
    """Some lines `heading  what`; those of what is not known are left out.

    Args:
        document: of `vptkit.formats.summary.summarize`.
        train: of a bundle with one adapter: how that was made.
        engines: of a bundle: names of the engines that lie there.
    """
    kind = document["kind"]
    if kind == "adapter":
        lines = _adapter(document)
    elif kind == "bundle":
        lines = bundle_lines(document, train or {}, engines)
    else:
        lines = _engine(document)
    size = document.get("bytes")
    told = f", {size_text(size)}" if _is_count(size) else ""
    head = f"{shown(document['path'])}: {_A[kind]}{told}"
    filled = {name: shown(text) for name, text in lines.items() if text}
    width = max(map(len, filled), default=0)
    return "\n".join([head, *(f"  {name.ljust(width)}  {text}" for name, text in filled.items())])


_A = {"adapter": "an adapter", "bundle": "a bundle", "engine": "an engine of TensorRT"}


def _adapter(document: Mapping[str, Any]) -> dict[str, str]:
    train = document["train"]
    made_of = len(document["tensors"])
    return {
        "name": document["name"],
        "backbone": _backbone(document["backbone"], document["preprocess"]),
        "method": _method(document),
        "task": _task(document, document.get("thresholds")),
        "classes": _classes(document["labels"], _at(train, "images", "train")),
        **_accuracy(train),
        "images": _images(train),
        "learned": f"{document['numbers']:,} numbers in {made_of} tensors",
        "deltas": _deltas(document.get("deltas")),
        "keys": _learned(document.get("learned_keys_values")),
        "merging": merging_text(document["merge"]) if "merge" in document else "",
        "weights": _weights(document["backbone"], train),
        "golden": f"{document['golden']} answers to check against",
        "confidence": _confidence(document),
        "versions": _versions(train.get("versions")),
    }


def made_of(path: Path) -> tuple[dict[str, Any], list[str]]:
    """How a bundle's adapter was made, and names of its engines; nothing of what cannot be read.

    Args:
        path: of a bundle that was verified just now.
    """
    from vptkit.formats.adapter import parse_adapter
    from vptkit.formats.bundle import ADAPTER, open_bundle
    from vptkit.runtime.backends.engine_cache import list_engines

    bundle = open_bundle(path, verify=False)
    train: dict[str, Any] = {}
    engines: list[str] = []
    with contextlib.suppress(VptkitError):
        if ADAPTER in bundle.manifest["files"]:
            train = parse_adapter(bundle.read(ADAPTER), path / ADAPTER).train
    with contextlib.suppress(VptkitError, OSError):
        engines = [_engine_name(engine.record) for engine in list_engines(bundle)]
    return train, engines


def _engine_name(record: dict[str, Any]) -> str:
    gpu = record.get("gpu") or f"compute capability {record.get('capability')}"
    return f"{record.get('library')} {record.get('version')} for {gpu}"


def bundle_lines(
    document: Mapping[str, Any], train: Mapping[str, Any], engines: Sequence[str]
) -> dict[str, str]:
    """Heading → what is to be said of a bundle; empty where nothing is known.

    Args:
        document: of `vptkit.formats.summary.summarize`.
        train, engines: of `made_of`.
    """
    adapters = document["adapters"]
    first = adapters[0]
    several = f"{len(adapters)}: {_few([entry['name'] for entry in adapters])}"
    macs = document.get("macs") or {}
    return {
        "adapters": several
        if len(adapters) > 1
        else ", ".join(filter(None, [first["name"], _method(first)])),
        "backbone": _backbone(document["backbone"], document["preprocess"]),
        "task": _task(document, first.get("thresholds") if len(adapters) == 1 else None),
        "classes": _classes(first["labels"], None) if len(adapters) == 1 else _counts(adapters),
        **_accuracy(train),
        "deltas": _deltas(document.get("deltas")),
        "keys": _learned(document.get("learned_keys_values")),
        "precision": f"{document['precision']}, {document['layout']}",
        "work": _work(macs),
        "merging": merging_text(document["merging"]) if "merging" in document else "",
        "batch": f"{document['batch']} images"
        if _is_count(document["batch"])
        else str(document["batch"]),
        "parity": _parity(document.get("parity")),
        "gate": _gate(document.get("gate"), str(document["precision"])),
        "engines": _few(list(engines)) or "none yet: vptkit build makes one for this GPU",
        "golden": f"{document['golden']} answers to check against",
        "confidence": _confidence(document),
        "versions": _versions(document.get("versions")),
    }


def _engine(document: Mapping[str, Any]) -> dict[str, str]:
    names = ("library", "version", "gpu", "capability", "sms", "layers", "built_at")
    return {name: str(document[name]) for name in names if document.get(name) is not None}


def _method(entry: Mapping[str, Any]) -> str:
    """As "bpt, 50 prompts, deep"; a manifest need not say."""
    prompts = entry.get("prompt_length")
    parts = [entry.get("method"), *([f"{prompts} prompts", entry.get("insert")] if prompts else [])]
    return ", ".join(filter(None, parts))


def _backbone(backbone: Mapping[str, Any], preprocess: Mapping[str, Any]) -> str:
    height, width = preprocess["input_size"][-2:]
    given = {k: v for k, v in (backbone.get("args") or {}).items() if k != "img_size"}
    args = f" ({', '.join(f'{name} {value}' for name, value in given.items())})" if given else ""
    return f"{backbone.get('name') or 'unknown'}{args}, images {height} x {width}"


def _classes(labels: Sequence[str], counts: Any) -> str:
    """As "5: daisy (80), roses (80)", with the training images where they are noted."""
    known = counts if isinstance(counts, dict) else {}
    named = [
        f"{label} ({known[label]:,})" if _is_count(known.get(label)) else label for label in labels
    ]
    return f"{len(labels)}: {_few(named)}" + ("; images to train on" if known else "")


def _task(document: Mapping[str, Any], thresholds: Sequence[float] | None) -> str:
    """As "multilabel, thresholds 0.31 to 0.72"; nothing of one label an image."""
    task = document.get("task")
    if task is None:
        return ""
    if not thresholds:
        return str(task)
    least, most = min(thresholds), max(thresholds)
    between = f"{least:.3g}" if least == most else f"{least:.3g} to {most:.3g}"
    return f"{task}, threshold{'s' * (least != most)} {between}"


def _counts(adapters: Sequence[Mapping[str, Any]]) -> str:
    counts = sorted({len(entry["labels"]) for entry in adapters})
    return f"{counts[0]} to {counts[-1]}, by adapter" if len(counts) > 1 else str(counts[0])


def _accuracy(train: Mapping[str, Any]) -> dict[str, str]:
    """The test's with its interval; val's if that is all. Of several labels an image mAP and F1."""
    for split in ("test", "val"):
        found, f1 = (_at(train, "multilabel", split, key) for key in ("map", "micro_f1"))
        if _is_share(found) and _is_share(f1):
            return {"scores": f"{split} mAP {percent(found)}, micro F1 {percent(f1)}"}
    for split in ("test", "val"):
        share, count = train.get(f"{split}_top1"), _total(train, split)
        if _is_share(share):
            told = share_text(round(share * count), count) if count else percent(share)
            return {"accuracy": f"{split} {told}"}
    return {}


def _images(train: Mapping[str, Any]) -> str:
    totals = {split: _total(train, split) for split in ("train", "val", "test", "ood")}
    return ", ".join(f"{split} {count:,}" for split, count in totals.items() if count)


def _total(train: Mapping[str, Any], split: str) -> int:
    counts = _at(train, "images", split)
    if not isinstance(counts, dict) or not all(map(_is_count, counts.values())):
        return 0
    return sum(counts.values())


def _weights(backbone: Mapping[str, Any], train: Mapping[str, Any]) -> str:
    """The backbone's digest, and the name of the file where it is noted."""
    noted = train.get("weights")
    file = noted if isinstance(noted, str) else _at(noted, "file") or _at(noted, "name")
    digest = backbone.get("sha256")
    told = f"sha256 {str(digest)[:12]}…" if digest else ""
    return ", ".join(filter(None, [Path(file).name if isinstance(file, str) else "", told]))


def _confidence(document: Mapping[str, Any]) -> str:
    temperature = _at(document.get("confidence"), "temperature")
    return f"temperature {temperature:.3g}" if _is_number(temperature) else ""


def _deltas(deltas: Any) -> str:
    """As "rank 8 on 12 blocks.*.attn.qkv; whole 12 blocks.*.attn.qkv.bias"."""
    if not isinstance(deltas, dict):
        return ""
    least, most = deltas["ranks"] or (0, 0)
    rank = f"rank {most}" if least == most else f"ranks {least} to {most}"
    kinds = ((f"{rank} on ", "low_rank"), ("whole ", "whole"), ("scales of ", "scales"))
    parts = [
        head + _few([f"{count} {name}" if count > 1 else name for name, count in found.items()])
        for head, kind in kinds
        if (found := deltas[kind])
    ]
    return "; ".join(parts)


def _learned(learned: Any) -> str:
    """As "50 learned keys and values in each of 12 blocks"."""
    if not isinstance(learned, dict):
        return ""
    least, most = learned["counts"]
    count = f"{least}" if least == most else f"{least} to {most}"
    return f"{count} learned keys and values in each of {learned['blocks']} blocks"


def _work(macs: Mapping[str, Any]) -> str:
    graph, bare = macs.get("graph"), macs.get("backbone")
    if not (_is_count(graph) and _is_count(bare) and bare):
        return ""
    return (
        f"{_short(graph)} multiply-accumulates an image, {graph / bare:.2f} of the bare backbone's"
    )


def _short(macs: int) -> str:
    return f"{macs / 1e9:.3g} G" if macs >= 1e9 else f"{macs / 1e6:.3g} M"


def _parity(parity: Any) -> str:
    difference, allowed = _at(parity, "max_rel_diff"), _at(parity, "tolerance")
    if not (_is_number(difference) and _is_number(allowed)):
        return "not compared with the golden answers: vptkit check does it"
    return (
        f"{_at(parity, 'count')} golden images, largest difference {difference:.0e} "
        f"(allowed {allowed:.0e})"
    )


def _gate(gate: Any, precision: str) -> str:
    share, count = _at(gate, "agreement"), _at(gate, "count")
    if not (_is_share(share) and _is_count(count)):
        return "" if precision == "fp32" else "not judged on real images"
    now, before = _at(gate, "top1"), _at(gate, "top1_fp32")
    several = _at(gate, "multilabel") is True
    whose = f"the labels of {count}" if several else f"{count}"
    text = f"agrees with fp32 on {percent(share)} of {whose} images"
    if _is_share(now) and _is_share(before):
        text += f"; accuracy {percent(before)} → {percent(now)}"
    split, kind = _at(gate, "split"), _at(gate, "too_kind")
    text += f", on {split}" if isinstance(split, str) else ""
    return text + ("; too kind: these were trained on" if kind is True else "")


def _versions(versions: Any) -> str:
    if not isinstance(versions, dict):
        return ""
    order = ("vptkit", "torch", "timm", "onnx", "opset")
    return ", ".join(f"{name} {versions[name]}" for name in order if name in versions)


def _few(names: Sequence[str]) -> str:
    """As many as fit on a line, at most _CLASSES."""
    kept: list[str] = []
    for name in names[:_CLASSES]:
        if kept and len(", ".join([*kept, name])) > _WIDE - 20:
            break
        kept.append(name if len(name) <= _WIDE else f"{name[: _WIDE - 1]}…")
    more = len(names) - len(kept)
    return ", ".join(kept) + (f" and {more:,} more" if more else "")


def _at(document: Any, *path: str) -> Any:
    """document[a][b]…, or None where something on the way is missing or of another kind."""
    for key in path:
        document = document.get(key) if isinstance(document, dict) else None
    return document


def _is_count(value: Any) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_share(value: Any) -> TypeGuard[float]:
    return _is_number(value) and 0 <= value <= 1


def size_text(size: int) -> str:
    """Bytes, as "22.3 MB"."""
    for unit, bytes_ in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= bytes_:
            return f"{size / bytes_:.3g} {unit}"
    return f"{size} B"
