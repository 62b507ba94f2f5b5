"""Saves checkpoints while training goes on: copied at once, uploaded by a thread, one after the other."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace

from dail_runtime.errors import TransientError
from dail_runtime.train.checkpoint import Checkpoint, Checkpoints


class Saving:
    """Hands checkpoints to the store in the background."""

    def __init__(self, checkpoints: Checkpoints, say: Callable[[str], None]) -> None:
        """`say`: told of an upload that failed and that the training can do without."""
        self._checkpoints, self._say = checkpoints, say
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None
        self._step = 0

    def save(self, checkpoint: Checkpoint, *, wait: bool) -> None:
        """Copy the tensors, and upload the copies while the caller goes on; `wait`: return when the marker is written.

        An upload still under way is waited for first: memory never holds more than one copy.

        Raises:
            DailError: the store refused this checkpoint (with `wait`) or the one before. An earlier one that did not get through
                because of a passing fault is only said: this one takes its place.
        """
        self.settle()
        copied = {
            kind: {name: one.detach().to("cpu", copy=True) for name, one in part.items()} for kind, part in checkpoint.tensors.items()
        }
        self._step = checkpoint.step
        self._thread = threading.Thread(target=self._upload, args=(replace(checkpoint, tensors=copied),), name="checkpoint", daemon=True)
        self._thread.start()
        if wait:
            self.settle(needed=True)

    def settle(self, *, needed: bool = False) -> None:
        """Wait for the upload under way; `needed`: a passing fault, too, is raised."""
        if self._thread is None:
            return
        self._thread.join()
        error, self._thread, self._error = self._error, None, None
        if isinstance(error, TransientError) and not needed:
            self._say(f"The checkpoint of step {self._step} did not reach the store ({error}); training goes on to the next one.")
        elif error is not None:
            raise error

    def _upload(self, checkpoint: Checkpoint) -> None:
        try:
            self._checkpoints.save(checkpoint)
        except BaseException as err:
            self._error = err
