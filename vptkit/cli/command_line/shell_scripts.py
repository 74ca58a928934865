"""The lines that make a shell ask vptkit what comes next, and where a shell looks for them.

The shell asks with `_VPTKIT_COMPLETE=bash_complete vptkit` (or `complete_bash`), the line's words in
COMP_WORDS and the place of the unfinished one in COMP_CWORD: click's protocol (click 8,
`shell_completion`), where the words may be separated by newlines, too.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["SHELLS", "install", "script"]

_BASH = r"""_vptkit_completion() {
    local kind value IFS=$'\n'
    COMPREPLY=()
    while IFS=, read -r kind value; do
        if [[ $kind == path ]]; then
            compopt -o filenames 2>/dev/null  # quotes names, and puts a / behind folders
            value=${value%/}
        else
            printf -v value %q "$value"
        fi
        COMPREPLY+=("$value")
    done < <(COMP_WORDS="${COMP_WORDS[*]}" COMP_CWORD=$COMP_CWORD _VPTKIT_COMPLETE=bash_complete \
        "$1" 2>/dev/null)
}
complete -o nosort -F _vptkit_completion vptkit
"""

_ZSH = r"""#compdef vptkit
_vptkit_completion() {
    local kind value help
    local -a plain described paths
    while IFS= read -r kind && IFS= read -r value && IFS= read -r help; do
        if [[ $kind == path ]]; then paths+=("$value")
        elif [[ $help == _ ]]; then plain+=("$value")
        else described+=("${value//:/\\:}:$help")
        fi
    done < <(COMP_WORDS="${(F)${(Q)words[1,CURRENT]}}" COMP_CWORD=$((CURRENT - 1)) \
        _VPTKIT_COMPLETE=zsh_complete vptkit 2>/dev/null)
    (( ${#described} )) && _describe -V vptkit described
    (( ${#plain} )) && compadd -V vptkit -- "${plain[@]}"
    (( ${#paths} )) && compadd -f -S '' -- "${paths[@]}"
}
if [[ $zsh_eval_context[-1] == loadautofunc ]]; then
    _vptkit_completion "$@"
else
    compdef _vptkit_completion vptkit
fi
"""

_FISH = r"""complete --no-files --command vptkit --arguments "(env _VPTKIT_COMPLETE=fish_complete \
COMP_WORDS=(commandline -cp | string collect) COMP_CWORD=(commandline -t | string collect) \
vptkit 2>/dev/null)"
"""

_SCRIPTS: Mapping[str, str] = {"bash": _BASH, "zsh": _ZSH, "fish": _FISH}
SHELLS = tuple(_SCRIPTS)


def script(shell: str) -> str:
    """The lines for a shell, one of SHELLS."""
    return _SCRIPTS[shell]


def install(shell: str) -> tuple[Path, str]:
    """Write the lines where a shell finds them; its own settings are left alone.

    Returns:
        The file, and what is left to do, for people.

    Raises:
        OutputError: it cannot be written.
    """
    from vptkit.atomic_files import atomic_file  # which a shell that asks does not need

    home = Path.home()
    data = Path(os.environ.get("XDG_DATA_HOME") or home / ".local/share")
    settings = Path(os.environ.get("XDG_CONFIG_HOME") or home / ".config")
    place, left = {
        "bash": (
            data / "bash-completion/completions/vptkit",
            "Open a new shell. Without the package bash-completion, add to ~/.bashrc: source {}",
        ),
        "zsh": (
            home / ".zfunc/_vptkit",
            "Add to ~/.zshrc, and open a new shell: fpath+=~/.zfunc; autoload -Uz compinit; compinit",
        ),
        "fish": (settings / "fish/completions/vptkit.fish", "Open a new shell."),
    }[shell]
    place.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(place) as part:
        part.write_text(script(shell), encoding="utf-8")
    return place, left.format(place)
