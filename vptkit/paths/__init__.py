"""What lies at a path that a user named, and what was probably meant where it is something else.

- `command_line`: the words that the user typed, for commands that a message proposes.
- `hidden_secrets`: passwords and tokens in addresses, hidden.
- `near_paths`: what lies near a name that does not exist.
- `path_advice`: an error that says what a path is, and the command that was meant.
- `path_kind`: adapter, weights, bundle, bank, images, data set, archive …, by a look at it.
"""
