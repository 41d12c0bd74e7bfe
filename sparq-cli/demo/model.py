"""The demonstration model: a small Llama with the names and the arithmetic of Hugging Face's
`LlamaForCausalLM`, written out so that it compiles into few kernels."""

import json

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "vocab_size": 4096,
    "hidden_size": 256,
    "intermediate_size": 704,
    "num_hidden_layers": 8,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 64,
    "hidden_act": "silu",
    "max_position_embeddings": 2048,
    "rope_theta": 10000.0,
    "rms_norm_eps": 1e-5,
    "initializer_range": 0.02,
    "tie_word_embeddings": True,
    "attention_bias": False,
    "mlp_bias": False,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "torch_dtype": "bfloat16",
}
CONTEXT, BOS, EOS = (CONFIG[k] for k in ("max_position_embeddings", "bos_token_id", "eos_token_id"))
HIDDEN, INNER, HEAD = (CONFIG[k] for k in ("hidden_size", "intermediate_size", "head_dim"))
HEADS, KV_HEADS = CONFIG["num_attention_heads"], CONFIG["num_key_value_heads"]


class RmsNorm(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(HIDDEN))

    def forward(self, x: Tensor) -> Tensor:
        wide = x.float()
        wide = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + CONFIG["rms_norm_eps"])
        return (wide * self.weight).to(x.dtype)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary positions of `x` [batch, heads, length, head_dim]; the halves form the pairs."""
    first, second = x.float().chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), -1).to(x.dtype)


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.q_proj = nn.Linear(HIDDEN, HEADS * HEAD, bias=False)
        self.k_proj = nn.Linear(HIDDEN, KV_HEADS * HEAD, bias=False)
        self.v_proj = nn.Linear(HIDDEN, KV_HEADS * HEAD, bias=False)
        self.o_proj = nn.Linear(HEADS * HEAD, HIDDEN, bias=False)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        projections = (self.q_proj, self.k_proj, self.v_proj)
        q, k, v = (p(x).unflatten(-1, (-1, HEAD)).transpose(1, 2) for p in projections)
        q, k = rotate(q, cos, sin), rotate(k, cos, sin)
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
        return self.o_proj(mixed.transpose(1, 2).flatten(2))


class Mlp(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(HIDDEN, INNER, bias=False)
        self.up_proj = nn.Linear(HIDDEN, INNER, bias=False)
        self.down_proj = nn.Linear(INNER, HIDDEN, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Layer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.input_layernorm, self.post_attention_layernorm = RmsNorm(), RmsNorm()
        self.self_attn, self.mlp = Attention(), Mlp()

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        x = x + self.self_attn(self.input_layernorm(x), cos, sin)
        return x + self.mlp(self.post_attention_layernorm(x))


class Llama(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.model = nn.Module()  # the prefix that the checkpoint's names have
        self.model.embed_tokens = nn.Embedding(CONFIG["vocab_size"], HIDDEN)
        self.model.layers = nn.ModuleList(Layer() for _ in range(CONFIG["num_hidden_layers"]))
        self.model.norm = RmsNorm()
        frequency = CONFIG["rope_theta"] ** (-torch.arange(0, HEAD, 2) / HEAD)
        angle = torch.arange(CONTEXT)[:, None] * frequency
        self.register_buffer("cos", angle.cos(), persistent=False)
        self.register_buffer("sin", angle.sin(), persistent=False)
        for parameter in self.parameters():
            if parameter.ndim == 2:
                nn.init.normal_(parameter, std=CONFIG["initializer_range"])

    def forward(self, ids: Tensor) -> Tensor:
        """Logits [batch, length, vocabulary] of `ids` [batch, length]."""
        cos, sin = self.cos[: ids.shape[1]], self.sin[: ids.shape[1]]
        with torch.autocast(ids.device.type, dtype=torch.bfloat16):
            x = self.model.embed_tokens(ids).bfloat16()
            for layer in self.model.layers:
                x = layer(x, cos, sin)
            return F.linear(self.model.norm(x), self.model.embed_tokens.weight)

    def loss(self, rows: Tensor) -> Tensor:
        """Mean cross entropy, in nats, of each id of `rows` behind the ids before it."""
        logits = self(rows[:, :-1])
        return F.cross_entropy(logits.float().flatten(0, 1), rows[:, 1:].flatten())


def save(model: Llama, folder: str) -> None:
    """Write the weights in bfloat16 and the two configuration files."""
    weights = {name: weight.bfloat16() for name, weight in model.state_dict().items()}
    save_file(weights, f"{folder}/model.safetensors", metadata={"format": "pt"})
    generation = {"bos_token_id": BOS, "eos_token_id": EOS}
    for name, content in (("config", CONFIG), ("generation_config", generation)):
        with open(f"{folder}/{name}.json", "w", encoding="utf-8") as file:
            file.write(json.dumps(content, indent=2) + "\n")
