"""A model as a plain folder: config, tokenizer and safetensors, checked, which every engine can open. GGUF files are converted once."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from dail_runtime.errors import ModelError
from dail_runtime.models.cache import cached
from dail_runtime.models.locate import locate
from dail_runtime.models.reason import reason
from dail_runtime.spec.model import PACKAGE, ModelSpec
from dail_runtime.store import digest_of

_INDEX = "model.safetensors.index.json"


def model_folder(spec: ModelSpec) -> Path:
    """The folder with the model's config, tokenizer and safetensors. A GGUF file is unpacked to float32 in the cache, once.

    Raises:
        ModelError: no such model, or weights that dail does not load; says what to do.
    """
    folder = locate(spec)
    if spec.gguf_file is None:
        _check(folder, spec)
        return folder
    file = folder / spec.gguf_file
    if not file.is_file():
        there = ", ".join(sorted(path.name for path in folder.glob("*.gguf"))) or "none"
        raise ModelError(f"model.ggufFile {spec.gguf_file}: {spec.id} has no such file (GGUF files there: {there}); correct the name")
    stat = file.stat()
    name = f"gguf-{digest_of([str(file.resolve()), stat.st_size, stat.st_mtime_ns])[:24]}"
    return cached(name, lambda target: _convert(spec, file, target))


def config_folder(spec: ModelSpec) -> Path:
    """A folder with the model's config and tokenizer, and perhaps no weights: far less to fetch where nothing is computed.

    Raises:
        ModelError: no such model.
    """
    if spec.gguf_file is not None:
        return model_folder(spec)  # both are inside the file
    folder = locate(spec, weights=False)
    if not _is_fetched(spec) or not (folder / "config.json").is_file():
        _check(folder, spec)
    return folder


def _is_fetched(spec: ModelSpec) -> bool:
    """Whether the model comes from elsewhere, so that its weights may be missing here."""
    return spec.id.startswith("s3://") or not (spec.id.startswith(PACKAGE) or Path(spec.id.removeprefix("file://")).expanduser().is_dir())


def parameter_count(folder: Path) -> int:
    """Number of stored parameters (tied ones once), read from the headers of the safetensors files.

    Raises:
        ModelError: a file is truncated or no safetensors file.
    """
    count = 0
    for path in _shards(folder):
        try:
            with safe_open(path, framework="pt") as file:
                count += sum(math.prod(file.get_slice(key).get_shape()) for key in file.keys())  # noqa: SIM118 (not a dict)
        except (SafetensorError, OSError) as err:
            raise ModelError(f"{path}: not a whole safetensors file ({err}); download it again") from None
    return count


def _shards(folder: Path) -> list[Path]:
    index = folder / _INDEX
    if index.is_file():
        try:
            names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
        except (ValueError, KeyError, AttributeError, TypeError):
            raise ModelError(f"{index}: not an index of weights; download it again") from None
        return [folder / name for name in names]
    return sorted(folder.glob("*.safetensors"))


def _check(folder: Path, spec: ModelSpec) -> None:
    """Refuse what cannot be loaded safely or wholly, before any library gets to see it."""
    where = f"model.id {spec.id}"
    names = {path.name for path in folder.iterdir()}
    if "config.json" not in names:
        if "adapter_config.json" in names:
            raise ModelError(f"{where}: this folder holds a LoRA adapter and no model; give its base model, or merge the adapter first")
        gguf = sorted(name for name in names if name.endswith(".gguf"))
        remedy = f"set model.ggufFile: {gguf[0]}" if gguf else "give the folder that holds config.json and the weights"
        raise ModelError(f"{where}: there is no config.json in {folder}; {remedy}")
    shards = _shards(folder)
    if not shards:
        pickled = any(name.endswith((".bin", ".pt", ".pth", ".ckpt")) for name in names)
        found = (
            "its weights are pickles, which can run code when they are loaded, and dail loads"
            if pickled
            else "it has no weights; dail loads"
        )
        raise ModelError(f"{where}: {found} safetensors only; give a revision with *.safetensors files, or convert it")
    missing = [path.name for path in shards if not path.is_file()]
    if missing:
        raise ModelError(f"{where}: {len(missing)} of {len(shards)} weight files are missing ({missing[0]}, ...); download it again")
    parameter_count(folder)
    quantized = _config(folder, where).get("quantization_config")
    if quantized:
        method = quantized.get("quant_method", "?") if isinstance(quantized, dict) else "?"
        raise ModelError(f"{where}: its weights are quantised ({method}), which training cannot merge into; give the unquantised model")


def _config(folder: Path, where: str) -> dict[str, Any]:
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (ValueError, OSError) as err:
        raise ModelError(f"{where}: config.json cannot be read ({err}); download it again") from None
    if not isinstance(config, dict):
        raise ModelError(f"{where}: config.json is no object; download it again")
    return config


def _convert(spec: ModelSpec, file: Path, target: Path) -> None:
    """Unpack a GGUF file. float32 holds every value such a file can describe; the dtype is chosen when the result is loaded."""
    import torch
    import transformers

    where = f"model.ggufFile {file.name} of {spec.id}"
    # Since 5.19 transformers keeps the weights packed unless it is told otherwise; before, it always unpacked them.
    packing = getattr(transformers, "GgufConfig", None)
    unpack = {} if packing is None else {"quantization_config": packing(dequantize=True)}
    transformers.utils.logging.disable_progress_bar()
    try:
        loaded = transformers.AutoModelForCausalLM.from_pretrained(
            file.parent, gguf_file=file.name, dtype=torch.float32, trust_remote_code=False, **unpack
        )
        tokenizer = transformers.AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name, trust_remote_code=False)
    except (OSError, ValueError, KeyError, RuntimeError, NotImplementedError, ImportError) as err:
        raise ModelError(f"{where}: cannot be unpacked ({reason(err)}); give the model's safetensors instead") from err
    # A model that came from GGUF refuses to be saved, so its weights move to a fresh one of the same shape.
    config = loaded.config
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    fresh = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    fresh.load_state_dict(loaded.state_dict())
    fresh.generation_config = loaded.generation_config
    fresh.save_pretrained(target)
    tokenizer.save_pretrained(target)
