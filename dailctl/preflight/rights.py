"""Whether the user may apply the run, and may give its conductor what it needs (SelfSubjectAccessReview)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from dailctl.kube import Client
from dailctl.kube.resources import CONFIG_MAP, JOB, POD, Object
from dailctl.preflight.finding import Finding

AT_ONCE = 16


@dataclass(frozen=True, order=True)
class Right:
    """A verb on a kind of object."""

    verb: str
    group: str
    resource: str
    """Plural; with its subresource: `pods/log`."""
    name: str = ""
    """Where only one object of the kind is meant."""

    @property
    def shown(self) -> str:
        """`create jobs.batch`."""
        return f"{self.verb} {self.resource}{'.' + self.group if self.group else ''}"


def missing_rights(client: Client, objects: Iterable[Object]) -> list[Finding]:
    """What the user lacks, all of it in one sentence."""
    wanted = sorted({*_of_objects(client, objects), *_of_roles(objects)})

    def may(right: Right) -> bool:
        resource, _, sub = right.resource.partition("/")
        return client.may(right.verb, right.group, resource, sub=sub, name=right.name)

    with ThreadPoolExecutor(AT_ONCE) as pool:
        lacking = [right.shown for right, allowed in zip(wanted, pool.map(may, wanted), strict=True) if not allowed]
    if not lacking:
        return []
    rights = ", ".join(dict.fromkeys(lacking))
    sentence = f"{client.access.user} may not {rights} in namespace {client.namespace}; ask an administrator of the cluster for that right"
    return [Finding("rights", sentence)]


def _of_objects(client: Client, objects: Iterable[Object]) -> Iterator[Right]:
    for one in objects:
        resource = client.resource_of(one)
        # Server-side apply is a patch, and a create where the object is not there.
        for verb in ("create", "get", "patch"):
            yield Right(verb, resource.group, resource.plural)
    for verb in ("list", "watch"):
        yield Right(verb, CONFIG_MAP.group, CONFIG_MAP.plural)
        yield Right(verb, POD.group, POD.plural)
    yield Right("get", JOB.group, JOB.plural)


def _of_roles(objects: Iterable[Object]) -> Iterator[Right]:
    """Nobody may grant more than they have: the API server would refuse the conductor's Role."""
    for one in objects:
        for rule in one.get("rules") or () if one["kind"] == "Role" else ():
            for group in rule["apiGroups"]:
                for resource in rule["resources"]:
                    for verb in rule["verbs"]:
                        for name in rule.get("resourceNames") or ("",):
                            yield Right(verb, group, resource, name)
