"""Image files, labelled sets of them, and the pixels that a network sees.

Used where torch and pyarrow are not; `tune.data` adds Parquet and training batches.

- `broken_images`: those that cannot be read: named at once, or left out.
- `csv_dataset`: a CSV of path, label and perhaps split.
- `dataset_bounds`: which files belong to a data set.
- `dataset_files`: which reader for which file: CSV or WebDataset.
- `dataset_summary`: what was read of a data set, and what was passed over, in a line.
- `image_file`: one image: found, decoded, upright, RGB, of a sane size.
- `image_sketch`: which images something was trained on, in few bytes.
- `labelled_images`: images by split and class, whatever lists them.
- `preprocess`: resize, centre crop, normalise, as the adapter says.
- `similar_images`: the same picture twice, also after another program has written it.
- `split_names`: what the splits are called, by us and by others.
- `webdataset`: tar shards of NAME.jpg and NAME.cls.
"""
