import json

import pytest

from adarank_jax import mergers
from experiments import run_vit


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_adarank_beats_its_start_and_every_static_merge(tmp_path, seed):
    run_vit.main(run_vit.Options((f"seed={seed}",), run_dir=tmp_path / "run"))
    rows = json.loads((tmp_path / "run" / "results.json").read_text())["rows"]
    best = {(row["method"], row["objective"]): row["mean"] for row in rows}
    error = max(row["standard_error"] for row in rows)
    others = [(name, None) for name in (*mergers.MERGERS, "adarank at step 0")]
    for objective in ("entropy", "expert_labels"):
        for other in others:
            assert best["adarank", objective] > best[other] + 2 * error, other
