"""The settings of a map model's language model."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from winnow.settings import Settings

PositiveInt = Annotated[int, Field(gt=0)]


class RandomLanguageModelSettings(Settings):
    """The shape of a language model without a file, whose weights are drawn."""

    model_type: Literal["llama", "qwen2", "qwen3"]
    hidden_size: PositiveInt
    intermediate_size: PositiveInt
    num_layers: PositiveInt
    num_heads: PositiveInt
    num_key_value_heads: PositiveInt
    vocab_size: int = Field(ge=16)
    initializer_range: float = Field(gt=0, strict=False)

    @model_validator(mode="after")
    def _heads_fit(self) -> Self:
        if self.hidden_size % (2 * self.num_heads) or self.num_heads % self.num_key_value_heads:
            raise ValueError(
                f"hidden_size={self.hidden_size}, num_heads={self.num_heads}, num_key_value_heads={self.num_key_value_heads}: "
                "heads must have an even width and be a multiple of the key-value heads"
            )
        return self


class LoraSettings(Settings):
    """What ``llm=lora`` trains: pairs of narrow matrices beside the linear layers whose names end so."""

    rank: PositiveInt
    alpha: PositiveInt
    targets: list[str] = Field(min_length=1)


class LanguageSettings(Settings):
    """The keys of a map model that are its language model's; a model's settings derive from it."""

    llm: Literal["none", "frozen", "lora"]
    bypass: bool
    prompt: str = Field(min_length=1)
    llm_path: str | None
    llm_layers: PositiveInt | None
    llm_dtype: Literal["float32", "bfloat16"]
    llm_attention: Literal["sdpa", "eager"]
    llm_random: RandomLanguageModelSettings
    lora: LoraSettings
    activation_checkpointing: bool

    @model_validator(mode="after")
    def _sees_the_scene(self) -> Self:
        if self.llm == "none" and not self.bypass:
            raise ValueError("llm=none with bypass=false: nothing of the images would reach the lines; set one of them")
        return self
