"""Object stores (s3://, gs://, https:// …) through fsspec: addresses, objects, and copies of large ones.

- `local_files`: files here, and copies of those in stores.
- `object_stores`: fsspec, opened and read, with its errors.
- `store_address`: addresses, and what they are called.
- `stored_image`: an image in a store, fetched before it is wanted.
"""
