"""One run on many machines, over Ray Data: each image once, as `vptkit run` answers it.

- `actor_share`: what of a cluster an actor takes.
- `batch_worker`: a session in a process on a node.
- `dataset_run`: batches through Ray Data, and its notes of what is done.
- `driver_child`: starts the process that talks with Ray, and ends it.
- `driver_process`: that process.
- `gathered_answers`: parts → predictions in the order of the sources.
- `image_lines`: where an image lies, as a line.
- `image_list`: the images, in batches, on a disk that all nodes reach.
- `parts_folder`: where images and parts lie until the output is written.
"""
