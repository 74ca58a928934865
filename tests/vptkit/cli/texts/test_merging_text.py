"""What is said of merged tokens."""

from __future__ import annotations

import pytest

from vptkit.cli.texts.merging_text import merging_text, note_merging

EVEN = {"schedule": [12, 12, 0], "attention": "proportional"}
GATE = {
    "count": 200,
    "agreement": 0.95,
    "top1": 0.9,
    "top1_fp32": 0.91,
    "sqnr_db": 17.25,
    "split": "val",
    "too_kind": False,
    "too_kind_because": None,
}


def test_of_an_adapter():
    told = "12 tokens a block but the last, 24 in all, proportional attention"
    assert merging_text(EVEN) == told
    uneven = {"schedule": [0, 8, 4, 0], "attention": "plain"}
    assert merging_text(uneven) == "0,8,4,0 tokens, 12 in all, plain attention"


def test_of_a_bundle():
    text = merging_text({**EVEN, "tuned": False, "gate": GATE})
    assert (
        "; the adapter was not tuned so; accuracy of val without 91.0 %, with 90.0 % (180" in text
    )
    assert text.endswith("; label of val kept on 95.0 % of 200 images, SQNR 17.2 dB")
    assert "; tuned so" in merging_text({**EVEN, "tuned": True, "gate": None})
    assert "too kind" in merging_text({**EVEN, "gate": {**GATE, "too_kind": True}})


@pytest.mark.parametrize(
    "gate", [[], "x", {}, {"count": "9"}, {"count": 9, "agreement": 7}, {**GATE, "count": 0}]
)
def test_what_a_stranger_wrote_is_passed_over(gate):
    assert merging_text({**EVEN, "gate": gate}) == merging_text(EVEN)
    strange = {**GATE, "top1": "\x1b[2J", "split": 3, "sqnr_db": None}
    assert merging_text({**EVEN, "gate": strange}).endswith("; label kept on 95.0 % of 200 images")


@pytest.mark.parametrize(
    ("merging", "told"),
    [
        (None, []),
        ({"tuned": True, "gate": None}, []),
        ({"tuned": False, "gate": None}, ["not tuned with", "--gate DIR does that"]),
        ({"tuned": False, "gate": GATE}, ["not tuned with"]),
        (
            {"tuned": True, "gate": {**GATE, "too_kind": True, "too_kind_because": "so"}},
            ["warning: so"],
        ),
    ],
)
def test_notes(merging, told, capsys):
    manifest = {"gate": None, "layout": "baked"}
    note_merging({**manifest, "merging": merging} if merging else manifest)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == len(told)
    assert all(word in line for word, line in zip(told, lines, strict=True))
    if merging and not merging["tuned"]:
        note_merging({**manifest, "layout": "bank", "merging": merging})
        assert "ship without golden answers" in capsys.readouterr().err
