"""Where a run keeps what it makes: one interface over folders and S3."""

from dail_runtime.store.base import ObjectInfo, Store
from dail_runtime.store.keys import safe_key
from dail_runtime.store.manifest import MANIFEST, Manifest, digest_of, missing_objects, read_manifest, write_manifest
from dail_runtime.store.open import open_store

__all__ = [
    "MANIFEST",
    "Manifest",
    "ObjectInfo",
    "Store",
    "digest_of",
    "missing_objects",
    "open_store",
    "read_manifest",
    "safe_key",
    "write_manifest",
]
