"""Every problem of a run at once: what failed is noted, and the rest goes on."""

import pathlib
from collections.abc import Callable
from typing import Any

from adarank_jax import errors
from adarank_jax.checkpoints import hub
from adarank_jax.errors import Message
from experiments import messages
from experiments.merge_config import MergeConfig


class CheckLog:
    """Problems and warnings as they are found.

    Args:
        config: of the run.
        may_fetch: whether files may be fetched from the Hub; without, those that are
            not here yet are listed.

    Attributes:
        offline: whether the Hub is left alone, from the start or since it was out of
            reach.
        problems: what stops the run.
        warnings: what stops nothing.
        to_fetch: sources on the Hub that a run would fetch first; a set in order.
    """

    def __init__(self, config: MergeConfig, may_fetch: bool):
        """Starts with nothing."""
        self.offline = config.offline or not may_fetch
        self.is_waiting = not may_fetch and not config.offline
        self.problems: list[Message] = []
        self.warnings: list[Message] = []
        self.to_fetch: dict[str, None] = {}

    def attempt(self, where: str, action: Callable[[], Any]) -> Any:
        """Returns what an action returns; None, and a problem, if it fails.

        Args:
            where: field of the configuration.
            action: reads or compares something.
        """
        try:
            return action()
        except REFUSALS as error:
            # Once the Hub was out of reach, nobody waits for it again and again.
            self.offline = self.offline or isinstance(error, ConnectionError)
            self._note(where, error)
            return None

    def read(self, where: str, source: str, action: Callable[[], Any]) -> Any:
        """As `attempt`, but a file of the Hub that may not be fetched is no problem.

        Args:
            where: field of the configuration.
            source: what is read.
            action: reads it.
        """
        if not self.is_waiting or pathlib.Path(source).expanduser().exists():
            return self.attempt(where, action)
        try:
            return action()
        except REFUSALS as error:
            if isinstance(error, FileNotFoundError) and hub.parse(source) is not None:
                self.to_fetch[source] = None
            else:
                self._note(where, error)
        return None

    def warn(self, where: str, *warnings: Message | str) -> None:
        """Notes what stops nothing.

        Args:
            where: field of the configuration.
            *warnings: one problem each.
        """
        self.warnings += [messages.told(each).within(where) for each in warnings]

    def _note(self, where, error):
        """Keeps what an error says."""
        self.problems += [each.within(where) for each in _messages(error)]


def _messages(error):
    """Says what stopped an action; an error that is not ours gets a common code."""
    if isinstance(error, errors.AdaRankError):
        return messages.of_error(error)
    if isinstance(error, OSError) and error.strerror and error.filename is not None:
        reason = error.strerror[:1].lower() + error.strerror[1:]
        remedy = "check the path and its permissions"
        return [Message("E102", reason, f"`{error.filename}`", "", remedy)]
    return [Message("E100", messages.explain(error))]


REFUSALS = (errors.AdaRankError, KeyError, OSError, TypeError, ValueError)
"""What reading and comparing inputs may raise."""
