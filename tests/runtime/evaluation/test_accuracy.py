from __future__ import annotations

import shutil
import tarfile

import numpy as np
import pytest

from vptkit.errors import DataError, GateError
from vptkit.formats.bundle import open_bundle
from vptkit.images.image_file import open_image
from vptkit.images.preprocess import prepare
from vptkit.runtime.evaluation.accuracy import evaluate, labelled_images, split_folder
from vptkit.runtime.evaluation.image_batches import open_image_batches
from vptkit.runtime.session.baked_session import GraphSession
from vptkit.runtime.session.factory import open_session


@pytest.fixture
def session(make_bundle):
    return open_session(make_bundle())


class Steps:
    total = None

    def __init__(self):
        self.done = 0

    def update(self, advance=1, text=""):
        self.done += advance


@pytest.mark.parametrize("batch", [1, 5, 100])
def test_the_one_wrong_image_is_counted_in_its_class(session, colour_folders, batch):
    steps = Steps()
    result = evaluate(session, colour_folders, batch=batch, progress=steps)
    assert (result.data, result.split, result.count) == (colour_folders, None, 12)
    assert (result.top1, result.top5, result.notes) == (11 / 12, 1.0, [])
    assert {label: (of["count"], of["right"]) for label, of in result.classes.items()} == {
        "red": (4, 4),
        "green": (4, 3),
        "blue": (4, 4),
    }
    assert result.confusion.tolist() == [[4, 0, 0], [0, 3, 1], [0, 0, 4]]
    wrong = result.mistakes[0]
    assert (wrong.image, wrong.truth, wrong.answered) == (
        colour_folders / "green" / "3.png",
        "green",
        "blue",
    )
    scores = dict(next(session.predict([wrong.image], top_k=3)).top)
    assert wrong.probability == pytest.approx(scores["blue"])
    assert (steps.done, steps.total) == (12, 12)


def test_classes_are_matched_by_name_and_not_by_position(make_bundle, colour_folders):
    """Broken twin: labels in another order than the graph's outputs must cost accuracy."""
    session = open_session(make_bundle(labels=("blue", "red", "green")))
    assert evaluate(session, colour_folders).top1 == pytest.approx(1 / 12)


def test_top5_among_seven_classes(make_bundle, tmp_path, colour_folders):
    class Ranked:
        threads, versions = 1, {}

        def __call__(self, batch):
            return np.tile(np.float32([7, 6, 5, 4, 3, 2, 1]), (len(batch), 1))

    labels = tuple("abcdefg")
    for label in labels:
        (tmp_path / "d" / label).mkdir(parents=True)
        shutil.copy(colour_folders / "red" / "0.png", tmp_path / "d" / label / "x.png")
    bundle = open_bundle(make_bundle(labels=labels))
    session = GraphSession(bundle=bundle, backend="fake", graph=Ranked())
    result = evaluate(session, tmp_path / "d")
    assert (result.top1, result.top5) == (pytest.approx(1 / 7), pytest.approx(5 / 7))


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("red", "green", "violet"), "not labels of the bundle: violet"),
        (
            ("red", "green", "blue", "x", "y"),
            "bundle: x, y. Its labels are red, green, blue; rename",
        ),
        (("violet",), "not labels of the bundle: violet"),
        (
            ("test",),
            "bundle: test. Its labels are red, green, blue; --split test takes that folder",
        ),
    ],
)
def test_labels_that_differ_are_named(session, colour_folders, tmp_path, names, message):
    for name in names:
        shutil.copytree(colour_folders / "red", tmp_path / "other" / name)
    with pytest.raises(DataError, match=message):
        evaluate(session, tmp_path / "other")


@pytest.mark.parametrize("names", [("blue", "green"), ("blue",)])
def test_some_of_the_classes_are_judged_with_a_note(session, colour_folders, tmp_path, names):
    for name in names:
        shutil.copytree(colour_folders / name, tmp_path / "some" / name)
    result = evaluate(session, tmp_path / "some")
    assert (result.count, list(result.classes)) == (4 * len(names), sorted(names)[::-1])
    assert result.top1 == (7 / 8 if len(names) == 2 else 1)
    assert result.absent == [name for name in ("red", "green", "blue") if name not in names]
    assert len(result.notes) == 1
    assert f"judged on {len(names)} of 3 classes; no images of red" in result.notes[0]


def test_splits(session, colour_folders, tmp_path):
    data = tmp_path / "data"
    for split in ("train", "val", "test"):
        shutil.copytree(colour_folders, data / split)
    (data / "test" / "green" / "3.png").unlink()
    (data / "splits.csv").touch()

    assert evaluate(session, data).count == 11
    assert (evaluate(session, data).data, evaluate(session, data).split) == (data / "test", "test")
    train = evaluate(session, data, split="train")
    assert "what was learned from" in train.notes[0]
    assert evaluate(session, data, split="val").count == 12
    with pytest.raises(DataError, match="no split 'ood', only test, train, val"):
        evaluate(session, data, split="ood")


def test_splits_by_other_names(session, colour_folders, tmp_path):
    for name in ("Training", "valid"):
        shutil.copytree(colour_folders, tmp_path / "data" / name)
    (tmp_path / "data" / "valid" / "green" / "3.png").unlink()
    assert evaluate(session, tmp_path / "data", split="val").count == 11
    assert evaluate(session, tmp_path / "data", split="train").count == 12
    with pytest.raises(DataError, match="no split 'test', only train, val; --split names another"):
        evaluate(session, tmp_path / "data")
    preprocess, labels = session.bundle.preprocess, session.bundle.labels
    images = open_image_batches(tmp_path / "data", preprocess, labels=labels)  # val, and not both
    assert (images.count, len(images.truth)) == (11, 11)
    assert (
        open_image_batches(tmp_path / "data", preprocess, labels=labels, split="train").count == 12
    )


def test_ood_may_have_fewer_classes(session, colour_folders, tmp_path):
    for name in ("train", "val", "test", "ood"):
        shutil.copytree(colour_folders, tmp_path / "data" / name)
        shutil.rmtree(tmp_path / "data" / name / "blue") if name in ("ood", "val") else None
    result = evaluate(session, tmp_path / "data", split="ood")
    assert (result.count, list(result.classes)) == (8, ["red", "green"])
    assert evaluate(session, tmp_path / "data", split="val").absent == ["blue"]


def test_a_class_that_only_other_splits_have(session, colour_folders, tmp_path):
    files = sorted(colour_folders.rglob("*.png"))
    lines = [
        f"{path},{path.parent.name},{'train' if path.parent.name == 'blue' else 'test'}"
        for path in files
    ]
    file = tmp_path / "list.csv"
    file.write_text("\n".join(["path,label,split", *lines]))
    assert evaluate(session, file).count == 8
    images = open_image_batches(file, session.bundle.preprocess, labels=session.bundle.labels)
    assert len(images.truth) == 8
    assert (evaluate(session, file).split, evaluate(session, file).absent) == ("test", ["blue"])


def test_parquet_is_not_read_here(session, tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "test-00000-of-00001.parquet").touch()
    with pytest.raises(DataError, match=r"only vptkit tune reads \.parquet files"):
        evaluate(session, tmp_path)


def test_a_class_that_is_called_test_is_no_split(tmp_path):
    for name in ("test", "exam"):
        (tmp_path / name).mkdir()
    assert split_folder(tmp_path, None) == tmp_path


def test_a_broken_image_is_an_error(session, colour_folders):
    image = colour_folders / "green" / "2.png"
    image.write_bytes(image.read_bytes()[:100])
    (colour_folders / "blue" / "0.png").write_bytes(b"")
    with pytest.raises(
        DataError, match=r"2 of 12 images.*blue/0\.png: .*green/2\.png: the image is broken"
    ):
        evaluate(session, colour_folders)


def test_broken_images_are_left_out_where_that_was_asked_for(session, colour_folders):
    for name in ("blue/0.png", "blue/1.png", "green/2.png"):
        (colour_folders / name).write_bytes(b"no image")
    found = evaluate(session, colour_folders, skip_broken=True, batch=2)
    assert {label: one["count"] for label, one in found.classes.items()} == {
        "red": 4,
        "green": 3,
        "blue": 2,
    }
    assert [path.name for path in found.skipped] == ["0.png", "1.png", "2.png"]
    assert len(found.to_json()["skipped"]) == 3
    assert "3 broken images were skipped: blue/0.png" in found.notes[0]
    for path in colour_folders.rglob("*.png"):
        path.write_bytes(b"no image")
    with pytest.raises(DataError, match="12 of 12 images"):
        evaluate(session, colour_folders, skip_broken=True)


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        (shutil.rmtree, "no such folder"),
        (lambda d: [shutil.rmtree(p) for p in d.iterdir()], "empty: expected one folder"),
        (lambda d: [p.unlink() for p in d.rglob("*.png")], "no images in the class.*'blue'"),
    ],
)
def test_folders_that_will_not_do(session, colour_folders, prepare, message):
    prepare(colour_folders)
    with pytest.raises(DataError, match=message):
        evaluate(session, colour_folders)


def test_logits_that_are_not_finite_give_no_accuracy(make_bundle, colour_folders):
    class Overflowing:
        threads, versions = 1, {}

        def __call__(self, batch):
            return np.full((len(batch), 3), np.nan, np.float32)

    bundle = open_bundle(make_bundle())
    with pytest.raises(GateError, match="NaN or Inf"):
        evaluate(GraphSession(bundle=bundle, backend="fake", graph=Overflowing()), colour_folders)


def listed(colour_folders, tmp_path, kind):
    """The same images as a CSV, or as shards."""
    files = sorted(colour_folders.rglob("*.png"))
    if kind == "csv":
        file = tmp_path / "list.csv"
        lines = [f"{path},{path.parent.name},val" for path in files]
        file.write_text("\n".join(["path,label,split", *lines]))
        return file
    (tmp_path / "shards").mkdir()
    with tarfile.open(tmp_path / "shards" / "val-0.tar", "w") as archive:
        for number, path in enumerate(files):
            archive.add(path, f"{number}.png")
            (tmp_path / "label").write_text(path.parent.name)
            archive.add(tmp_path / "label", f"{number}.cls")
    return tmp_path / "shards"


@pytest.mark.parametrize("kind", ["csv", "shards"])
def test_images_that_are_listed(session, colour_folders, tmp_path, kind):
    data = listed(colour_folders, tmp_path, kind)
    result = evaluate(session, data).to_json()
    wanted = evaluate(session, colour_folders).to_json()
    assert (result["split"], result["mistakes"][0]["path"][-5:]) == (
        "val",
        "3.png"[-5:] if kind == "csv" else "7.png",
    )
    own = dict.fromkeys(("data", "split", "mistakes"))
    assert {**result, **own} == {**wanted, **own}
    assert evaluate(session, data, split="validation").count == 12
    with pytest.raises(DataError, match="no split 'test', only val; --split names another"):
        evaluate(session, data, split="test")


def test_listed_images_for_calibration(session, colour_folders, tmp_path):
    preprocess, labels = session.bundle.preprocess, session.bundle.labels
    data = listed(colour_folders, tmp_path, "shards")
    some = open_image_batches(data, preprocess, labels=labels, split="train", limit=5)
    rest = open_image_batches(data, preprocess, labels=labels, without=some)
    assert (some.count, rest.count) == (5, 7)
    folders = open_image_batches(colour_folders, preprocess, labels=labels)
    whole = open_image_batches(data, preprocess, labels=labels)
    best = [
        session.run(np.concatenate(list(images.batches()))).argmax(axis=1) == images.truth
        for images in (folders, whole)
    ]
    assert best[0].mean() == best[1].mean() == 11 / 12
    assert open_image_batches(data, preprocess, labels=("a", "b")).truth is None


def test_a_class_folder_without_images_is_reported(session, colour_folders):
    for path in (colour_folders / "red").iterdir():
        path.unlink()
    found = evaluate(session, colour_folders)
    assert (found.count, found.absent) == (8, ["red"])
    assert "no images of red" in found.notes[0]


def test_a_label_with_its_accent_apart_is_the_composed_class(tmp_path):
    """The bundle's labels may be as macOS writes them; class names of data are read composed."""
    files, truth = labelled_images(tmp_path, {"caf\u00e9": [tmp_path / "a"]}, ("x", "cafe\u0301"))
    assert (files, truth.tolist()) == ([tmp_path / "a"], [1])


def test_columns_are_asked_for_and_answered(session, colour_folders):
    lines = [f"{i},{label}/{i}.png,{label}" for label in ("red", "blue") for i in range(4)]
    (colour_folders / "list.csv").write_text("\n".join(["id,file_name,class", *lines]))
    with pytest.raises(DataError, match="--columns image=id,label=class"):
        evaluate(session, colour_folders / "list.csv")
    assert evaluate(session, colour_folders / "list.csv", columns="image=file_name").count == 8


# several labels an image --------------------------------------------------------------------------


@pytest.fixture
def several(colour_folders):
    """The same images in a table: each is what its folder says, and "odd" images are blue, too."""
    lines = ["path,labels"]
    for file in sorted(colour_folders.rglob("*.png")):
        name = file.relative_to(colour_folders)
        lines.append(f"{name},{name.parent}" + (";blue" if int(name.stem) % 2 else ""))
    table = colour_folders / "list.csv"
    table.write_text("\n".join(lines) + "\n")
    return table


def test_several_labels_are_judged_label_by_label(make_bundle, several, tiny_model):
    session = open_session(make_bundle(labels=("blue", "red", "green"), thresholds=(0.5, 0.5, 0.5)))
    plain = open_session(make_bundle(thresholds=(0.5, 0.5, 0.5)))
    wrong, right = evaluate(session, several), evaluate(plain, several, batch=5)
    assert (right.data, right.split, right.count, right.absent) == (several, None, 12, [])
    assert [of["count"] for of in right.classes.values()] == [4, 4, 8]
    scores = plain.scores(
        np.stack([prepare(open_image(one), tiny_model.preprocess) for one in right.images])
    )
    np.testing.assert_allclose(right.scores, scores, atol=1e-6)
    assert right.truth[:2].tolist() == [[False, False, True], [False, False, True]]  # blue/0, /1
    assert right.mean_average_precision > wrong.mean_average_precision
    assert right.micro_f1 > wrong.micro_f1


def test_class_folders_have_one_label_each_for_a_bundle_of_several(make_bundle, colour_folders):
    session = open_session(make_bundle(thresholds=(0.5, 0.5, 0.5)))
    result = evaluate(session, colour_folders)
    assert (result.truth.sum(axis=1) == 1).all()
    assert result.mistakes[0].image == colour_folders / "green" / "3.png"
    shutil.rmtree(colour_folders / "red")
    (colour_folders / "pink").mkdir()
    shutil.copy(colour_folders / "blue" / "0.png", colour_folders / "pink")
    with pytest.raises(DataError, match="not labels of the bundle: pink"):
        evaluate(session, colour_folders)


def test_a_label_that_the_bundle_does_not_know(make_bundle, several):
    session = open_session(make_bundle(labels=("red", "green", "blu"), thresholds=(0.5,) * 3))
    with pytest.raises(DataError, match=r"not labels of the bundle: blue.*blue is near blu"):
        evaluate(session, several)


def test_several_labels_for_a_bundle_of_one(session, several):
    with pytest.raises(DataError, match="several labels an image"):
        evaluate(session, several)
