"""How the command line explains itself: help pages, suggestions, completion. Imports no command.

- `choices`: the values that an option knows.
- `classes`: typer's command and group, with all of this; how a line is read.
- `completion`: what comes next on a line that is being typed.
- `files`: files and folders that fit, and the adapters of a bank, for completion.
- `groups`: which options and commands stand together, and examples.
- `help_page`: the page of a command.
- `lazy_commands`: commands that are loaded when they are asked for.
- `plain_values`: words that are plainly what an option takes.
- `shell_scripts`: the lines that make a shell ask.
- `suggestions`: what somebody meant by a name that is none.
"""
