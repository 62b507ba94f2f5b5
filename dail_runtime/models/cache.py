"""The folder on this machine that keeps what models were downloaded or converted to, so that each is fetched once and not per stage."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import platformdirs
from safetensors import SafetensorError

from dail_runtime.errors import SetupError


def cache_root() -> Path:
    """`$DAIL_CACHE`, else the user's cache folder; made where it is missing.

    Raises:
        SetupError: the folder cannot be made.
    """
    root = Path(os.environ.get("DAIL_CACHE") or platformdirs.user_cache_dir("dail")) / "models"
    try:
        root.mkdir(parents=True, exist_ok=True)
    except OSError as err:
        raise SetupError(
            f"the cache folder {root} cannot be made ({err.strerror}); set DAIL_CACHE to a folder that can be written"
        ) from None
    return root


def cached(name: str, make: Callable[[Path], None]) -> Path:
    """The cached folder `name`; where it is missing, `make` fills an empty folder that then takes its place in one step.

    A process that dies half-way leaves no folder of that name, and of two that fill it at once the first one wins.

    Raises:
        SetupError: the cache cannot be written, or its disk is full.
    """
    root = cache_root()
    folder = root / name
    if folder.is_dir():
        return folder
    try:
        unfinished = Path(tempfile.mkdtemp(prefix=".unfinished-", dir=root))
    except OSError as err:
        raise SetupError(f"the cache folder {root} cannot be written ({err.strerror}); set DAIL_CACHE to one that can") from None
    try:
        make(unfinished)
        unfinished.chmod(0o755)
        unfinished.rename(folder)
    except (OSError, SafetensorError) as err:
        if not folder.is_dir():
            raise SetupError(f"{folder} cannot be written ({err}); make room there or set DAIL_CACHE to another folder") from err
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return folder
