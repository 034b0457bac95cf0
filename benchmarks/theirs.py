"""The same step in PyTorch, built as the authors' program builds it.

For every task and every matrix, `U diag(mask * s) V^T` is formed under autograd and
added to the origin; then comes one forward pass a task through
`torch.func.functional_call`, the sum of the entropies, one backward pass, and Adam.
Written from a description of that program; none of its lines is here.
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from adarank_jax.core import svd
from adarank_jax.core.svd import SVDFactors
from benchmarks import shapes
from benchmarks.shapes import Case

TEMPERATURE = 10.0


def make_run(case: Case, learning_rate: float) -> Callable[[], float]:
    """Returns a function that does one step.

    Args:
        case: what is merged; its arrays are copied.
        learning_rate: of Adam.

    Returns:
        It returns the sum of the tasks' mean entropies before the step.
    """
    vision = case.name == "vit-b-32"
    model = _Vision(case.config) if vision else _roberta(case.config)
    model.eval().requires_grad_(False)
    logits = _vision_logits if vision else _roberta_logits
    batches = _images(case) if vision else _texts(case)
    heads = [_head(head, vision) for head in case.heads]
    origin = {
        _name(path): _tensor(path, leaf, case.config)
        for path, leaf in case.origin.items()
    }
    vectors = {
        _name(path): _task_vectors(path, leaf, case.config)
        for path, leaf in case.factors.items()
        if leaf is not None
    }
    model.load_state_dict(origin, strict=False)
    coefficients = {
        name: nn.Parameter(torch.full((len(heads),), shapes.COEFFICIENT))
        for name in vectors
    }
    mask_logits = {
        name: _mask_logits(len(heads), len(found[0][1]), case.rank_ratio)
        for name, found in vectors.items()
        if isinstance(found[0], tuple)
    }
    trained = [*coefficients.values(), *mask_logits.values()]
    optimizer = torch.optim.Adam(trained, learning_rate)

    def run():
        merged = dict(origin)
        for name, found in vectors.items():
            for task, vector in enumerate(found):
                if isinstance(vector, tuple):
                    vector = _masked(*vector, mask_logits[name][task])
                merged[name] = merged[name] + coefficients[name][task] * vector
        loss = 0.0
        for batch, head in zip(batches, heads, strict=True):
            loss = loss + _entropy(logits(model, merged, batch, head)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.item()

    return run


def _mask_logits(tasks, rank, rank_ratio):
    """Starts from the leading directions of every task."""
    logits = torch.full((tasks, rank), -0.1)
    logits[:, : svd.leading_rank(rank, rank_ratio)] = 0.1
    return nn.Parameter(logits)


def _masked(u, s, vt, logits):
    """Rebuilds one task vector with a straight-through mask."""
    soft = torch.sigmoid(logits / TEMPERATURE)
    hard = (soft > 0.5).to(soft.dtype)
    masked = soft * s + ((hard - soft) * s).detach()
    return (u * masked) @ vt


def _entropy(logits):
    """Returns the entropy of each prediction."""
    log_p = functional.log_softmax(logits, dim=-1)
    return -(log_p.exp() * log_p).sum(dim=-1)


def _name(path):
    """Translates a path to the name in a torch module."""
    name = path.replace("/in_proj/kernel", "/in_proj_weight")
    name = name.replace("/in_proj/bias", "/in_proj_bias")
    parts = name.replace("encoder/layer_", "encoder/layer/").split("/")
    ours = ("kernel", "scale", "embedding")
    return ".".join([*parts[:-1], "weight" if parts[-1] in ours else parts[-1]])


def _tensor(path, leaf, config):
    """Turns an array into a tensor of torch's layout."""
    leaf = np.asarray(leaf)
    if path == "conv1/kernel":
        patch = config.patch_size
        leaf = leaf.reshape(patch, patch, 3, -1).transpose(3, 2, 0, 1)
    elif path.endswith("kernel"):
        leaf = leaf.T
    return torch.from_numpy(leaf.copy())


def _task_vectors(path, leaf, config):
    """Lists the tasks' vectors, as `(u, s, vt)` where a matrix is decomposed."""
    if not isinstance(leaf, SVDFactors):
        return [_tensor(path, vector, config) for vector in leaf]
    tasks, rank = leaf.s.shape
    lefts = leaf.u.reshape(-1, tasks, rank)
    rights = leaf.vt.reshape(tasks, rank, -1)
    # torch stores a matrix the other way round, so left and right change places.
    return [
        tuple(torch.from_numpy(x.copy()) for x in (right.T, s, left.T))
        for left, s, right in zip(lefts.swapaxes(0, 1), leaf.s, rights, strict=True)
    ]


class _Vision(nn.Module):
    """An image tower as open_clip builds it."""

    def __init__(self, config):
        super().__init__()
        width, patch = config.width, config.patch_size
        self.num_layers = config.num_layers
        self.conv1 = nn.Conv2d(3, width, patch, stride=patch, bias=False)
        self.class_embedding = nn.Parameter(torch.zeros(width))
        size = (config.num_patches + 1, width)
        self.positional_embedding = nn.Parameter(torch.zeros(size))
        self.ln_pre = nn.LayerNorm(width)
        for i in range(self.num_layers):
            self.add_module(f"resblocks_{i}", _Block(width, config.num_heads))
        self.ln_post = nn.LayerNorm(width)
        self.proj = nn.Parameter(torch.zeros(width, config.output_size))

    def forward(self, images):
        x = self.conv1(images).flatten(2).transpose(1, 2)
        first = self.class_embedding.expand(len(x), 1, -1)
        x = self.ln_pre(torch.cat([first, x], dim=1) + self.positional_embedding)
        for i in range(self.num_layers):
            x = getattr(self, f"resblocks_{i}")(x)
        return self.ln_post(x[:, 0]) @ self.proj


class _Block(nn.Module):
    """A residual attention block."""

    def __init__(self, width, num_heads):
        super().__init__()
        self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn = nn.MultiheadAttention(width, num_heads, batch_first=True)
        self.mlp = nn.Module()
        self.mlp.c_fc = nn.Linear(width, 4 * width)
        self.mlp.c_proj = nn.Linear(4 * width, width)

    def forward(self, x):
        y = self.ln_1(x)
        x = x + self.attn(y, y, y, need_weights=False)[0]
        hidden = self.mlp.c_fc(self.ln_2(x))
        return x + self.mlp.c_proj(hidden * torch.sigmoid(1.702 * hidden))


def _roberta(config):
    """Builds transformers' encoder."""
    from transformers import RobertaConfig, RobertaModel

    sizes = RobertaConfig(
        vocab_size=config.vocabulary_size,
        hidden_size=config.width,
        num_hidden_layers=config.num_layers,
        num_attention_heads=config.num_heads,
        intermediate_size=config.mlp_width,
        max_position_embeddings=config.max_positions,
        type_vocab_size=config.num_token_types,
        layer_norm_eps=config.layer_norm_epsilon,
        pad_token_id=config.padding_id,
    )
    return RobertaModel(sizes, add_pooling_layer=False)


def _images(case):
    """Returns the images of each task, channels first."""
    return [torch.from_numpy(x.transpose(0, 3, 1, 2).copy()) for x in case.inputs]


def _texts(case):
    """Returns the texts of each task."""
    ids, masks = (case.inputs[name] for name in ("input_ids", "attention_mask"))
    return [
        {
            "input_ids": torch.from_numpy(i).long(),
            "attention_mask": torch.from_numpy(m).long(),
        }
        for i, m in zip(ids, masks, strict=True)
    ]


def _head(head, vision):
    """Turns the arrays of a head into tensors."""
    if vision:
        scale = float(head.logit_scale)
        return scale * torch.from_numpy(np.array(head.directions))
    return {
        f"{layer}.{name}": torch.from_numpy(np.asarray(array))
        for layer, tensors in head.items()
        for name, array in tensors.items()
    }


def _vision_logits(model, params, images, head):
    """Runs one task's images through the merged tower and its head."""
    features = torch.func.functional_call(model, params, (images,))
    return functional.normalize(features, dim=-1) @ head


def _roberta_logits(model, params, texts, head):
    """Runs one task's texts through the merged encoder and its head."""
    outputs = torch.func.functional_call(model, params, (), texts)
    x = outputs.last_hidden_state[:, 0]
    x = torch.tanh(x @ head["dense.kernel"] + head["dense.bias"])
    return x @ head["out_proj.kernel"] + head["out_proj.bias"]
