"""OCI image archives made of one program each, and the import of archives into a node's containerd."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import platform
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

ARCHITECTURE = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
USER = "65532:65532"


_MANIFEST = "application/vnd.oci.image.manifest.v1+json"


def single_program(program: Path, target: Path) -> Path:
    """Writes an OCI archive of an image whose only file is the program, run as a user without rights."""
    layer = _tar({program.name: program.read_bytes()}, mode=0o755)
    config = {
        "architecture": ARCHITECTURE,
        "os": "linux",
        "config": {"User": USER, "Entrypoint": [f"/{program.name}"], "WorkingDir": "/"},
        "rootfs": {"type": "layers", "diff_ids": [_digest(layer)]},
    }
    blobs = [layer, _json(config)]
    manifest = {
        "schemaVersion": 2,
        "mediaType": _MANIFEST,
        "config": _descriptor("application/vnd.oci.image.config.v1+json", blobs[1]),
        "layers": [_descriptor("application/vnd.oci.image.layer.v1.tar", layer)],
    }
    blobs.append(_json(manifest))
    described = {**_descriptor(_MANIFEST, blobs[2]), "platform": {"architecture": ARCHITECTURE, "os": "linux"}}
    index = {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": [described]}
    files = {"oci-layout": _json({"imageLayoutVersion": "1.0.0"}), "index.json": _json(index)}
    files |= {f"blobs/sha256/{_digest(blob).removeprefix('sha256:')}": blob for blob in blobs}
    target.write_bytes(_tar(files, mode=0o644))
    return target


def import_archive(archive: Path, name: str, ctr: Callable[..., str]) -> None:
    """Gives the image of an OCI archive to containerd as NAME, unless it has it already. `ctr` runs a command of that program.

    An archive that Docker wrote has no index: it is imported each time, under the names inside.
    """
    with tarfile.open(archive) as tar, contextlib.suppress(KeyError):
        index = tar.extractfile("index.json")
        assert index is not None
        wanted = _digest(index.read())
        present = {line.split()[0]: line.split()[2] for line in ctr("images", "ls").splitlines()[1:]}
        if present.get(name) == wanted:
            return
    ctr("images", "import", f"--index-name={name}", archive)


def _tar(files: dict[str, bytes], mode: int) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(data), mode
            tar.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()


def _json(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True).encode()


def _digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def _descriptor(media_type: str, blob: bytes) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": _digest(blob), "size": len(blob)}
