"""Makes the small torch files that the tests read; run with torch 2.

The expected numbers come from `state_dict()` of torch itself, in `expected.safetensors`
under ``file/name``.
"""

import collections
import functools
import json
import pathlib
import sys
import types

import torch
from safetensors.torch import save_file

FOLDER = pathlib.Path(__file__).parent / "torch_files"


class Block(torch.nn.Module):
    """A residual block with a function as attribute."""

    def __init__(self):
        super().__init__()
        self.ln_1 = torch.nn.LayerNorm(4)
        self.attn = torch.nn.MultiheadAttention(4, 2)
        self.activation = functools.partial(
            torch.nn.functional.gelu, approximate="tanh"
        )


class ImageEncoder(torch.nn.Module):
    """The shape of the encoders that Task Arithmetic pickles."""

    def __init__(self):
        super().__init__()
        model = torch.nn.Module()
        model.visual = torch.nn.Module()
        model.visual.conv1 = torch.nn.Conv2d(3, 4, 2, 2, bias=False)
        model.visual.class_embedding = torch.nn.Parameter(torch.randn(4))
        model.visual.transformer = torch.nn.Sequential(Block(), Block())
        model.visual.proj = torch.nn.Parameter(torch.randn(4, 2).t().contiguous().t())
        model.register_buffer("attn_mask", torch.randn(3, 3), persistent=False)
        model.register_buffer("position_ids", torch.arange(3)[None])
        model.activation = torch.nn.functional.relu
        model.logit_scale = torch.nn.Parameter(torch.tensor(2.5))
        model.tied = model.visual.conv1
        self.model = model
        self.train_preprocess = types.SimpleNamespace(size=(224, 224))
        self.cache_dir = None


class ClassificationHead(torch.nn.Linear):
    """The shape of the heads that Task Arithmetic pickles."""

    def __init__(self):
        super().__init__(4, 3)
        self.normalize = True


def main():
    """Writes all files."""
    torch.manual_seed(0)
    torch.backends.quantized.engine = torch.backends.quantized.supported_engines[-1]
    FOLDER.mkdir(exist_ok=True)
    modeling = types.ModuleType("src.modeling")
    sys.modules |= {"src": types.ModuleType("src"), "src.modeling": modeling}
    for cls in (Block, ImageEncoder, ClassificationHead):
        cls.__module__ = "src.modeling"
        setattr(modeling, cls.__name__, cls)
    base = torch.randn(6, 4)
    tensors = collections.OrderedDict(
        float32=base,
        transposed=base.t(),
        shared=base[2:4, 1:],
        strided=base.flatten()[1::5],
        float64=torch.randn(3, dtype=torch.float64),
        float16=torch.randn(2, 3).half(),
        bfloat16=torch.randn(5).bfloat16(),
        int64=torch.tensor([-(2**40), 7]),
        int32=torch.tensor([-5], dtype=torch.int32),
        int16=torch.tensor([300], dtype=torch.int16),
        int8=torch.tensor([-3], dtype=torch.int8),
        uint8=torch.tensor([200], dtype=torch.uint8),
        uint16=torch.tensor([60000], dtype=torch.uint16),
        bool=torch.tensor([True, False, True]),
        scalar=torch.tensor(1.5),
        empty=torch.zeros(0, 3),
        expanded=torch.tensor([2.0]).expand(3, 2),
        parameter=torch.nn.Parameter(torch.randn(2)),
    )
    encoder, head = ImageEncoder(), ClassificationHead()
    tagged = torch.nn.Parameter(torch.randn(2))
    tagged.tag = "keeps an attribute, so it is rebuilt from its type"
    optimizer = torch.optim.Adam(head.parameters())
    sum(p.sum() for p in head.parameters()).backward()
    optimizer.step()
    weights = {name: value.detach() for name, value in tensors.items()}
    saved = {
        "state_dict.pt": (weights, weights),
        "protocol_4.pt": (encoder, encoder.state_dict()),
        "image_encoder.pt": (encoder, encoder.state_dict()),
        "head.pt": (head, head.state_dict()),
        "tagged.pt": ({"tagged": tagged}, {"tagged": tagged.detach()}),
        "wrapped.pt": (
            {
                "epoch": 3,
                "loss": torch.tensor(0.25),
                "state_dict": head.state_dict(),
                "optimizer": optimizer.state_dict(),
            },
            head.state_dict(),
        ),
    }
    expected = {}
    for name, (value, flat) in saved.items():
        protocol = {"pickle_protocol": 4} if name == "protocol_4.pt" else {}
        torch.save(value, FOLDER / name, **protocol)
        expected |= {f"{name}/{key}": t.clone() for key, t in flat.items()}
    shards = {"pytorch_model-00001-of-00002.bin": {"a.weight": torch.randn(2, 3)}}
    shards["pytorch_model-00002-of-00002.bin"] = {"b.weight": torch.randn(4)}
    folder = FOLDER / "sharded"
    folder.mkdir(exist_ok=True)
    for name, flat in shards.items():
        torch.save(flat, folder / name)
        expected |= {f"sharded/{key}": tensor for key, tensor in flat.items()}
    weight_map = {key: name for name, flat in shards.items() for key in flat}
    index = {"metadata": {"total_size": 40}, "weight_map": weight_map}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index, indent=1))
    save_file(
        {name: value.contiguous() for name, value in expected.items()},
        FOLDER / "expected.safetensors",
    )
    refused = {
        "quantised.pt": torch.quantize_per_tensor(base, 0.1, 0, torch.qint8),
        "float8.pt": base.to(torch.float8_e4m3fn),
        "sparse.pt": torch.eye(3).to_sparse(),
        "complex.pt": torch.ones(2, dtype=torch.complex64),
    }
    for name, value in refused.items():
        torch.save({"layer.weight": value}, FOLDER / name)
    old = {"_use_new_zipfile_serialization": False}
    torch.save({"w": torch.ones(2)}, FOLDER / "legacy.pt", **old)
    torch.jit.script(torch.nn.Linear(2, 1)).save(str(FOLDER / "torchscript.pt"))


if __name__ == "__main__":
    main()
