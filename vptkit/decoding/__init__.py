"""What stands between an image's bytes and its 8-bit pixels; below `vptkit.images`.

- `decoding_costs`: what decoding an image costs, before it is decoded.
- `deep_modes`: images of more than 8 bits, by what their numbers mean.
- `first_bytes`: what a file is that no decoder takes.
- `image_formats`: the formats that are opened, and which files have one.
"""
