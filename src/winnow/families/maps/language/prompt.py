"""The sentence before the scene, as the language model's own tokenizer cuts it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import AutoTokenizer

from winnow.errors import WeightsError
from winnow.families.maps.language.gguf import is_gguf

NUM_FIXED = 8


def prompt_ids(prompt: str, path: Path) -> list[int]:
    """Return the tokens of ``prompt`` by the tokenizer of a model's folder or GGUF file. Raises WeightsError where it has none,
    or gives none."""
    where = (path.parent, {"gguf_file": path.name}) if is_gguf(path) else (path, {})
    try:
        tokenizer: Any = AutoTokenizer.from_pretrained(where[0], local_files_only=True, **where[1])
    except Exception as error:  # what reads tokenizers raises errors of all kinds, plain ones among them
        reason = [*str(error).strip().splitlines(), type(error).__name__][0]
        raise WeightsError(f"model.llm_path={str(path)!r} has no tokenizer for model.prompt ({reason})") from error
    ids = [int(token) for token in tokenizer(prompt)["input_ids"]]
    if not ids:
        raise WeightsError(f"model.prompt={prompt!r} has no tokens by the tokenizer of model.llm_path={str(path)!r}")
    return ids


def fixed_ids(vocab_size: int) -> list[int]:
    """Return the tokens that stand for the prompt in a random model, which has no tokenizer: spread over its vocabulary."""
    return [1 + index * (vocab_size - 1) // NUM_FIXED for index in range(NUM_FIXED)]
