"""What a killed encode goes on from: a file beside its output, for as long as the encode runs.

It holds the state of the work between two coding units, and the identity of the encode: everything that its bytes
depend on. It is only ever used for the same encode; nothing of it is used if a single byte of it is wrong.

Writing takes at most ``_SHARE`` of the time: after each one, the next waits until so much work has been done. What a
kill can cost is therefore one coding unit, or, where units are fast, 50 times what writing the state takes.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path

from nvcodec.core.errors import CheckpointError, CheckpointWarning, OutputError
from nvcodec.encoder.tree_file import Tree, TreeFileError, read_tree, write_tree
from nvcodec.media.output_file import atomic_output, remove_with_temporary

__all__ = ["Checkpoint"]

_SHARE = 0.02


class Checkpoint:
    """The checkpoint of one encode. The caller holds the lock of its output. Without a ``path`` there is none."""

    def __init__(
        self, path: Path | None, identity: Mapping[str, str], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.path = path
        self._identity = dict(identity)
        self._clock = clock
        self._next = clock()
        self._failed = False

    def read(self) -> Tree:
        """The state to go on from; None if there is no checkpoint.

        Raises:
            CheckpointError: it is not, or not with certainty, one of this encode.
        """
        if self.path is None:
            return None
        try:
            data = self.path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise CheckpointError(f"cannot read {self.path}: {error.strerror or error}") from error
        try:
            tree = read_tree(data)
        except TreeFileError as error:
            raise CheckpointError(
                f"{self.path} is no checkpoint, or damaged ({error}); delete it to start anew"
            ) from error
        other = _differences(tree["identity"], self._identity)
        if other:
            raise CheckpointError(f"{self.path} is of another encode ({other}); delete it to start anew")
        return tree["state"]

    def keep(self, state: Callable[[], Tree]) -> None:
        """Write what ``state`` returns, if it is time. A failure is a CheckpointWarning, once: the work goes on."""
        start = self._clock()
        if self.path is None or start < self._next:
            return
        try:
            with atomic_output(self.path, overwrite=True, alone=True) as path, path.open("wb") as stream:
                write_tree(stream, {"identity": self._identity, "state": state()})
        except OutputError as error:
            if not self._failed:
                warnings.warn(f"no checkpoint: {error}", CheckpointWarning, stacklevel=2)
            self._failed = True
        end = self._clock()
        self._next = end + (end - start) / _SHARE

    def discard(self) -> None:
        """Remove the file: the encode is done."""
        if self.path is not None:
            remove_with_temporary(self.path)


def _differences(theirs: Mapping[str, str], ours: Mapping[str, str]) -> str:
    names = [name for name in {**ours, **theirs} if theirs.get(name) != ours.get(name)]
    return ", ".join(f"{name} was {theirs.get(name, 'unknown')}, is {ours.get(name, 'unknown')}" for name in names)
