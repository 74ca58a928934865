"""Images in columns: Parquet files, and the Arrow files that Hugging Face saves; read with pyarrow.

What tuning and running share: they find the same images, and refuse the same files.

- `arrow_library`: pyarrow, and its errors by the name of the file.
- `image_column`: which column holds the images, and what a cell of it is.
- `parquet_bounds`: what a Parquet file would become in memory.
- `parquet_footer`: where a Parquet file's columns lie.
- `saved_folders`: the tables of `save_to_disk`, and that they are not compressed.
- `thrift_compact`: the protocol of Parquet's footers.
"""
