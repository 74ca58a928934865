"""What a board was before we changed it, and how it goes back to that.

Unverified on a board; tested against stand-ins for nvpmodel and jetson_clocks.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from vptkit.devices.probes.jetson import PowerMode
from vptkit.errors import TargetError, VptkitError

from .nvpmodel import restore_clocks, run_command, set_mode, store_clocks

if TYPE_CHECKING:
    from .nvpmodel import Run

__all__ = ["RestorePoint", "remember"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RestorePoint:
    """The power mode and the limits of the clocks that a board goes back to.

    Attributes:
        mode: None if no mode is going to be changed.
        clocks: the file that jetson_clocks stored, in a folder of its own; None if there is none.
    """

    mode: PowerMode | None
    clocks: Path | None

    @classmethod
    def from_json(cls, text: str) -> RestorePoint:
        """Read what `to_json` wrote."""
        document = json.loads(text)
        mode, clocks = document["mode"], document["clocks"]
        return cls(
            mode=None if mode is None else PowerMode(**mode),
            clocks=None if clocks is None else Path(clocks),
        )

    def to_json(self) -> str:
        """As one line, for another process."""
        mode = None if self.mode is None else {"id": self.mode.id, "name": self.mode.name}
        clocks = None if self.clocks is None else str(self.clocks)
        return json.dumps({"mode": mode, "clocks": clocks})

    @property
    def name(self) -> str:
        """What goes back, in words."""
        return (
            "clocks"
            if self.mode is None
            else f"power mode {self.mode.name} (number {self.mode.id})"
        )

    @property
    def by_hand(self) -> str:
        """The commands that go back. A reboot does for the clocks, not for the mode."""
        steps = [] if self.mode is None else [f"sudo nvpmodel -m {self.mode.id}"]
        steps += [] if self.clocks is None else [f"sudo jetson_clocks --restore {self.clocks}"]
        return " && ".join(steps)

    def restore(self, run: Run = run_command) -> list[str]:
        """Set the mode, then the clocks, which a mode changes; the one even if the other fails.

        The mode is set again even if it seems to be the present one: a command that sets another
        may have been cut short.

        Returns:
            What jetson_clocks could not restore, in its words.

        Raises:
            TargetError: some of it failed; says all that did, and how to go back by hand.
        """
        complaints: list[str] = []
        errors: list[Exception] = []
        if self.mode is not None:
            try:
                set_mode(self.mode, run)
            except (VptkitError, OSError) as error:  # OSError: no memory for another process
                errors.append(error)
        if self.clocks is not None:
            try:
                complaints = restore_clocks(self.clocks, run)
            except (VptkitError, OSError) as error:
                errors.append(error)
        if errors:
            reasons = "; ".join(str(error) for error in errors)
            raise TargetError(
                f"NOT RESTORED: {self.name}. {reasons}. Go back by hand: {self.by_hand}"
            ) from errors[0]
        return complaints

    def forget(self) -> None:
        """Remove the file of the clocks, once nobody needs it to go back by hand."""
        if self.clocks is not None:
            shutil.rmtree(self.clocks.parent, ignore_errors=True)


def remember(mode: PowerMode | None, *, clocks: bool, run: Run = run_command) -> RestorePoint:
    """Write down what is going to be changed.

    Args:
        mode: the present one, if it is going to be changed.
        clocks: store the clocks' limits.
        run: runs a command.

    Raises:
        TargetError: jetson_clocks failed.
    """
    if not clocks:
        return RestorePoint(mode=mode, clocks=None)
    # Not a TemporaryDirectory: whoever goes back by hand needs the file.
    folder = Path(tempfile.mkdtemp(prefix="vptkit-"))
    try:
        store_clocks(folder / "clocks.conf", run)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return RestorePoint(mode=mode, clocks=folder / "clocks.conf")
