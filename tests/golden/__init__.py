"""Rendered runs as reviewed artefacts: `cases/` are job files, `expected/` what they become. `make golden` writes the latter anew."""

from __future__ import annotations

import hashlib
from pathlib import Path

from dail_runtime.spec import DailJob
from dail_runtime.spec.load import load_job
from dailctl.render.of_job import Rendered, render_job
from dailctl.render.texts import as_yaml

FOLDER = Path(__file__).parent
CASES = tuple(sorted(path.stem for path in (FOLDER / "cases").glob("*.yaml")))
NAMESPACE = "research"


def rendered(case: str) -> Rendered:
    """The case, rendered."""
    job = load_job(FOLDER / "cases" / f"{case}.yaml")
    return render_job(job, content_of(job), NAMESPACE)


def content_of(job: DailJob) -> dict[str, str]:
    """Digests of inputs that do not exist, made from their names."""
    names = [job.spec.model.id, job.spec.data.solutions, *(one.path for one in job.spec.data.evaluation)]
    return {name: hashlib.sha256(name.encode()).hexdigest() for name in names}


def expected(case: str) -> Path:
    """Where its golden is."""
    return FOLDER / "expected" / f"{case}.yaml"


def update() -> None:
    """Write every golden."""
    for case in CASES:
        expected(case).write_text(as_yaml(rendered(case).objects), encoding="utf-8")
