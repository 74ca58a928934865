"""`eval --reject`: what `run --reject` would say of labelled images, and of others."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from vptkit.api.judging import evaluate as api_evaluate
from vptkit.errors import BundleError, DataError, VptkitError
from vptkit.formats.bundle import write_manifest
from vptkit.formats.tensor_file import write_tensors
from vptkit.runtime.evaluation.rejection_evaluation import evaluate_with_rejection
from vptkit.runtime.session.factory import open_session
from vptkit.scores.score_interval import wilson

RATE = 0.25


@pytest.fixture
def bundle(make_bundle, tiny_model):
    """A bundle that knows the distances of four grey images from black."""
    return that_knows_distances(make_bundle(gives=("logits", "features")), tiny_model)


def that_knows_distances(path, tiny_model):
    grey = np.arange(60, 180, 30, dtype=np.uint8)[:, None, None, None]
    features = tiny_model.features(np.broadcast_to(grey, (4, 24, 16, 3)))
    tensors = {"means": np.zeros((1, 3), np.float32), "whitening": np.eye(3, dtype=np.float32)}
    known = np.linalg.norm(features, axis=1)
    write_tensors(path / "rejection.safetensors", {**tensors, "known": np.sort(known)})
    manifest = json.loads((path / "manifest.json").read_text())
    write_manifest(path, {k: v for k, v in manifest.items() if k not in ("format", "files")})
    return path


@pytest.fixture
def others(tmp_path):
    """Black, grey and white images of no class of the bundle, beside a class of it."""
    for k, colour in enumerate([(0, 0, 0), (125, 100, 75), (255, 255, 255)]):
        folder = tmp_path / "others" / "flags"
        folder.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (16, 24), colour).save(folder / f"{k}.png")
    return tmp_path / "others"


def rejected(session, folder):
    found = list(session.predict(folder, reject=RATE))
    return sum(p.rejected for p in found), len(found)


@pytest.mark.slow
@pytest.mark.parametrize("batch", [1, 5])
def test_the_same_images_are_rejected_as_by_run(bundle, colour_folders, others, batch):
    with open_session(bundle) as session:
        plain = evaluate_with_rejection(session, colour_folders, RATE, batch=batch)
        found = evaluate_with_rejection(
            session, colour_folders, RATE, ood=others / "flags", batch=batch
        )
        of_these = rejected(session, colour_folders)
        of_others = rejected(session, others / "flags")
    rates = found.rejection
    assert (rates.rejected, rates.count) == of_these
    assert (rates.ood_rejected, rates.ood_count) == of_others
    assert 0 < of_others[0] < of_others[1]
    assert plain.top1 == found.top1 == 11 / 12  # an evaluation as ever
    document = found.to_json()["rejection"]
    accepted = of_others[1] - of_others[0]
    assert document["false_reject"] == of_these[0] / 12
    assert document["false_accept"] == accepted / 3
    assert document["false_accept_interval"] == list(wilson(accepted, 3))
    assert plain.to_json()["rejection"]["false_accept"] is None


@pytest.mark.slow
def test_of_a_data_set_the_classes_that_are_no_labels(bundle, colour_folders, others):
    """Held-out classes: what is a label is no image of other things."""
    shutil.copytree(colour_folders / "red", others / "red")
    with open_session(bundle) as session:
        found = evaluate_with_rejection(session, colour_folders, RATE, ood=others).rejection
        assert found.ood_count == 3
        with pytest.raises(DataError, match="all of its classes are labels of the bundle; --ood"):
            evaluate_with_rejection(session, colour_folders, RATE, ood=colour_folders)
        with pytest.raises(DataError, match="no such folder"):
            evaluate_with_rejection(session, colour_folders, RATE, ood=others / "nowhere")
        (others / "flags" / "1.png").write_bytes(b"broken")
        with pytest.raises(DataError, match="1 of 3 images cannot be read"):
            evaluate_with_rejection(session, colour_folders, RATE, ood=others)
        skipped = evaluate_with_rejection(
            session, colour_folders, RATE, ood=others, skip_broken=True
        )
    assert skipped.rejection.ood_count == 2
    (note,) = skipped.rejection.notes
    assert "1 broken image was skipped: flags/1.png" in note
    assert skipped.to_json()["rejection"]["ood_skipped"] == [str(others / "flags" / "1.png")]


def test_of_images_with_several_labels_those_that_have_none_of_the_bundles(
    make_bundle, tiny_model, colour_folders, others
):
    bundle = that_knows_distances(
        make_bundle(gives=("logits", "scores", "features"), thresholds=(0.5, 0.5, 0.5)), tiny_model
    )
    table = others / "flags" / "list.csv"
    with open_session(bundle) as session:

        def count(text):
            table.write_text(f"path,labels\n{text}")
            found = evaluate_with_rejection(session, colour_folders, RATE, ood=table)
            return found.rejection.ood_count

        assert count("0.png,flag;pole\n1.png,red;flag\n2.png,\n") == 2
        with pytest.raises(DataError, match="all of its images have labels of the bundle; --ood"):
            count("0.png,red\n1.png,green;flag\n2.png,blue\n")
        plain = evaluate_with_rejection(session, colour_folders, RATE, ood=others / "flags")
    assert plain.rejection.ood_count == 3


def test_what_is_refused(bundle, make_bundle, colour_folders, others):
    with pytest.raises(BundleError, match="--reject-from DATA"):
        api_evaluate(make_bundle(), colour_folders, reject=RATE, backend="cpu")
    with pytest.raises(VptkitError, match="--reject 2: expected a share"):
        api_evaluate(bundle, colour_folders, reject=2, backend="cpu")
    with pytest.raises(VptkitError, match="ood goes with reject"):
        api_evaluate(bundle, colour_folders, ood=others, backend="cpu")


@pytest.mark.slow
def test_the_command(vptkit, bundle, colour_folders, others):
    command = ["eval", bundle, colour_folders, "--ood", others]
    code, out, err = vptkit(*command, "--reject", RATE)
    assert code == 0, err
    lines = out.splitlines()
    head = next(i for i, line in enumerate(lines) if line.startswith("--reject 0.25 rejects "))
    assert "of these" in lines[head]
    assert lines[head + 1].startswith("and accepts ")
    code, out, err = vptkit(*command, "--reject", RATE, "--json")
    assert json.loads(out)["rejection"]["ood_count"] == 3
    code, _, err = vptkit(*command)
    assert (code, "goes with --reject only" in err) == (2, True)
