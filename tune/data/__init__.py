"""Data sets to training batches; what runs read too is in `vptkit.arrow_files`, `vptkit.datasets` and `vptkit.images`.

- `arrow_dataset`: Parquet, and data sets saved by Hugging Face.
- `cross_validation_parts`: what is held out in turns where there is no val.
- `dataset`: a split: decoding, augmentation, batches.
- `dataset_reader`: which kind of data set lies at a path.
- `label_column`: which column of a Parquet file or a saved data set holds the labels, one or lists.
- `label_strata`: parts in which every label has its share.
- `multilabel_splits`: train, val, test and ood where an image has several labels.
- `reading_pass`: every image once, before the training: the broken ones, and those that are in two splits.
- `splits`: train, val, test and ood, and their digest.
"""
