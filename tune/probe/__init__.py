"""The linear probe: what a head alone can make of frozen features, found exactly.

- `fit_probe`: from features to a head, with the record of how it was found.
- `label_probe`: the same with a logistic regression for each label.
- `label_regression`: these, at their optimum.
- `logistic_regression`: multinomial, at its optimum, for one strength of L2 after the other.
- `nearest_neighbours`: the floor that needs no training: cosine kNN.
- `strength_search`: the strength, by held-out log-loss.
"""
