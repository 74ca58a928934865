"""What an exception is called on the command line, and the exit code that it ends with.

A fault of the input, the disk or the machine is one line that says what to do. Anything else is a
defect of vptkit: one line with its type, and how to report it. `--traceback`, anywhere on the line,
or VPTKIT_TRACEBACK=1 shows where it was raised.
"""

import errno
import os
import sys
import traceback
from collections.abc import Mapping

from vptkit.errors import VptkitError
from vptkit.shown_text import shown_lines, tell

__all__ = ["exit_code", "without_traceback_option"]

_OPTION = "--traceback"
_VARIABLE = "VPTKIT_TRACEBACK"

# What the system says, by its number → what to do
_DISK_ADVICE: Mapping[int, str] = {
    errno.EACCES: "You may not open it: choose another place, or change its permissions.",
    errno.EPERM: "You may not change it: choose another place, or change its permissions.",
    errno.EROFS: "Choose a folder that can be written.",
    errno.ENOSPC: "Free some space, or choose another place.",
    errno.EDQUOT: "Free some space, or choose another place.",
    errno.EFBIG: "Choose another file system, or raise ulimit -f.",
    errno.EMFILE: "Raise the limit: ulimit -n 4096.",
    errno.ENFILE: "The whole machine is at its limit of open files: close something.",
    errno.ENOMEM: "Close other programs.",
    errno.EIO: "The disk or its connection is at fault: see dmesg.",
    errno.ESTALE: "The network folder was changed or went away: mount it again.",
    errno.ENOENT: "It was removed meanwhile, or its folder is missing.",
    errno.ENAMETOOLONG: "Choose a shorter name.",
    errno.ELOOP: "Its links lead in a circle.",
}
_MEMORY_ADVICE = (
    "Close other programs, or do less at once: --batch, --image-size; of vptkit tune --accumulate and "
    "--recompute."
)
# What torch and numpy say where other libraries raise a MemoryError
_NO_MEMORY = ("can't allocate memory", "cannot allocate memory", "not enough memory")


def without_traceback_option(words: list[str]) -> tuple[list[str], bool]:
    """The command line without `--traceback`, and whether tracebacks are wanted.

    What stands behind `--` are names.
    """
    end = words.index("--") if "--" in words else len(words)
    kept = [word for word in words[:end] if word != _OPTION] + words[end:]
    wanted = len(kept) < len(words) or os.environ.get(_VARIABLE, "") not in ("", "0")
    return kept, wanted


def exit_code(error: Exception, *, with_traceback: bool) -> int:
    """Say what went wrong, to standard error, and return the exit code.

    Args:
        error: no usage error: those are click's own.
        with_traceback: show where it was raised.
    """
    if with_traceback:
        sys.stderr.write(shown_lines("".join(traceback.format_exception(error))))
    text, code = _described(error)
    tell(f"error: {' '.join(text.split())}")
    return code


def _described(error: Exception) -> tuple[str, int]:
    if isinstance(error, VptkitError):
        return str(error), error.exit_code
    if isinstance(error, MemoryError) or _says_no_memory(error):
        return f"out of memory{_in_brackets(error)}. {_MEMORY_ADVICE}", 2
    if isinstance(error, OSError) and error.errno is not None:
        return _of_the_system(error), 2
    if isinstance(error, ImportError) and not (error.name or "vptkit").startswith("vptkit"):
        return f"{error.name} cannot be imported: {error}. See vptkit doctor.", 5
    text = (
        f"unexpected {type(error).__name__}: {str(error) or '(no message)'}. This is a defect of vptkit: "
        f"run it again with {_OPTION}, and report the output with that of vptkit doctor --json "
        "(CONTRIBUTING.md says where)"
    )
    return text, 1


def _says_no_memory(error: Exception) -> bool:
    """As torch does, with a class of its own for GPUs and a RuntimeError for CPUs."""
    if type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError) and any(t in str(error).lower() for t in _NO_MEMORY)


def _of_the_system(error: OSError) -> str:
    names = [
        os.fsdecode(n) for n in (error.filename, error.filename2) if isinstance(n, str | bytes)
    ]
    where = " → ".join(names) or "the system refused"
    advice = _DISK_ADVICE.get(error.errno or 0, "")
    return f"{where}: {error.strerror or error}. {advice}".strip()


def _in_brackets(error: Exception) -> str:
    text = " ".join(str(error).split())
    return f" ({text})" if text else ""
