"""What `--reject` does to images of a bundle's labels, and to others: counts, shares, and words."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from vptkit.images.broken_images import skipped_text
from vptkit.scores.score_interval import share_text, wilson
from vptkit.shown_text import shown

if TYPE_CHECKING:
    from pathlib import Path

    from vptkit.images.image_file import ImageFile

__all__ = ["RejectionRates"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RejectionRates:
    """What `--reject` does to labelled images, and to others. Intervals are Wilson's, 95 %.

    Attributes:
        rate: T.
        count, rejected: images of the labels, and how many of them are called none of these.
        ood: where the others lie, or None.
        ood_count, ood_rejected: of those.
        ood_skipped: broken ones, which were left out.
    """

    rate: float
    count: int
    rejected: int
    ood: Path | None = None
    ood_count: int = 0
    ood_rejected: int = 0
    ood_skipped: tuple[ImageFile, ...] = ()

    @property
    def notes(self) -> list[str]:
        """What a reader of the rates must know."""
        if self.ood is None or not self.ood_skipped:
            return []
        return [f"{shown(self.ood)}: {skipped_text(self.ood, self.ood_skipped)}"]

    def to_json(self) -> dict[str, Any]:
        """As `vptkit eval --json` has it."""
        document = asdict(self) | {"false_reject": self.rejected / self.count}
        document["ood_skipped"] = [str(image) for image in self.ood_skipped]
        document["false_reject_interval"] = list(wilson(self.rejected, self.count))
        if self.ood is None:
            return document | {"false_accept": None, "false_accept_interval": None}
        accepted = self.ood_count - self.ood_rejected
        return document | {
            "ood": str(self.ood),
            "false_accept": accepted / self.ood_count,
            "false_accept_interval": list(wilson(accepted, self.ood_count)),
        }

    def text(self) -> str:
        """One line, or two with images of other things."""
        lines = [f"--reject {self.rate:g} rejects {share_text(self.rejected, self.count)} of these"]
        if self.ood is not None:
            told = share_text(self.ood_count - self.ood_rejected, self.ood_count)
            lines.append(f"and accepts {told} of {shown(self.ood)}, which are none")
        return "\n".join(lines)
