from __future__ import annotations

import pytest

from vptkit.cli.texts.inspect_text import inspect_text

ADAPTER = {
    "kind": "adapter",
    "path": "f.safetensors",
    "bytes": 353_000,
    "name": "flowers",
    "method": "bpt",
    "insert": "deep",
    "prompt_length": 50,
    "labels": ["daisy", "roses"],
    "preprocess": {"input_size": [3, 112, 112]},
    "backbone": {"name": "vit_tiny", "args": {"img_size": 112}, "sha256": "029e07" * 10},
    "train": {
        "images": {"train": {"daisy": 80, "roses": 1200}, "test": {"daisy": 50, "roses": 50}},
        "test_top1": 0.87,
        "val_top1": 0.9,
        "versions": {"vptkit": "0.1.0", "python": "3"},
        "weights": {"file": "/home/me/model.safetensors"},
    },
    "numbers": 10_565,
    "tensors": {"head.bias": [2]},
    "confidence": {"temperature": 1.25},
    "golden": 8,
}
BUNDLE = {
    "kind": "bundle",
    "path": "f.vptk",
    "bytes": 22_000_000,
    "adapters": [
        {"name": "flowers", "method": "ln", "insert": "none", "prompt_length": 0, "labels": ["a"]}
    ],
    "backbone": {"name": "vit_tiny", "args": {}},
    "preprocess": {"input_size": [3, 112, 112]},
    "precision": "int8",
    "layout": "baked",
    "batch": "dynamic",
    "macs": {"graph": 900_000_000, "backbone": 1_000_000_000},
    "parity": {"count": 8, "max_rel_diff": 4e-6, "tolerance": 1e-4},
    "gate": {"agreement": 0.97, "count": 100, "top1": 0.85, "top1_fp32": 0.87, "split": "val"},
    "golden": 8,
    "versions": {"vptkit": "0.1.0", "onnx": "1.23"},
}


def entries(text: str) -> dict[str, str]:
    return {line.split()[0]: line.split(maxsplit=1)[1] for line in text.splitlines()[1:]}


def test_an_adapter():
    text = inspect_text(ADAPTER)
    assert text.splitlines()[0] == "f.safetensors: an adapter, 353 kB"
    assert entries(text) == {
        "name": "flowers",
        "backbone": "vit_tiny, images 112 x 112",
        "method": "bpt, 50 prompts, deep",
        "classes": "2: daisy (80), roses (1,200); images to train on",
        "accuracy": "test 87.0 % (87 of 100; 95 % interval 79.0 to 92.2 %)",
        "images": "train 1,280, test 100",
        "learned": "10,565 numbers in 1 tensors",
        "weights": "model.safetensors, sha256 029e07029e07…",
        "golden": "8 answers to check against",
        "confidence": "temperature 1.25",
        "versions": "vptkit 0.1.0",
    }


@pytest.mark.parametrize(("counts", "told"), [([5, 5], "5"), ([2, 5], "2 to 5")])
def test_learned_keys_and_values(counts, told):
    learned = {"blocks": 12, "counts": counts}
    for document in (ADAPTER, BUNDLE):
        found = entries(inspect_text({**document, "learned_keys_values": learned}))
        assert found["keys"] == f"{told} learned keys and values in each of 12 blocks"


def test_a_bundle():
    told = entries(inspect_text(BUNDLE, {"val_top1": 0.9}, ["tensorrt 10.3 for Orin"]))
    assert told["accuracy"] == "val 90.0 %"
    assert told["parity"] == "8 golden images, largest difference 4e-06 (allowed 1e-04)"
    gate = "agrees with fp32 on 97.0 % of 100 images; accuracy 87.0 % → 85.0 %, on val"
    assert told["gate"] == gate
    assert told["work"].startswith("900 M multiply-accumulates an image, 0.90 of")
    assert told["engines"] == "tensorrt 10.3 for Orin"
    kind = {**BUNDLE, "gate": {**BUNDLE["gate"], "too_kind": True}}
    assert "too kind" in entries(inspect_text(kind))["gate"]
    assert entries(inspect_text({**BUNDLE, "gate": None}))["gate"] == "not judged on real images"


def test_a_bank():
    adapters = [
        {**BUNDLE["adapters"][0], "name": name, "labels": ["x"] * n}
        for name, n in (("a", 3), ("b", 5))
    ]
    told = entries(inspect_text({**BUNDLE, "layout": "bank", "adapters": adapters}))
    assert (told["adapters"], told["classes"]) == ("2: a, b", "3 to 5, by adapter")


@pytest.mark.parametrize(
    "train",
    [
        {},
        {"images": None, "test_top1": "0.9", "versions": 3, "weights": ["x"]},
        {
            "images": {"train": {"daisy": -1}, "test": [1]},
            "test_top1": True,
            "weights": {"file": 3},
        },
        {"images": {"test": {"a": 0}}, "test_top1": 7, "val_top1": None},
    ],
)
def test_notes_of_another_kind_are_left_out(train):
    assert "accuracy" not in entries(inspect_text({**ADAPTER, "train": train}))


def test_a_text_of_a_stranger_is_shown_and_cut():
    wild = {**ADAPTER, "labels": ["a\x1b[2Jb", "x" * 500, *map(str, range(3, 900))]}
    text = inspect_text({**wild, "train": {}})
    assert "\x1b" not in text
    assert max(map(len, text.splitlines())) < 200
    assert "more" in entries(text)["classes"]


@pytest.mark.parametrize(
    ("thresholds", "text"),
    [
        ([0.25, 0.75], "multilabel, thresholds 0.25 to 0.75"),
        ([0.5, 0.5], "multilabel, threshold 0.5"),
    ],
)
def test_several_labels_an_image(thresholds, text):
    adapter = {**ADAPTER, "task": "multilabel", "thresholds": thresholds}
    assert entries(inspect_text(adapter))["task"] == text
    entry = {**BUNDLE["adapters"][0], "labels": ["a", "b"], "thresholds": thresholds}
    gate = {**BUNDLE["gate"], "multilabel": True, "top1": None}
    bundle = {**BUNDLE, "task": "multilabel", "adapters": [entry], "gate": gate}
    assert entries(inspect_text(bundle))["task"] == text
    assert "agrees with fp32 on 97.0 % of the labels of 100 images" in inspect_text(bundle)
    assert "task" not in entries(inspect_text(BUNDLE))
    scores = {"test": {"map": 0.612, "micro_f1": 0.58}, "val": {"map": 0.7, "micro_f1": 0.6}}
    train = {**ADAPTER["train"], "test_top1": None, "multilabel": scores}
    told = entries(inspect_text({**adapter, "train": train}))
    assert told["scores"] == "test mAP 61.2 %, micro F1 58.0 %"
    forged = {**train, "multilabel": {"test": {"map": "x", "micro_f1": [1]}, "val": 3}}
    assert "scores" not in entries(inspect_text({**adapter, "train": forged}))
