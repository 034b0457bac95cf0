"""Records heads as torch writes them, for `tests/checkpoints/test_head_files.py`.

Run with torch: `python tests/data/make_head_files.py`. Writes a pickled module of a
class that only the code base of published experts has, and a state dict with a prefix.
"""

import pathlib
import sys
import types

import torch

FOLDER = pathlib.Path(__file__).parent


class ClassificationHead(torch.nn.Linear):
    """A linear layer that scales its input, as the code bases name it."""

    def __init__(self, weight):
        super().__init__(weight.shape[1], weight.shape[0])
        self.normalize = True
        self.weight = torch.nn.Parameter(weight.clone())
        self.bias = torch.nn.Parameter(torch.zeros_like(self.bias))


def main():
    weight = torch.arange(12, dtype=torch.float32).reshape(3, 4) / 8
    module = types.ModuleType("src.modeling")
    module.ClassificationHead = ClassificationHead
    ClassificationHead.__module__ = "src.modeling"
    sys.modules |= {"src": types.ModuleType("src"), "src.modeling": module}
    torch.save(ClassificationHead(weight), FOLDER / "head_Tiny.pt")
    state = {"classification_head.weight": weight.to(torch.bfloat16)}
    torch.save(state, FOLDER / "head_tiny_state.pt")


if __name__ == "__main__":
    main()
