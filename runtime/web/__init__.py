"""The page of `vptkit serve --ui`; and a folder with it that needs no server: the graph runs in the browser.

`page/` holds what runs there, plain JavaScript.

- `bank_tables_file`: what an adapter of a bank feeds, as one file of numbers.
- `onnxruntime_web`: the files of the npm package, found, fetched, compared.
- `page_files`: the files of the page.
- `page_models`: what the page is told of each bundle, and which it cannot run.
- `web_folder`: the folder.
- `web_manifest`: what such a folder says of itself.
"""
