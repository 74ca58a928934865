"""`vptkit profile --layers`: where the time of a run goes, by the model's own parts.

- `compiled_layers`: what TensorRT-RTX makes of a graph where there is no GPU: no times.
- `layer_comparison`: two profiles, part by part.
- `layer_plots`: as pictures: bars by block, a flame graph.
- `layer_time`: what was measured, and what it adds up to.
- `layers_file`: as saved, read back.
- `layers_text`: as text.
- `machine_roof`: what this processor can do at most.
- `node_places`: names of nodes → parts of the model.
- `onnxruntime_events`: ONNX Runtime's profile, read.
- `operator_costs`: operations and bytes, from shapes.
- `profile_layers`: bundles run in turns under their backend's profiler.
- `tool_files`: as Perfetto's trace, and as the files that trtexec writes.
"""
