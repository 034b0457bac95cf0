"""Times our adaptation step against the same step in PyTorch.

``python -m benchmarks.step --shapes roberta-base --layers 2``, with random weights;
needs the extra `bench`.
"""

import argparse
import statistics
from collections.abc import Sequence
from importlib import metadata

import jax

from benchmarks import cli, shapes, timing

DEFAULTS = {
    # shapes: tasks, batch, learning rate, as in the paper
    "vit-b-32": (8, 16, 1e-3),
    "roberta-base": (7, 8, 1e-4),
}
LIBRARIES = ("jax", "torch", "transformers")
TOLERANCE = 1e-4
"""How far the two losses may be apart, relative to the loss."""


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Reads the command line; exits with a message if it is wrong."""
    parser = cli.parser("benchmarks.step", __doc__)
    parser.add_argument("--shapes", choices=DEFAULTS, default="vit-b-32")
    parser.add_argument("--layers", type=cli.count, default=2, help="depth, of 12")
    parser.add_argument("--tasks", type=cli.count, help="default: the paper's")
    parser.add_argument("--batch", type=cli.count, help="examples a task; the paper's")
    parser.add_argument("--tokens", type=cli.count, default=128, help="of every text")
    parser.add_argument(
        "--rank-ratio",
        type=cli.share,
        default=1.0,
        help="share of directions that masks keep at the start; 0.16 for CART",
    )
    options = parser.parse_args(arguments)
    tasks, batch, _ = DEFAULTS[options.shapes]
    options.tasks = options.tasks or tasks
    options.batch = options.batch or batch
    return options


def measure(options: argparse.Namespace) -> dict:
    """Runs both steps in turn.

    Args:
        options: as `parse` returns.

    Returns:
        What was measured, on what, and by which command.

    Raises:
        RuntimeError: JAX does not run on the processor, as PyTorch does here, or the
            two steps do not compute the same losses, before the first update and after
            it.
    """
    check_backend()
    import torch

    from benchmarks import ours, theirs

    case = make_case(options)
    rate = DEFAULTS[options.shapes][2]
    runs = {"ours": ours.make_run(case, rate), "theirs": theirs.make_run(case, rate)}
    losses = {name: [run(), run()] for name, run in runs.items()}
    pairs = zip(losses["ours"], losses["theirs"], strict=True)
    if not all(abs(a / b - 1) < TOLERANCE for a, b in pairs):
        raise RuntimeError(f"the two steps do not have the same losses: {losses}")
    seconds = timing.alternate(runs, options.repeats)
    gemm = timing.gemm_rate()
    median = {name: statistics.median(values) for name, values in seconds.items()}
    flops = shapes.useful_flops(case)
    return cli.result("benchmarks.step", options) | {
        "versions": {name: metadata.version(name) for name in LIBRARIES},
        "torch_threads": torch.get_num_threads(),
        "first_losses": losses,
        "seconds": seconds,
        "median_seconds": median,
        "ratio": timing.median_ratio(seconds["theirs"], seconds["ours"]),
        "useful_gflop": flops / 1e9,
        "gemm_gflops": gemm / 1e9,
        "torch_gemm_gflops": timing.torch_gemm_rate() / 1e9,
        "share_of_gemm": flops / median["ours"] / gemm,
    }


def make_case(options: argparse.Namespace) -> shapes.Case:
    """Draws the problem of a command.

    Args:
        options: as `parse` returns.
    """
    names = ("layers", "tasks", "batch", "tokens", "rank_ratio")
    sizes = {name: getattr(options, name) for name in names}
    return shapes.make_case(options.shapes, **sizes)


def check_backend() -> None:
    """Checks that both sides run on the same processor.

    Raises:
        RuntimeError: JAX would run on an accelerator.
    """
    if jax.default_backend() != "cpu":
        raise RuntimeError(
            f"JAX runs on {jax.default_backend()!r}, but PyTorch runs on 'cpu' here, "
            "so their times say nothing about each other; set JAX_PLATFORMS=cpu."
        )


def cells(result: dict) -> tuple[str, ...]:
    """Formats what a row tells."""
    median, limit = result["median_seconds"], result["gemm_gflops"]
    return (
        f"{median['theirs']:.2f} s",
        f"{median['ours']:.2f} s",
        f"{result['ratio']:.2f}",
        f"{100 * result['share_of_gemm']:.0f} % of {limit:.0f} GFLOP/s",
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures and prints."""
    cli.run(parse(arguments), measure, cells, ("torch", "transformers"))


if __name__ == "__main__":
    main()
