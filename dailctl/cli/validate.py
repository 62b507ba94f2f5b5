"""`dailctl validate`: the job file, the data it names and the plan that follows, checked without writing anything."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dailctl import output
from dailctl.cli.options import DocumentOutput, Job, Overrides

if TYPE_CHECKING:
    from dailctl.checks import DataFile


def validate(file: Job = None, overrides: Overrides = None, form: DocumentOutput = None) -> None:
    """Check a job file and its data.

    Nothing is written. Where it names cluster.image, what keeps it from a cluster is told. -o prints the job with every default
    filled in and every path absolute.
    """
    from dail_runtime.errors import SetupError, SpecError
    from dailctl.checks import check_data, check_servers
    from dailctl.render.cluster_job import for_cluster
    from dailctl.runs import run_of_file, the_job_file

    path = file if file is not None else the_job_file()
    run = run_of_file(path, overrides or ())
    files, notes = check_data(run)
    try:
        check_servers(run)
    except SetupError as err:
        # On a cluster it is as it should be.
        notes.append(f"{err}.")
    if run.job.spec.cluster.image is not None:
        try:
            for_cluster(run.job, run.content)
        except SpecError as err:
            notes += [f"A cluster cannot run this job: {line}." for line in str(err).splitlines()]
    for note in notes:
        output.warn(note)
    if form is not None:
        output.document(run.job.model_dump(mode="json"), form)
    else:
        output.data(output.table(["NAME", "PROBLEMS", "SOLUTIONS", "DROPPED", "FILE"], [_row(one) for one in files]))
    output.talk(f"{path} is valid: {len(run.tasks)} tasks ({', '.join(task.name for task in run.tasks)})")


def _row(file: DataFile) -> list[str]:
    counts = file.counts
    dropped = sum(counts.get("dropped", {}).values())
    solutions = str(counts.get("solutions", 0)) if file.name == "solutions" else "-"
    return [file.name, str(counts["problems"]), solutions, str(dropped), file.path]
