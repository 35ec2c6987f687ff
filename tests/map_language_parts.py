"""Language models for tests: small random ones, a folder of transformers with a tokenizer, and a GGUF file."""

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

from winnow.families.maps.language.settings import LanguageSettings
from winnow.families.maps.language.weights import _random_config

SHAPE = {
    "model_type": "llama", "hidden_size": 32, "intermediate_size": 64, "num_layers": 2, "num_heads": 4, "num_key_value_heads": 2,
    "vocab_size": 32, "initializer_range": 0.15,
}  # fmt: skip
WORDS = ["<unk>", "draw", "d", "r", "a", "w", "dr", "dra"]
MERGES = [("d", "r"), ("dr", "a"), ("dra", "w")]


def language_settings(shape=(), **values):
    """Return settings of a small random frozen model with these differences."""
    lora = {"rank": 2, "alpha": 4, "targets": ["q_proj", "v_proj"]}
    usual = {
        "llm": "frozen", "bypass": False, "prompt": "draw", "llm_path": None, "llm_layers": None, "llm_dtype": "float32",
        "llm_attention": "sdpa", "llm_random": {**SHAPE, **dict(shape)}, "lora": lora, "activation_checkpointing": False,
    }  # fmt: skip
    return LanguageSettings(**{**usual, **values})


def random_llm(**shape):
    """Return a model of transformers with a head, of random weights, and biases other than 0 where it has any."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(_random_config(language_settings(shape).llm_random))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias") or "norm" in name:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    return model


def save_folder(model, folder, **options):
    """Save a model as transformers does, with a tokenizer of a few words."""
    model.save_pretrained(folder, **options)
    tokenizer = Tokenizer(models.BPE({word: index for index, word in enumerate(WORDS)}, MERGES, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>").save_pretrained(folder)
    return folder


def save_gguf(model, path, quantised=False):
    """Write a model as llama.cpp's converter does: a Llama's rows of queries and keys interleaved; ``quantised``: the linear
    layers of its blocks as Q8_0."""
    import gguf

    config = model.config
    writer = gguf.GGUFWriter(path, config.model_type)
    writer.add_name("tiny")
    writer.add_context_length(256)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_vocab_size(config.vocab_size)
    words = [*WORDS, *(f"w{index}" for index in range(config.vocab_size - len(WORDS)))]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(words)
    writer.add_token_types([1] * len(words))
    writer.add_token_merges([" ".join(pair) for pair in MERGES])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(0)
    names = gguf.get_tensor_name_map(getattr(gguf.MODEL_ARCH, config.model_type.upper()), config.num_hidden_layers)
    for name, value in model.model.state_dict().items():
        if config.model_type == "llama" and (".q_proj." in name or ".k_proj." in name):
            heads = config.num_attention_heads if ".q_proj." in name else config.num_key_value_heads
            value = value.view(heads, 2, -1, *value.shape[1:]).transpose(1, 2).reshape(value.shape)
        kind = gguf.GGMLQuantizationType.Q8_0 if quantised and value.dim() == 2 and "layers" in name else None
        array = value.float().numpy()
        array = array if kind is None else gguf.quantize(array, kind)
        writer.add_tensor(names.get_name(f"model.{name}", (".weight", ".bias")), array, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
