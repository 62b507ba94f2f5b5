"""Kubernetes objects from YAML, read as strictly as an API server reads them."""

from __future__ import annotations

from typing import Any

import yaml

from dail_runtime.errors import SpecError

Object = dict[str, Any]
"""A Kubernetes object, as its YAML."""

_STR = "tag:yaml.org,2002:str"
# The C parser, where PyYAML has it (everywhere but on rare platforms), is ten times faster.
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def parse(text: str) -> list[Object]:
    """The objects of a YAML stream.

    Raises:
        SpecError: it is no YAML, has a key twice (of which YAML readers silently keep one), or holds something else than objects.
    """
    scalars = yaml.constructor.SafeConstructor()
    try:
        found = [_value(node, scalars) for node in yaml.compose_all(text, Loader=_Loader)]
    except yaml.YAMLError as err:
        reason = " ".join(str(err).split())
        raise SpecError(f"the chart made YAML that cannot be read ({reason}); remove unusual characters from the job") from None
    objects = [one for one in found if one is not None]
    for one in objects:
        if not isinstance(one, dict) or not {"apiVersion", "kind", "metadata"} <= set(one):
            raise SpecError("the chart made something that is no Kubernetes object; remove unusual characters from the job")
    return objects


def _value(node: yaml.Node, scalars: yaml.constructor.SafeConstructor) -> Any:
    """What a node stands for. PyYAML's own way from nodes to values takes as long as all before it, and keeps the last of equal keys."""
    if isinstance(node, yaml.ScalarNode):
        return node.value if node.tag == _STR else scalars.construct_object(node)
    if isinstance(node, yaml.SequenceNode):
        return [_value(item, scalars) for item in node.value]
    mapping = {_value(key, scalars): _value(value, scalars) for key, value in node.value}
    if len(mapping) < len(node.value):
        keys = [key.value for key, _ in node.value]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise yaml.YAMLError(f"line {node.start_mark.line + 1}: the key {twice!r} is there twice")
    return mapping
