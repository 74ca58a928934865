"""A process that puts a board back if the one that changed it dies: this module, with STATE.

No handler runs on SIGKILL, and none can be trusted after a crash inside of TensorRT or CUDA. So
another process holds what the board was before, and reads from a pipe that only the first one can
write to: the system closes it however that one ends. If its last word was not said then, the board
goes back. Sessions and signals of the first one do not reach the watchdog, so only what kills both
(a power cut, `pkill -9 -f vptkit`) leaves a board as it is. It is root's, as nvpmodel wants it, so
it starts as a privileged child (`vptkit.python_child`).
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from vptkit.devices.drivers.sysfs import read_text
from vptkit.errors import TargetError
from vptkit.python_child import PIPE, python_command, start_python

from .restore_point import RestorePoint

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["guarded", "main"]

_MODULE = "vptkit.devices.power.watchdog"
_READY, _DONE = "ready\n", "done\n"
_IGNORED = (signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGHUP)
_TOOLS = ("nvpmodel", "jetson_clocks")
_SECONDS = 60.0  # as long as `vptkit.devices.power.nvpmodel` gives them


@contextlib.contextmanager
def guarded(before: RestorePoint) -> Iterator[None]:
    """Restore a board if this process dies in the block; a block that is left did so itself.

    Raises:
        TargetError: the watchdog did not start; the block did not begin.
    """
    process = start_python(
        python_command(_MODULE, before.to_json(), privileged=True),
        privileged=True,
        stdin=PIPE,
        stdout=PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        if process.stdout is None or process.stdout.readline() != _READY:
            raise TargetError(
                f"{sys.executable} did not start {_MODULE}, which restores {before.name} if this "
                "process crashes. Nothing was changed."
            )
        yield
    finally:
        process.communicate(_DONE)


def main() -> None:
    """Wait for the end of the other process, and restore what it did not."""
    for number in _IGNORED:
        signal.signal(number, signal.SIG_IGN)
    os.chdir("/")  # the folder of a run over ssh is removed
    before = RestorePoint.from_json(sys.argv[1])
    try:
        sys.stdout.write(_READY)
        sys.stdout.flush()
    except BrokenPipeError:  # it was interrupted, and has changed nothing yet
        os._exit(0)
    if sys.stdin.read() == _DONE:
        return
    _say(f"the profile was killed or crashed; {before.name} will be restored")
    _wait_for_tools()
    try:
        complaints = before.restore()
    except TargetError as error:
        _say(str(error))
        sys.exit(error.exit_code)
    before.forget()
    _say(f"{before.name} restored" + "".join(f"; but {text}" for text in complaints))


def _say(text: str) -> None:
    with contextlib.suppress(OSError):  # a terminal that is gone stops nothing
        sys.stderr.write(f"{text}\n")
        sys.stderr.flush()


def _wait_for_tools() -> None:
    """A tool that the dead process had started works on, and would undo what we do."""
    end = time.monotonic() + _SECONDS
    while any(map(_is_tool, Path("/proc").glob("[0-9]*/stat"))) and time.monotonic() < end:
        time.sleep(0.1)


def _is_tool(stat: Path) -> bool:
    """Whether a process is one of the tools, at work: "12 (nvpmodel) S …", Z is a dead one."""
    head, _, tail = (read_text(stat) or "").rpartition(") ")
    return head.partition("(")[2] in _TOOLS and not tail.startswith("Z")


if __name__ == "__main__":
    main()
