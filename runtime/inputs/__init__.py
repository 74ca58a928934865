"""What users name as a source → images, one by one: files, folders, lists, archives, objects in stores.

No list is made of what may be many; what is fetched or unpacked ahead is bounded in bytes.

- `braces`: names with numbers or words in braces.
- `data_files`: which reader for a list or an archive, and several in turn.
- `image_lists`: CSV, JSON and JSON lines, without labels.
- `image_sources`: what kind of source a text is.
- `image_tables`: columns of images, unpacked a few rows at a time.
- `listed_names`: what a list's names mean, and where they must not lead.
- `lookup`: what is asked of a look, and what it found to be wrong.
- `row_images`: a row of a Parquet file or a saved data set.
- `store_listing`: folders and globs in stores, page by page.
- `tar_images`: a member of a tar file.
"""
