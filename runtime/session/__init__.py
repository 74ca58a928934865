"""A bundle that answers: images in, logits or labels out.

- `background_imports`: what is needed soon, imported while a graph is loaded.
- `baked_session`: a bundle with one adapter.
- `bank_session`: a bank: one adapter for each image.
- `factory`: `open_session`.
- `image_inputs`: what `predict` is given: files, Pillow's images, arrays.
- `image_loader`: images decoded by threads, in order.
- `ordered_work`: threads whose results come in order.
- `prediction`: the best labels of each image.
- `run_threads`: how many batches are run at once, and on how many threads.
- `session_base`: labels, predictions, `with`, `repr`.
- `session_protocol`: what every session offers.
"""
