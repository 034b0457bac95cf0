import os
import socket
import time

import pytest
from huggingface_hub import constants

from adarank_jax.errors import Message
from experiments import clip_suite, plan, presets, results, sizes, yaml_config
from experiments.image_config import ImageMergeConfig


@pytest.fixture
def planned(tmp_path, monkeypatch):
    """Plans a preset where no file was ever fetched, and none can be."""

    def refuse(*_):
        raise AssertionError("a connection was opened")

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)

    def run(preset, *overrides):
        values = presets.get(preset).values
        config = yaml_config.validate(ImageMergeConfig, values, {}, overrides, preset)
        inputs = clip_suite.check(config, may_fetch=False)
        assert not list(tmp_path.iterdir())
        return config, inputs

    return run


@pytest.mark.parametrize(
    ("overrides", "logits", "matrices"),
    [((), 294_912, 48), (("qkv=split",), 442_368, 72)],
)
def test_plan_counts_the_logits_of_the_paper_before_anything_is_fetched(
    planned, overrides, logits, matrices
):
    found = sizes.count(*planned("vit-b32-8-cart-adarank", *overrides))
    assert found.num_tasks == 8
    assert found.parameters == 87_849_216
    assert (found.logits, found.matrices) == (logits, matrices)


@pytest.mark.parametrize(
    ("preset", "logits"),
    [
        ("vit-b32-20-cart-adarank", 20 * 12 * 4 * 768),
        ("fusion-bench-vit-b16-8-ta-adarank", 8 * 12 * 4 * 768),
        ("vit-l14-14-cart-adarank", 14 * 24 * 4 * 1024),
    ],
)
def test_plan_knows_every_published_size(planned, preset, logits):
    assert sizes.count(*planned(preset)).logits == logits


def test_plan_says_what_has_to_be_fetched(planned, tmp_path):
    config, inputs = planned("vit-b32-8-cart-adarank")
    described = plan.describe(config, inputs, tmp_path / "run")
    lines = dict(described.lines)
    assert not described.problems
    assert "294,912 logits" in lines["masks"]
    assert "48 matrices" in lines["model"]
    assert "MNIST 10,000" in lines["images"]
    assert "next" in lines
    fetched = lines["fetch"].removeprefix("from the Hub: ").split(", ")
    assert fetched[0] == config.base
    assert {config.experts[name].model for name in config.task_names} <= {*fetched}
    assert len(fetched) == 1 + 2 * len(config.task_names)


def test_plan_without_a_network_lists_everything_that_is_missing(planned, tmp_path):
    config, inputs = planned("vit-b32-8-cart-adarank", "offline=true")
    described = plan.describe(config, inputs, tmp_path / "run")
    assert "294,912 logits" in dict(described.lines)["masks"]
    assert "next" not in dict(described.lines)
    assert "time" not in dict(described.lines)  # nothing is timed for nothing
    assert len(described.problems) == 1 + 2 * len(config.task_names)
    assert "not in the cache" in str(described.problems[0])


def test_problems_are_shown_first(capsys):
    lines = [("base", "here")]
    gone, odd = Message("E101", "gone", "`base`"), Message("W100", "odd")
    plan.show(plan.Plan([gone], [odd], lines), results.table_console())
    assert capsys.readouterr().out.splitlines() == [
        "PLAN  1 problem, 1 warning; nothing was changed",
        "problem   E101 `base`: gone.",
        "base      here",
        "warning W100: odd.",
    ]


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        *((0.0042, "0.004 s"), (0.5, "0.5 s"), (9.96, "10 s"), (104.0, "104 s")),
        *((119.6, "2 min"), (1860, "31 min"), (7200, "2.0 h"), (270_000, "75.0 h")),
    ],
)
def test_durations_are_plain_numbers(seconds, shown):
    assert plan._duration(seconds) == shown


def test_times_are_the_best_of_several():
    naps = iter([0.0, 0.02, 0.001, *[0.02] * 30])
    assert 0.001 <= plan._seconds(lambda: time.sleep(next(naps))) < 0.02


@pytest.mark.parametrize("load", [0.0, 1e4])
def test_plan_says_when_the_machine_is_busy(planned, tmp_path, monkeypatch, load):
    monkeypatch.setattr(plan, "_seconds", lambda call: 1e-3)
    monkeypatch.setattr(os, "getloadavg", lambda: (load, 0.0, 0.0))
    described = plan.describe(*planned("vit-b32-8-cart-adarank"), tmp_path / "run")
    assert ("machine was busy: load" in dict(described.lines)["time"]) == (load > 0)


def test_plan_charges_a_static_merge_for_what_it_needs_only(planned, tmp_path):
    config, inputs = planned("vit-b32-8-weight-averaging")
    found = sizes.count(config, inputs)
    assert (found.logits, found.matrices, found.factors, found.dense) == (0, 0, 0, 0)
    assert (found.svd_flops, found.step_flops, found.activations) == (0, 0, 0)
    lines = dict(plan.describe(config, inputs, tmp_path / "run").lines)
    assert "no masks" in lines["masks"]
    assert "SVD" not in lines["model"]
    assert "steps" not in lines["time"]
    config, inputs = planned("vit-b32-8-adamerging")
    found = sizes.count(config, inputs)
    assert (found.logits, found.factors) == (0, 0)
    assert found.dense == 4 * 8 * found.parameters
    assert found.step_flops > 0


def test_plan_counts_products_of_what_masks_keep_where_that_is_at_most_half(planned):
    config, inputs = planned("vit-b32-8-cart-adarank")

    def flops(**changes):
        method = config.method.model_copy(update=changes)
        return sizes.count(config, inputs, method).step_flops

    everything = flops(rank_ratio=1.0)
    entries = 12 * 12 * 768**2  # 12 layers of matrices of 3, 1, 4 and 4 squares
    forward = 2.0 * 8 * 768 * entries
    assert everything - flops() == pytest.approx(forward * (1 - 122 / 768), rel=1e-9)
    assert everything - flops(rank_ratio=0.5) == pytest.approx(forward / 2, rel=1e-9)
    assert everything == flops(rank_ratio=0.51)


def test_plan_counts_adarank_among_the_rows_to_compare(planned, tmp_path):
    changed = ("method=weight_averaging", "compare=[adarank]")
    config, inputs = planned("vit-b32-8-cart-adarank", *changed)
    lines = dict(plan.describe(config, inputs, tmp_path / "run").lines)
    assert "10,000 steps" in lines["time"]
    assert "SVD" in lines["time"]
