"""Language models in a GGUF file, dequantised; Llama and Qwen."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from winnow.checkpoints.references import weights_reader
from winnow.errors import WeightsError
from winnow.families.maps.extra import require_package

ARCHITECTURES = ("llama", "qwen2", "qwen3")
_MAGIC = b"GGUF"
_PARTS = {
    "attn_norm": "input_layernorm", "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj", "attn_q_norm": "self_attn.q_norm", "attn_k_norm": "self_attn.k_norm",
    "ffn_norm": "post_attention_layernorm", "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj",
}  # fmt: skip
_WHOLE = {"token_embd": "embed_tokens", "output_norm": "norm"}


def is_gguf(path: Path) -> bool:
    """Tell by its content whether ``path`` is a GGUF file."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(len(_MAGIC)) == _MAGIC


class GgufTensors(Mapping[str, Tensor]):
    """The base model's tensors of a file by transformers' names, each dequantised to float32 when it is asked for."""

    def __init__(self, path: Path) -> None:
        require_package("gguf", f"model.llm_path={str(path)!r}")
        self._gguf = importlib.import_module("gguf")
        try:
            reader = self._gguf.GGUFReader(path)
            self.architecture = str(reader.fields["general.architecture"].contents())
            counts = {
                name: reader.fields.get(f"{self.architecture}.attention.{name}")
                for name in ("head_count", "head_count_kv")
            }
        except Exception as error:  # of a damaged file the package reads what it may: its errors are of all kinds
            raise WeightsError(f"{path} can't be read as GGUF: {error!r}") from error
        if self.architecture not in ARCHITECTURES or counts["head_count"] is None:
            raise WeightsError(f"{path} holds a {self.architecture}; allowed: {', '.join(ARCHITECTURES)}")
        num_heads = int(counts["head_count"].contents())
        kept = counts["head_count_kv"]
        self._heads = {"attn_q": num_heads, "attn_k": num_heads if kept is None else int(kept.contents())}
        self._tensors: dict[str, tuple[Any, int | None]] = {}
        for tensor in reader.tensors:
            name, num_interleaved = self._named(tensor.name)
            if name is not None:
                self._tensors[name] = tensor, num_interleaved

    def __getitem__(self, name: str) -> Tensor:
        tensor, num_heads = self._tensors[name]
        values = torch.from_numpy(self._gguf.dequantize(tensor.data, tensor.tensor_type).astype("float32", copy=True))
        return values if num_heads is None else _halves_apart(values, num_heads)

    def __contains__(self, name: object) -> bool:
        return name in self._tensors  # Mapping's own would dequantise

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)

    def _named(self, name: str) -> tuple[str | None, int | None]:
        """Return transformers' name of a tensor of the file, None if the base model has none such, and the number of heads
        whose rows llama.cpp interleaved."""
        owner, _, kind = name.rpartition(".")
        if owner in _WHOLE:
            return f"{_WHOLE[owner]}.{kind}", None
        block, _, part = owner.rpartition(".")
        if not block.startswith("blk.") or part not in _PARTS:
            return None, None
        heads = self._heads.get(part) if self.architecture == "llama" else None
        return f"layers.{block.removeprefix('blk.')}.{_PARTS[part]}.{kind}", heads


@weights_reader
def read_gguf(path: Path) -> Mapping[str, Tensor]:
    """Return the base model's tensors of a GGUF file as they are put into a model, each read when it is asked for."""
    return GgufTensors(path)


def _halves_apart(values: Tensor, num_heads: int) -> Tensor:
    """Put the rows of each head, (x0, y0, x1, y1, …) in a Llama's GGUF file, as transformers has them: (x0, x1, …, y0, y1, …)."""
    rows = values.reshape(num_heads, -1, 2, *values.shape[1:])
    return rows.transpose(1, 2).reshape(values.shape).contiguous()
