"""From a run's results to the report: reads what the stages wrote and compares the models."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from dail_runtime.check.records import TEACHER, TeacherCheck
from dail_runtime.evaluate.records import RESPONSES, SUMMARY, SetFigures, Summary
from dail_runtime.evaluate.summary import difference
from dail_runtime.objects import CURVES, KEPT, PROBLEMS, evaluation_key
from dail_runtime.records import Kept, Problem, Rollout, from_jsonl
from dail_runtime.report.model import ModelFigures, Report, StageFigures, TraceExample
from dail_runtime.report.verdict import rivals, verdict
from dail_runtime.spec.job import BASE, DailJob
from dail_runtime.spec.plan import STAGES
from dail_runtime.stages.usage import read_usage
from dail_runtime.store import Manifest, Store, read_manifest, safe_key

SHOWN = 3
"""Problems shown side by side, of those trained on and of the evaluation problems each."""


def collect(job: DailJob, inputs: Mapping[str, Store]) -> Report:
    """The report of a run whose tasks (`inputs`: task -> prefix) have all finished."""
    manifests = {name: manifest for name, store in inputs.items() if (manifest := read_manifest(store)) is not None}
    primary = job.spec.primary()
    summaries = {target: Summary.model_validate_json(inputs[f"evaluate/{target}"].get(SUMMARY)) for target in job.spec.targets()}
    names = list(dict.fromkeys(set_ for summary in summaries.values() for set_ in summary.sets))
    sets = {set_: _compare({t: s.sets[set_] for t, s in summaries.items() if set_ in s.sets}, primary) for set_ in names}
    first = names[0]
    better = rivals(primary, sets[first])
    notes = [note for stage in STAGES for name, m in manifests.items() if name.split("/")[0] == stage for note in m.counts.get("notes", [])]
    return Report(
        name=job.metadata.name,
        verdict=verdict(first, primary, sets[first]),
        variants=sets[first],
        sets=sets,
        stages=_stages(job, inputs, manifests),
        dropped=_dropped(manifests, primary),
        counts={name: manifest.counts for name, manifest in manifests.items()},
        teacher={
            name.split("/")[1]: TeacherCheck.model_validate_json(inputs[name].get(TEACHER)) for name in inputs if name.startswith("check/")
        },
        rivals=better,
        notes=list(dict.fromkeys([*better, *notes])),
        examples=[*_trained(inputs, manifests, primary), *_answered(inputs, first, [t for t in (BASE, primary) if t in summaries])],
        versions=next(iter(manifests.values())).versions,
        job=job.model_dump(mode="json"),
    )


def curves(inputs: Mapping[str, Store]) -> dict[str, list[dict[str, Any]]]:
    """Variant -> the rows of its training curve."""
    found = {name.split("/")[1]: store.get(CURVES) for name, store in inputs.items() if name.startswith("train/")}
    return {variant: [json.loads(line) for line in data.splitlines()] for variant, data in found.items()}


def _compare(models: Mapping[str, SetFigures], primary: str) -> dict[str, ModelFigures]:
    def over(name: str, other: str) -> dict[int, Any]:
        if name == other or other not in models:
            return {}
        return {k: difference(models[name], models[other], k) for k in models[name].pass_at}

    return {
        name: ModelFigures(**figures.model_dump(by_alias=False), over_base=over(name, BASE), over_primary=over(name, primary))
        for name, figures in models.items()
    }


def _stages(job: DailJob, inputs: Mapping[str, Store], manifests: Mapping[str, Manifest]) -> dict[str, StageFigures]:
    stages = {}
    for stage in STAGES:
        tasks = {name: manifest for name, manifest in manifests.items() if name.split("/")[0] == stage}
        if tasks:
            stages[stage] = StageFigures(
                seconds=round(sum(m.seconds for m in tasks.values()), 3),
                attempts=sum(m.attempts for m in tasks.values()),
                tasks={name: m.seconds for name, m in tasks.items()},
                tokens=sum(_tokens(job, name, m) for name, m in tasks.items()),
                stored=sum(one.size for m in tasks.values() for one in m.objects),
                gpu_hours=_gpu_hours(inputs[name] for name in tasks),
            )
    return stages


def _tokens(job: DailJob, task: str, manifest: Manifest) -> int:
    stage, _, variant = task.partition("/")
    count: int = manifest.counts.get("tokens", 0)
    return round(count * job.spec.settings(variant).train.total_epochs()) if stage == "train" else count


def _gpu_hours(tasks: Iterable[Store]) -> dict[str, float]:
    seconds: Counter[str] = Counter()
    for task in tasks:
        if (usage := read_usage(task)) is not None:
            seconds.update(usage.gpu_seconds)
    return {name: round(value / 3600, 4) for name, value in seconds.items()}


def _dropped(manifests: Mapping[str, Manifest], primary: str) -> dict[str, int]:
    """Reasons over the stages that lead to the primary variant: other variants may drop the same rows again."""
    dropped: Counter[str] = Counter()
    for name in _lineage(manifests, f"train/{primary}"):
        dropped.update(manifests[name].counts.get("dropped", {}))
    return dict(dropped.most_common())


def _lineage(manifests: Mapping[str, Manifest], task: str) -> list[str]:
    """`task` and everything it was made from, each once."""
    order = [task]
    for name in order:
        order.extend(upstream for upstream in manifests[name].inputs if upstream not in order)
    return order


def _trained(inputs: Mapping[str, Store], manifests: Mapping[str, Manifest], primary: str) -> list[TraceExample]:
    """The first problems with a kept trace, beside what the expert wrote."""
    select = next(name for name in manifests[f"train/{primary}"].inputs if name.startswith("select/"))
    problems = _problems(inputs["prepare"].get(PROBLEMS))
    kept = {row.id: row for row in reversed(list(from_jsonl(Kept, inputs[select].get(KEPT))))}
    chosen = sorted(kept)[:: max(1, len(kept) // SHOWN)][:SHOWN]
    return [_example(problems[id_], rewritten=kept[id_].text) for id_ in chosen]


def _answered(inputs: Mapping[str, Store], set_: str, models: Sequence[str]) -> list[TraceExample]:
    """Evaluation problems with the first answer of the base and of the tuned model."""
    problems = _problems(inputs["prepare"].get(evaluation_key(set_)))
    examples = []
    for id_ in sorted(problems)[:: max(1, len(problems) // SHOWN)]:
        answers = {}
        for model in models:
            try:
                rollout = Rollout.model_validate_json(inputs[f"evaluate/{model}"].get(f"{RESPONSES}{safe_key(f'{set_}/{id_}')}.json"))
            except KeyError:
                break  # Too long for the model: it was left out for every model alike.
            answers[model] = rollout.samples[0].text
        if len(answers) == len(models):
            examples.append(_example(problems[id_], answers=answers))
    return examples[:SHOWN]


def _problems(data: bytes) -> dict[str, Problem]:
    return {problem.id: problem for problem in from_jsonl(Problem, data)}


def _example(problem: Problem, *, rewritten: str | None = None, answers: Mapping[str, str] | None = None) -> TraceExample:
    expert = problem.solutions[0] if problem.solutions else f"Answer: {problem.answer}"
    return TraceExample(id=problem.id, problem=problem.problem, expert=expert, rewritten=rewritten, answers=dict(answers or {}))
