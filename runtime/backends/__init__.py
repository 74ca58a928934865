"""ONNX Runtime, OpenVINO and TensorRT behind one face: a loaded graph. Nothing falls back.

- `engine_cache`: built engines on disk: which fits here, and why another does not.
- `engine_seal`: what this user built on this machine, told from what came from elsewhere.
- `graph_protocol`: what a loaded graph offers.
- `install_hints`: the commands that install what is missing.
- `onnxruntime_graph`: ONNX Runtime: CPU, CUDA, its TensorRT provider.
- `onnxruntime_library`: its package, with telemetry off, and how its threads wait.
- `onnxruntime_probe`: all outputs of any graph, on the CPU.
- `openvino_graph`: OpenVINO: Intel's and other processors, Intel's GPUs and NPUs.
- `provider_placement`: which provider ran which nodes.
- `selection`: which backend opens a bundle.
- `tensorrt_graph`: an engine: context, stream, buffers, CUDA graph.
- `tensorrt_library`: TensorRT 8.6 to 11 and TensorRT-RTX, loaded.
"""
