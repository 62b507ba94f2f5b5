"""Every object is one that the models of the packages kubernetes and kubeflow-training know whole; needs no API server."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest
from kubeflow.training import ApiClient

from dailctl.render.chart import task_objects
from tests.golden import CASES, rendered

MODELS = {"PyTorchJob": "KubeflowOrgV1PyTorchJob"}
"""All others: V1 and the kind."""


def as_text(value: Any) -> Any:
    """Quantities are numbers or texts to the API, texts to the models."""
    if isinstance(value, dict):
        return {
            key: {name: str(amount) for name, amount in inner.items()} if key in ("limits", "requests") else as_text(inner)
            for key, inner in value.items()
        }
    return [as_text(inner) for inner in value] if isinstance(value, list) else value


@pytest.mark.parametrize("case", CASES)
def test_the_models_know_every_field(case: str) -> None:
    found, api = rendered(case), ApiClient()
    for one in [*found.objects, *(one for task in found.run.tasks for one in task_objects(found.objects[0], task))]:
        model = api.deserialize(SimpleNamespace(data=json.dumps(one)), MODELS.get(one["kind"], f"V1{one['kind']}"))
        # What a model does not know is lost on the way through it; what it requires and misses, it refuses.
        assert api.sanitize_for_serialization(model) == as_text(one), one["metadata"]["name"]
