"""Many images: found one by one, asked, and written down, whatever happens on the way.

- `feature_files`: features as .npy or .parquet.
- `named_sources`: what the command line names, with what of it gave no image.
- `parquet_file`: predictions as Parquet.
- `prediction_record`: a prediction as a line, and back.
- `prediction_writers`: JSONL, CSV, text.
- `run_journal`: a run that is killed goes on where it was.
- `seen_paths`: which images came already, on the disk.
"""
