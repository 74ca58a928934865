"""`vptkit report`: one HTML page about bundles that one can send to a colleague.

What a part says is gathered first, as plain data; templates and figures only show it.

- `block_steps`: one block before and after the folds, step by step.
- `bundle_facts`: what a bundle is, from its manifest.
- `fold_savings`: what each fold took out of the graph.
- `make_report`: the parts in order, and the file.
- `page`: the template, and what it lets through.
"""
