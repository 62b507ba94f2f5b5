"""Finds runs on a cluster: all of a namespace from their records' metadata alone, or one by its name, its job's name or its file."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from dail_runtime.errors import DailError, TransientError, UsageError
from dailctl.conductor.control import Control, read_control
from dailctl.conductor.status import KEY, RunStatus, RunSummary, fresh_status, known_status, read_summary, summary_of
from dailctl.kube import Client, NotFound
from dailctl.kube.resources import CONFIG_MAP, Object, label_of, name_of, uid_of
from dailctl.observe.model import RunView
from dailctl.render.names import COMPONENT_LABEL, JOB_LABEL
from dailctl.render.record import RunRecord, is_record, run_of_record

RECORDS = f"app.kubernetes.io/name=dail,{COMPONENT_LABEL}=record"
"""Selects the records of runs."""
AT_ONCE = 16
UNREAD = RunSummary()
MOST_SIMILAR = 3
"""Names that are offered for one that does not exist."""
Read = dict[tuple[str, str], RunSummary | None]
"""(uid, resource version) of a record -> the summary of its data."""
_NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")


@dataclass(frozen=True)
class Held:
    """One run, as its record has it."""

    obj: Object
    """The record."""
    record: RunRecord
    status: RunStatus
    """As its conductor last wrote it; everything waiting where none has."""
    begun: bool
    """Whether a conductor has written a status at all."""
    control: Control

    @property
    def name(self) -> str:
        """The run."""
        return self.record.name

    @property
    def namespace(self) -> str:
        """Where it is."""
        return str(self.obj["metadata"]["namespace"])

    @property
    def uid(self) -> str:
        """Of its record."""
        return uid_of(self.obj)


def held_of(obj: Object) -> Held:
    """The run that a record describes.

    Raises:
        ClusterError: it is no record of this version of dail.
    """
    data: dict[str, str] = obj.get("data") or {}
    record = run_of_record(data)
    status = known_status(record, data)
    fresh = fresh_status((task.name, task.slug, task.stage) for task in record.tasks)
    if status is None and KEY in data:
        told = f"{KEY} of its record cannot be read; its conductor writes it anew, and dailctl resume {record.name} starts one"
        fresh = fresh.model_copy(update={"message": told})
    return Held(obj, record, status or fresh, status is not None, read_control(data))


def list_runs(client: Client, *, namespace: str | None = None, labels: str = "") -> list[RunView]:
    """Every run of a namespace (`ALL`: of all of them) that the label selector chooses, by namespace and name.

    Records are large, because they hold every manifest; only their metadata is read, and the whole record where no conductor
    has put a summary there yet.

    Raises:
        ApiError: the user may not list them.
    """
    selector = f"{RECORDS},{labels}" if labels else RECORDS
    found = client.select(CONFIG_MAP, namespace=namespace, labels=selector, metadata_only=True)
    return views_of(client, found)


def views_of(client: Client, records: Iterable[Object], read: Read | None = None) -> list[RunView]:
    """The runs that these records' metadata stands for, by namespace and name.

    Args:
        client: reads the records that no conductor has put a summary beside yet.
        records: metadata alone.
        read: what was read before, for whoever looks again and again: a record that has not changed is not read twice.
    """
    found, read = list(records), {} if read is None else read
    bare = [one for one in found if read_summary(one["metadata"].get("annotations") or {}) is None and _version(one) not in read]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        answers = pool.map(lambda one: _summary_in(client, one), bare)
        read |= {_version(one): summary for one, summary in zip(bare, answers, strict=True) if summary is not UNREAD}
    views = []
    for one in found:
        summary = read_summary(one["metadata"].get("annotations") or {}) or read.get(_version(one)) or RunSummary()
        views.append(view_of(one, summary))
    return sorted(views, key=lambda view: (view.namespace, view.name))


def view_of(obj: Object, summary: RunSummary) -> RunView:
    """A run as `get` shows it."""
    meta = obj["metadata"]
    return RunView(
        name=name_of(obj),
        namespace=str(meta["namespace"]),
        job=label_of(obj, JOB_LABEL) or name_of(obj).rpartition("-")[0],
        state="deleting" if meta.get("deletionTimestamp") else summary.state,
        message=summary.message,
        done=summary.done,
        total=summary.total,
        now=summary.now,
        progress=summary.progress,
        pods=summary.pods,
        ready=summary.ready,
        restarts=summary.restarts,
        created=datetime.fromisoformat(meta["creationTimestamp"]),
        started=summary.started,
        finished=summary.finished,
    )


def find_run(client: Client, name: str | None, file: Path | None, *, acting: bool = False) -> Held:
    """The run called `name`, or the newest of the job called `name`, or the one of a job file.

    Args:
        client: where to look.
        name: of the run or of its job.
        file: a job file, where no name is given; with neither, ./job.yaml.
        acting: the run will be changed: then a job's name has to mean one run that has not ended, or one run at all.

    Raises:
        UsageError: there is none, or several and `acting`.
    """
    if name is not None and file is not None:
        raise UsageError(f"both the run {name!r} and the job file {file} are given; give one of them")
    if name is None:
        return _of_file(client, file, acting=acting)
    if not _NAME.fullmatch(name):
        raise UsageError(f"{name!r} is no name of a run; names hold lower-case letters, digits and '-' (a job file is given with -f)")
    return _by_name(client, name) or _of_job(client, name, name, acting=acting)


def _of_file(client: Client, file: Path | None, *, acting: bool) -> Held:
    from dailctl.render.cluster_job import for_cluster
    from dailctl.render.values import run_record
    from dailctl.runs import run_of_file, the_job_file

    path = file if file is not None else the_job_file()
    run = run_of_file(path)
    job, content, _ = for_cluster(run.job, run.content)
    name = run_record(job, content).name
    # The file, or the data it names, may have been edited since.
    return _by_name(client, name) or _of_job(client, job.metadata.name, name, acting=acting)


def _by_name(client: Client, name: str) -> Held | None:
    obj = client.find(CONFIG_MAP, name)
    return held_of(obj) if obj is not None and is_record(obj) else None


def _of_job(client: Client, job: str, wanted: str, *, acting: bool) -> Held:
    found = client.select(CONFIG_MAP, labels=f"{RECORDS},{JOB_LABEL}={job}", metadata_only=True)
    runs = sorted(views_of(client, found), key=lambda view: (view.created, view.name))
    if not runs:
        all_runs = client.select(CONFIG_MAP, labels=RECORDS, metadata_only=True)
        like = similar(wanted, [name for one in all_runs for name in (name_of(one), label_of(one, JOB_LABEL)) if name])
        where = f"in namespace {client.namespace}" + (f" (there is {', '.join(like)})" if like else "")
        raise UsageError(
            f"there is no run {wanted} {where}; dailctl get lists them, -n chooses another namespace, dailctl submit starts one"
        )
    if acting:
        going = [run for run in runs if run.finished is None]
        if len(runs) > 1 and len(going) != 1:
            names = ", ".join(run.name for run in (going or runs))
            raise UsageError(f"job {job} has several runs ({names}); name the one that is meant")
        runs = going or runs
    found_run = _by_name(client, runs[-1].name)
    if found_run is None:
        raise UsageError(f"run {runs[-1].name} was deleted just now")
    return found_run


def similar(wanted: str, names: Iterable[str]) -> list[str]:
    """Those of the names that someone who wrote `wanted` may have meant, the likeliest first."""
    known = list(dict.fromkeys(names))
    begun = [name for name in known if name.startswith(wanted)]
    return list(dict.fromkeys([*difflib.get_close_matches(wanted, known, n=MOST_SIMILAR), *begun]))[:MOST_SIMILAR]


def _version(obj: Object) -> tuple[str, str]:
    """Tells every state of every object from every other."""
    return uid_of(obj), str(obj["metadata"].get("resourceVersion"))


def _summary_in(client: Client, obj: Object) -> RunSummary | None:
    """The summary that a record's data gives; None where the record is gone, UNREAD where the API server does not answer now."""
    try:
        whole = client.get(CONFIG_MAP, name_of(obj), namespace=str(obj["metadata"]["namespace"]))
        return summary_of(held_of(whole).status)
    except NotFound:
        return None
    except TransientError:
        return UNREAD
    except DailError as err:
        return RunSummary(message=str(err))


def since(moment: datetime | None, until: datetime | None) -> float | None:
    """Seconds from one moment to another, or to now."""
    return None if moment is None else max(0.0, ((until or datetime.now(UTC)) - moment).total_seconds())
