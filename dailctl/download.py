"""Brings a run's results to a folder: every file checked, none half, those already there left alone."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence, Set
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from dail_runtime.errors import IntegrityError, UsageError
from dail_runtime.objects import ADAPTER, KEPT, MODEL, VERDICTS
from dail_runtime.spec import Task
from dail_runtime.store import ObjectInfo, Store, read_manifest
from dailctl import output
from dailctl.runs import Run

TRAIN_PARTS = (ADAPTER, MODEL)
TRACES = (KEPT, VERDICTS)


@dataclass(frozen=True)
class Wanted:
    """One file to fetch."""

    store: Store
    """The prefix of the task that wrote it."""
    info: ObjectInfo
    """Its key, size and sha256, as the task's manifest has them."""
    path: PurePosixPath
    """Where it goes below the folder."""

    @property
    def size(self) -> int:
        """Bytes."""
        return self.info.size


def wanted_files(run: Run, what: Set[str], variants: Sequence[str]) -> list[Wanted]:
    """The files that `what` (adapter, model, traces, report) stands for, of the variants named (none: of all).

    Raises:
        UsageError: an unknown variant, or a task that has not finished yet.
    """
    known = run.job.spec.variant_names()
    for name in variants:
        if name not in known:
            raise UsageError(f"run {run.name} has no variant {name!r}; it has {', '.join(known)}")
    found: list[Wanted] = []
    for task in run.tasks:
        if variants and not _serves(run, task, variants):
            continue
        if task.stage == "train" and not what.isdisjoint(TRAIN_PARTS):
            found += [one for one in _objects(run, task) if one.info.key.split("/")[0] in what]
        elif task.stage == "select" and "traces" in what:
            found += [one for one in _objects(run, task) if one.info.key in TRACES]
        elif task.stage == "report" and "report" in what:
            found += _objects(run, task)
    return found


def download(files: Sequence[Wanted], folder: Path, *, force: bool = False) -> tuple[int, int]:
    """Fetch `files` into `folder`; returns how many were fetched, and how many were there already.

    Raises:
        UsageError: a file is there with other content and `force` is false; nothing was fetched then.
        IntegrityError: the store holds something else than the manifest says.
    """
    targets = [(one, _inside(folder, one.path)) for one in files]
    missing = []
    for one, target in targets:
        there = _sha256(target)
        if there is None:
            missing.append((one, target))
        elif there != one.info.sha256:
            if not force:
                raise UsageError(f"{target} is there with other content; fetch into another folder with --to, or replace it with --force")
            missing.append((one, target))
    for one, target in missing:
        output.talk(f"fetching {target} ({output.size(one.size)})")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
        except OSError as err:
            raise UsageError(f"{target.parent}: cannot be made ({err.strerror}); choose another folder with --to") from None
        got = one.store.get_file(one.info.key, target)
        if one.info.sha256 is not None and got.sha256 != one.info.sha256:
            target.unlink()
            raise IntegrityError(f"{one.store.uri}/{one.info.key} is not what its manifest lists; run its stage again (dailctl run --from)")
    return len(missing), len(files) - len(missing)


def _objects(run: Run, task: Task) -> list[Wanted]:
    store = run.root.at(task.prefix)
    manifest = read_manifest(store)
    if manifest is None:
        raise UsageError(
            f"{task.name} of run {run.name} has not finished, so there is nothing to fetch; dailctl status shows how far it is"
        )
    place = PurePosixPath(task.variant) if task.variant is not None else PurePosixPath()
    return [Wanted(store, info, place / info.key) for info in manifest.objects]


def _serves(run: Run, task: Task, variants: Sequence[str]) -> bool:
    """A select task serves every variant that shares its traces, and is called after the first of them."""
    if task.stage != "select":
        return task.variant is None or task.variant in variants
    return any(one.stage == "train" and one.variant in variants and task.name in one.inputs for one in run.tasks)


def _inside(folder: Path, path: PurePosixPath) -> Path:
    """`folder/path`. Keys come from a store that others may write to: none may lead out of the folder.

    Links that the user put into the folder may.
    """
    if path.is_absolute() or ".." in path.parts:
        raise IntegrityError(f"the stored name {path} leads out of {folder}; the run's manifest was tampered with")
    return folder / path


def _sha256(path: Path) -> str | None:
    """That of the file; None where there is none yet."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as err:
        raise UsageError(f"{path}: there already, and no file that can be read ({err.strerror}); choose another folder with --to") from None
