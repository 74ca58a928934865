"""`vptkit build`: TensorRT engines, built in a child process.

- `build_progress`: how far a build is.
- `build_worker`: the child process: TensorRT itself.
- `builder`: `build`: an engine into the cache of a bundle.
- `engine_layers`: what TensorRT compiled a graph to.
- `memory_forecast`: memory of a build and a session, before either starts.
- `precision_check`: whether an engine computes in the type that it should.
- `trt_rtx_oracle`: TensorRT's opinion of a graph, without a GPU.
- `worker_process`: talks with the child, however that ends.
"""
