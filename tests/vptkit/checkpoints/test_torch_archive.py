"""Files of `torch.save`: read as torch reads them, and refused where they claim what is not there."""

from __future__ import annotations

import collections
import io
import os
import zipfile

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from vptkit.checkpoints.plain_pickle import RefusedError  # noqa: E402
from vptkit.checkpoints.tensor_source import read_tensors_of  # noqa: E402
from vptkit.checkpoints.torch_archive import TorchArchive, is_tensor, open_torch  # noqa: E402
from vptkit.errors import AdapterError, BackboneError  # noqa: E402
from vptkit.tune.importers.checkpoint_reader import read_state  # noqa: E402

KINDS = [
    *(torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.int8, torch.uint8),
    *(torch.int16, torch.int32, torch.int64, torch.bool),
]
RECONSTRUCT = np.zeros(0).__reduce__()[0]


class Forged:
    """Pickled as a call of this, with a state."""

    def __init__(self, called, *arguments, state=None):
        self.called, self.arguments, self.state = called, arguments, state

    def __reduce__(self):
        made = self.called, self.arguments
        return made if self.state is None else (*made, self.state)


def tensor(offset, shape, strides, count=4, kind=torch.float32):
    """A tensor that says it stands so in a storage of `count` numbers."""
    numbers = torch.arange(count).to(kind)
    storage = torch.storage.TypedStorage(
        wrap_storage=numbers.untyped_storage(), dtype=kind, _internal=True
    )
    rest = False, collections.OrderedDict()
    return Forged(torch._utils._rebuild_tensor_v2, storage, offset, shape, strides, *rest)


def array(shape, kind, data, fortran=False):
    state = (1, shape, np.dtype(kind), fortran, data)
    return Forged(RECONSTRUCT, np.ndarray, (0,), b"b", state=state)


def rezipped(path, change=None, **options):
    """The same records, zipped by someone else."""
    with zipfile.ZipFile(path) as old:
        records = [(name, old.read(name)) for name in old.namelist()]
    with zipfile.ZipFile(path, "w", **options) as new:
        for name, data in records:
            kept = change(name, data) if change else data
            if kept is not None:
                new.writestr(name, kept)
    return path


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_what_torch_saves(tmp_path, protocol):
    """Views, transposed ones, tied ones, scalars, empty ones, parameters, other types."""
    base = torch.arange(24.0).reshape(2, 3, 4)
    state = {f"{kind}": (base - 5).to(kind) for kind in KINDS}
    state |= {
        "view": base[1, 1:],
        "transposed": base.permute(2, 0, 1),
        "strided": base[:, ::2, 1::2],
        "scalar": torch.tensor(2.5),
        "empty": torch.zeros(0, 3),
        "whole": base,
        "tied": base,
        "parameter": torch.nn.Parameter(base[0]),
        "module.numbers": torch.tensor(3),
    }
    path = tmp_path / "a.pth"
    torch.save(collections.OrderedDict(state), path, pickle_protocol=protocol)
    found = read_state(path)
    assert list(found) == [name.removeprefix("module.") for name in state]
    for name, value in state.items():
        expected = value.detach()
        if expected.is_floating_point():
            expected = expected.float()
        got = found[name.removeprefix("module.")]
        assert got.shape == tuple(expected.shape)
        np.testing.assert_array_equal(got, expected.numpy())
        assert got.dtype == expected.numpy().dtype


def test_arrays_of_numpy(tmp_path):
    base = np.arange(24.0).reshape(2, 3, 4)
    kinds = ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "?", ">f4", ">i8")
    state = {kind: base.astype(kind) for kind in kinds}
    state |= {"fortran": np.asfortranarray(base), "scalar": np.array(3.5), "empty": base[:0]}
    torch.save(state, tmp_path / "a.pth")
    found = read_state(tmp_path / "a.pth")
    for name, value in state.items():
        np.testing.assert_array_equal(found[name], value)
        assert found[name].dtype == value.dtype.newbyteorder("=")


def test_a_training_checkpoint(tmp_path):
    """What stands beside the model is not made, whatever it is."""
    model = torch.nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.zeros(1, 3)).sum().backward()
    optimizer.step()
    whole = {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "epoch": 3,
        "best": np.float64(0.5),
        "seen": {1, 2},
        "note": array((1,), "O", b"\x41" * 8),
    }
    torch.save(whole, tmp_path / "a.pth")
    assert sorted(read_state(tmp_path / "a.pth")) == ["bias", "weight"]


HIDDEN = b"\x41" * 8  # a pointer to nowhere
ATTACKS = {
    "object dtype with raw pointers": array((1,), "O", HIDDEN),
    "a structure with an object": array((1,), [("a", "O")], HIDDEN),
    "void": array((1,), "V8", HIDDEN),
    "text": array((1,), "S8", HIDDEN),
    "unicode": array((1,), "U2", HIDDEN),
    "time": array((1,), "M8[s]", HIDDEN),
    "complex": array((1,), "c8", HIDDEN),
    "ndarray without data": Forged(np.ndarray, (100, 100)),
    "ndarray of objects": Forged(np.ndarray, (100,), np.dtype("O")),
    "reconstructed and left": Forged(RECONSTRUCT, np.ndarray, (100,), b"b"),
    "more than its bytes": array((3,), "f8", HIDDEN),
    "fewer than its bytes": array((1,), "f4", HIDDEN),
    "a shape below zero": array((-1,), "f8", HIDDEN),
    "two shapes below zero": array((-1, -1), "f8", HIDDEN),
    "a shape beyond any": array((2**62, 4), "f8", b""),
    "a shape of zero and beyond any": array((2**62, 0), "f8", b""),
    "a list for bytes": array((1,), "f8", [1.0]),
    "stride 0": tensor(0, (1_000_000, 1_000_000), (0, 0)),
    "stride 0 in one": tensor(0, (4, 4), (0, 1)),
    "overlapping strides": tensor(0, (3, 3), (1, 1)),
    "behind its end": tensor(0, (5,), (1,)),
    "offset behind its end": tensor(3, (2,), (1,)),
    "offset far behind its end": tensor(2**39, (0,), (1,)),
    "offset below zero": tensor(-2, (2,), (1,)),
    "stride below zero": tensor(3, (2,), (-1,)),
    "stride far beyond": tensor(0, (2,), (2**39,)),
    "shape below zero": tensor(0, (-2, -2), (1, 1)),
    "other strides than shape": tensor(0, (2, 2), (1,)),
    "seventeen dimensions": tensor(0, (1,) * 17, (1,) * 17),
    "true for one": tensor(0, (True,), (True,)),
    "a float for one": tensor(0, (1.0,), (1,)),
    "a list for a tuple": tensor(0, [2], [1]),
    "complex storage": tensor(0, (2,), (1,), kind=torch.complex64),
    "no storage": Forged(torch._utils._rebuild_tensor_v2, 3, 0, (1,), (1,), False, None),
    "no arguments": Forged(torch._utils._rebuild_tensor_v2),
    "a parameter of nothing": Forged(torch._utils._rebuild_parameter),
    "a parameter of a text": Forged(torch._utils._rebuild_parameter, "x", False, None),
    "a number": 3,
    "nothing": None,
    "a dictionary": {"x": 1},
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ATTACKS)
def test_what_is_not_there_is_not_made(tmp_path, name):
    path = tmp_path / "forged.pth"
    torch.save({"good": torch.ones(2), "bad": ATTACKS[name]}, path)
    with pytest.raises(AdapterError, match=r"forged\.pth: not tensors of real numbers: bad \("):
        read_state(path)
    if is_tensor_of(path):  # as weights, where each is read when it is asked for
        with (
            pytest.raises(BackboneError, match=r"forged\.pth: not a file of tensors: "),
            path.open("rb") as stream,
        ):
            np.asarray(read_tensors_of(stream, path, BackboneError).arrays["bad"])


def is_tensor_of(path):
    """Whether the entry "bad" says that it is a tensor; others are left out of weights."""
    with path.open("rb") as stream:
        return is_tensor(open_torch(stream).document["bad"])


def test_tensors_of_one_storage_and_of_several_are_read_again_and_again(tmp_path):
    shared = torch.arange(40.0)
    tensors = {"a": shared[:10], "b": shared[5:], "c": torch.ones(3, 4), "d": torch.ones(2).half()}
    torch.save(tensors, tmp_path / "a.pth")
    torch.save(tensors, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    for path in (tmp_path / "a.pth", tmp_path / "old.pth"):
        with path.open("rb") as stream:
            found = read_tensors_of(stream, path, BackboneError).arrays
            for _ in range(5):
                for name, value in tensors.items():
                    assert found[name].shape == tuple(value.shape)
                    assert np.array_equal(np.asarray(found[name]), value.float().numpy())


@pytest.mark.filterwarnings("ignore")
def test_calls_are_refused_before_anything_is_read(tmp_path):
    for called, arguments in (
        (vars(os)["system"], ("true",)),
        (np.fromfile, ("/etc/passwd", "u1")),
        (np.memmap, ("/etc/passwd",)),
        (torch.load, ("x",)),
        (io.open, ("x", "w")),
        (getattr, (1, "real")),
    ):
        torch.save({"x": Forged(called, *arguments)}, tmp_path / "forged.pth")
        with pytest.raises(AdapterError, match=r"not a file of tensors: \S+\. Other objects"):
            read_state(tmp_path / "forged.pth")


def test_many_tensors_of_few_bytes(tmp_path):
    """Each is in order, and all together are a hundred times the file."""
    shared = torch.ones(2000)
    torch.save({str(i): shared[i : 1500 + i] for i in range(200)}, tmp_path / "forged.pth")
    with pytest.raises(AdapterError, match="tensors of more numbers than the file has"):
        read_state(tmp_path / "forged.pth")


def test_compressed_records(tmp_path):
    """A kilobyte may be a gigabyte."""
    torch.save({"x": torch.zeros(1_000_000)}, tmp_path / "a.pth")
    path = rezipped(tmp_path / "a.pth", compression=zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 20_000
    with pytest.raises(AdapterError, match="a compressed record"):
        read_state(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda name, data: data[:-4] if "data/0" in name else data, "with 12 bytes"),
        (lambda name, data: None if "data/0" in name else data, "damaged archive"),
        (lambda name, data: None if "data.pkl" in name else data, "without data.pkl"),
        (lambda name, data: b"big" if "byteorder" in name else data, "byte order 'big'"),
        (lambda name, data: b"x" * 1000 if "byteorder" in name else data, "a record byteorder"),
        (lambda name, data: data[:-9] if "data.pkl" in name else data, "pickle"),
    ],
)
def test_archives_that_are_not_whole(tmp_path, change, message):
    torch.save({"x": torch.ones(4)}, tmp_path / "a.pth")
    with pytest.raises(AdapterError, match=message):
        read_state(rezipped(tmp_path / "a.pth", change))


def test_keys_are_no_paths(tmp_path):
    """A record's name is made of the storage's key: digits, as torch writes it."""
    torch.save({"x": torch.ones(4)}, tmp_path / "a.pth")
    odd = rezipped(
        tmp_path / "a.pth",
        lambda n, d: (
            d.replace(b"X\x01\x00\x00\x000", b"X\x04\x00\x00\x00../0") if "pkl" in n else d
        ),
    )
    with pytest.raises(AdapterError, match="a storage of another kind"):
        read_state(odd)


def test_every_cut(tmp_path):
    torch.save({"x": torch.ones(4)}, tmp_path / "a.pth")
    whole = (tmp_path / "a.pth").read_bytes()
    for end in range(0, len(whole), 29):
        with pytest.raises(RefusedError):
            TorchArchive(io.BytesIO(whole[:end])).array(None)


def test_the_form_from_before_torch_1_6(tmp_path):
    base = torch.arange(24.0).reshape(4, 6)
    state = {kind: (base - 5).to(getattr(torch, kind)) for kind in ("float16", "bfloat16", "int64")}
    state |= {"view": base[1:, ::2], "tied": base, "empty": base[:0]}
    path = tmp_path / "a.pth"
    torch.save({"model": state, "epoch": 3}, path, _use_new_zipfile_serialization=False)
    found = read_state(path)
    for name, value in state.items():
        wanted = value.float() if value.is_floating_point() else value
        np.testing.assert_array_equal(found[name], wanted.numpy())


def test_every_cut_of_that_form(tmp_path):
    path = tmp_path / "a.pth"
    torch.save({"x": torch.ones(4)}, path, _use_new_zipfile_serialization=False)
    whole = path.read_bytes()
    for end in range(0, len(whole), 3):
        with pytest.raises(RefusedError):
            open_torch(io.BytesIO(whole[:end]))


def test_that_form_has_no_storage_beyond_its_end(tmp_path):
    path = tmp_path / "a.pth"
    torch.save({"x": torch.ones(4)}, path, _use_new_zipfile_serialization=False)
    whole = path.read_bytes()
    path.write_bytes(whole.replace((4).to_bytes(8, "little"), (2**60).to_bytes(8, "little")))
    with pytest.raises(AdapterError, match="it ends within its numbers"):
        read_state(path)
    program = b"\x80\x02cos\nsystem\n(X\x02\x00\x00\x00lstR."
    path.write_bytes(whole[:15] + program)
    with pytest.raises(AdapterError, match=r"not a file of tensors: os\.system"):
        read_state(path)


@pytest.mark.filterwarnings("ignore")
def test_a_program_is_read_as_its_tensors(tmp_path):
    """As OpenAI publishes CLIP: its code is neither run nor read."""
    model = torch.nn.Sequential(torch.nn.Linear(3, 2).half(), torch.nn.Sequential(torch.nn.ReLU()))
    model.register_buffer("size", torch.tensor(7))
    torch.jit.save(torch.jit.script(model), tmp_path / "clip.pt")
    with (tmp_path / "clip.pt").open("rb") as stream:
        archive = open_torch(stream)
        found = {n: archive.array(v) for n, v in archive.document.items() if is_tensor(v)}
    assert set(found) == set(model.state_dict())
    for name, value in model.state_dict().items():
        np.testing.assert_array_equal(found[name], value.numpy())


def test_a_program_without_an_end(tmp_path):
    """Modules that hold each other, twice at each level."""
    torch.save({"x": torch.ones(4)}, tmp_path / "a.pth")
    new = b"c__torch__\nB\n)\x81"
    program = b"\x80\x02" + new + b"q\x00}"
    program += b"X\x01\x00\x00\x00ah\x00sX\x01\x00\x00\x00bh\x00sb."  # itself, twice
    path = rezipped(tmp_path / "a.pth", lambda n, d: program if n.endswith("data.pkl") else d)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("a/constants.pkl", b"")
    with pytest.raises(AdapterError, match="modules have no end"):
        read_state(path)


def test_what_is_no_file(tmp_path):
    os.mkfifo(tmp_path / "pipe.pth")
    (tmp_path / "endless.pth").symlink_to("/dev/zero")
    for name, kind in (("pipe", "a FIFO"), ("endless", "a device"), ("none", "no such file")):
        with pytest.raises(AdapterError, match=kind):
            read_state(tmp_path / f"{name}.pth")
