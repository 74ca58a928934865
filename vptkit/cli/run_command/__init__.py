"""What `vptkit run` does with what it was given; the command itself is `cli.runtime_commands.run`.

- `found_images`: the images of its sources.
- `ray_run`: on many machines.
- `run_outcome`: how it ends.
- `stream_run`: on videos and cameras.
"""
