"""What lists labelled images, and what of it is taken: tables, COCO, archives; on `vptkit.images`.

Used where torch and pyarrow are not; `tune.data` adds Parquet and training batches.

- `coco_dataset`: COCO's JSON, with one category an image or several.
- `dataset_bounds`: which files belong to a data set.
- `dataset_files`: which reader for which file or folder.
- `dataset_summary`: what was read of a data set, and what was passed over, in a line.
- `label_cells`: the labels in a cell of a table.
- `list_places`: where lists lie in a folder, as Hugging Face and Roboflow write them.
- `listed_images`: names of images, as lists write them, → files.
- `multilabel_dataset`: images with any number of labels, from any of these and {file: [labels]}.
- `table_columns`: which column of a table is the image, the label, the split.
- `table_dataset`: a CSV or JSON lines, a row an image.
- `tar_members`: a stranger's tar file, member by member.
- `webdataset`: tar shards of NAME.jpg and NAME.cls.
"""
