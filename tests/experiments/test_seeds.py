import json

import pytest

from adarank_jax import mergers
from experiments import run_vit


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_adarank_beats_static_merges_and_adamerging_for_every_seed(tmp_path, seed):
    run_vit.main(run_vit.Config(run_dir=tmp_path / "run", seed=seed))
    rows = json.loads((tmp_path / "run" / "results.json").read_text())["rows"]
    best = {(row["method"], row["objective"]): row["mean"] for row in rows}
    start, experts = best["adarank at step 0", None], best["individual", None]
    error = max(row["standard_error"] for row in rows)
    others = [(name, None) for name in (*mergers.MERGERS, "adarank at step 0")]
    others.append(("adamerging", "entropy"))
    for other in others:
        assert best["adarank", "entropy"] > best[other] + 2 * error, other
    assert best["adarank", "expert_labels"] > start + 0.5 * (experts - start)
