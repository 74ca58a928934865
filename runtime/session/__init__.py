"""A bundle that answers: images in, logits or labels out.

- `baked_session`: a bundle with one adapter.
- `bank_session`: a bank: one adapter for each image.
- `factory`: `open_session`.
- `feature_files`: features as .npy or .parquet.
- `image_inputs`: what `predict` is given: files, Pillow's images, arrays.
- `image_loader`: images decoded by threads, in order.
- `image_sources`: files, folders and globs that the user named.
- `named_sources`: what the command line names, with what of it gave no image.
- `prediction`: the best labels of each image.
- `prediction_writers`: JSONL, CSV, text.
- `session_base`: labels, predictions, `with`, `repr`.
- `session_protocol`: what every session offers.
"""
