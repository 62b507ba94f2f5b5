"""From the model's id in the job file to a folder on this machine: hub, folder, s3:// or an installed Python package."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import re
from pathlib import Path

from dail_runtime.errors import ModelError
from dail_runtime.models.cache import cached
from dail_runtime.models.reason import reason
from dail_runtime.spec.model import PACKAGE, ModelSpec
from dail_runtime.store import Store, digest_of, open_store

WANTED = (".safetensors", ".json", ".jinja", ".txt", ".model", ".gguf")
"""Endings of the files a model consists of. Nothing that could hold code or pickles is ever fetched."""

WEIGHTS = (".safetensors", ".gguf")

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
_HUB_SECONDS = 10.0


def locate(spec: ModelSpec, *, weights: bool = True) -> Path:
    """The folder that holds the model's files as they were published; fetched first where it is far away.

    Args:
        weights: Whether they are needed. Without, only configuration and tokenizer are fetched: the driver of a hundred servers
            runs where no model would fit.

    Raises:
        ModelError: there is no such model, or it cannot be reached; says what to do.
        StoreError, TransientError, IntegrityError: from the store of an s3:// id.
    """
    if spec.id.startswith(PACKAGE):
        return _in_package(spec)
    if spec.id.startswith("s3://"):
        return _from_store(spec.id, open_store(spec.id), weights)
    folder = Path(spec.id.removeprefix("file://")).expanduser()
    if folder.is_dir():
        return folder
    if spec.id.startswith((".", "/", "~", "file://")) or not _HUB_ID.fullmatch(spec.id):
        raise ModelError(
            f"model.id {spec.id}: there is no such folder; correct the path, or give a hub id such as Qwen/Qwen2.5-7B-Instruct"
        )
    return _from_hub(spec, weights)


def _in_package(spec: ModelSpec) -> Path:
    """The data folder of an installed package, found without importing it: its code is none of our business."""
    name = spec.id.removeprefix(PACKAGE)
    wanted = spec.gguf_file or "config.json"
    module = name.replace("-", "_")
    try:
        files = importlib.metadata.files(name) or []
        places = [Path(str(file.locate())).parent for file in files if file.name == wanted]
    except (importlib.metadata.PackageNotFoundError, ValueError):
        places = []
    found = importlib.util.find_spec(module) if module.isidentifier() else None
    if not places and found is None:
        raise ModelError(f"model.id {spec.id}: the Python package {name!r} is not installed; install it, or correct its name")
    # Distributions need not be called like their module, and not every installer records the files.
    places += [Path(place) for place in (found.submodule_search_locations if found else None) or ()]
    for place in places:
        if (place / wanted).is_file():
            return place
    raise ModelError(f"model.id {spec.id}: the package has no {wanted}; name the file of the weights in model.ggufFile")


def _from_store(uri: str, store: Store, weights: bool = True) -> Path:
    """Download once per content. Objects that dail did not put there carry no digest and go by name and size alone."""
    # Plain names only: a key such as 'a/../../b' must not choose where on this machine its bytes land.
    wanted = tuple(ending for ending in WANTED if weights or ending not in WEIGHTS)
    infos = [info for info in store.list() if re.fullmatch(r"\w[\w.-]*", info.key) and info.key.endswith(wanted)]
    if not infos:
        raise ModelError(
            f"model.id {uri}: no model files there; check the prefix (config.json and *.safetensors must lie directly below it)"
        )
    content = [[info.key, info.size, info.sha256 or (head.sha256 if (head := store.head(info.key)) else None)] for info in infos]

    def download(folder: Path) -> None:
        for info in infos:
            store.get_file(info.key, folder / info.key)

    return cached(f"s3-{digest_of([uri, content])[:24]}", download)


def _from_hub(spec: ModelSpec, with_weights: bool) -> Path:
    # Imported here: it takes a second, and only hub ids need it.
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    where = f"model.id {spec.id}"
    weights = [] if not with_weights else [spec.gguf_file] if spec.gguf_file else ["*.safetensors"]
    try:
        return Path(
            snapshot_download(
                spec.id,
                revision=spec.revision,
                allow_patterns=["*.json", "*.jinja", "*.txt", "*.model", *weights],
                # Some publishers keep a second copy of the weights in another layout.
                ignore_patterns=["*/*", "consolidated*"],
                etag_timeout=_HUB_SECONDS,
                local_files_only=constants.HF_HUB_OFFLINE,
            )
        )
    except GatedRepoError:
        raise ModelError(f"{where}: its owner must grant access; accept the licence on its hub page and set HF_TOKEN") from None
    except RevisionNotFoundError:
        raise ModelError(f"{where}: the hub has no revision {spec.revision!r} of it; correct model.revision") from None
    except RepositoryNotFoundError:
        raise ModelError(
            f"{where}: no such folder, and the hub knows no such model (or HF_TOKEN gives no access to it); correct the id"
        ) from None
    except (LocalEntryNotFoundError, OfflineModeIsEnabled):
        offline = "HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else "the hub cannot be reached"
        raise ModelError(
            f"{where}: no such folder, no copy in the hub cache ({constants.HF_HUB_CACHE}), and {offline}; "
            "download it first (hf download), or give a folder, s3:// or python: id"
        ) from None
    except HFValidationError:
        raise ModelError(f"{where}: neither a folder nor a hub id (owner/name); correct it") from None
    except (HfHubHTTPError, OSError) as err:
        raise ModelError(f"{where}: the download from the hub failed ({reason(err)}); try again, or give a folder") from err
