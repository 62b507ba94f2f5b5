"""Keys: which names an object may have, and how any user's text becomes one safe segment of a key."""

from __future__ import annotations

import hashlib
import re
import unicodedata

from dail_runtime.errors import StoreError

RESERVED = ".dail"
"""Name of the folder in which the file store keeps digests and unfinished writes; no segment of a key may be it."""

MAX_KEY_BYTES = 1024
"""S3 takes no longer key."""
MAX_SEGMENT_BYTES = 240
"""File systems take 255 bytes; the rest is for the suffix of the digest's file."""

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_UNSAFE = re.compile(r"[^a-z0-9._]+")
_SLUG_CHARS = 64
_DIGEST_CHARS = 24


def safe_key(user_id: str) -> str:
    """One key segment for any text: a readable slug, '-' and 96 bits of the text's sha256.

    At most 89 characters of `[a-z0-9._-]`, never starting with a dot or underscore. Different texts get different
    segments, also on file systems that ignore case, because the hash is taken of the exact text.
    """
    digest = hashlib.sha256(user_id.encode("utf-8", "surrogatepass")).hexdigest()[:_DIGEST_CHARS]
    # Only the head is worth showing; normalising all of a 10 MB id would take seconds.
    plain = unicodedata.normalize("NFKD", user_id[: 4 * _SLUG_CHARS]).encode("ascii", "ignore").decode().lower()
    slug = _UNSAFE.sub("-", plain).strip("-._")[:_SLUG_CHARS].rstrip("-._")
    return f"{slug}-{digest}" if slug else digest


def check_key(key: str) -> str:
    """`key` itself where it is one: relative, '/'-separated, no empty, '.' or '..' segment, no control characters.

    Raises StoreError otherwise.
    """
    if problem := key_problem(key):
        raise StoreError(f"the key {_shown(key)} {problem}; make segments from user text with safe_key")
    return key


def key_problem(key: str) -> str | None:
    """What is wrong with `key`, as the end of a sentence; None where it is fine."""
    if not key:
        return "is empty"
    # Checked first, so that the other checks are cheap for a key of any size.
    if len(key) > MAX_KEY_BYTES:
        return f"is longer than {MAX_KEY_BYTES} bytes"
    try:
        size = len(key.encode())
    except UnicodeEncodeError:
        return "is not valid Unicode"
    if size > MAX_KEY_BYTES:
        return f"is longer than {MAX_KEY_BYTES} bytes"
    if _CONTROL.search(key):
        return "contains a control character"
    if key.startswith("/"):
        return "is absolute"
    for segment in key.split("/"):
        if not segment:
            return "has an empty segment ('//' or a '/' at its end)"
        if segment in (".", ".."):
            return f"has the segment {segment!r}, which could leave the store"
        if segment.casefold() == RESERVED:
            return f"has the segment {segment!r}, which the store keeps for itself"
        if len(segment.encode()) > MAX_SEGMENT_BYTES:
            return f"has a segment of more than {MAX_SEGMENT_BYTES} bytes"
    return None


def join(prefix: str, key: str) -> str:
    """`prefix/key`; just the key where the prefix is empty."""
    return f"{prefix}/{key}" if prefix else key


def _shown(key: str) -> str:
    shown = ascii(key[:100])
    return shown if len(shown) <= 80 else f"{shown[:77]}..."
