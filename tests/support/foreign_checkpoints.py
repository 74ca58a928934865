"""Checkpoints in the layouts of VPT's and BPT's code, and the answers of their formulas."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch")
timm = pytest.importorskip("timm")

from vptkit.images.preprocess import normalize  # noqa: E402

NAME = "vit_tiny_patch16_224"
TINY = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 2}
D, L, M, P, C = 32, 2, 4, 5, 3


def draw(*shape: int, seed: int = 0) -> Any:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


HEAD = {"weight": draw(C, D, seed=90), "bias": draw(C, seed=91)}


def forward(model: Any, pixels: Any, rows: list[Any], *, mean: bool, norm: Any) -> Any:
    """The authors' forward pass: prompts join behind the class token, deep ones replace."""
    b, m = len(pixels), rows[0].shape[0]
    x = model.patch_embed(pixels)
    x = torch.cat((model.cls_token.expand(b, -1, -1), x), dim=1) + model.pos_embed
    x = torch.cat((x[:, :1], rows[0].expand(b, -1, -1), x[:, 1:]), dim=1)
    for i, block in enumerate(model.blocks):
        if i and len(rows) > 1:
            x = torch.cat((x[:, :1], rows[i].expand(b, -1, -1), x[:, 1 + m :]), dim=1)
        x = block(x)
    f = norm(x[:, 1:].mean(dim=1)) if mean else norm(x)[:, 0]
    return f @ HEAD["weight"].T + HEAD["bias"]


def pixels_of(adapter: Any) -> Any:
    return torch.from_numpy(normalize(adapter.golden()[0], adapter.preprocess))


def require_parity(adapter: Any, logits: Any) -> None:
    """The reference's answers in the adapter are those of the formulas."""
    torch.testing.assert_close(torch.from_numpy(adapter.golden()[1]), logits, rtol=0, atol=2e-5)


def supervised_names(model: Any) -> dict[str, Any]:
    """The backbone as VPT's supervised ViT names it: separate query, key and value."""
    state = {}
    for name, value in model.state_dict().items():
        parts = name.split(".")
        if parts[0] == "blocks":
            kind = {"norm1": "attention_norm", "norm2": "ffn_norm", "mlp": "ffn"}.get(parts[2])
            head = f"enc.transformer.encoder.layer.{parts[1]}"
            if parts[2] == "attn" and parts[3] == "qkv":
                for part, piece in zip(("query", "key", "value"), value.chunk(3), strict=True):
                    state[f"{head}.attn.{part}.{parts[4]}"] = piece.clone()
            elif parts[2] == "attn":
                state[f"{head}.attn.out.{parts[4]}"] = value
            else:
                state[".".join([head, str(kind), *parts[3:]])] = value
        elif parts[0] == "norm":
            state[f"enc.transformer.encoder.encoder_norm.{parts[1]}"] = value
        else:
            other = {
                "pos_embed": "position_embeddings",
                "cls_token": "cls_token",
                "patch_embed.proj.weight": "patch_embeddings.weight",
                "patch_embed.proj.bias": "patch_embeddings.bias",
            }[name]
            state[f"enc.transformer.embeddings.{other}"] = value
    return state


def vpt_state(model: Any, *, deep: bool = True, project: int = 0) -> tuple[dict[str, Any], Any]:
    """A supervised VPT checkpoint, and the prompts that it means."""
    width = project or D
    state = supervised_names(model)
    first, later = draw(1, M, width, seed=1), draw(L - 1, M, width, seed=2)
    state["enc.transformer.prompt_embeddings"] = first
    rows = [first[0]]
    if deep:
        state["enc.transformer.deep_prompt_embeddings"] = later
        rows += list(later)
    if project:
        linear = torch.nn.Linear(project, D).requires_grad_(False)
        linear.weight.copy_(draw(D, project, seed=3))
        linear.bias.copy_(draw(D, seed=4))
        state |= {f"enc.transformer.prompt_proj.{k}": v for k, v in linear.state_dict().items()}
        rows = [linear(row) for row in rows]
    state |= {f"head.last_layer.{k}": v for k, v in HEAD.items()}
    return state, rows


def bpt_state(model: Any) -> dict[str, Any]:
    return {
        **model.state_dict(),
        "head.weight": HEAD["weight"],
        "head.bias": HEAD["bias"],
        "random_vectors": draw(1, M, P),
        "conv1x1.weight": draw(D, P, 1, 1),
    }
