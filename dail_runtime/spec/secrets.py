"""Finds secrets that were pasted into a job file, so that they are refused before they are stored or shown."""

from __future__ import annotations

import math
import re
from collections import Counter

from dail_runtime.spec.tree import Complaint, Tree, scalars

SECRETS = {
    "a Hugging Face token": re.compile(r"\bhf_[A-Za-z0-9]{20,}"),
    "an AWS access key": re.compile(r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b"),
    "a GitHub token": re.compile(r"\b(?:gh[pousr]_[A-Za-z0-9]{30,}|github_pat_[A-Za-z0-9_]{30,})"),
    "an API key": re.compile(r"\bsk-[A-Za-z0-9_-]{24,}"),
    "a private key": re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----"),
}
AWS_SECRET = re.compile(r"(?<![A-Za-z0-9/+=])[A-Za-z0-9/+]{40}(?![A-Za-z0-9/+=])")


def find_secrets(tree: Tree) -> list[Complaint]:
    """A complaint for each value that looks like a secret. The secret itself is never shown."""
    remedy = "remove it (and revoke it, if the file was shared); secrets come from the environment or a Kubernetes Secret named in the job"
    found = []
    for path, scalar in scalars(tree):
        kinds = [kind for kind, pattern in SECRETS.items() if pattern.search(scalar.text)]
        if not kinds and any(_looks_random(word) for word in AWS_SECRET.findall(scalar.text)):
            kinds = ["an AWS secret key"]
        if kinds:
            found.append(Complaint(scalar.place, ".".join(map(str, path)), f"the value looks like {kinds[0]}; {remedy}"))
    return found


def _looks_random(word: str) -> bool:
    """Whether 40 letters are a secret rather than a path (too regular) or a commit (hexadecimal)."""
    mixed = re.search(r"[a-z]", word) and re.search(r"[A-Z]", word) and re.search(r"[0-9]", word)
    entropy = -sum(n / len(word) * math.log2(n / len(word)) for n in Counter(word).values())
    return bool(mixed) and entropy > 4.3
