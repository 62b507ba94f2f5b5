"""What a training leaves behind: the adapter in peft's layout and the merged model, as safetensors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from dail_runtime.models.save import save_model, scratch
from dail_runtime.objects import ADAPTER, MODEL
from dail_runtime.store import Store
from dail_runtime.train.adapter import Student, merge

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_WANTED = (".safetensors", ".json", ".jinja", ".txt", ".model")


def save_adapter(student: Student, out: Store, *, base: str, revision: str | None) -> None:
    """Write `adapter/`, whose config names the base model as the job does."""
    config = student.peft.peft_config["default"]
    config.base_model_name_or_path, config.revision = base, revision
    with scratch("dail-adapter-") as folder:
        student.peft.save_pretrained(folder, safe_serialization=True, save_embedding_layers=False)
        path = folder / "adapter_config.json"
        written = json.loads(path.read_text(encoding="utf-8"))
        # peft keeps names in sets, whose order differs from process to process.
        for names in ("target_modules", "target_parameters"):
            written[names] = sorted(written[names]) if written[names] else written[names]
        path.write_text(json.dumps(written, indent=2), encoding="utf-8")
        _upload(folder, out.at(ADAPTER))


def save_merged(student: Student, tokenizer: PreTrainedTokenizerBase, out: Store) -> None:
    """Write `model/`: the merged weights, their config and the tokenizer. The student is used up."""
    model = merge(student)
    with scratch("dail-model-") as folder:
        save_model(model, folder)
        tokenizer.save_pretrained(folder)
        _upload(folder, out.at(MODEL))


def _upload(folder: Path, store: Store) -> None:
    for path in sorted(folder.iterdir()):
        if path.suffix in _WANTED:
            store.put_file(path.name, path)
