"""The promise: the graphs say what the reference says, and a broken graph is found out."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import HealthCheck, given, seed, settings
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun

from tests.support.marks import quick_if
from tests.support.strategies import Case, Setup, build, setups
from tests.support.tolerances import CLEARLY, PARITY_FP32, PARITY_FP64, largest_difference
from vptkit.export.fold import fold_block as fold_block_module
from vptkit.export.fold import fold_network as fold_module
from vptkit.export.fold.block_tensors import Linear, Norm
from vptkit.export.fold.fold_network import fold
from vptkit.export.fold.folded_network import Attention, Block, Folded, Mlp, Prefix
from vptkit.export.fold.last_block import Absorbed
from vptkit.export.graph import attention_writer as attention_module
from vptkit.export.graph import unfolded_graph as unfolded_module
from vptkit.export.graph.folded_graph import folded_graph
from vptkit.export.graph.graph_options import GraphOptions
from vptkit.export.graph.onnx_builder import Builder
from vptkit.export.graph.unfolded_graph import unfolded_graph

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

INPUTS = ("uint8", "float32")
BATCHES = (None, 1, 2)
FORMS = ("absorbed", "query", "full", "fused", "unfolded")  # the last block, one linear for q, k
# and v, or nothing folded at all
OPTIONS = list(product(INPUTS, BATCHES, FORMS))

# What TensorRT 8.6 parses of opset 17, as far as these graphs need it.
OPERATORS = frozenset(
    [
        *("Add", "Cast", "Concat", "Conv", "Div", "Erf", "Expand", "LayerNormalization", "MatMul"),
        *("Mul", "ReduceMean", "ReduceSum", "Reshape", "Shape", "Sigmoid", "Slice", "Softmax"),
        *("Gather", "Sub", "Tanh", "Transpose"),
    ]
)


class Erf(OpRun):
    """Erf in float64: onnx.reference computes it in float32."""

    op_domain = ""

    def _run(self, x: NDArray[np.float64]) -> tuple[NDArray[np.float64]]:
        return (np.vectorize(math.erf, otypes=["d"])(x),)


def graph_of(case: Case, options: GraphOptions, form: str) -> onnx.ModelProto:
    spec, a = case.spec, case.adapter
    options = replace(options, merging=a.merging)
    if form == "unfolded":
        return unfolded_graph(spec, case.weights, a, options)
    if form == "fused":
        options = replace(options, last_block="query", qkv="fused")
    else:
        options = replace(options, last_block=form)
    folded = fold_module.fold(spec, case.weights, a)
    return folded_graph(spec, folded, a.insert, a.pool, a.norm, options)


def feed_of(case: Case, options: GraphOptions) -> dict[str, Any]:
    if options.input == "uint8":
        return {"images": case.images}
    return {"pixels": case.pixels.astype(options.dtype)}


def run_fp32(model: onnx.ModelProto, feed: dict[str, Any]) -> NDArray[np.float32]:
    """On ONNX Runtime, its optimizations on, as users run it."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return session.run(None, feed)[0]


def run_fp64(model: onnx.ModelProto, feed: dict[str, Any]) -> NDArray[np.float64]:
    return ReferenceEvaluator(model, new_ops=[Erf]).run(None, feed)[0]


def difference(case: Case, form: str, **options: Any) -> float:
    chosen = GraphOptions(**options)
    model = graph_of(case, chosen, form)
    run = run_fp64 if chosen.dtype is np.float64 else run_fp32
    return largest_difference(run(model, feed_of(case, chosen)), case.reference)


def over(numbers: int, examples: int) -> Callable[[Any], Any]:
    """Deterministic examples; other ones for every combination of options."""
    return lambda test: seed(numbers)(
        settings(
            max_examples=examples,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
        )(given(setups())(test))
    )


# the promise --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("feed", "batch", "form"), quick_if(lambda options: options[1] is None, OPTIONS)
)
def test_fp32_on_onnx_runtime(feed, batch, form):
    @over(OPTIONS.index((feed, batch, form)), 16)
    def holds(setup):
        case = build(replace(setup, batch=batch or 3))
        assert difference(case, form, input=feed, batch=batch) <= PARITY_FP32

    holds()


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("feed", INPUTS)
def test_the_algebra_in_double_precision(feed, form):
    @over(100 + OPTIONS.index((feed, None, form)), 24)
    def holds(setup):
        case, free = build(setup), None if setup.seed % 2 else setup.batch
        found = difference(case, form, input=feed, batch=free, dtype=np.float64)
        assert found <= PARITY_FP64

    holds()


@pytest.mark.parametrize("form", FORMS)
def test_every_feature_at_once(form):
    """The case that all broken twins start from is right before it is broken."""
    pools = ("token", "avg", "token+avg", "avg_prompts")
    for pool, norm in product(pools, ("before_pool", "after_pool")):
        for insert in ("deep", "shallow"):
            case = build(Setup(pool=pool, norm=norm, insert=insert))
            assert difference(case, form) <= PARITY_FP32
            assert difference(case, form, dtype=np.float64) <= PARITY_FP64


def test_prompts_of_huge_scale_keep_their_sum_apart():
    """Prompt rows hundreds of times larger than the tokens, all of them in the mean."""
    for norm in ("before_pool", "after_pool"):
        case = build(Setup(pool="avg_prompts", norm=norm, prompt_scale=1e4, rank=None))
        assert difference(case, "full") <= PARITY_FP32


# broken twins -------------------------------------------------------------------------------------

Break = "Callable[[Case, pytest.MonkeyPatch], Case]"


def refold(change: Callable[[Case, Folded], Folded]) -> Break:
    """A twin that changes the folded constants."""

    def apply(case: Case, patch: pytest.MonkeyPatch) -> Case:
        real = fold_module.fold
        patch.setattr(fold_module, "fold", lambda *arguments: change(case, real(*arguments)))
        return case

    return apply


def replaced(name: str, value: Any) -> Break:
    """A twin in which one function of the folds is another."""

    def apply(case: Case, patch: pytest.MonkeyPatch) -> Case:
        for module in (fold_module, fold_block_module):  # the head, and the blocks
            if hasattr(module, name):
                patch.setattr(module, name, value)
        return case

    return apply


def attentions(change: Callable[[int, Attention], dict[str, Any]]) -> Break:
    """A twin that changes fields of every block's attention."""

    def broken(i: int, block: Block) -> Block:
        (a,) = block.attentions
        return replace(block, attentions=(replace(a, **change(i, a)),))

    return refold(
        lambda _, folded: replace(
            folded, blocks=tuple(broken(i, b) for i, b in enumerate(folded.blocks))
        )
    )


def mlps(change: Callable[[Mlp], dict[str, Any]]) -> Break:
    """A twin that changes fields of every block's MLP."""
    return refold(
        lambda _, folded: replace(
            folded,
            blocks=tuple(
                replace(b, mlps=(replace(b.mlps[0], **change(b.mlps[0])),)) for b in folded.blocks
            ),
        )
    )


def prompts_swapped(case: Case, patch: pytest.MonkeyPatch) -> Case:
    real, other = fold_module.block_prompt, {0: 1, 1: 0}
    patch.setattr(
        fold_module, "block_prompt", lambda adapter, spec, i: real(adapter, spec, other.get(i, i))
    )
    return case


def prefix_of(change: Callable[..., tuple[Any, Any]]) -> Break:
    """A twin whose prefix keys and values are wrong: change(block, beta, w_k, w_v)."""

    def wrong(case: Case, folded: Folded) -> Folded:
        tensors, d = {**case.weights, **case.adapter.layer_norms()}, case.spec.width
        blocks = []
        for i, block in enumerate(folded.blocks):
            qkv, beta = tensors[f"blocks.{i}.attn.qkv.weight"].T, tensors[f"blocks.{i}.norm1.bias"]
            keys, values = change(block, beta, qkv[:, d : 2 * d], qkv[:, 2 * d :])
            (a,) = block.attentions
            prefix = a.prefix._replace(keys=keys, values=values)
            blocks.append(replace(block, attentions=(replace(a, prefix=prefix),)))
        return replace(folded, blocks=tuple(blocks))

    return refold(wrong)


def shifted_keys(block: Block, beta: Any, w_k: Any, w_v: Any) -> Any:
    del w_v
    keys, values, _ = block.attentions[0].prefix
    return keys + beta @ w_k, values


def shifted_values(block: Block, beta: Any, w_k: Any, w_v: Any) -> Any:
    del w_k
    keys, values, _ = block.attentions[0].prefix
    return keys, values + beta @ w_v


def raw_prefix(block: Block, *_: Any) -> Any:
    (a,) = block.attentions
    return block.prompt @ a.k, block.prompt @ a.v


def prefix_exchanged(block: Block, *_: Any) -> Any:
    keys, values, _ = block.attentions[0].prefix
    return values, keys


def prefix_rows_rolled(block: Block, *_: Any) -> Any:
    """Keys beside the values of another prompt."""
    keys, values, _ = block.attentions[0].prefix
    return keys, np.roll(values, 1, axis=0)


def queries_without_bias(i: int, a: Attention) -> dict[str, Any]:
    del i
    return {"prefix": a.prefix._replace(queries=a.prefix.queries - a.q.b)}


def tuned_norms_ignored(case: Case, patch: pytest.MonkeyPatch) -> Case:
    del patch
    kept = {k: v for k, v in case.adapter.tensors.items() if not k.startswith("ln.")}
    return replace(case, adapter=replace(case.adapter, tensors=kept))


def prompts_exchanged(case: Case, patch: pytest.MonkeyPatch) -> Case:
    del patch
    names = {"prompt.0": "prompt.1", "prompt.1": "prompt.0"}
    tensors = {names.get(k[:8], k[:8]) + k[8:]: v for k, v in case.adapter.tensors.items()}
    return replace(case, adapter=replace(case.adapter, tensors=tensors))


def other_preprocess(change: Callable[[Any], dict[str, Any]]) -> Break:
    def apply(case: Case, patch: pytest.MonkeyPatch) -> Case:
        real = fold_module.fold_pixels
        patch.setattr(fold_module, "fold_pixels", lambda w, p: real(w, replace(p, **change(p))))
        return case

    return apply


def pixels_in_order(axes: tuple[int, ...]) -> Break:
    """A twin that reads pixels in another order than (row, column, channel)."""

    def apply(case: Case, patch: pytest.MonkeyPatch) -> Case:
        real = fold_module.fold_pixels

        def wrong(weight: Any, preprocess: Any) -> Any:
            w, shift = real(weight, preprocess)
            _, _, height, width = weight.shape
            w = w.reshape(height, width, 3, -1).transpose(*axes, 3)
            return w.reshape(height * width * 3, -1), shift

        patch.setattr(fold_module, "fold_pixels", wrong)
        return case

    return apply


def colours_reversed(case: Case, patch: pytest.MonkeyPatch) -> Case:
    real = fold_module.fold_pixels
    patch.setattr(fold_module, "fold_pixels", lambda w, p: real(w[:, ::-1], p))
    return case


def slices(name: str, change: Callable[[int, int], tuple[int, int]]) -> Break:
    """A twin in which one Slice takes other rows."""

    def apply(case: Case, patch: pytest.MonkeyPatch) -> Case:
        real = Builder.slice

        def wrong(self: Builder, x: str, axis: int, start: int, stop: int, label: str) -> str:
            if label.endswith(name):
                start, stop = change(start, stop)
            return real(self, x, axis, start, stop, label)

        patch.setattr(Builder, "slice", wrong)
        return case

    return apply


def described(**fields: Any) -> Break:
    """A twin with another spec: the same tensors, read differently."""
    return lambda case, _: replace(case, spec=replace(case.spec, **fields))


def adapted(**fields: Any) -> Break:
    """A twin that takes the adapter for another one."""
    return lambda case, _: replace(case, adapter=replace(case.adapter, **fields))


def prompt_sum(factor: float) -> Break:
    """A twin that counts the prompts' own sum wrongly in the mean."""

    def apply(case: Case, patch: pytest.MonkeyPatch) -> Case:
        real = Builder.const

        def wrong(self: Builder, name: str, value: Any) -> str:
            return real(self, name, value * factor if name.endswith(".prompt.sum") else value)

        patch.setattr(Builder, "const", wrong)
        return case

    return apply


def columns_rolled(case: Case, patch: pytest.MonkeyPatch) -> Case:
    real = Builder.const

    def wrong(self: Builder, name: str, value: Any) -> str:
        rolled = name.endswith(".qkv.weight")
        return real(self, name, np.roll(value, case.spec.width, axis=1) if rolled else value)

    patch.setattr(Builder, "const", wrong)
    return case


def heads_interleaved(case: Case, patch: pytest.MonkeyPatch) -> Case:
    def wrong(k: Any, v: Any, heads: int) -> Absorbed:
        d = len(k)
        k = k.reshape(d, -1, heads).transpose(2, 1, 0)
        v = v.reshape(d, heads, -1).transpose(1, 0, 2)
        return Absorbed(np.ascontiguousarray(k), np.ascontiguousarray(v))

    patch.setattr(attention_module, "absorb_keys_values", wrong)
    return case


def without_bias(linear: Linear) -> Linear:
    return linear._replace(b=0 * linear.b)


def halves_exchanged(case: Case, folded: Folded) -> Folded:
    rolled = np.roll(folded.head.w, case.spec.width, axis=0)
    return replace(folded, head=folded.head._replace(w=rolled))


def shift_of_one_half(case: Case, folded: Folded) -> Folded:
    """The final norm's β counted for the class token, not for the mean."""
    d, adapter = case.spec.width, case.adapter
    beta = {**case.weights, **adapter.layer_norms()}["norm.bias"]
    lost = beta @ adapter.tensors["head.weight"][:, d:].T
    return replace(folded, head=folded.head._replace(b=folded.head.b - lost))


MEAN, AVG_AFTER = Setup(pool="avg"), Setup(pool="avg", norm="after_pool")
ALL_MEAN = Setup(pool="avg_prompts", norm="after_pool")
ALL_BEFORE = Setup(pool="avg_prompts")
BOTH, BOTH_AFTER = Setup(pool="token+avg"), Setup(pool="token+avg", norm="after_pool")
SHALLOW, SHALLOW_MEAN = Setup(insert="shallow"), Setup(insert="shallow", pool="avg")
ABSORBED, QUERY, FULL = "absorbed", "query", "full"

# name → (setup, form, how it is broken)
TWINS: dict[str, tuple[Setup, str, Break]] = {
    "prompts of blocks 0 and 1 swapped": (Setup(), FULL, prompts_swapped),
    "prompts of blocks 0 and 1 swapped, absorbed": (Setup(), ABSORBED, prompts_swapped),
    "prompts of the last block zero": (
        Setup(),
        ABSORBED,
        attentions(lambda i, a: {"prefix": Prefix(*(rows * (i < 2) for rows in a.prefix))}),
    ),
    "prefix keys with the shift": (Setup(), FULL, prefix_of(shifted_keys)),
    "prefix keys with the shift, absorbed": (Setup(depth=1), ABSORBED, prefix_of(shifted_keys)),
    "prefix values with the shift": (Setup(), QUERY, prefix_of(shifted_values)),
    "prefix without LayerNorm": (Setup(), ABSORBED, prefix_of(raw_prefix)),
    "prefix keys and values exchanged": (Setup(), QUERY, prefix_of(prefix_exchanged)),
    "prefix values of another prompt": (Setup(), ABSORBED, prefix_of(prefix_rows_rolled)),
    "prompt queries without bias": (
        ALL_MEAN,
        FULL,
        attentions(queries_without_bias),
    ),
    "value bias dropped": (Setup(), ABSORBED, replaced("fold_value_bias", lambda v, proj: proj)),
    "LayerScale forgotten": (Setup(), QUERY, replaced("fold_layer_scale", lambda lin, g: lin)),
    "LayerScale without the bias": (
        MEAN,
        FULL,
        replaced("fold_layer_scale", lambda lin, g: Linear(lin.w * g, lin.b)),
    ),
    "attention scale twice": (
        Setup(),
        FULL,
        replaced("fold_scale", lambda lin, s: Linear(lin.w * s * s, lin.b * s * s)),
    ),
    "attention scale forgotten": (Setup(), ABSORBED, replaced("fold_scale", lambda lin, s: lin)),
    "attention scale not on the bias": (
        Setup(),
        QUERY,
        replaced("fold_scale", lambda lin, s: Linear(lin.w * s, lin.b)),
    ),
    "gamma dropped": (
        Setup(),
        FULL,
        replaced("fold_layer_norm", lambda g, b, lin: Linear(lin.w, b @ lin.w + lin.b)),
    ),
    "beta dropped": (
        Setup(),
        FULL,
        replaced("fold_layer_norm", lambda g, b, lin: Linear(g[:, None] * lin.w, lin.b)),
    ),
    "gamma on the wrong side of beta": (
        Setup(),
        FULL,
        replaced(
            "fold_layer_norm",
            lambda g, b, lin: Linear(g[:, None] * lin.w, b @ (g[:, None] * lin.w) + lin.b),
        ),
    ),
    "tuned LayerNorm ignored": (Setup(), ABSORBED, tuned_norms_ignored),
    "tuned LayerNorm ignored, shallow": (SHALLOW, FULL, tuned_norms_ignored),
    "mean and std swapped": (
        Setup(),
        FULL,
        other_preprocess(lambda p: {"mean": p.std, "std": p.mean}),
    ),
    "mean forgotten": (Setup(), FULL, other_preprocess(lambda p: {"mean": (0.0, 0.0, 0.0)})),
    "BGR for RGB": (Setup(), FULL, colours_reversed),
    "channel before column": (Setup(), FULL, pixels_in_order((0, 2, 1))),
    "column before row": (Setup(), FULL, pixels_in_order((1, 0, 2))),
    "position of the neighbour": (
        Setup(),
        ABSORBED,
        refold(lambda _, f: replace(f, patch=Linear(f.patch.w, np.roll(f.patch.b, 1, axis=0)))),
    ),
    "register before class token": (
        Setup(),
        QUERY,
        refold(lambda _, f: replace(f, prefix_rows=np.roll(f.prefix_rows, 1, axis=0))),
    ),
    "norm_pre without affine": (
        Setup(),
        FULL,
        refold(lambda _, f: replace(f, norm_pre=Norm(f.norm_pre[0] ** 0, f.norm_pre[1] * 0))),
    ),
    "head bias dropped": (
        Setup(),
        ABSORBED,
        refold(lambda _, f: replace(f, head=without_bias(f.head))),
    ),
    "MLP bias dropped": (Setup(), FULL, mlps(lambda m: {"fc1": without_bias(m.fc1)})),
    "keys and values exchanged": (Setup(), ABSORBED, attentions(lambda _, a: {"k": a.v, "v": a.k})),
    "heads interleaved": (Setup(), ABSORBED, heads_interleaved),
    "QuickGELU for GELU": (Setup(), FULL, described(activation="quick_gelu")),
    "tanh-GELU for QuickGELU": (
        Setup(activation="quick_gelu"),
        ABSORBED,
        described(activation="gelu_tanh"),
    ),
    "final norm forgotten": (Setup(), FULL, described(final_norm=None)),
    "norm before the pool for after": (AVG_AFTER, FULL, adapted(norm="before_pool")),
    "norm after the pool for before": (ALL_BEFORE, FULL, adapted(norm="after_pool")),
    "class token for the mean": (MEAN, ABSORBED, adapted(pool="token")),
    "mean over the prompts too": (MEAN, FULL, adapted(pool="avg_prompts")),
    "mean without the prompts": (ALL_BEFORE, FULL, adapted(pool="avg")),
    "deep for shallow": (SHALLOW, FULL, adapted(insert="none")),
    "query of a register": (Setup(), QUERY, slices("norm1/class", lambda a, b: (a + 1, b + 1))),
    "residual of a register": (Setup(), ABSORBED, slices("2/class", lambda a, b: (a + 1, b + 1))),
    "pool reads the second row": (Setup(), FULL, slices("pool/rows", lambda a, b: (1, 2))),
    "pool begins a row late": (MEAN, FULL, slices("pool/rows", lambda a, b: (a + 1, b))),
    "pool begins a row early": (AVG_AFTER, FULL, slices("pool/rows", lambda a, b: (a - 1, b))),
    "pool ends a row late": (SHALLOW_MEAN, FULL, slices("pool/rows", lambda a, b: (a, b + 1))),
    "mean before the class token": (BOTH, FULL, refold(halves_exchanged)),
    "mean's half of the head without beta": (BOTH_AFTER, FULL, refold(shift_of_one_half)),
    "class and mean, norm after for before": (BOTH, FULL, adapted(norm="after_pool")),
    "mean with the registers": (BOTH, FULL, slices("pool/patches", lambda a, b: (a - 1, b))),
    "register for the class token": (BOTH, FULL, slices("pool/class", lambda a, b: (1, 2))),
    "unfolded: mean with the registers": (
        BOTH_AFTER,
        "unfolded",
        slices("pool/rows", lambda a, b: (a - 1, b)),
    ),
    "mean with the class row": (ALL_MEAN, FULL, slices("/kept", lambda a, b: (0, b))),
    "prompts' sum forgotten": (ALL_MEAN, FULL, prompt_sum(0.0)),
    "prompts' sum twice": (ALL_MEAN, FULL, prompt_sum(2.0)),
    "shallow prompt queries without bias": (
        SHALLOW,
        FULL,
        attentions(queries_without_bias),
    ),
    "keys before queries in one linear": (Setup(), "fused", columns_rolled),
    "unfolded: LayerScale forgotten": (
        Setup(),
        "unfolded",
        lambda c, p: (
            p.setattr(unfolded_module._Writer, "scaled", lambda self, x, gamma, name: x) or c
        ),
    ),
    "unfolded: prompts of blocks 0 and 1 swapped": (Setup(), "unfolded", prompts_exchanged),
    "unfolded: a register overwritten": (
        Setup(),
        "unfolded",
        slices("/before", lambda a, b: (a + 1, b + 1)),
    ),
    "unfolded: pool begins a row late": (
        MEAN,
        "unfolded",
        slices("pool/rows", lambda a, b: (a + 1, b)),
    ),
    "unfolded: tuned LayerNorm ignored": (Setup(), "unfolded", tuned_norms_ignored),
    "unfolded: mean and std swapped": (
        Setup(),
        "unfolded",
        lambda c, _: replace(
            c,
            adapter=replace(
                c.adapter,
                preprocess=replace(
                    c.adapter.preprocess,
                    mean=c.adapter.preprocess.std,
                    std=c.adapter.preprocess.mean,
                ),
            ),
        ),
    ),
}


@pytest.mark.parametrize("name", TWINS)
def test_a_broken_twin_fails(name, monkeypatch):
    setup, form, breakage = TWINS[name]
    case = breakage(build(setup), monkeypatch)
    assert difference(case, form) > CLEARLY * PARITY_FP32
    assert difference(case, form, dtype=np.float64) > CLEARLY * PARITY_FP64


def test_an_epsilon_that_is_not_the_models_fails_in_double_precision():
    """Below what float32 can see, so the algebra's test must see it."""
    case = build(Setup())
    assert case.spec.norm_eps == 1e-6
    case = replace(case, spec=replace(case.spec, norm_eps=1e-5))
    assert difference(case, "full", dtype=np.float64) > CLEARLY * PARITY_FP64


def test_tanh_gelu_is_not_gelu():
    """They differ by 9e-5 of the logits: above the tolerance, if not as clearly as the twins."""
    case = build(Setup())
    case = replace(case, spec=replace(case.spec, activation="gelu_tanh"))
    assert difference(case, "full") > 5 * PARITY_FP32
    assert difference(case, "full", dtype=np.float64) > CLEARLY * PARITY_FP64


def test_a_float32_fold_fails_in_double_precision():
    """Tolerances are not so wide that rounding of the constants would pass for algebra."""
    case = build(Setup())
    rounded = {k: v.astype(np.float32) for k, v in case.weights.items()}
    found = difference(replace(case, weights=rounded), "absorbed", dtype=np.float64)
    assert found > CLEARLY * PARITY_FP64


def test_a_missing_batch_row_or_nan_is_not_a_small_difference():
    assert largest_difference([[np.nan, 1.0]], [[1.0, 1.0]]) == float("inf")
    with pytest.raises(AssertionError, match=r"\(1, 2\) against \(2, 2\)"):
        largest_difference([[1.0, 1.0]], [[1.0, 1.0]] * 2)


# what the graphs look like ------------------------------------------------------------------------


def operators(model: onnx.ModelProto) -> Counter[str]:
    return Counter(node.op_type for node in model.graph.node)


@pytest.mark.parametrize("depth", [1, 2, 3])
@pytest.mark.parametrize("form", ["absorbed", "query", "full"])
@pytest.mark.parametrize("prompts", [1, 6])
def test_a_folded_deep_graph_holds_nothing_but_the_network(depth, form, prompts):
    case = build(Setup(depth=depth, norm_pre=False, prompts=prompts))
    found = operators(graph_of(case, GraphOptions(batch=1), form))
    assert found["Conv"] == found["Gather"] == found["Expand"] == found["Shape"] == 0
    assert found["Softmax"] == found["Erf"] == depth
    assert found["LayerNormalization"] == 2 * depth + 1
    assert found["Cast"] == 1
    # q, k, v, scores, mix, projection, fc1, fc2 a block; the patches; the head
    absorbed_parts = {"absorbed": 2}.get(form, 0)  # scores and values of the prompts, apart
    assert found["MatMul"] == 8 * depth + 2 + absorbed_parts
    # tokens; keys and values, or the absorbed block's scores
    assert found["Concat"] == 1 + 2 * depth - (form == "absorbed")
    assert set(found) <= OPERATORS


def test_the_number_of_prompts_adds_no_node():
    one, six = (
        operators(graph_of(build(Setup(prompts=m)), GraphOptions(), "absorbed")) for m in (1, 6)
    )
    assert one == six


@pytest.mark.parametrize("feed", INPUTS)
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("pool", ["token", "token+avg", "avg_prompts"])
@pytest.mark.parametrize("insert", ["deep", "shallow", "none"])
def test_graphs_are_valid_and_portable(feed, form, pool, insert):
    case = build(Setup(pool=pool, insert=insert, activation="quick_gelu", norm="after_pool"))
    model = graph_of(case, GraphOptions(input=feed), form)
    onnx.checker.check_model(model, full_check=True)
    assert [entry.version for entry in model.opset_import] == [17]
    assert model.ir_version <= 9
    assert set(operators(model)) <= OPERATORS | ({"Gather"} if form == "unfolded" else set())
    assert {node.domain for node in model.graph.node} == {""}
    assert operators(model)["Conv"] == int(feed == "float32" or form == "unfolded")
    types = {tensor.data_type for tensor in model.graph.initializer}
    assert types <= {onnx.TensorProto.FLOAT, onnx.TensorProto.INT64}
    names = [node.name for node in model.graph.node]
    assert len(set(names)) == len(names)
    used = {name for node in model.graph.node for name in node.input}
    assert {tensor.name for tensor in model.graph.initializer} <= used


def rows_of_linears(model: onnx.ModelProto) -> set[int]:
    """Rows that enter each product with a weight matrix in a block: the second dimension of x."""
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
    shapes = {
        value.name: [d.dim_value for d in value.type.tensor_type.shape.dim]
        for value in inferred.graph.value_info
    }
    matrices = {t.name for t in model.graph.initializer if len(t.dims) == 2}
    return {
        shapes[node.input[0]][1]
        for node in inferred.graph.node
        if node.op_type == "MatMul" and "blocks" in node.name and node.input[1] in matrices
    }


@pytest.mark.parametrize(
    ("form", "pool", "rows"),
    [
        ("full", "token", {11 - 2}),
        ("query", "token", {9, 1}),
        ("absorbed", "token", {9, 1}),
        ("absorbed", "token+avg", {9}),
    ],
)
def test_prompts_never_enter_a_linear_as_rows(form, pool, rows):
    case = build(Setup(pool=pool, prompts=2))
    assert case.spec.tokens == 9
    model = graph_of(case, GraphOptions(batch=1), form)
    assert rows_of_linears(model) == rows
    for i in range(case.spec.depth):
        prompt = case.adapter.prompts(i).astype(np.float32)
        for tensor in model.graph.initializer:
            value = onnx.numpy_helper.to_array(tensor)
            assert value.size != prompt.size or not np.allclose(value.ravel(), prompt.ravel())


def test_only_the_last_block_pays_for_prompts_in_the_mean():
    case = build(Setup(pool="avg_prompts", prompts=2))
    model = graph_of(case, GraphOptions(batch=1), "absorbed")
    assert rows_of_linears(model) == {9, 11}
    for i in range(case.spec.depth - 1):
        wide = [n for n in model.graph.initializer if n.name.startswith(f"blocks.{i}.prompt")]
        assert wide == []


def test_prompts_as_tokens_do_enter_as_rows():
    """The twin of the two tests above: the unfolded graph would fail them."""
    case = build(Setup(prompts=2))
    assert rows_of_linears(graph_of(case, GraphOptions(batch=1), "unfolded")) == {11}


def test_the_shape_of_input_and_output_is_declared():
    case = build(Setup())
    for batch, feed in product(BATCHES, INPUTS):
        for form in FORMS:
            graph = graph_of(case, GraphOptions(batch=batch, input=feed), form).graph

            def shape(value: onnx.ValueInfoProto) -> list[int | str]:
                return [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim]

            size = batch or "batch"
            image = [size, 16, 24, 3] if feed == "uint8" else [size, 3, 16, 24]
            assert [shape(v) for v in graph.input] == [image]
            assert graph.input[0].name == ("images" if feed == "uint8" else "pixels")
            assert [(v.name, shape(v)) for v in graph.output] == [("logits", [size, 5])]


def test_the_same_case_gives_the_same_bytes():
    first, second = (
        graph_of(build(Setup()), GraphOptions(), "absorbed").SerializeToString(deterministic=True)
        for _ in range(2)
    )
    assert first == second


def test_folded_constants_are_pure(monkeypatch):
    """`fold` changes none of its arguments."""
    case = build(Setup())
    weights = {k: v.copy() for k, v in case.weights.items()}
    tensors = {k: v.copy() for k, v in case.adapter.tensors.items()}
    for value in (*case.weights.values(), *case.adapter.tensors.values()):
        value.flags.writeable = False
    fold(case.spec, case.weights, case.adapter)
    assert all(np.array_equal(weights[k], case.weights[k]) for k in weights)
    assert all(np.array_equal(tensors[k], case.adapter.tensors[k]) for k in tensors)
