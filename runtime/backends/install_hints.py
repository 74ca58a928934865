"""The commands that install what is missing: they differ between a Jetson and a server."""

from __future__ import annotations

from typing import Literal

__all__ = ["Missing", "mend"]

Missing = Literal[
    "driver",
    "onnxruntime",
    "onnxruntime-gpu",
    "openvino",
    "openvino-gpu",
    "openvino-npu",
    "tensorrt",
    "tensorrt-rtx",
]

_SERVER: dict[Missing, str] = {
    "driver": "sudo ubuntu-drivers install (Ubuntu), then restart",
    "onnxruntime": 'pip install "vptkit[cpu]"',
    # Both packages install the same files over each other.
    "onnxruntime-gpu": (
        'pip uninstall -y onnxruntime && pip install "onnxruntime-gpu[cuda,cudnn]"'
    ),
    "openvino": 'pip install "vptkit[openvino]"',
    # Drivers of Intel's devices; where these are in Debian and Ubuntu, else Intel's own pages.
    "openvino-gpu": (
        "sudo apt install intel-opencl-icd (or Intel's https://dgpu-docs.intel.com), and be in the "
        "group render"
    ),
    "openvino-npu": (
        "install the driver of https://github.com/intel/linux-npu-driver, and be in the group render"
    ),
    "tensorrt": "pip install tensorrt",
    "tensorrt-rtx": 'pip install "vptkit[trt-rtx]"',
}
_JETSON: dict[Missing, str] = _SERVER | {
    "driver": "sudo apt install nvidia-l4t-core nvidia-l4t-cuda",
    # `tensorrt.md` 4.4: the wheels of PyPI hold code for 8.9, 9.0, 12.0 and 12.1 only.
    "onnxruntime-gpu": (
        "not the onnxruntime-gpu of PyPI, which has no code for a Jetson's GPU: the wheel for this "
        "JetPack from NVIDIA's Jetson AI Lab (pip install --index-url ITS-INDEX onnxruntime-gpu); "
        "or use --backend tensorrt, which needs none"
    ),
    "tensorrt": (
        "sudo apt install tensorrt python3-libnvinfer; a virtual environment sees it only if it "
        "was made with --system-site-packages"
    ),
    "openvino-gpu": "OpenVINO does not reach a Jetson's GPU: use --backend tensorrt",
    "openvino-npu": "a Jetson has no NPU of Intel's: use --backend tensorrt",
    "tensorrt-rtx": "TensorRT-RTX is not made for Jetson: use --backend tensorrt",
}


def mend(missing: Missing, *, jetson: bool) -> str:
    """What to type, or what to do instead where there is no command."""
    return (_JETSON if jetson else _SERVER)[missing]
