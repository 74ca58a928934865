"""Models that answer many requests at once, whatever they come by; `vptkit.runtime.http_server` is HTTP.

- `batching_queue`: images of all requests, run in batches, answers back to their owners.
- `http_error`: an answer that is an error, with its status.
- `image_requests`: what a request means: images and adapters in, outputs back.
- `inference_protocol`: KServe v2: JSON, and tensors in binary behind it.
- `metrics`: what Prometheus reads.
- `model_store`: models and adapters by name; changes on disk.
- `served_model`: one bundle: its session, its queue, its adapters.
"""
