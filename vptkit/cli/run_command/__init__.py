"""`vptkit run`: images, videos, one machine or many.

- `found_images`: the images of the sources, looked up while others are answered.
- `ray_run`: `--ray-address`.
- `run`: the command.
- `run_cores`: how many cores each batch is given.
- `run_outcome`: what it refuses before it begins, and how it ends.
- `stream_run`: videos and cameras.
"""
