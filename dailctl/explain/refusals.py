"""Why the API server refuses an object: quota, admission, rights. From its message, as events of controllers quote it."""

from __future__ import annotations

import re

from dailctl.explain import table
from dailctl.explain.cause import Cause

_QUOTA = re.compile(r"exceeded quota: ([^,\s]+), requested: (\S+?), used: (\S+?), limited: (.+)$")
_QUOTA_MUST = re.compile(r"failed quota: ([^:\s]+): (must specify .+)$")
_QUOTA_NEW = re.compile(r"(status unknown) for quota: ([^,\s]+)")
_SECURITY = re.compile(r'violates PodSecurity "([^"]+)": (.+)$', re.DOTALL)
_WEBHOOK = re.compile(r'admission webhook "([^"]+)" denied the request(?:: (.*)| without explanation)?$', re.DOTALL)
_WEBHOOK_DOWN = re.compile(r'(?:failed calling webhook "([^"]+)"|conversion webhook for ([^,\s]+).* failed): (.*)$', re.DOTALL)
_POLICY = re.compile(r"ValidatingAdmissionPolicy '([^']+)' .*denied request: (.*)$", re.DOTALL)
_ACCOUNT = re.compile(r'serviceaccount "([^"]+)" not found', re.IGNORECASE)
_PRIORITY = re.compile(r"no PriorityClass with name (\S+) was found")
_LIMITS = re.compile(r"((?:minimum|maximum|ratio)\b.* per (?:Container|Pod).*|.*\bmust be (?:less|greater) than or equal to .*)$")
_GOING = re.compile(r"because it is being terminated")
_BUSY = re.compile(
    r"Internal error occurred|etcdserver: |(?:request|evaluation) (?:did not complete|timed out)|the object has been modified"
    r"|Too many requests|context deadline exceeded|connection refused|the server is currently unable"
)
_RIGHT = re.compile(r'[Uu]ser "([^"]+)" cannot (\w+) resource "([^"]+)"')


def refused(message: str, owner: str) -> Cause:
    """Why what `owner` (`job.batch/x`) consists of was refused. `message`: the API server's, perhaps introduced by a controller."""
    text = " ".join(message.split()).removeprefix("Error creating: ")
    if found := _QUOTA.search(text):
        quota, wanted, used, hard = found.groups()
        return table.QUOTA.of(owner, owner=owner, quota=quota, said=f"asks for {wanted}, used {used} of {hard}")
    if found := _QUOTA_MUST.search(text):
        return table.QUOTA.of(owner, owner=owner, quota=found.group(1), said=found.group(2))
    if found := _QUOTA_NEW.search(text):
        return table.QUOTA.of(owner, owner=owner, quota=found.group(2), said=f"{found.group(1)}, it is new", remedy=table.API_BUSY.remedy)
    if found := _SECURITY.search(text):
        return table.POD_SECURITY.of(owner, owner=owner, level=found.group(1), said=found.group(2))
    if found := _WEBHOOK_DOWN.search(text):
        return table.WEBHOOK_DOWN.of(owner, owner=owner, webhook=found.group(1) or found.group(2), said=found.group(3))
    if found := _WEBHOOK.search(text):
        return table.WEBHOOK.of(owner, owner=owner, webhook=found.group(1), said=found.group(2) or "it gives no reason")
    if found := _POLICY.search(text):
        return table.POLICY.of(owner, owner=owner, policy=found.group(1), said=found.group(2))
    if found := _ACCOUNT.search(text):
        return table.ACCOUNT_MISSING.of(owner, owner=owner, account=found.group(1))
    if found := _PRIORITY.search(text):
        return table.PRIORITY_MISSING.of(owner, owner=owner, priority=found.group(1))
    if found := _RIGHT.search(text):
        return table.RIGHT_MISSING.of(owner, user=found.group(1), verb=found.group(2), resource=found.group(3))
    tail = text.partition("is forbidden: ")[2] or text
    if found := _LIMITS.search(tail):
        return table.LIMITS.of(owner, owner=owner, said=found.group(1))
    if _GOING.search(tail):
        return table.NAMESPACE_GOING.of(owner, owner=owner, said=tail)
    return (table.API_BUSY if _BUSY.search(tail) else table.REFUSED).of(owner, owner=owner, said=tail)
