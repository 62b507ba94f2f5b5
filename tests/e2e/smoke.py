"""A whole job on any cluster: `python -m tests.e2e.smoke --kubeconfig FILE [--job FILE] [--set KEY=VALUE]...`; ends with one line of JSON.

The cluster needs Kubeflow's training operator, both images on its nodes, and a storage that its pods and this machine reach at the same
address: the one of AWS_ENDPOINT_URL_S3, or with --serve-s3 ADDRESS a server (versitygw) that runs here on that address.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from dail_runtime.errors import DailError
from dail_runtime.models import model_folder
from dail_runtime.spec.load import load_job
from images import build
from tests.e2e import whole_job
from tests.lab import versitygw
from tests.lab.cluster import Cluster, KubectlError
from tests.support.stage_process import REPOSITORY

JOB = REPOSITORY / "examples" / "tinymath" / "smoke.yaml"
PORT = 7070


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.e2e.smoke", description=__doc__)
    parser.add_argument("--kubeconfig", type=Path, required=True, help="an administrator's: the job gets a namespace of its own")
    parser.add_argument("--job", type=Path, default=JOB, help=f"default: {JOB.relative_to(REPOSITORY)}")
    parser.add_argument("--set", dest="settings", action="append", default=[], metavar="KEY=VALUE", help="a setting of the job")
    parser.add_argument("--serve-s3", metavar="ADDRESS", help="run an S3 server on this address of this machine")
    parser.add_argument("--image", help="runtime image; default: the one that `make images` builds here")
    parser.add_argument("--control-image", help="control image; default: the one that `make images` builds here")
    parser.add_argument("--limit", type=float, default=whole_job.LIMIT_SECONDS, help="seconds the run may take (%(default)s)")
    arguments = parser.parse_args()
    # Tests take their programs from there; a person's kubectl will do.
    if kubectl := shutil.which("kubectl"):
        os.environ.setdefault("KUBEBUILDER_ASSETS", str(Path(kubectl).parent))
    folder = Path(tempfile.mkdtemp(prefix="dail-smoke-"))
    cluster = Cluster(arguments.kubeconfig)
    try:
        _check(cluster)
        with _storage(arguments.serve_s3, folder) as storage:
            control, runtime = arguments.control_image, arguments.image
            if control is None or runtime is None:
                built = {image.name: image.reference for image in build.build()}
                control, runtime = control or built["control"], runtime or built["runtime-cpu"]
            where = whole_job.Where(cluster, storage, runtime, control)
            settings = (*_model_of_a_package(arguments.job), *arguments.settings)
            print(json.dumps(whole_job.run(where, arguments.job, settings, folder, arguments.limit)))
    except (AssertionError, DailError, RuntimeError, subprocess.SubprocessError) as err:
        raise SystemExit(f"smoke: {err}") from None


def _check(cluster: Cluster) -> None:
    """Whether there is such a cluster with the operator in it, before minutes go into images."""
    try:
        cluster.kubectl("get", "customresourcedefinition", "pytorchjobs.kubeflow.org", "--request-timeout=30s")
    except KubectlError as err:
        if "(NotFound)" in str(err):
            raise AssertionError("the cluster has no PyTorchJob (kubeflow.org/v1); install the Kubeflow training operator 1.9") from None
        said = str(err).splitlines()[-1]
        raise AssertionError(f"the cluster of {cluster.kubeconfig} cannot be asked: {said}; correct KUBECONFIG") from None


def _model_of_a_package(job: Path) -> tuple[str, ...]:
    """Settings that put a model which travels in a Python package, as the images do not have it, into the store."""
    model = load_job(job).spec.model
    return (f"model.id={model_folder(model)}", "model.ggufFile=null") if model.id.startswith("python:") else ()


@contextlib.contextmanager
def _storage(address: str | None, folder: Path) -> Iterator[Mapping[str, str]]:
    if address is None:
        names = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION", "AWS_ENDPOINT_URL_S3")
        absent = [name for name in names if not os.environ.get(name)]
        if absent:
            raise SystemExit(f"smoke: set {', '.join(absent)} for a storage that pods reach too, or name an address to --serve-s3")
        yield {name: os.environ[name] for name in names}
        return
    with versitygw.running(folder / "s3", address, PORT) as server:
        yield {**server.environment(), "AWS_ENDPOINT_URL_S3": server.endpoint}


if __name__ == "__main__":
    main()
