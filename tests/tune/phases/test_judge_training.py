import math

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("timm")

from vptkit.errors import TrainingError  # noqa: E402
from vptkit.tune.config import config_from_mapping  # noqa: E402
from vptkit.tune.phases.judge_training import at_chance, judge_training, runaway  # noqa: E402
from vptkit.tune.training.run_files import run_files  # noqa: E402
from vptkit.tune.training.train_state import CrossValidation, TrainState  # noqa: E402

LABELS = ("a", "b", "c", "d", "e")


def _config(**settings):
    return config_from_mapping({"backbone": "vit", "method": "ln", **settings})


def _logits(answers, classes=5):
    return np.eye(classes, dtype=np.float32)[np.asarray(answers)]


def _state(losses=(1.0, 0.5), tops=(0.8, 0.8), start=0.7, best=1, **more):
    history = [
        {"epoch": n, "train_loss": loss, "train_top1": 0.5, "val_top1": top1, "val_loss": 0.5}
        for n, (loss, top1) in enumerate(zip(losses, tops, strict=True), 1)
    ]
    begun = {"epoch": 0, "val_top1": start, "val_loss": 0.6, "probe": {}}
    return TrainState({}, epoch=len(history), history=history, start=begun, best_epoch=best, **more)


def _judge(tmp_path, answers, targets, state=None, labels=LABELS, **settings):
    judges = _logits(answers, len(labels)), np.asarray(targets)
    files = run_files(tmp_path / "x.safetensors")
    return judge_training(state or _state(), judges, labels, _config(**settings), files)


TARGETS = np.arange(100) % 5


def test_answers_that_are_always_the_same_class_are_no_success(tmp_path):
    with pytest.raises(TrainingError) as caught:
        _judge(tmp_path, np.zeros(100, int), TARGETS)
    assert caught.value.exit_code == 3
    text = str(caught.value)
    assert "20.0 % (20 of 100; 95 % interval 13.3 to 28.9 %)" in text
    assert "no better than always 'a' (20.0 %)" in text
    assert "Do the labels belong to the images?" in text
    assert "x.checkpoint.safetensors: with --resume --allow-chance" in text


def test_random_labels_are_no_success_and_may_be_kept_all_the_same(tmp_path):
    answers = np.random.default_rng(0).integers(5, size=100)
    with pytest.raises(TrainingError):
        _judge(tmp_path, answers, TARGETS)
    (warning,) = _judge(tmp_path, answers, TARGETS, allow_chance=True)
    assert warning.startswith("Nothing was learned: ")


def test_a_model_that_finds_rare_classes_at_a_loss_of_accuracy_has_learned(tmp_path):
    """90 of 100 are of one class; 85 right answers, but the rare ones are found."""
    targets = np.repeat([0, 1], [90, 10])
    answers = np.concatenate([np.repeat([0, 1], [76, 14]), np.ones(9, int), [0]])
    assert at_chance(int((answers == targets).sum()), targets)
    assert _judge(tmp_path, answers, targets, labels=("a", "b")) == ()
    with pytest.raises(TrainingError):  # always the largest class is right more often
        _judge(tmp_path, np.zeros(100, int), np.repeat([0, 1], [70, 30]), labels=("a", "b"))


@pytest.mark.parametrize("right", range(11))
def test_ten_images_say_nothing(tmp_path, right):
    """Two of each class: no wolf is cried."""
    targets = np.arange(10) % 5
    answers = np.where(np.arange(10) < right, targets, (targets + 1) % 5)
    assert _judge(tmp_path, answers, targets) == ()


def test_ten_images_and_a_training_that_diverged_are_enough(tmp_path):
    state = _state(losses=(1.0, 4e11), best=0)
    with pytest.raises(TrainingError, match=r"diverged: .* ended at 4e"):
        _judge(tmp_path, np.zeros(10, int), np.arange(10) % 5, state)


@pytest.mark.parametrize(
    ("state", "told"),
    [
        (_state(losses=(1.0, 38.0), best=0), "training loss ended at 38; knowing nothing has 1.61"),
        (_state(losses=(0.3, 0.8), best=0), "the training loss rose from 0.3 to 0.8"),
        (
            _state(losses=(0.5, 0.4), tops=(0.2, 0.2), best=0),
            "after the last epoch 20.0 % was right",
        ),
        (_state(stopped="the loss was not finite any more in epoch 3"), "not finite .* epoch 3"),
    ],
    ids=["far", "rose", "chance", "nan"],
)
def test_a_training_that_diverged_names_the_rate(tmp_path, state, told):
    (warning,) = _judge(tmp_path, TARGETS, TARGETS, state, lr_ln=1e9)
    import re

    assert re.search(told, warning)
    assert warning.endswith("kept: lower --lr-ln (now 1e+09)")
    assert ("linear probe" in warning) == (state.best_epoch == 0)


def test_what_was_held_out_may_say_that_it_diverged():
    def records(last):
        return [{"epoch": 0, "val_top1": 0.8, "val_loss": 0.6}, {"epoch": 1, **last}]

    def why(last, part=1.0):
        chose = CrossValidation(1, 0, records(last), torch.zeros(0, 0))
        state = TrainState({}, start=records(last)[0], cross_validation=chose)
        state.held_out = [torch.full((2, 10, 5), part)]
        return runaway(state, np.arange(10) % 5, 5, _config())

    assert "ended at 9" in why({"val_top1": 0.2, "val_loss": 9.0})
    assert why({"val_top1": 0.7, "val_loss": 0.9}) is None
    lost = {"val_top1": 0.2, "val_loss": math.log(5)}
    assert "without one of the parts was not finite" in why(lost, part=0.0)


@pytest.mark.parametrize(
    "state",
    [
        _state(),
        _state(losses=(0.01, 0.03)),  # noise of a loss that is nothing
        _state(losses=(0.5, 0.4), tops=(0.79, 0.78), start=0.8, best=0),  # the probe is just better
        _state(losses=(1.0, 2.0), best=2),  # the last epoch is the best one, whatever it costs
    ],
)
def test_ordinary_trainings_are_no_wolves(state):
    assert runaway(state, TARGETS, 5, _config()) is None


def test_one_image_a_class_says_nothing(tmp_path):
    judges = np.zeros((0, 0), np.float32), np.zeros(0, np.int64)
    state = _state(losses=(1.0, 0.5), tops=(None, None), start=None)
    for record in (state.start, *state.history):
        record["val_loss"] = None
    files = run_files(tmp_path / "x.safetensors")
    assert judge_training(state, judges, LABELS, _config(), files) == ()
