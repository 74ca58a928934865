"""Does a bundle answer as the reference did, and how often is it right?

- `accuracy`: top-1 and top-5 on labelled images.
- `image_batches`: real images in batches, gone through more than once.
- `parity`: difference from golden answers or the reference.
"""
