"""Which device, and what is said where it is not there."""

from __future__ import annotations

import functools
import os
import sys

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("timm")

from vptkit.errors import MissingError, TargetError, VptkitError  # noqa: E402
from vptkit.formats.adapter import read_adapter  # noqa: E402
from vptkit.tune import tune  # noqa: E402
from vptkit.tune.backbone.reference import reference_logits  # noqa: E402
from vptkit.tune.backbone.spec_from_timm import spec_from_model  # noqa: E402
from vptkit.tune.data.dataset import DataSet  # noqa: E402
from vptkit.tune.data.splits import load_splits  # noqa: E402
from vptkit.tune.methods.tuned_model import Tuned  # noqa: E402
from vptkit.tune.training.device import choose_device, describe_device, device_of, place, repeatable  # noqa: E402

CPU = torch.device("cpu")


@pytest.fixture
def gpus(monkeypatch):
    """A function: torch believes in so many GPUs."""

    def pretend(count: int, capability: tuple[int, int] = (8, 7)) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "Orin")
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)

    return pretend


@pytest.fixture
def torchrun(monkeypatch):
    """A function: this is one of torchrun's processes."""

    def pretend(rank: int, processes: int) -> None:
        monkeypatch.setenv("TORCHELASTIC_RUN_ID", "test")
        monkeypatch.setenv("WORLD_SIZE", str(processes))
        monkeypatch.setenv("RANK", str(rank))
        monkeypatch.setenv("LOCAL_RANK", str(rank))

    return pretend


@pytest.mark.parametrize(
    ("wanted", "count", "device"),
    [
        ("auto", 0, "cpu"),
        ("auto", 2, "cuda:0"),
        ("cpu", 2, "cpu"),
        ("cuda", 2, "cuda:0"),
        ("cuda:1", 2, "cuda:1"),
    ],
)
def test_a_device_is_chosen(gpus, wanted, count, device):
    gpus(count)
    assert choose_device(wanted) == torch.device(device)


def test_each_process_takes_its_own_gpu(gpus, torchrun):
    gpus(4)
    for rank in (0, 3):
        torchrun(rank, 4)
        assert choose_device("auto") == choose_device("cuda") == torch.device("cuda", rank)
        assert choose_device("cpu") == CPU
    with pytest.raises(VptkitError, match=r"cuda:1, but torchrun started 4 processes"):
        choose_device("cuda:1")
    torchrun(0, 1)
    assert choose_device("cuda:1") == torch.device("cuda:1")


def test_more_processes_than_gpus(gpus, torchrun):
    gpus(2)
    torchrun(2, 3)
    with pytest.raises(
        MissingError, match=r"cuda:2 is not here, torch finds 2.*--nproc-per-node 2"
    ):
        choose_device("auto")


@pytest.mark.parametrize("wanted", ["gpu", "cuda:", "cuda:x", "CUDA", "cuda:1:2", "mps", ""])
def test_a_device_that_is_no_word(wanted):
    with pytest.raises(VptkitError, match=f"device is '{wanted}', expected auto, cpu, cuda or"):
        choose_device(wanted)


def test_a_device_that_is_not_there(gpus, monkeypatch):
    gpus(0)
    monkeypatch.setattr(torch.version, "cuda", None)
    with pytest.raises(MissingError, match=r"built without CUDA.*--device cpu") as caught:
        choose_device("cuda")
    assert caught.value.exit_code == 5
    monkeypatch.setattr(torch.version, "cuda", "12.8")
    with pytest.raises(MissingError, match="finds no GPU and driver"):
        choose_device("cuda:0")
    gpus(2)
    with pytest.raises(MissingError, match="cuda:2 is not here, torch finds 2"):
        choose_device("cuda:2")


def test_devices_are_named(gpus):
    gpus(1)
    assert describe_device(CPU) == "cpu"
    assert describe_device(torch.device("cuda:0")) == "cuda:0 (Orin)"


def test_a_missing_device_is_told_before_anything_is_read(make_config, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(MissingError, match="device is cuda"):
        tune(tmp_path / "nowhere", tmp_path / "a.safetensors", make_config(device="cuda"))


@pytest.fixture
def make_tuned(make_vit, make_config):
    def make(**settings):
        config = make_config(**{"method": "vpt", "dropout": 0.0, **settings})
        model = make_vit()
        return Tuned(model, spec_from_model(model), config, 3, None), config

    return make


def test_an_old_gpu_has_no_bf16(gpus, make_tuned, monkeypatch):
    gpus(1, (7, 2))
    tuned, config = make_tuned(precision="bf16")
    monkeypatch.setattr(torch.nn.Module, "to", lambda self, _: self)
    with pytest.raises(TargetError, match=r"Orin \(compute capability 7\.2\) has none.*fp16"):
        place(tuned, torch.device("cuda:0"), config)
    place(tuned, torch.device("cuda:0"), make_tuned(precision="fp16")[1])
    assert tuned.autocast.keywords == {"dtype": torch.float16}


def test_on_the_cpu_nothing_is_switched():
    with repeatable(CPU):
        assert not torch.are_deterministic_algorithms_enabled()


def test_on_a_gpu_algorithms_are_deterministic(monkeypatch):
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", "put back at the end")
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG")
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)
    with repeatable(torch.device("cuda:0")):
        assert torch.are_deterministic_algorithms_enabled()
        assert not torch.backends.cudnn.benchmark
        assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    assert not torch.are_deterministic_algorithms_enabled()
    assert torch.backends.cudnn.benchmark


# ---- torch.compile ------------------------------------------------------------------------------


def test_a_missing_compiler_is_named(make_tuned, monkeypatch):
    from torch._dynamo.exc import TorchDynamoException
    from torch._inductor.exc import InvalidCxxCompiler

    def failing(_function):
        def call(*_):  # by what torch wraps it differs by release; each is one of these
            raise TorchDynamoException(str(InvalidCxxCompiler()))

        return call

    tuned, config = make_tuned(compile=True)
    monkeypatch.setattr(torch, "compile", failing)
    with pytest.raises(MissingError, match=r"No working C\+\+ compiler.*g\+\+.*leave --compile"):
        place(tuned, CPU, config)


def test_without_the_option_nothing_is_compiled(make_tuned, monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda *_: pytest.fail("compiled"))
    tuned, config = make_tuned()
    place(tuned, CPU, config)


COMPILED = {
    "all": {"method": "ln+lora+bpt", "form": "bilinear", "epochs": 1, "merge": 4},
    "bpt": {"method": "bpt", "form": "bilinear", "epochs": 1},
    "ln": {"method": "ln", "epochs": 1},
    "lora": {"method": "lora", "epochs": 1},
    "ln-cyclic": {"method": "ln", "cycles": 1, "head_epochs": 1, "ln_epochs": 1},
}


def require_the_same_compiled(splits, make_config, folder, **settings):
    """Batches of several sizes, with and without gradients: none of them goes back to eager.

    Args:
        splits, make_config, folder: images, a function that makes settings, where adapters go.
        settings: of the run.
    """
    torch._dynamo.utils.counters.clear()
    settings |= {"batch_size": 16, "head_init": "zero"}  # a probe's search ends within a tolerance
    plain = tune(splits, folder / "a.safetensors", make_config(**settings))
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 0
    compiled = tune(splits, folder / "b.safetensors", make_config(**settings, compile=True))
    a, b = read_adapter(plain.adapter), read_adapter(compiled.adapter)
    assert b.train["computed"]["compile"] is True
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > 0
    for name, value in a.tensors.items():
        assert abs(value.astype("float64") - b.tensors[name]).max() < 1e-3, name


@pytest.mark.long
@pytest.mark.filterwarnings("ignore:The .grad attribute:UserWarning")  # torch 2.15 about itself
@pytest.mark.skipif(sys.platform != "linux", reason="needs g++")
def test_a_compiled_run_is_the_same_run(splits, make_config, tmp_path, monkeypatch):
    """All parts at once, as graphs that torch computes itself: g++ takes minutes for those.

    That they can be traced and computed anew for each batch is ours; that C++ adds as torch does is
    torch's, and tried on one of them below.
    """
    traced = functools.partial(torch.compile, backend="aot_eager")
    monkeypatch.setattr(torch, "compile", traced)
    require_the_same_compiled(splits, make_config, tmp_path, **COMPILED["all"])


@pytest.mark.long
@pytest.mark.skipif(sys.platform != "linux", reason="needs g++")
def test_a_forward_pass_is_compiled_to_cpp(make_tuned):
    from torch._dynamo.utils import counters

    tuned, config = make_tuned(compile=True)
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        plain = tuned(images)
        counters.clear()
        place(tuned, CPU, config)
        compiled = tuned(images)
    assert counters["inductor"]  # it was, and not only one line
    torch.testing.assert_close(compiled, plain, rtol=1e-4, atol=1e-5)


# ---- with a GPU ---------------------------------------------------------------------------------


@pytest.fixture
def gpu():
    if not torch.cuda.is_available():
        pytest.skip("torch finds no GPU")
    return torch.device("cuda:0")


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("method", ["vpt", "bpt", "ln", "lora", "linear"])
def test_a_run_on_the_gpu(gpu, splits, weights, make_config, tmp_path, method, precision):
    """Twice the same bytes; golden answers are the CPU's, and the GPU's accuracy holds there."""
    config = make_config(method=method, precision=precision, device="cuda", name="x")
    first = tune(splits, tmp_path / "a.safetensors", config)
    second = tune(splits, tmp_path / "b.safetensors", config)
    assert first.device.startswith("cuda:0 (")
    assert first.adapter.read_bytes() == second.adapter.read_bytes()
    adapter = read_adapter(first.adapter)
    images, logits = adapter.golden()
    again = reference_logits(first.adapter, weights, images)
    np.testing.assert_allclose(again, logits, rtol=1e-5, atol=1e-5 * np.abs(logits).max())
    val = DataSet(load_splits(splits, 0, 0.15, 0.15)[1]["val"], adapter.preprocess)
    images, targets = next(val.evaluation_batches(100))
    right = reference_logits(first.adapter, weights, images).argmax(1) == targets
    assert abs(right.mean() - first.val_top1) < 1.5 / len(val)  # rounding may turn an image


@pytest.mark.gpu
@pytest.mark.filterwarnings("ignore:The .grad attribute:UserWarning")  # torch 2.15 about itself
@pytest.mark.parametrize("name", COMPILED)
def test_a_compiled_run_on_the_gpu(gpu, splits, make_config, tmp_path, name):
    require_the_same_compiled(splits, make_config, tmp_path, **COMPILED[name], device="cuda")


@pytest.mark.gpu
def test_the_gpu_learns_what_the_cpu_learns(gpu, splits, make_config, tmp_path):
    found = []
    for device in ("cpu", "cuda"):
        config = make_config(method="bpt", form="bilinear", device=device)
        found.append(tune(splits, tmp_path / f"{device}.safetensors", config).adapter)
    a, b = map(read_adapter, found)
    for name, value in a.tensors.items():
        assert abs(value.astype("float64") - b.tensors[name]).max() < 1e-3, name


@pytest.mark.gpu
def test_moving_there_and_back(gpu, make_tuned):
    tuned, config = make_tuned(device="cuda")
    place(tuned, gpu, config)
    assert device_of(tuned) == gpu
    assert tuned.features(torch.zeros(2, 3, 32, 32, device=gpu)).device == gpu
