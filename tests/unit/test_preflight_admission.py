"""What the API server refuses of a run's objects, and what helps."""

from __future__ import annotations

from typing import Any, cast

import pytest

from dailctl.kube import Client
from dailctl.kube.errors import api_error
from dailctl.observe.any_job import any_submission
from dailctl.preflight.admission import refused_objects

OPERATOR = "install the Kubeflow training operator 1.9, or ask an administrator of the cluster to"
STRICT = 'PyTorchJob in version "v1" cannot be handled as a PyTorchJob: strict decoding error: unknown field '


class Refusing:
    """A client whose API server answers so to everything that is created."""

    def __init__(self, status: int, message: str) -> None:
        self._answer = status, {"message": message}

    def create(self, *_: Any, **__: Any) -> None:
        raise api_error(*self._answer, "create it", "jane")


@pytest.mark.parametrize(
    ("status", "message", "remedy"),
    [
        (400, f'{STRICT}"spec.nprocPerNode"', OPERATOR),
        (422, 'PyTorchJob.kubeflow.org "x" is invalid: spec.nprocPerNode: Invalid value: "string"', OPERATOR),
        (400, f'{STRICT}"spec.pytorchReplicaSpecs.Master.template.spec.affinity.nodeAffinity.required"', "correct cluster.pools.train"),
    ],
)
def test_an_operator_of_another_version_is_not_for_the_job_to_correct(status: int, message: str, remedy: str) -> None:
    training = [one for one in any_submission("ml").stages if one["kind"] == "PyTorchJob"]
    (found,) = refused_objects(cast("Client", Refusing(status, message)), training)
    assert found.sentence.endswith(f"; {remedy}")
    assert found.final
