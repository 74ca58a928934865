from __future__ import annotations

import pytest

from vptkit.errors import VptkitError
from vptkit.runtime.triton.model_config import (
    Batching,
    Step,
    Tensor,
    ensemble_config,
    model_config,
)

ADAPTER = Tensor(name="adapter", kind="INT32", optional=True)


def flat(text):
    return " ".join(line for line in text.split() if line)


def test_a_model():
    logits = Tensor(name="logits", kind="FP32", dims=(5,), labels="labels.txt")
    batching = Batching(max_batch=4, delay_us=7, queue=9, timeout_us=11, instances=2)
    text = flat(
        model_config(
            {"backend": "python"},
            [ADAPTER],
            [logits],
            batching,
            warmed=[ADAPTER],
            parameters={"a": 'b"\\\né'},
        )
    )
    for part in (
        'backend: "python" max_batch_size: 4',
        'input { name: "adapter" data_type: TYPE_INT32 dims: [1] reshape { shape: [] } optional: true }',
        'output { name: "logits" data_type: TYPE_FP32 dims: [5] label_filename: "labels.txt" }',
        "dynamic_batching { max_queue_delay_microseconds: 7",
        "timeout_action: REJECT default_timeout_microseconds: 11 max_queue_size: 9",
        "instance_group { kind: KIND_CPU count: 2 }",
        'model_warmup { name: "images_1" batch_size: 1',
        'model_warmup { name: "images_4" batch_size: 4',
        "value { data_type: TYPE_INT32 dims: [1] zero_data: true }",
        'parameters { key: "a" value { string_value: "b\\"\\\\\\n\\\\xe9" } }',
    ):
        assert part in text, part


def test_an_ensemble_hands_on_what_its_models_are_given():
    step = Step(model="m", inputs={"adapter": "a"}, outputs={"logits": "l"})
    text = flat(ensemble_config([ADAPTER], [], [step], 8))
    assert 'platform: "ensemble" max_batch_size: 8' in text
    assert "reshape" not in text
    assert (
        'step { model_name: "m" model_version: -1 input_map { key: "adapter" value: "a" }' in text
    )


@pytest.mark.parametrize("field", ["max_batch", "instances", "delay_us", "queue"])
def test_numbers_out_of_range(field):
    with pytest.raises(VptkitError, match=f"{field} is -1"):
        Batching(**{field: -1})
