"""`helm test` of the chart: `python -m dailctl.render.selftest FOLDER`, in a pod that mounts the run's record as FOLDER.

Says in a sentence what is wrong: a record that this version cannot read, tasks without manifests, a store that cannot be reached.
"""

from __future__ import annotations

import sys
from pathlib import Path

from dail_runtime.errors import ClusterError, DailError
from dail_runtime.spec import plan
from dail_runtime.store import open_store
from dailctl.render.parse import parse
from dailctl.render.record import RunRecord, run_of_record, saved_job


def check(folder: Path) -> RunRecord:
    """The run that the record in `folder` describes, after everything about it was looked at.

    Raises:
        ClusterError: the record is not whole.
        StoreError, TransientError: its store cannot be read.
    """
    # The kubelet mounts each key as a link; beside them lie folders of its own, whose names begin with dots.
    data = {path.name: path.read_text(encoding="utf-8") for path in folder.iterdir() if not path.name.startswith(".")}
    run = run_of_record(data)
    planned = [task.name for task in plan(*saved_job(data))]
    if planned != [task.name for task in run.tasks]:
        raise ClusterError(f"the record lists other tasks than its job has ({', '.join(planned)}); render it again with this version")
    for task in run.tasks:
        if not parse(data.get(task.manifests, "")):
            raise ClusterError(f"the record has no objects for the task {task.name}; render it again")
    open_store(run.run_uri, endpoint=run.endpoint, region=run.region).head("latest.json")
    return run


def main(arguments: list[str]) -> int:
    """Print the verdict; returns the exit code."""
    try:
        run = check(Path(arguments[0]))
    except DailError as err:
        print(err, file=sys.stderr)
        return err.exit_code
    print(f"{run.name}: {len(run.tasks)} tasks, {run.run_uri} can be read")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
