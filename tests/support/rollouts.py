"""Runs without a model: a job over small data files, and a finished rewrite whose traces a test wrote itself."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from dail_runtime.records import Finish, Rollout, Sample
from dail_runtime.spec import DailJob
from dail_runtime.store import Manifest, safe_key, write_manifest
from tests.support.stage_process import SavedRun, save_run


class Silent:
    """Progress that nobody watches."""

    def update(self, done: float, total: float, unit: str, **figures: float) -> None:
        """Nothing."""

    def say(self, sentence: str) -> None:
        """Nothing."""


def write_rows(path: Path, rows: Iterable[Any]) -> str:
    """A JSON Lines file of `rows`; bytes go in as they are. Returns its path."""
    path.write_bytes(b"".join((row if isinstance(row, bytes) else json.dumps(row).encode()) + b"\n" for row in rows))
    return str(path)


def data_job(data: Mapping[str, Any], **sections: Any) -> DailJob:
    """A job over the `data` section; its model is never loaded by the stages that need none."""
    # Answers that leave room for a problem in the smallest models of these tests.
    spec = {"model": {"id": "owner/name"}, "data": dict(data), "evaluate": {"maxTokens": 16}, **sections}
    return DailJob.model_validate({"apiVersion": "dail/v1alpha1", "kind": "DailJob", "metadata": {"name": "one"}, "spec": spec})


def saved(job: DailJob, storage: Path) -> SavedRun:
    """The job saved below `storage`. Its data files are named by their paths: a test does not change them in between."""
    return save_run(job, {}, str(storage))


def rollout(id_: str, *texts: str, finish: Finish = "stop") -> Rollout:
    """A rollout with these responses; token ids are the text's code points."""
    samples = (Sample(index=n, ids=tuple(map(ord, text)), text=text, finish=finish, logprob=-1.0) for n, text in enumerate(texts))
    return Rollout(id=id_, samples=tuple(samples))


def finish_rewrite(run: SavedRun, rollouts: Iterable[Rollout], task: str = "rewrite/tuned") -> None:
    """Leave what the rewrite of `task` would have left."""
    out = run.at(task)
    objects = [out.put(f"rollouts/{safe_key(one.id)}.json", one.model_dump_json().encode()) for one in rollouts]
    now = datetime.now(UTC)
    planned = run.tasks[task]
    manifest = Manifest(
        task=task,
        digest=planned.digest,
        inputs=dict(planned.inputs),
        objects=tuple(objects),
        counts={},
        started=now,
        finished=now,
        seconds=0.0,
        attempts=1,
        versions={},
    )
    write_manifest(out, manifest)
