"""Commands that use a bundle or look at a machine: one module a command. `run` has a room of its own.

- `build`: `vptkit build`: a TensorRT engine.
- `check`: `vptkit check`: parity, overflow, oracles.
- `devices`: `vptkit devices`: boards, and which one this is.
- `doctor`: `vptkit doctor`: what is here, what is missing.
- `evaluate`: `vptkit eval`: accuracy, and where it fails.
- `inspect`: `vptkit inspect`: what a file or bundle is.
- `layers_profile`: `vptkit profile --layers`.
- `loadgen_run`: `vptkit profile --loadgen`: its options, one run.
- `parts_profile`: `vptkit profile --parts`: from files to labels.
- `profile`: `vptkit profile`: latency, memory, energy.
- `report`: `vptkit report`: one HTML page about bundles.
- `serve`: `vptkit serve`: bundles behind HTTP.
"""
