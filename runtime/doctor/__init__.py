"""`vptkit doctor`: what this machine can do, what is missing, and what mends it.

- `diagnosis`: the checks in order.
- `library_checks`: TensorRT, ONNX Runtime and OpenVINO, judged.
- `library_probe`: questions that may crash or hang, in a child.
- `machine_checks`: board, JetPack, driver, clocks, disk, memory.
"""
