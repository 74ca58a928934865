"""Options without effect are refused, by one rule: a table of what each of them goes with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from vptkit.errors import VptkitError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

__all__ = ["Rule", "given_options", "require_effect"]


class Rule(NamedTuple):
    """What some options need to have any effect.

    Attributes:
        options: parameters of the command.
        goes_with: what they need, in words.
        holds: whether the other settings have it.
        cure: what to do, where that is not to add it.
    """

    options: tuple[str, ...]
    goes_with: str
    holds: Callable[[Mapping[str, Any]], Any]
    cure: str = ""


def given_options(context: Any) -> set[str]:
    """Parameters that stand on the command line (or in the environment), by name."""
    sources = {name: context.get_parameter_source(name) for name in context.params}
    return {
        name
        for name, source in sources.items()
        if source is not None and source.name in ("COMMANDLINE", "ENVIRONMENT")
    }


def require_effect(
    given: Collection[str], settings: Mapping[str, Any], rules: Collection[Rule]
) -> None:
    """Refuse the first option that was given and does nothing.

    Args:
        given: parameters, by name.
        settings: of all parameters, the defaults among them.
        rules: what goes with what.

    Raises:
        VptkitError: an option has no effect.
    """
    for rule in rules:
        for name in rule.options:
            if name in given and not rule.holds(settings):
                flag = f"--{'no-' if settings[name] is False else ''}{name.replace('_', '-')}"
                cure = rule.cure or f"Leave it away, or add {rule.goes_with}."
                raise VptkitError(
                    f"{flag} has no effect here: it goes with {rule.goes_with}. {cure}"
                )
