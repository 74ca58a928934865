"""Pages that stand alone, for people: of bundles, of a training, of the demo.

- `html_page`: templates filled with plain data, and what they let through.
- `page_file`: the file, whole or not at all.
- `page_parts`: sections of sentences, pictures and tables.
"""
