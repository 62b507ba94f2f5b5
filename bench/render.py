"""How long the rendering of a run takes: from the job in memory to parsed and checked objects. `make bench-render`.

Yardsticks: the limit of 20 ms; Helm's engine alone, which any tool over this chart pays; and the same run with ten variants, whose
tasks are checked once where they differ in names alone. PyYAML's usual loader on the same texts shows what the strict parser saves.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import yaml

from bench.common import interleaved, last_line
from dail_runtime.spec import DailJob
from dailctl.render.chart import render, render_templates
from dailctl.render.cluster_job import for_cluster
from dailctl.render.parse import parse
from dailctl.render.size import model_bytes
from dailctl.render.values import run_values
from tests.support.jobs import CONTENT, a_job

LIMIT_MS = 20.0
REPEATS = 40
VARIANTS: dict[str, dict[str, object]] = {f"variant-{number}": {} for number in range(10)}


def milliseconds(work: Callable[[], object]) -> float:
    """Wall time of one call."""
    start = time.perf_counter()
    work()
    return (time.perf_counter() - start) * 1000


def main() -> None:
    """Measure and print."""
    one, many = a_job(train={"workers": 2}), a_job(train={"workers": 2}, variants=VARIANTS)

    def whole(job: DailJob = one) -> object:
        moved, renamed, _ = for_cluster(job, CONTENT)
        return render(run_values(moved, renamed, model_bytes(moved.spec.model.id)), "research")

    moved, renamed, _ = for_cluster(one, CONTENT)
    values = run_values(moved, renamed, None)
    texts = render_templates(values, "run", "research")
    data = next(part for text in texts for part in parse(text) if part["kind"] == "ConfigMap")["data"]
    manifests = [text for key, text in data.items() if key[0].isdigit()]
    found = interleaved(
        {
            "render": lambda: milliseconds(whole),
            "helm": lambda: milliseconds(lambda: render_templates(values, "run", "research")),
            "ten variants": lambda: milliseconds(lambda: whole(many)),
            "strict parser": lambda: milliseconds(lambda: [parse(text) for text in manifests]),
            "PyYAML": lambda: milliseconds(lambda: [list(yaml.load_all(text, Loader=yaml.CSafeLoader)) for text in manifests]),
        },
        REPEATS,
    )
    for name, median in found.items():
        print(f"{name:14} {median:6.1f} ms")
    last_line(
        "render",
        {
            "render_ms": found["render"],
            "render_over_limit_20_ms": found["render"] / LIMIT_MS,
            "render_over_helm": found["render"] / found["helm"],
            "ten_variants_over_one": found["ten variants"] / found["render"],
            "strict_parser_over_pyyaml": found["strict parser"] / found["PyYAML"],
        },
    )


if __name__ == "__main__":
    main()
