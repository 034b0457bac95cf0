"""Computes, from published rates, how long a planned step takes at the very least.

``python -m benchmarks.plan_scale | python -m benchmarks.roofline`` prints a Markdown
table. Nothing is measured: products run at the peak rate, and sums over devices overlap
with nothing. Merging needs full float32; the encoder runs as JAX does by default
(bfloat16 products on a TPU, TF32 on an H100).

References:
    Google's `TPU system architecture <https://cloud.google.com/tpu/docs/v5e>`_ pages of
    v5e and v4; NVIDIA's `H100 <https://www.nvidia.com/en-us/data-center/h100/>`_ data
    sheet (SXM, without sparsity). Full float32 on a TPU takes six bfloat16 products.
"""

import dataclasses
import json
import sys
from collections.abc import Iterable
from typing import Any


@dataclasses.dataclass(frozen=True)
class Machine:
    """Devices, and the rates of one of them.

    Attributes:
        devices: how many.
        encoder: operations a second in the encoder's products.
        merge: operations a second in products of full float32.
        bandwidth: bytes of memory a second.
        link: bytes a second to the other devices, one way.
    """

    devices: int
    encoder: float
    merge: float
    bandwidth: float
    link: float


def seconds(plan: dict[str, Any], machine: Machine) -> dict[str, float]:
    """Computes the least time of each part of a step.

    Args:
        plan: as `plan_scale.plan` returns, for any number of devices.
        machine: that runs it.

    Returns:
        Seconds of the encoder, the merge, the sums over devices, and their sum.
    """
    share = plan["devices"] / machine.devices
    merge = share * plan["merge_flops"]
    encoder = share * (plan["flops"] - plan["merge_flops"])
    factors = 2 * plan["factor_bytes"] / machine.devices  # read forward and backward
    ring = 2 * (machine.devices - 1) / machine.devices * plan["collective_bytes"]
    parts = {
        "encoder": encoder / machine.encoder,
        "merge": max(merge / machine.merge, factors / machine.bandwidth),
        "sums": ring / machine.link,
    }
    return parts | {"step": sum(parts.values())}


def table(plans: Iterable[dict[str, Any]]) -> str:
    """Formats the machines as a Markdown table.

    Args:
        plans: of one step, for several numbers of devices; a machine takes that of its
            own number, or else the first.
    """
    by_count = {plan["devices"]: plan for plan in plans}
    rows = ["| machine | encoder | merge | sums | step | 10,000 steps |"]
    rows.append("|---|--:|--:|--:|--:|--:|")
    for name, machine in MACHINES.items():
        plan = by_count.get(machine.devices, next(iter(by_count.values())))
        found = seconds(plan, machine)
        cells = [f"{1e3 * value:.0f} ms" for value in found.values()]
        hours = f"{1e4 * found['step'] / 3600:.1f} h"
        rows.append(f"| {' | '.join([name, *cells, hours])} |")
    return "\n".join(rows)


MACHINES = {
    "TPU v5e-8": Machine(8, 197e12, 197e12 / 6, 819e9, 100e9),
    "TPU v4-32 (16 chips)": Machine(16, 275e12, 275e12 / 6, 1228e9, 150e9),
    "1 x H100": Machine(1, 495e12, 67e12, 3350e9, 450e9),
    "8 x H100": Machine(8, 495e12, 67e12, 3350e9, 450e9),
}

if __name__ == "__main__":
    sys.stdout.write(table(json.loads(line) for line in sys.stdin) + "\n")
