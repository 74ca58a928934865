"""`vptkit serve --triton`: bundles for NVIDIA Triton, and what runs in its Python backend.

- `batch_answers`: requests of several clients and adapters, one run.
- `kubernetes`: Deployment, Service, autoscaler and budget, as YAML.
- `model_config`: one model's `config.pbtxt`.
- `model_names`: what a bundle is called there.
- `model_repository`: the folder that Triton reads.
- `python_models`: the classes that Triton's Python backend starts.
- `request_images`: encoded images and pixels of a request, prepared.
"""
