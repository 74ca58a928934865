"""Sessions on an engine, with the fakes of tests/support/fakes: buffers, shapes, CUDA graphs, tables."""

from __future__ import annotations

import gc
import threading
import weakref
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from tests.support.bank_cases import family, write_family
from tests.support.fakes.gpu import ORIN, SERVER
from tests.support.tolerances import PARITY_FP32, largest_difference
from vptkit.errors import MissingError, TargetError, VptkitError
from vptkit.export.bank.export_bank import BankOptions, export_bank
from vptkit.formats.bundle import open_bundle
from vptkit.runtime.backends import tensorrt_graph
from vptkit.runtime.backends import tensorrt_library as trt
from vptkit.runtime.backends.tensorrt_graph import TrtGraph
from vptkit.runtime.session.baked_session import GraphSession
from vptkit.runtime.session.bank_session import BankSession

EITHER = pytest.mark.parametrize("fake_gpu", [SERVER, ORIN], indirect=True, ids=["bus", "shared"])


def noise(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 24, 16, 3), dtype=np.uint8)


@pytest.fixture
def open_engine(fake_gpu, monkeypatch):
    """A function: a bundle → its graph on an engine that the fake builder made."""

    def open_(path, *, cuda_graph=True, **settings):
        engine = fake_gpu.engine(path, **settings)
        monkeypatch.setattr(tensorrt_graph, "open_engine", lambda *_, **__: engine.opened())
        return TrtGraph(open_bundle(path), cuda_graph=cuda_graph)

    return open_


@pytest.fixture
def open_baked(open_engine):
    def open_(path, **settings):
        graph = open_engine(path, **settings)
        return GraphSession(bundle=open_bundle(path), backend="tensorrt", graph=graph)

    return open_


@EITHER
@pytest.mark.parametrize("feed", ["images", "pixels"])
@pytest.mark.parametrize("batch", ["dynamic", 4])
@pytest.mark.parametrize("count", [0, 1, 3, 8, 11])
def test_logits_are_those_of_the_model(open_baked, make_bundle, tiny_model, feed, batch, count):
    session = open_baked(make_bundle(feed=feed, batch=batch))
    for seed in range(4):  # the first runs are plain, then a captured graph is launched
        images = noise(count, seed)
        logits = session.run(images)
        assert (logits.dtype, logits.shape) == (np.float32, (count, 3))
        np.testing.assert_allclose(logits, tiny_model.logits(images), rtol=0, atol=2e-5)


@EITHER
@pytest.mark.parametrize("gives", [("logits", "scores", "features"), ("features",)])
@pytest.mark.parametrize("count", [0, 1, 11])
def test_all_outputs_come_by_their_names(open_baked, make_bundle, tiny_model, gives, count):
    session = open_baked(make_bundle(gives=gives, thresholds=(0.1, 0.5, 0.9)))
    for seed in range(4):
        images = noise(count, seed)
        answers = session.answers(images)
        assert tuple(answers) == gives
        for name, found in answers.items():
            expected = getattr(tiny_model, name)(images)
            np.testing.assert_allclose(found, expected, rtol=0, atol=2e-5)
    assert session.timed(noise(1)) is not None


def test_answers_are_not_overwritten_by_the_next_run(open_baked, make_bundle, tiny_model):
    session = open_baked(make_bundle())
    first = session.run(noise(2, 0))
    session.run(noise(2, 1))
    np.testing.assert_allclose(first, tiny_model.logits(noise(2, 0)), rtol=0, atol=2e-5)


def test_equal_shapes_are_replayed_and_others_are_not(open_baked, make_bundle, fake_gpu):
    session = open_baked(make_bundle())
    begun = fake_gpu.count("launches"), fake_gpu.count("enqueues")

    def counts():
        return fake_gpu.count("launches") - begun[0], fake_gpu.count("enqueues") - begun[1]

    session.run(noise(2))
    session.run(noise(2))
    assert counts() == (0, 2)
    session.run(noise(2))
    assert counts() == (1, 3)  # the capture, and its launch
    session.run(noise(2))
    assert counts() == (2, 3)
    session.run(noise(3))
    assert counts() == (2, 4)  # another shape: a plain run
    session.run(noise(2))
    assert counts() == (2, 5)


def test_portions_of_a_large_batch_are_not_captured_anew_each_time(
    open_baked, make_bundle, fake_gpu
):
    session = open_baked(make_bundle())  # takes 8 at once
    begun = fake_gpu.count("launches")
    for _ in range(3):
        session.run(noise(19))  # 8, 8, 3
    assert fake_gpu.count("launches") == begun


def test_only_what_is_replayed_is_said_to_be(open_baked, make_bundle):
    session = open_baked(make_bundle())  # takes 8 at once
    graph = session.graph
    assert graph.cuda_graph
    assert not graph.replayed
    for count, portions, replayed in ((8, 1, True), (16, 2, True), (19, 3, False), (35, 5, False)):
        assert graph.portions(count) == portions
        for _ in range(4):
            session.run(noise(count))
        assert graph.replayed == replayed, count
    session.run(noise(2))
    assert not graph.replayed
    for _ in range(2):
        graph.timed(noise(2))
    assert graph.replayed
    graph(noise(0))
    assert not graph.replayed


def test_what_the_library_captures_is_replayed_from_equal_shapes_on(
    open_baked, make_bundle, monkeypatch
):
    monkeypatch.setattr(
        tensorrt_graph,
        "make_context",
        lambda trt, engine, **_: (engine.create_execution_context(), False),
    )
    for wanted in (True, False):
        session = open_baked(make_bundle(), cuda_graph=wanted)
        for _ in range(4):
            session.run(noise(2))
        assert session.graph.replayed == wanted
        session.run(noise(19))
        assert not session.graph.replayed


def test_without_cuda_graph_every_run_is_enqueued(open_baked, make_bundle, fake_gpu):
    session = open_baked(make_bundle(), cuda_graph=False)
    begun = fake_gpu.count("launches"), fake_gpu.count("enqueues")
    for _ in range(3):
        session.run(noise(2))
    assert fake_gpu.count("launches") == begun[0]
    assert fake_gpu.count("enqueues") == begun[1] + 3


def test_what_cannot_be_captured_runs_and_says_so(open_baked, make_bundle, tiny_model, monkeypatch):
    session = open_baked(make_bundle())
    monkeypatch.setenv("FAKE_CUDA_NO_CAPTURE", "1")
    session.run(noise(2))
    session.run(noise(2))
    with pytest.warns(RuntimeWarning, match="no CUDA graph: .*cuStreamBeginCapture"):
        logits = session.run(noise(2))
    np.testing.assert_allclose(logits, tiny_model.logits(noise(2)), rtol=0, atol=2e-5)
    assert not session.graph.cuda_graph
    session.run(noise(2))  # and warns only once


def test_small_batches_are_filled_up(open_baked, make_bundle, tiny_model):
    session = open_baked(make_bundle(), batch=(4, 6, 8))
    logits = session.run(noise(9))
    np.testing.assert_allclose(logits, tiny_model.logits(noise(9)), rtol=0, atol=2e-5)
    with pytest.raises(TargetError, match="a batch of 3 came, the engine takes 4 to 8"):
        session.timed(noise(3))


@EITHER
def test_the_four_times(open_engine, make_bundle, fake_gpu, tiny_model):
    graph = open_engine(make_bundle())
    ticks = iter(range(100))
    logits, times = graph.timed(noise(2), clock=lambda: next(ticks) / 1000)
    np.testing.assert_allclose(logits, tiny_model.logits(noise(2)), rtol=0, atol=2e-5)
    # The clock is read at the start, around the enqueue, at the end; then around the second run.
    assert (times.enqueue, times.end_to_end, times.host) == pytest.approx((1, 3, 1))
    assert times.gpu == pytest.approx(0.5)  # of the fake clock: the run, and the event behind it


def test_transfers_are_stated(open_engine, make_bundle):
    assert open_engine(make_bundle()).transfers == (
        f"{24 * 16 * 3} bytes in, 12 out per image, by page-locked copies"
    )
    both = open_engine(make_bundle(gives=("logits", "features")))
    assert both.transfers == f"{24 * 16 * 3} bytes in, 24 out per image, by page-locked copies"


@pytest.mark.parametrize("fake_gpu", [ORIN], indirect=True)
def test_shared_memory_is_not_copied(open_engine, make_bundle, fake_gpu):
    before = fake_gpu.count("allocated")
    graph = open_engine(make_bundle())
    assert fake_gpu.count("allocated") == before
    assert graph.transfers.startswith("none")


def test_threads_take_turns(open_baked, make_bundle, tiny_model):
    session = open_baked(make_bundle())
    found: dict[int, np.ndarray] = {}

    def work(seed):
        for _ in range(20):
            found[seed] = session.run(noise(3, seed))

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for seed, logits in found.items():
        np.testing.assert_allclose(logits, tiny_model.logits(noise(3, seed)), rtol=0, atol=2e-5)
    assert len(found) == 4


def test_an_engine_that_does_not_load(open_engine, make_bundle, monkeypatch, fake_gpu):
    bundle = make_bundle()
    engine = fake_gpu.engine(bundle)
    monkeypatch.setattr(tensorrt_graph, "open_engine", lambda *_, **__: engine.opened())
    monkeypatch.setattr(fake_gpu.trt, "__version__", "10.13.0")
    with pytest.raises(TargetError, match=r"TensorRT 10.13.0 does not load .*not compatible"):
        TrtGraph(open_bundle(bundle))


def test_an_engine_of_other_tensors(open_engine, make_bundle, monkeypatch, fake_gpu):
    other = fake_gpu.engine(make_bundle(feed="pixels"))
    monkeypatch.setattr(tensorrt_graph, "open_engine", lambda *_, **__: other.opened())
    with pytest.raises(TargetError, match="the manifest wants"):
        TrtGraph(open_bundle(make_bundle()))


@pytest.mark.parametrize("error", [TypeError, RuntimeError])
def test_a_runtime_that_does_not_start(open_engine, make_bundle, monkeypatch, fake_gpu, error):
    def start(logger):
        logger.log(fake_gpu.trt.ILogger.ERROR, "CUDA initialization failure")
        raise error("pybind11::init(): factory function returned nullptr")

    monkeypatch.setattr(fake_gpu.trt, "Runtime", start)
    with pytest.raises(
        MissingError,
        match=r"TensorRT 10\.3\.0 starts no runtime .*nullptr: CUDA initialization failure",
    ):
        open_engine(make_bundle())


def test_an_engine_gives_its_reasons_when_an_older_one_is_gone(open_engine, make_bundle):
    older, graph = open_engine(make_bundle()), open_engine(make_bundle("other"))
    del older
    with pytest.raises(TargetError, match=r"images .* was refused: images: illegal shape$"):
        graph(np.zeros((1, 24, 24, 3), dtype=np.uint8))
    with pytest.raises(
        TargetError, match=r"was refused: images: illegal shape$"
    ):  # once, not twice
        graph(np.zeros((1, 24, 24, 3), dtype=np.uint8))


def test_the_gpu_is_asked_before_tensorrt(fake_gpu, monkeypatch):
    monkeypatch.delenv("FAKE_CUDA")
    monkeypatch.setattr(trt, "find_module", lambda _: pytest.fail("TensorRT was touched"))
    with pytest.raises(MissingError, match="no CUDA-capable device"):
        trt.load("tensorrt")


def test_tensorrt_is_not_installed(monkeypatch):
    absent = replace(trt.LIBRARIES["tensorrt"], modules=("tensorrt_that_is_not_there",))
    monkeypatch.setitem(trt.LIBRARIES, "tensorrt", absent)
    with pytest.raises(MissingError, match=r"tensorrt_that_is_not_there.*pip install tensorrt"):
        trt.find_module("tensorrt")


class Strategies:
    """The part of TensorRT-RTX that other libraries lack."""

    class CudaGraphStrategy:
        WHOLE_GRAPH_CAPTURE, DISABLED = "whole", "disabled"

    class DynamicShapesKernelSpecializationStrategy:
        EAGER = "eager"


class RtxEngine:
    def create_runtime_config(self):
        return SimpleNamespace(cuda_graph_strategy=None)

    def create_execution_context(self, runtime_config):
        return runtime_config


@pytest.mark.parametrize(("wanted", "strategy"), [(True, "whole"), (False, "disabled")])
def test_rtx_captures_itself(wanted, strategy):
    context, ours = trt.make_context(Strategies, RtxEngine(), cuda_graph=wanted)
    assert not ours
    assert context.cuda_graph_strategy == strategy
    assert context.dynamic_shapes_kernel_specialization_strategy == "eager"


# ---- banks

MEMBERS = ("bilinear", "norms", "linear")


@pytest.fixture
def bank(tmp_path):
    """A bank of MEMBERS."""
    files = write_family(family(), tmp_path)
    path = tmp_path / "a.vptk"
    export_bank(
        [files[name] for name in MEMBERS],
        path,
        weights=files["weights"],
        bank=BankOptions(prompts=6),
    )
    return path


@EITHER
def test_a_bank_answers_for_each_adapter(open_engine, bank):
    session = BankSession(open_bundle(bank), "tensorrt", open_engine(bank))
    images = family().case.images
    for _ in range(3):
        for name in MEMBERS:
            expected = family().reference(name)
            assert largest_difference(session.run(images, name), expected) <= PARITY_FP32
    names = [MEMBERS[i % 3] for i in range(len(images))]
    mixed = session.run(images, names)
    for row, name, i in zip(mixed, names, range(len(names)), strict=True):
        expected = family().reference(name)[i]
        assert largest_difference(row[: len(expected)], expected) <= PARITY_FP32


def test_a_bank_knows_its_times(open_engine, bank):
    session = BankSession(open_bundle(bank), "tensorrt", open_engine(bank))
    times = session.timed(family().case.images, "norms")
    assert times is not None
    assert times.gpu is not None


def test_tables_go_to_the_device_once(open_engine, bank, fake_gpu):
    session = BankSession(open_bundle(bank), "tensorrt", open_engine(bank))
    images = family().case.images
    session.run(images, "norms")
    before = fake_gpu.count("allocated")
    for _ in range(3):
        session.run(images, "bilinear")
    assert fake_gpu.count("allocated") == before


def test_a_bank_that_outgrew_its_engine(open_engine, bank):
    with pytest.raises(TargetError, match=r"outgrown its engine.*--bank-max"):
        BankSession(open_bundle(bank), "tensorrt", open_engine(bank, adapters=2))


@EITHER
def test_a_closed_session_gives_the_memory_back(open_baked, make_bundle):
    session = open_baked(make_bundle())
    session.run(noise(2))
    engine = weakref.ref(session.graph)
    memory = [weakref.ref(port.host) for port in session.graph._ports.values()]
    session.close()
    gc.collect()
    assert engine() is None
    assert [place() for place in memory] == [None] * len(memory)
    with pytest.raises(VptkitError, match="is closed"):
        session.run(noise(2))
