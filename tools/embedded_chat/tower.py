"""The vision tower of Qwen3-VL in plain torch, for batches of pictures that share one grid of patches."""

from dataclasses import asdict, dataclass

import torch
import torch.nn.functional as F
from torch import nn

import pixels

EPS = 1e-6
ROPE_THETA = 10000.0


@dataclass(frozen=True)
class VisionConfig:
    """The shape of the tower; the defaults are what Tidegate embeds."""

    depth: int = 4
    hidden_size: int = 128
    intermediate_size: int = 512
    num_heads: int = 4
    num_position_embeddings: int = 64
    out_hidden_size: int = 192
    deepstack_visual_indexes: tuple = (1,)

    def to_hub(self):
        return {
            "hidden_act": "gelu_pytorch_tanh", "in_channels": 3, "initializer_range": 0.02, "model_type": "qwen3_vl",
            "patch_size": pixels.PATCH, "spatial_merge_size": pixels.MERGE, "temporal_patch_size": pixels.TEMPORAL,
            **asdict(self), "deepstack_visual_indexes": list(self.deepstack_visual_indexes),
        }


class PatchEmbed(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.proj = nn.Conv3d(3, c.hidden_size, (pixels.TEMPORAL, pixels.PATCH, pixels.PATCH))

    def forward(self, patches):
        """Both frames of a still picture are the same, so their weights may be added up first."""
        return F.linear(patches, self.proj.weight.sum(2).flatten(1), self.proj.bias)


class Attention(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.heads, self.head_dim = c.num_heads, c.hidden_size // c.num_heads
        self.qkv = nn.Linear(c.hidden_size, 3 * c.hidden_size)
        self.proj = nn.Linear(c.hidden_size, c.hidden_size)

    def forward(self, x, cos, sin):
        batch, length, width = x.shape
        q, k, v = self.qkv(x).view(batch, length, 3, self.heads, self.head_dim).permute(2, 0, 3, 1, 4)
        q, k = rotate(q, cos, sin).to(v.dtype), rotate(k, cos, sin).to(v.dtype)
        weights = (q @ k.mT * self.head_dim**-0.5).softmax(-1, dtype=torch.float32).to(v.dtype)
        return self.proj((weights @ v).transpose(1, 2).reshape(batch, length, width))


def rotate(x, cos, sin):
    half = x.shape[-1] // 2
    return x * cos + torch.cat((-x[..., half:], x[..., :half]), -1) * sin


class MLP(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.linear_fc1 = nn.Linear(c.hidden_size, c.intermediate_size)
        self.linear_fc2 = nn.Linear(c.intermediate_size, c.hidden_size)

    def forward(self, x):
        return self.linear_fc2(F.gelu(self.linear_fc1(x), approximate="tanh"))


class Block(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(c.hidden_size, EPS), nn.LayerNorm(c.hidden_size, EPS)
        self.attn, self.mlp = Attention(c), MLP(c)

    def forward(self, x, cos, sin):
        x = x + self.attn(self.norm1(x), cos, sin)
        return x + self.mlp(self.norm2(x))


class Merger(nn.Module):
    """Four neighbouring patches to one token of the text model; the norm is per patch, or over all four at once."""

    def __init__(self, c, norm_width):
        super().__init__()
        width = c.hidden_size * pixels.MERGE**2
        self.norm = nn.LayerNorm(norm_width, EPS)
        self.linear_fc1, self.linear_fc2 = nn.Linear(width, width), nn.Linear(width, c.out_hidden_size)

    def forward(self, x):
        batch, width = len(x), self.linear_fc1.in_features
        x = self.norm(x.reshape(batch, -1, self.norm.weight.numel())).reshape(batch, -1, width)
        return self.linear_fc2(F.gelu(self.linear_fc1(x)))


class Tower(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.config = c
        self.patch_embed = PatchEmbed(c)
        self.pos_embed = nn.Embedding(c.num_position_embeddings, c.hidden_size)
        self.blocks = nn.ModuleList(Block(c) for _ in range(c.depth))
        self.merger = Merger(c, c.hidden_size)
        self.deepstack_merger_list = nn.ModuleList(
            Merger(c, c.hidden_size * pixels.MERGE**2) for _ in c.deepstack_visual_indexes
        )
        for block in self.blocks:  # each block starts as the identity
            nn.init.zeros_(block.attn.proj.weight)
            nn.init.zeros_(block.mlp.linear_fc2.weight)
        nn.init.normal_(self.pos_embed.weight, std=0.02)
        for merger in self.deepstack_merger_list:  # what is added to the text layers starts at nothing
            nn.init.zeros_(merger.linear_fc2.weight)

    def patches(self, patches, rows, columns):
        """The last block's output, [pictures, patches, width], and what each deepstack level reads."""
        x = self.patch_embed(patches) + self.positions(rows, columns)
        cos, sin = self.rotation(rows, columns)
        levels = []
        for index, block in enumerate(self.blocks):
            x = block(x, cos, sin)
            if index in self.config.deepstack_visual_indexes:
                levels.append(x)
        return x, levels

    def forward(self, patches, rows, columns):
        """The tokens of the pictures, [pictures, tokens, text width], and the deepstack features of the same shape."""
        x, levels = self.patches(patches, rows, columns)
        return self.merger(x), [merger(level) for merger, level in zip(self.deepstack_merger_list, levels)]

    def positions(self, rows, columns):
        """The table of positions, stretched over the picture corner to corner."""
        side = int(self.config.num_position_embeddings**0.5)
        table = self.pos_embed.weight.view(side, side, -1).permute(2, 0, 1)[None]
        whole = F.interpolate(table, (rows, columns), mode="bilinear", align_corners=True)[0]
        row, column = (torch.from_numpy(axis) for axis in pixels.places(rows, columns))
        return whole[:, row, column].T

    def rotation(self, rows, columns):
        quarter = self.config.hidden_size // self.config.num_heads // 4
        frequency = ROPE_THETA ** (-torch.arange(quarter).float() / quarter)
        angle = torch.cat([torch.from_numpy(axis).float()[:, None] * frequency for axis in pixels.places(rows, columns)], -1)
        angle = torch.cat((angle, angle), -1)
        return angle.cos(), angle.sin()
