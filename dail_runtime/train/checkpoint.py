"""Checkpoints in the store: everything a training needs to go on bit for bit, a marker last, never a pickle."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from dail_runtime.errors import IntegrityError
from dail_runtime.models.save import scratch
from dail_runtime.store import Store

MARKER = "complete.json"
_STATE = "state.json"
_CURVES = "curves.jsonl"
_FOLDER = "step-"


@dataclass
class Checkpoint:
    """The state between two steps."""

    step: int
    """Steps done."""
    tensors: dict[str, dict[str, Tensor]]
    """File name without ending -> its tensors: `adapter`, `optimizer`."""
    facts: dict[str, Any]
    """Whatever else the loop needs to go on (JSON)."""
    curves: bytes
    """The training curves so far (JSONL)."""


class Checkpoints:
    """The checkpoints below one prefix: `step-00000050/`, complete once its marker, which is written last, is there."""

    def __init__(self, store: Store, *, keep: int) -> None:
        """`keep`: how many complete ones stay."""
        self._store, self._keep = store, keep
        self._damaged: set[str] = set()

    def save(self, checkpoint: Checkpoint) -> None:
        """Write it, then remove those that are too old, damaged or were left half-written."""
        name = _name(checkpoint.step)
        if name in self._complete():
            return
        if name in self._damaged:
            self._remove(name)
            self._damaged.discard(name)
        folder = self._store.at(name)
        written: dict[str, str | None] = {}
        with scratch("dail-checkpoint-") as temporary:
            for kind, tensors in checkpoint.tensors.items():
                path = temporary / f"{kind}.safetensors"
                save_file({key: one.detach().cpu().contiguous() for key, one in tensors.items()}, path)
                written[path.name] = folder.put_file(path.name, path).sha256
                path.unlink()
        written[_CURVES] = folder.put(_CURVES, checkpoint.curves).sha256
        written[_STATE] = folder.put(_STATE, json.dumps({"step": checkpoint.step, **checkpoint.facts}).encode()).sha256
        folder.put(MARKER, json.dumps(written, indent=1).encode())
        complete = self._complete()
        for old in self._folders():
            if old not in complete[-self._keep :]:
                self._remove(old)

    def newest(self, say: Callable[[str], None]) -> Checkpoint | None:
        """The newest complete one that can be read, or None. One that is damaged is named to `say`, passed over, and never kept instead of
        a whole one: training comes by its step once more."""
        complete = self._complete()
        for name in reversed(complete):
            try:
                return self.load(int(name.removeprefix(_FOLDER)))
            except (IntegrityError, KeyError, SafetensorError, ValueError) as err:
                self._damaged.add(name)
                where = "the start" if name == complete[0] else "an older one"
                say(f"The checkpoint {self._store.uri}/{name} is damaged ({err}); training goes on from {where}.")
        return None

    def clear(self) -> None:
        """Remove all of them."""
        for name in self._folders():
            self._remove(name)

    def load(self, step: int) -> Checkpoint:
        """The complete one of that step.

        Raises:
            IntegrityError, KeyError, SafetensorError, ValueError: it is not there, or damaged.
        """
        folder = self._store.at(_name(step))
        written: Mapping[str, str] = json.loads(folder.get(MARKER))
        there = {info.key for info in folder.list()}
        if not isinstance(written, dict) or not {_STATE, _CURVES} <= written.keys() <= there:
            raise IntegrityError(f"{MARKER} does not name what is there")
        tensors: dict[str, dict[str, Tensor]] = {}
        with tempfile.TemporaryDirectory(prefix="dail-checkpoint-") as temporary:
            for key in written:
                path = Path(temporary, key)
                if folder.get_file(key, path).sha256 != written[key]:
                    raise IntegrityError(f"{key} is not the one its marker names")
                if path.suffix == ".safetensors":
                    tensors[path.stem] = load_file(path)
            facts = json.loads(Path(temporary, _STATE).read_bytes())
            return Checkpoint(facts.pop("step"), tensors, facts, Path(temporary, _CURVES).read_bytes())

    def _remove(self, name: str) -> None:
        folder = self._store.at(name)
        # The marker first: what is left after a kill in between counts for nothing.
        folder.delete(MARKER)
        for info in list(folder.list()):
            folder.delete(info.key)

    def _folders(self) -> list[str]:
        return sorted({info.key.split("/")[0] for info in self._store.list()})

    def _complete(self) -> list[str]:
        found = {info.key.split("/")[0] for info in self._store.list() if info.key.endswith(f"/{MARKER}")}
        return sorted(found - self._damaged)


def _name(step: int) -> str:
    return f"{_FOLDER}{step:08d}"
