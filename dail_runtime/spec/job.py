"""The job file as a whole: `DailJob`."""

from __future__ import annotations

import re
from typing import Any, Literal, Self

from pydantic import Field, ValidationError, field_validator, model_validator

from dail_runtime.spec.base import Section
from dail_runtime.spec.cluster import ClusterSpec
from dail_runtime.spec.data import DataSpec
from dail_runtime.spec.evaluate import EvaluateSpec
from dail_runtime.spec.kubernetes import checked_labels
from dail_runtime.spec.model import ModelSpec
from dail_runtime.spec.prompts import PromptSpec
from dail_runtime.spec.rewrite import RewriteSpec
from dail_runtime.spec.select import SelectSpec
from dail_runtime.spec.storage import StorageSpec
from dail_runtime.spec.train import TrainSpec

NAME = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"
TUNED = "tuned"
BASE = "base"


class Metadata(Section):
    """What the run is called."""

    name: str = Field(min_length=1, max_length=40, pattern=NAME)
    """Name of the run: lower-case letters, digits and '-', at most 40."""
    labels: dict[str, str] = Field(default_factory=dict)
    """Kubernetes labels for every object of the run."""

    @field_validator("labels")
    @classmethod
    def _are_labels(cls, labels: dict[str, str]) -> dict[str, str]:
        checked_labels(labels)
        return labels


class Variant(Section):
    """Overrides of the job's own settings: partial sections, merged key by key."""

    rewrite: dict[str, Any] = Field(default_factory=dict)
    """Overrides of `rewrite`; the variant then has traces of its own."""
    select: dict[str, Any] = Field(default_factory=dict)
    """Overrides of `select`."""
    train: dict[str, Any] = Field(default_factory=dict)
    """Overrides of `train`."""


class OverridesError(ValueError):
    """Overrides that do not go together with the job's own settings: (variant, section, what pydantic found) for each."""

    def __init__(self, found: list[tuple[str, str, ValidationError]]) -> None:
        self.found = found
        sentences = (
            f"variant {variant!r}: {'.'.join(map(str, (section, *one['loc'])))}: {one['msg'].removeprefix('Value error, ')}"
            for variant, section, err in found
            for one in err.errors()
        )
        super().__init__("; ".join(sentences))


class Settings(Section):
    """What one variant resolves to."""

    rewrite: RewriteSpec
    """How its traces are made."""
    select: SelectSpec
    """Which of them it learns from."""
    train: TrainSpec
    """How it learns."""


class JobSpec(Section):
    """Everything about a run but its name."""

    model: ModelSpec
    """The model."""
    data: DataSpec
    """The expert solutions and the evaluation problems."""
    prompts: PromptSpec = PromptSpec()
    """Wording of the three contexts."""
    storage: StorageSpec = StorageSpec()
    """Where the run keeps what it makes."""
    rewrite: RewriteSpec = RewriteSpec()
    """How traces are sampled."""
    select: SelectSpec = SelectSpec()
    """Which traces are kept."""
    train: TrainSpec = TrainSpec()
    """How the student learns."""
    evaluate: EvaluateSpec = EvaluateSpec()
    """How models are measured."""
    variants: dict[str, Variant] = Field(default_factory=dict)
    """Several settings in one run: name -> overrides. Empty: one variant called `tuned`."""
    cluster: ClusterSpec = ClusterSpec()
    """Pools, queue, images and secrets on a cluster."""
    seed: int = Field(default=0, ge=0, lt=2**63)
    """Root of every random choice: the same seed gives the same run."""

    @field_validator("variants")
    @classmethod
    def _names(cls, variants: dict[str, Variant]) -> dict[str, Variant]:
        for name in variants:
            if name == BASE:
                raise ValueError(f"a variant may not be called {BASE!r}: that is the untrained model; choose another name")
            if not re.fullmatch(NAME, name) or len(name) > 40:
                raise ValueError(f"the variant name {name!r} is not made of lower-case letters, digits and '-' (at most 40)")
        return variants

    @model_validator(mode="after")
    def _resolves(self) -> Self:
        names = [BASE, *self.variant_names()]
        for target in (*self.evaluate.targets, *([self.evaluate.primary] if self.evaluate.primary else [])):
            if target not in names:
                raise ValueError(f"evaluate names the target {target!r}, which is none of the models; write {' or '.join(names)}")
        if self.evaluate.primary == BASE:
            raise ValueError("evaluate.primary is the variant that is compared with base; name a variant")
        found = [one for name in self.variants for one in self._merged(name)[1]]
        if found:
            raise OverridesError(found)
        return self

    def variant_names(self) -> tuple[str, ...]:
        """Names of the trained models, in the file's order; `tuned` alone where the job lists no variants."""
        return tuple(self.variants) or (TUNED,)

    def primary(self) -> str:
        """The variant the verdict is about."""
        return self.evaluate.primary or self.variant_names()[0]

    def targets(self) -> tuple[str, ...]:
        """The models that are evaluated, base first where it is among them."""
        return self.evaluate.targets or (BASE, *self.variant_names())

    def settings(self, variant: str) -> Settings:
        """The sections of `variant`: the job's own with the variant's overrides merged in.

        Raises:
            OverridesError: an override is unknown or out of range.
        """
        sections, found = self._merged(variant)
        if found:
            raise OverridesError(found)
        return Settings(**sections)

    def _merged(self, variant: str) -> tuple[dict[str, Any], list[tuple[str, str, ValidationError]]]:
        override = self.variants.get(variant, Variant())
        sections: dict[str, Any] = {}
        found: list[tuple[str, str, ValidationError]] = []
        for name, kind in (("rewrite", RewriteSpec), ("select", SelectSpec), ("train", TrainSpec)):
            try:
                sections[name] = kind.model_validate(_merge(getattr(self, name).model_dump(), getattr(override, name)))
            except ValidationError as err:
                found.append((variant, name, err))
        return sections, found


def _merge(base: dict[str, Any], override: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in override.items():
        kept = merged.get(key)
        # A union that changes its kind starts afresh: the fields of the old kind mean nothing to the new one.
        same_kind = isinstance(value, dict) and isinstance(kept, dict) and value.get("kind", kept.get("kind")) == kept.get("kind")
        merged[key] = _merge(kept, value) if same_kind and isinstance(kept, dict) else value
    return merged


class DailJob(Section):
    """A job file."""

    api_version: Literal["dail/v1alpha1"]
    """`dail/v1alpha1`."""
    kind: Literal["DailJob"]
    """`DailJob`."""
    metadata: Metadata
    """Name and labels."""
    spec: JobSpec
    """The job."""
