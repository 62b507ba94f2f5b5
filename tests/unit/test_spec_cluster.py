"""The `cluster` section: what an API server would refuse late, or never, is refused at once, in a sentence with the remedy."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import pytest

from dail_runtime.errors import SpecError
from dail_runtime.spec.kubernetes import checked_image, label_problem, quantity
from dail_runtime.spec.load import load_job

MINIMAL = """\
apiVersion: dail/v1alpha1
kind: DailJob
metadata: {name: one}
spec:
  model: {id: owner/model}
  data: {solutions: x.jsonl}
"""


def refused(folder: Path, text: str) -> str:
    """What is said about a job with this line below `spec`."""
    path = folder / "job.yaml"
    path.write_text(f"{MINIMAL}  {text}\n")
    with pytest.raises(SpecError) as caught:
        load_job(path)
    return str(caught.value)


BAD = [
    ("cluster: {namespace: Team_A}", "cannot be the name of a namespace"),
    ("cluster: {image: 'has space:1'}", "is no image"),
    ("cluster: {image: 'registry.example.org/dail@sha256:abc'}", "is no image"),
    ("cluster: {imagePullPolicy: Sometimes}", "Always, IfNotPresent or Never"),
    ("cluster: {queue: Team A}", "'Team A' cannot be the name"),
    (f"cluster: {{queue: {'q' * 64}}}", "too long for a queue"),
    ("cluster: {cache: {size: '10'}}", "less than a megabyte"),
    ("cluster: {pools: {train: {scheduler: My Scheduler}}}", "'My Scheduler' cannot be the name"),
    (f"cluster: {{pools: {{train: {{queue: {'q' * 64}}}}}}}", "too long for a queue"),
    ("cluster: {pools: {train: {labels: {kueue.x-k8s.io/queue-name: a}}}}", "follows from the queue; name it in cluster.queue"),
    ("storage: {endpoint: 'minio:9000'}", "'minio:9000' is no address; write http://HOST:PORT or https://HOST"),
    ("storage: {endpoint: 'http://minio:port'}", "is no address"),
    ("storage: {endpoint: 'ftp://minio'}", "is no address"),
    ("storage: {endpoint: 'http://'}", "is no address"),
    ("cluster: {secrets: {imagePull: My_Secret}}", "cannot be the name of a Secret"),
    ("cluster: {serviceAccount: 'a/b'}", "cannot be the name"),
    ("cluster: {cache: {}}", "needs a claim"),
    ("cluster: {cache: {claim: a, size: 1Gi}}", "names a claim and a size"),
    ("cluster: {cache: {size: 20GB}}", "'20GB' is not a quantity"),
    ("cluster: {cache: {claim: a, accessMode: RWX}}", "ReadWriteMany or ReadWriteOnce"),
    ("cluster: {elastic: {minWorkers: 4, maxWorkers: 2}}", "elastic.minWorkers 4 is above maxWorkers 2"),
    ("cluster: {elastic: {}}", "maxWorkers: is missing"),
    ("cluster: {retries: -1}", "at least 0"),
    ("cluster: {timeouts: {serverStart: 5}}", "at least 30"),
    ("cluster: {metricsPort: 80}", "at least 1024"),
    ("cluster: {metricsPort: 8000}", "8000 is the port of the model servers"),
    ("cluster: {pools: {gpu: {}}}", "no such field here"),
    ("cluster: {pools: {train: {gpus: -1}}}", "at least 0"),
    ("cluster: {pools: {train: {gpuResource: gpu}}}", "'gpu' is no extended resource"),
    ("cluster: {pools: {train: {gpuResource: kubernetes.io/gpu}}}", "is no extended resource"),
    ("cluster: {pools: {train: {cpu: two}}}", "'two' is not a quantity"),
    ("cluster: {pools: {train: {cpu: '0'}}}", "asks for nothing"),
    ("cluster: {pools: {train: {cpu: '4', cpuLimit: 2000m}}}", "cpuLimit 2000m is below the request"),
    ("cluster: {pools: {train: {memory: 8GB}}}", "Mi and Gi, not MB and GB"),
    ("cluster: {pools: {train: {memory: '8'}}}", "less than a megabyte"),
    ("cluster: {pools: {train: {memory: 8Gi, shmSize: 8Gi}}}", "leaves nothing of memory"),
    ("cluster: {pools: {train: {resources: {rdma: 1}}}}", "'rdma' is no extended resource"),
    ("cluster: {pools: {train: {resources: {rdma/ib: 0}}}}", "asks for nothing"),
    ("cluster: {pools: {train: {resources: {nvidia.com/gpu: 1}}}}", "which `gpus` asks for"),
    ("cluster: {pools: {train: {nodeSelector: {'a b': c}}}}", "the label key 'a b' is none"),
    ("cluster: {pools: {train: {nodeSelector: {a: 'b c'}}}}", "the label a may not be 'b c'"),
    ("cluster: {pools: {train: {nodeSelector: {'Up_per/x': y}}}}", "a prefix that is no domain name"),
    ("cluster: {pools: {train: {labels: {dail.dev/run: x}}}}", "is dail's own"),
    ("cluster: {pools: {train: {annotations: {'a b': c}}}}", "annotation key"),
    ("cluster: {pools: {train: {tolerations: [{operator: Is}]}}}", "Exists or Equal"),
    ("cluster: {pools: {train: {tolerations: [{key: a, value: b}]}}}", "needs operator: Equal"),
    ("cluster: {pools: {train: {tolerations: [{operator: Equal, value: b}]}}}", "needs the taint's key"),
    ("cluster: {pools: {train: {tolerations: [{key: a, effect: Evict}]}}}", "'Evict' is not known here"),
    ("cluster: {pools: {train: {tolerations: [{key: a, tolerationSeconds: 5}]}}}", "effect: NoExecute"),
    ("cluster: {pools: {train: {affinity: {nodeAfinity: {}}}}}", "affinity has no 'nodeAfinity'"),
    ("cluster: {pools: {train: {affinity: {nodeAffinity: all}}}}", "is a group of fields"),
    ("cluster: {pools: {train: {env: [{name: HF_TOKEN, value: x}]}}}", "dail sets HF_TOKEN itself"),
    ("cluster: {pools: {train: {env: [{name: 1X, value: x}]}}}", "cannot be the name of an environment variable"),
    ("cluster: {pools: {train: {env: [{name: X}]}}}", "a value or a secret"),
    ("cluster: {pools: {train: {env: [{name: X, value: a}, {name: X, value: b}]}}}", "env has X twice"),
    ("cluster: {pools: {train: {env: [{name: X, secret: {name: A_B, key: c}}]}}}", "cannot be the name of a Secret"),
    ("cluster: {pools: {train: {volumes: [{name: shm, mountPath: /x, source: {emptyDir: {}}}]}}}", "dail has a volume 'shm'"),
    ("cluster: {pools: {train: {volumes: [{name: x, mountPath: x, source: {emptyDir: {}}}]}}}", "write an absolute path"),
    ("cluster: {pools: {train: {volumes: [{name: x, mountPath: /tmp/, source: {emptyDir: {}}}]}}}", "of its own at /tmp"),
    ("cluster: {pools: {train: {volumes: [{name: x, mountPath: /a/../tmp, source: {emptyDir: {}}}]}}}", "write an absolute path"),
    ("cluster: {pools: {train: {volumes: [{name: x, mountPath: /x, source: {}}]}}}", "exactly one source"),
    ("cluster: {pools: {train: {volumes: [{name: x, mountPath: /x, source: {hostPath: {path: /}}}]}}}", "hostPath volumes are forbidden"),
    (
        "cluster: {pools: {train: {volumes: [{name: x, mountPath: /x, source: {emptyDir: {}}}, "
        "{name: y, mountPath: /x, source: {emptyDir: {}}}]}}}",
        "same mountPath",
    ),
]


@pytest.mark.parametrize(("line", "told"), BAD, ids=[line for line, _ in BAD])
def test_bad_settings_are_told_with_their_place(tmp_path: Path, line: str, told: str) -> None:
    said = refused(tmp_path, line)
    assert told in said
    assert ":7:" in said
    assert len(said.splitlines()) == 1


def test_bad_labels_of_the_job_are_told(tmp_path: Path) -> None:
    path = tmp_path / "job.yaml"
    path.write_text(MINIMAL.replace("{name: one}", "{name: one, labels: {'team name': x}}"))
    with pytest.raises(SpecError, match=r"job\.yaml:3:.*'team name' is none"):
        load_job(path)


@pytest.mark.parametrize(
    ("text", "amount"),
    [
        ("1", 1),
        ("500m", "0.5"),
        (".5", "0.5"),
        ("1.5Gi", 1.5 * 2**30),
        ("64Gi", 64 * 2**30),
        ("1k", 1000),
        ("2M", 2e6),
        ("1e3", 1000),
        ("12E-1", "1.2"),
    ],
)
def test_quantities(text: str, amount: float | str) -> None:
    assert quantity(text) == Decimal(str(amount))


@pytest.mark.parametrize("text", ["", "1 Gi", "-1", "1gb", "1KiB", "m", "1.2.3", "0", "1Gi\n", "١"])
def test_what_is_no_quantity(text: str) -> None:
    with pytest.raises(ValueError, match=r"quantity|asks for nothing"):
        quantity(text)


@pytest.mark.parametrize(
    "image",
    [
        "dail",
        "dail:1.0",
        "localhost/dail/runtime-cpu:dev",
        "registry.inside.example:5000/dail/runtime:0.1.0",
        "ghcr.io/a/b-c__d.e@sha256:" + "a" * 64,
        "ghcr.io/a/b:tag@sha256:" + "a" * 64,
    ],
)
def test_images_that_nodes_can_pull(image: str) -> None:
    assert checked_image(image) == image


def test_labels_that_kubernetes_takes() -> None:
    for key, value in (("a", ""), ("example.org/A_b.c-d", "x" * 63), ("nvidia.com/gpu.product", "NVIDIA-A100-SXM4-80GB")):
        assert label_problem(key, value) is None
