"""After a training: one page of what it tried and chose, NAME.html, or its pictures as files.

Nothing is measured here: what is shown was noted by the run, and only images that judged it (val, or
what was held out of train) are looked at again.

- `chosen_facts`: what was chosen, and how sure that is.
- `hardest_images`: the images that judged the run, those first that it finds hardest.
- `learning_curves`: loss and accuracy over epochs, and the probe's grid.
- `rescale_plots`: shift of the norms, λ, the line from start to end, ID against OOD.
- `run_pictures`: the page, or pictures as files; those of an adapter that is replaced go.
- `run_sections`: the parts of the page, each where the run has it.
- `search_plots`: candidates, held-out parts, whitening.
- `trained_run`: what a run says of itself.
"""
