"""Objects as text for people and Git: stable, readable, with the texts inside the record as they are."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import yaml

from dailctl.render.parse import Object

KUSTOMIZATION = "kustomization.yaml"
HEADER = "# Written by `dailctl render`; change the job file and render again.\n"


class _Dumper(yaml.SafeDumper):
    """Block style throughout; texts of several lines as literal blocks."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        """Indents lists below their key, as people write Kubernetes objects."""
        del indentless
        super().increase_indent(flow, False)

    def ignore_aliases(self, data: Any) -> bool:
        """No anchors: a reader of one object need not look for another."""
        del data
        return True


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _text)


def as_yaml(objects: Iterable[Mapping[str, Any]]) -> str:
    """A YAML stream of the objects."""
    return yaml.dump_all(objects, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=1000, explicit_start=True)


def as_files(objects: Sequence[Object], run: str) -> dict[str, str]:
    """File name -> text: one file for each object and a kustomization.yaml that lists them.

    File names leave out the run's name, so that Git shows what a changed job changes.
    """
    files: dict[str, str] = {}
    for one in objects:
        rest = one["metadata"]["name"].removeprefix(run).strip("-")
        name = "record" if one["kind"] == "ConfigMap" else one["kind"].lower()
        files[f"{name}{f'-{rest}' if rest else ''}.yaml"] = HEADER + as_yaml([one])
    namespace = objects[0]["metadata"]["namespace"]
    kustomization = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "namespace": namespace,
        "resources": list(files),
    }
    return {**files, KUSTOMIZATION: HEADER + as_yaml([kustomization])}
