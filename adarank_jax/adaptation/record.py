"""What an adaptation leaves in its run folder, and how it is taken up again."""

import time
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from rich.console import Console

from adarank_jax import errors
from adarank_jax.adaptation import environment, saved_states
from adarank_jax.adaptation.metrics_log import End, MetricsLog
from adarank_jax.adaptation.run_folder import RunFolder
from adarank_jax.adaptation.step import State
from adarank_jax.checkpoints import digests
from adarank_jax.errors import Message
from adarank_jax.tree import Tree


class Record:
    """States and rows of one adaptation; process 0 alone has one.

    Args:
        folder: of the run.
        name: of the adaptation in it.
        factors: that it starts from, on the host.
        devices: of the run.
        options: plain values that change the last bits and nothing else.
    """

    def __init__(
        self,
        folder: RunFolder,
        name: str,
        factors: Tree,
        devices: Sequence[jax.Device],
        options: dict[str, Any],
    ):
        """Opens nothing yet."""
        self._folder, self._name = folder, name
        self._states = folder.path / "checkpoints" / name
        self._about = {
            "config": folder.digest,
            "factors": _fingerprint(factors),
            "environment": environment.describe(devices) | options,
        }
        self._log: MetricsLog | None = None

    def restore(self, like: State, console: Console) -> tuple[int, State] | None:
        """Reads the newest intact state, and cuts the rows back to it.

        Args:
            like: a state as it was saved.
            console: for warnings.

        Returns:
            The next step and the state; None to begin.

        Raises:
            DamageError: no state is intact, or they are of another run.
        """
        found = saved_states.restore(self._states, like)
        file = self._folder.path / "metrics.jsonl"
        if found is None:
            self._log = MetricsLog(file, self._name, None)
            return None
        if found.about["config"] != self._about["config"]:
            raise errors.DamageError(
                "E606",
                "the saved states are of a run with another configuration",
                where=f"`{self._states}`",
                remedy="move them away, or start over with --restart",
            )
        self._log = MetricsLog(file, self._name, End(**found.about["metrics"]))
        messages = [
            Message("W603", f"{each} Going on from step {found.step:,}", self._name)
            for each in found.damaged
        ]
        if self._log.doubt:
            messages.append(Message("W605", self._log.doubt, self._name))
        reasons = environment.differences(
            found.about["environment"], self._about["environment"]
        )
        if found.about["factors"] != self._about["factors"]:
            reasons.append("the factors were made again, with other bits")
        if reasons:
            text = f"from step {found.step:,} on, other bits: {'; '.join(reasons)}"
            messages.append(Message("W604", text, self._name))
            self._folder.mark(resumed_inexact=True)
        for message in messages:
            self.warn(message, console)
        return found.step, found.state

    def entropies(self, tasks: Sequence[str], steps: int) -> np.ndarray:
        """Reads what earlier starts measured.

        Args:
            tasks: names, in the order of every task axis.
            steps: before the next one.

        Returns:
            Entropy and marginal entropy, `(steps, 2, tasks)`; NaN where a row is gone.
        """
        assert self._log is not None
        found = np.full((steps, 2, len(tasks)), np.nan)
        for row in self._log.rows():
            if row["step"] < steps:
                both = row["entropy"], row["marginal_entropy"]
                found[row["step"]] = [[each[task] for task in tasks] for each in both]
        return found

    def warn(self, message: Message, console: Console) -> None:
        """Shows a warning and keeps it in the manifest.

        Args:
            message: of it.
            console: for people.
        """
        self._folder.note(message)
        console.print(
            f"warning {message}", soft_wrap=True, highlight=False, markup=False
        )

    def append(self, row: dict[str, Any]) -> None:
        """Writes a row of metrics."""
        assert self._log is not None
        self._log.append(row)

    def save(self, step: int, state: State) -> float:
        """Saves the state from which `step` is the next to run.

        Args:
            step: the next one.
            state: on the host.

        Returns:
            Seconds that it took.
        """
        assert self._log is not None
        begun = time.perf_counter()
        self._log.sync()
        about = self._about | {"metrics": self._log.end._asdict()}
        saved_states.save(self._states, step, state, about)
        return time.perf_counter() - begun


def _fingerprint(factors):
    """Hashes one row of every array: another SVD shows in any row of u."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(factors)
    rows = {jax.tree_util.keystr(path): np.asarray(leaf[:1]) for path, leaf in leaves}
    return digests.of_value(digests.of_arrays(rows))
