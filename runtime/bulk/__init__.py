"""Many images: found, asked, and written down.

- `feature_files`: features as .npy or .parquet.
- `named_sources`: what the command line names, with what of it gave no image.
- `prediction_writers`: JSONL, CSV, text.
"""
