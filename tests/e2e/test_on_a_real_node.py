"""The whole job on the lab's node: conductor, model servers, a PyTorchJob and the storage are the real ones, in the project's images."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from images import build
from tests.e2e import whole_job
from tests.lab.node import Node
from tests.support.require import require
from tests.support.stage_process import REPOSITORY

SMALL = ("data.limit=64", "train.epochs=2", "evaluate.samples=1", "evaluate.budgets=[64]")
"""Of the demo's job every variant, on so few problems that two cores, which also run the cluster, are done in minutes; and in few steps,
because what rounding makes of the order in which two ranks add grows with each of them."""

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(3600)]


def test_a_job_submitted_from_a_laptop_that_dies_ends_with_its_report_and_its_record_alone(
    request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    reason = build.missing()
    require(not reason, reason)
    # Before the machine's node is taken from other tests: it may take minutes.
    images = {image.name: image for image in build.build()}
    node: Node = request.getfixturevalue("node")
    for image in images.values():
        # The tag says what is in it.
        if image.reference not in node.ctr("images", "ls", "--quiet").split():
            node.ctr("images", "import", image.archive)
    storage = {**node.s3.environment(), "AWS_ENDPOINT_URL_S3": node.s3.endpoint}
    where = whole_job.Where(node, storage, images["runtime-cpu"].reference, images["control"].reference)
    figures = whole_job.run(where, REPOSITORY / "examples" / "tinymath" / "job.yaml", SMALL, tmp_path)
    print(json.dumps(figures))
