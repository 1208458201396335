"""The comparison of speeds: choices, tables and pictures, a tiny network."""

import functools
import json
import pathlib

import measuring
import networks
import numpy as np
import pytest
import report

from skipnet_tf.skipnet import SkipNet

TINY = networks.Network(
    functools.partial(SkipNet, (1, 2), (4, 8), input_shape=(8, 8, 3)),
    "cifar10",
    8,
    (1, 2),
)


def row(kind, percent, macs, median, precision="float32"):
    return {
        "threads": 2,
        "batch": 8,
        "precision": precision,
        "kind": kind,
        "percent": percent,
        "macs": macs,
        "median": median,
        "minimum": median,
        "rounds": 5,
    }


ROWS = [
    row("dense", 100, 1.0, 20.0),
    row("gated", 0, 0.1, 4.0),
    row("gated", 50, 0.6, 14.0),
    row("straight", 0, 0.1, 3.0),
    row("straight", 50, 0.5, 11.0),
    row("openvino", 100, 1.0, 15.0),
    row("dense", 100, 1.0, 10.0, "bfloat16"),
    row("gated", 0, 0.1, 3.0, "bfloat16"),
    row("gated", 50, 0.6, 7.0, "bfloat16"),
]
RESULT = {
    "network": "resnet0",
    "machine": {"processor": "Abacus 3", "tensorflow": "tensorflow 2.21.0"},
    "rows": ROWS,
}


def test_straight_lines_take_their_share_evenly_over_the_depth():
    assert networks.spread(4, 0) == [False] * 4
    assert networks.spread(4, 50) == [False, True, False, True]
    assert networks.spread(4, 100) == [True] * 4
    # 15 gates, those of ResNet-50: 7 blocks are the most within a half.
    assert sum(networks.spread(15, 50)) == 7


@pytest.mark.parametrize("percent, opened", [(0, 0), (25, 3), (100, 12)])
def test_draws_have_the_share_and_differ(percent, opened):
    random = np.random.default_rng(0)
    draws = [measuring.draw(random, 4, 3, percent) for _ in range(20)]
    assert {actions.shape for actions in draws} == {(4, 3)}
    assert {actions.sum() for actions in draws} == {opened}
    if percent == 25:
        # Each place is open in about 5 of 20 draws, and none is always.
        counts = np.sum(draws, axis=0)
        assert counts.min() > 0 and counts.max() < 12


def test_contenders_take_turns_until_rounds_or_time_are_over():
    calls = []
    contenders = [functools.partial(calls.append), lambda turn: None]
    times = measuring.interleave(contenders, repeats=7, seconds=60)
    assert calls == list(range(7)) and [len(t) for t in times] == [7, 7]
    times = measuring.interleave(contenders, repeats=7, seconds=0)
    assert [len(taken) for taken in times] == [5, 5]


def test_the_table_has_ratios_to_dense_and_both_ideals():
    table = report.skipping_table(report.Times(ROWS, 2, "float32"))
    # 4 / 20 and 3 / 20; then 14 / 20, while the straight line of 0.6, a fifth
    # of the way from (0.5, 0.55) to (1, 1), takes 0.64.
    assert table.splitlines()[2:] == [
        "| 8 | 0 % | 0.20 | 0.10 | +0.10 | 0.15 | +0.05 |",
        "| 8 | 50 % | 0.70 | 0.60 | +0.10 | 0.64 | +0.06 |",
    ]


def test_tables_of_runtimes_and_precisions():
    # 15 / 20; then 10 / 20, 3 / 4 and 7 / 14.
    assert report.peers_table(ROWS, 2).splitlines() == [
        "| batch | float32, ms | OpenVINO float32 | bfloat16, ms |",
        "| ---: | ---: | ---: | ---: |",
        "| 8 | 20.0 | 0.75 | 10.0 |",
    ]
    lines = report.precision_table(ROWS, 2).splitlines()
    assert lines[-1] == "| 8 | 0.50 | 0.75 | 0.50 |"


def test_results_become_a_table_and_pictures(tmp_path):
    pytest.importorskip("matplotlib")
    with pytest.raises(ValueError, match="no inference_"):
        report.write(str(tmp_path))
    (tmp_path / "inference_resnet0.json").write_text(json.dumps(RESULT))
    written = [pathlib.Path(path) for path in report.write(str(tmp_path))]
    assert [path.name for path in written] == [
        "inference.md",
        "inference_float32_2.png",
        "inference_bfloat16_2.png",
    ]
    assert written[1].stat().st_size > 10_000
    text = written[0].read_text()
    assert "Abacus 3" in text and "### bfloat16, 2 threads" in text


def test_a_tiny_network_from_export_to_rows(tmp_path):
    paths = networks.export(TINY, "float32", str(tmp_path))
    plan = measuring.Plan(
        size=8,
        paths={"float32": paths},
        peers={},
        threads=0,
        batches=(2,),
        shares=(0, 50, 100),
        repeats=1,
        seconds=0.0,
    )
    rows = measuring.measure(plan)
    found = {(row["kind"], row["percent"]): row["macs"] for row in rows}
    # Gates open and shut cost the same: what is more than a straight line.
    assert found["dense", 100] == 1
    gates = found["gated", 0] - found["straight", 0]
    assert 0 < gates == pytest.approx(found["gated", 100] - 1)
    assert found["gated", 0] < found["gated", 50] < found["gated", 100]
