"""An option that was given and does nothing is refused, with what it goes with."""

from __future__ import annotations

import pytest

from vptkit.cli.shared.option_effect import Rule, require_effect
from vptkit.errors import VptkitError

RULES = (Rule(("fps", "on_change"), "a video", lambda settings: settings["streams"]),)


def test_only_what_was_given_and_does_nothing_is_refused():
    require_effect({"fps"}, {"fps": 5, "streams": True}, RULES)
    require_effect(set(), {"fps": None, "streams": False}, RULES)
    with pytest.raises(VptkitError, match="--on-change has no effect here: it goes with a video"):
        require_effect({"on_change"}, {"on_change": True, "streams": False}, RULES)
