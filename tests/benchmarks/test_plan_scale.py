"""The planner of large merges, on shapes that a test can afford."""

import jax
import pytest

from benchmarks import plan_scale

SMALL = ["--variant", "vit-small-8", "--tasks", "3", "--batch", "8"]


def test_plan_counts_what_a_device_holds_and_sends():
    found = plan_scale.plan(plan_scale.parse(SMALL))
    assert found["devices"] == len(jax.devices()) == 8
    # 2 layers of 4 matrices of rank 192, for 3 tasks
    assert found["mask_logits"] == 2 * 4 * 192 * 3
    held = found["factor_bytes"] / 8 + found["base_bytes"]
    assert held < found["argument_bytes"] < 1.5 * held
    merged = 4 * 2 * 12 * 192 * 192
    sent = found["collective_bytes"]
    assert 2 * merged <= sent < 2 * merged + 4e5, "forward and back, and metrics"
    assert found["flops"] > found["merge_flops"] > 0


def test_plan_of_one_task_at_a_time_needs_less():
    words = [*SMALL[:-1], "1024", "--layers", "1"]
    all_tasks, one = (
        plan_scale.plan(plan_scale.parse(words + more))["temporary_bytes"]
        for more in ([], ["--tasks-at-once", "1"])
    )
    assert one < all_tasks


def test_plan_refuses_a_batch_that_does_not_divide():
    with pytest.raises(SystemExit, match="does not divide by"):
        plan_scale.main(["--batch", "16", "--devices", "8", "32"])


def test_collective_bytes_reads_tuples_with_comments():
    text = "%a = (f32[2,3]{1,0}, /*index=1*/f32[5]{0}) all-reduce(%b, %c), channel_id=1"
    assert plan_scale.collective_bytes(text) == 4 * (6 + 5)
