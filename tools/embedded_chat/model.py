"""The architecture of Qwen3-VL in plain torch: small, readable, and with the parameter names of the Hugging Face checkpoints.

The text model is a Qwen3; the vision tower is in ``tower``.
"""

from dataclasses import asdict, dataclass

import torch
import torch.nn.functional as F
from torch import nn

import pixels
from tower import Tower, VisionConfig


MROPE_SECTION = (6, 5, 5)  # of the rotary frequencies: how many turn with time, with the row and with the column


@dataclass(frozen=True)
class Config:
    """The shape of the model; the defaults are what Tidegate embeds."""

    vocab_size: int = 2056  # the tokenizer's 2053, rounded up
    hidden_size: int = 192
    intermediate_size: int = 512
    num_hidden_layers: int = 6
    num_attention_heads: int = 6
    num_key_value_heads: int = 2
    head_dim: int = 32
    max_position_embeddings: int = 1024
    rope_theta: float = 10000.0
    rms_norm_eps: float = 1e-6

    def to_hub(self, vision, ids):
        """The ``config.json`` that transformers' Qwen3VLForConditionalGeneration reads; ``ids`` are the special tokens'."""
        text = {
            **asdict(self),
            "attention_bias": False,
            "attention_dropout": 0.0,
            "bos_token_id": ids.end_of_text,
            "dtype": "bfloat16",
            "eos_token_id": ids.im_end,
            "hidden_act": "silu",
            "initializer_range": 0.02,
            "model_type": "qwen3_vl_text",
            "rope_scaling": {"mrope_interleaved": True, "mrope_section": list(MROPE_SECTION), "rope_type": "default"},
            "tie_word_embeddings": True,
            "use_cache": True,
        }
        return {
            "architectures": ["Qwen3VLForConditionalGeneration"],
            "image_token_id": ids.image_pad,
            "model_type": "qwen3_vl",
            "text_config": text,
            "tie_word_embeddings": True,
            "video_token_id": ids.video_pad,
            "vision_config": vision.to_hub(),
            "vision_end_token_id": ids.vision_end,
            "vision_start_token_id": ids.vision_start,
        }


class RMSNorm(nn.Module):
    def __init__(self, size, eps):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x):
        return F.rms_norm(x, (x.shape[-1],), self.weight, self.eps)


class Attention(nn.Module):
    """Grouped-query attention whose queries and keys are normalised per head before they are rotated."""

    def __init__(self, c):
        super().__init__()
        self.heads, self.kv_heads, self.head_dim = c.num_attention_heads, c.num_key_value_heads, c.head_dim
        self.q_proj = nn.Linear(c.hidden_size, self.heads * c.head_dim, bias=False)
        self.k_proj = nn.Linear(c.hidden_size, self.kv_heads * c.head_dim, bias=False)
        self.v_proj = nn.Linear(c.hidden_size, self.kv_heads * c.head_dim, bias=False)
        self.o_proj = nn.Linear(self.heads * c.head_dim, c.hidden_size, bias=False)
        self.q_norm = RMSNorm(c.head_dim, c.rms_norm_eps)
        self.k_norm = RMSNorm(c.head_dim, c.rms_norm_eps)

    def forward(self, x, cos, sin):
        batch, length, _ = x.shape
        q = self.q_norm(self.q_proj(x).view(batch, length, self.heads, self.head_dim)).transpose(1, 2)
        k = self.k_norm(self.k_proj(x).view(batch, length, self.kv_heads, self.head_dim)).transpose(1, 2)
        v = self.v_proj(x).view(batch, length, self.kv_heads, self.head_dim).transpose(1, 2)
        q, k = rotate(q, cos, sin).to(v.dtype), rotate(k, cos, sin).to(v.dtype)
        group = self.heads // self.kv_heads
        k, v = k.repeat_interleave(group, dim=1), v.repeat_interleave(group, dim=1)
        return self.o_proj(causal_attention(q, k, v).transpose(1, 2).reshape(batch, length, -1))


def causal_attention(q, k, v):
    """Softmax attention written out: for rows of a few hundred tokens this trains faster on a CPU than torch's fused kernel."""
    batch, heads, length, head_dim = q.shape
    q, k, v = (x.reshape(batch * heads, length, head_dim) for x in (q, k, v))
    future = torch.full((length, length), float("-inf"), dtype=q.dtype).triu(1)
    scores = torch.baddbmm(future.expand(len(q), length, length), q, k.transpose(1, 2), alpha=head_dim**-0.5)
    return torch.bmm(scores.softmax(-1, dtype=v.dtype), v).view(batch, heads, length, head_dim)


class MLP(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.gate_proj = nn.Linear(c.hidden_size, c.intermediate_size, bias=False)
        self.up_proj = nn.Linear(c.hidden_size, c.intermediate_size, bias=False)
        self.down_proj = nn.Linear(c.intermediate_size, c.hidden_size, bias=False)

    def forward(self, x):
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Layer(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.input_layernorm = RMSNorm(c.hidden_size, c.rms_norm_eps)
        self.self_attn = Attention(c)
        self.post_attention_layernorm = RMSNorm(c.hidden_size, c.rms_norm_eps)
        self.mlp = MLP(c)

    def forward(self, x, cos, sin):
        x = x + self.self_attn(self.input_layernorm(x), cos, sin)
        return x + self.mlp(self.post_attention_layernorm(x))


class Decoder(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.embed_tokens = nn.Embedding(c.vocab_size, c.hidden_size)
        self.layers = nn.ModuleList(Layer(c) for _ in range(c.num_hidden_layers))
        self.norm = RMSNorm(c.hidden_size, c.rms_norm_eps)


class Joined(nn.Module):
    """The two halves under the names that checkpoints give them."""

    def __init__(self, config, vision):
        super().__init__()
        self.visual = Tower(vision)
        self.language_model = Decoder(config)


class Qwen3VL(nn.Module):
    """Tokens and pictures to logits, with the output projection tied to the embedding."""

    def __init__(self, config, vision=VisionConfig()):
        super().__init__()
        self.config = config
        self.model = Joined(config, vision)
        half = torch.arange(0, config.head_dim, 2).float() / config.head_dim
        self.register_buffer("frequency", config.rope_theta**-half, persistent=False)
        self.register_buffer("axis", axes(config.head_dim // 2), persistent=False)
        self.model.language_model.apply(_initialise)
        for layer in self.model.language_model.layers:  # each layer starts as the identity
            nn.init.zeros_(layer.self_attn.o_proj.weight)
            nn.init.zeros_(layer.mlp.down_proj.weight)

    def hidden(self, tokens, positions, seen=None):
        """The normalised hidden states of a [batch, length] block of tokens.

        ``positions`` is [3, batch or 1, length]. ``seen`` is the pictures' features (of the tower) and the flat places of their
        tokens in the block; the deepstack features are added after the first layers.
        """
        text = self.model.language_model
        x = text.embed_tokens(tokens)
        levels = []
        if seen:
            (features, levels), where = seen
            x = x.flatten(0, 1).index_copy(0, where, features.flatten(0, -2).to(x.dtype)).view_as(x)
        cos, sin = self.rotation(positions)
        for index, layer in enumerate(text.layers):
            x = layer(x, cos, sin)
            if index < len(levels):
                x = x.flatten(0, 1).index_add(0, where, levels[index].flatten(0, -2).to(x.dtype)).view_as(x)
        return text.norm(x)

    def rotation(self, positions):
        """Cosine and signed sine of the interleaved M-RoPE, [batch or 1, 1, length, head_dim]."""
        angle = positions.float()[self.axis].permute(1, 2, 0) * self.frequency
        cos, sin = angle.cos()[:, None], angle.sin()[:, None]
        return torch.cat((cos, cos), dim=-1), torch.cat((-sin, sin), dim=-1)

    def logits(self, hidden):
        return F.linear(hidden, self.model.language_model.embed_tokens.weight)


def _initialise(module):
    if isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, std=module.in_features**-0.5)
    elif isinstance(module, nn.Embedding):
        nn.init.normal_(module.weight, std=0.02)


def axes(count):
    """Which of time, row and column each rotary frequency turns with: interleaved as long as the sections last."""
    return torch.tensor([j % 3 if j < 3 * MROPE_SECTION[j % 3] else 0 for j in range(count)])


def rotate(x, cos, sin):
    """Rotate the two halves of every head against each other (``sin`` carries the sign of the first half)."""
    return x * cos + x.roll(x.shape[-1] // 2, dims=-1) * sin


def positions(ids, grids, image_pad):
    """The three position rows of a chat, [3][length]: a picture stands at one time and counts rows and columns from there."""
    out, at, index, grids = [[], [], []], 0, 0, iter(grids)
    while index < len(ids):
        if ids[index] != image_pad:
            for axis in out:
                axis.append(at)
            at, index = at + 1, index + 1
            continue
        rows, columns = (side // pixels.MERGE for side in next(grids))
        for row in range(rows):
            for column in range(columns):
                for axis, value in zip(out, (at, at + row, at + column)):
                    axis.append(value)
        at, index = at + max(rows, columns), index + rows * columns
    return out
