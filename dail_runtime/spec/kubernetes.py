"""What Kubernetes accepts as a quantity, a label or a name, told in sentences before anything is sent to a cluster. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import Decimal

_QUANTITY = re.compile(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:(m|k|[KMGTPE]i|[MGTPE])|[eE]([-+]?[0-9]+))?")
_SCALE = {"": Decimal(1), "m": Decimal("0.001"), "k": Decimal(1000)}
_SCALE |= {unit: Decimal(1000) ** power for power, unit in enumerate("MGTPE", 2)}
_SCALE |= {f"{unit}i": Decimal(1024) ** power for power, unit in enumerate("KMGTPE", 1)}

_DNS_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
_DNS_SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_LABEL_WORD = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?")
QUEUE_LABEL = "kueue.x-k8s.io/queue-name"
"""By which Kueue knows the queue of an object."""
_LABEL_WORD_LENGTH = 63
_SUBDOMAIN_LENGTH = 253
_IMAGE = re.compile(
    r"(?:[a-zA-Z0-9][a-zA-Z0-9.-]*(?::[0-9]+)?/)?[a-z0-9]+(?:[._-]+[a-z0-9]+)*(?:/[a-z0-9]+(?:[._-]+[a-z0-9]+)*)*"
    r"(?::[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?(?:@sha256:[0-9a-f]{64})?"
)


def quantity(text: str) -> Decimal:
    """The amount a Kubernetes quantity stands for, in cores, bytes or pieces (`500m` is 0.5, `1Ki` is 1024).

    Source: https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/.

    Raises:
        ValueError: it is no quantity above zero.
    """
    match = _QUANTITY.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is not a quantity; write an amount as 500m, 2, 64Gi or 1.5Ti (Mi and Gi, not MB and GB)")
    number, unit, exponent = match.groups()
    amount = Decimal(number) * (Decimal(10) ** int(exponent) if exponent else _SCALE[unit or ""])
    if amount <= 0:
        raise ValueError(f"{text!r} asks for nothing; write an amount above zero")
    return amount


def label_problem(key: str, value: str | None = None) -> str | None:
    """What is wrong with a label (or, without a value, with an annotation's key), with the remedy; None where it is fine."""
    prefix, slash, name = key.rpartition("/")
    if slash and (len(prefix) > _SUBDOMAIN_LENGTH or not _DNS_SUBDOMAIN.fullmatch(prefix)):
        return f"the label key {key!r} has a prefix that is no domain name; write it as example.org/{name or 'name'}"
    if len(name) > _LABEL_WORD_LENGTH or not _LABEL_WORD.fullmatch(name):
        return f"the label key {key!r} is none; write letters, digits and inner '-', '_' or '.', at most 63, after an optional example.org/"
    if value and (len(value) > _LABEL_WORD_LENGTH or not _LABEL_WORD.fullmatch(value)):
        return f"the label {key} may not be {value!r}; write letters, digits and inner '-', '_' or '.', at most 63"
    return None


def checked_labels(labels: Mapping[str, str]) -> None:
    """Raises ValueError for the first label that Kubernetes or dail would refuse."""
    for key, value in labels.items():
        if problem := label_problem(key, value):
            raise ValueError(problem)
        if key.startswith(("dail.dev/", "app.kubernetes.io/")):
            raise ValueError(f"the label {key!r} is dail's own; choose another key")
        if key == QUEUE_LABEL:
            raise ValueError(f"the label {key!r} follows from the queue; name it in cluster.queue or a pool's queue instead")


def checked_keys(keys: Mapping[str, str]) -> None:
    """Raises ValueError for the first annotation whose key Kubernetes would refuse."""
    for key in keys:
        if problem := label_problem(key.lower() if "/" not in key else key):
            raise ValueError(problem.replace("label", "annotation"))


def checked_name(name: str, what: str) -> str:
    """`name` where an object may be called so.

    Raises:
        ValueError: it may not.
    """
    if len(name) > _SUBDOMAIN_LENGTH or not _DNS_SUBDOMAIN.fullmatch(name):
        raise ValueError(f"{name!r} cannot be the name of a {what}; write lower-case letters, digits, '-' and '.'")
    return name


def checked_queue(name: str) -> str:
    """`name` where a Kueue LocalQueue may be called so: objects name their queue in a label.

    Raises:
        ValueError: it may not.
    """
    if len(checked_name(name, "Kubernetes object")) > _LABEL_WORD_LENGTH:
        raise ValueError(f"{name!r} is too long for a queue, which has at most {_LABEL_WORD_LENGTH} characters; correct it")
    return name


def checked_memory(text: str) -> str:
    """`text` where it is a quantity of bytes that somebody may have meant.

    Raises:
        ValueError: it is not.
    """
    if quantity(text) < 1024 * 1024:
        raise ValueError(f"{text} is less than a megabyte; give the unit, as 8Gi")
    return text


def checked_namespace(name: str) -> str:
    """`name` where a namespace may be called so.

    Raises:
        ValueError: it may not.
    """
    if len(name) > _LABEL_WORD_LENGTH or not _DNS_LABEL.fullmatch(name):
        raise ValueError(f"{name!r} cannot be the name of a namespace; write lower-case letters, digits and inner '-', at most 63")
    return name


def checked_resource(name: str) -> str:
    """`name` where an extended resource may be called so (`nvidia.com/gpu`).

    Raises:
        ValueError: it may not.
    """
    if "/" not in name or label_problem(name) or name.rpartition("/")[0].endswith("kubernetes.io"):
        raise ValueError(f"{name!r} is no extended resource; write it with its domain, as nvidia.com/gpu or amd.com/gpu")
    return name


def checked_image(image: str) -> str:
    """`image` where it is a reference a node can pull.

    Raises:
        ValueError: it is not.
    """
    if len(image) > 512 or not _IMAGE.fullmatch(image):
        raise ValueError(f"{image[:80]!r} is no image; write registry/name:tag or, best, registry/name@sha256:...")
    return image
