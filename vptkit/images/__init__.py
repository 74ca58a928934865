"""Image files, labelled sets of them, and the pixels that a network sees.

- `broken_images`: those that cannot be read: named at once, or left out.
- `image_file`: one image: found, decoded, upright, RGB, of a sane size.
- `image_pixels`: a file → the pixels that a graph takes, decoded exactly or fast.
- `image_sketch`: which images something was trained on, in few bytes.
- `labelled_images`: images by split and class, whatever lists them.
- `preprocess`: resize, centre crop, normalise, as the adapter says.
- `similar_images`: the same picture twice, also after another program has written it.
- `split_names`: what the splits are called, by us and by others.
- `thumbnails`: small pictures of images, as `data:` URIs.
"""
