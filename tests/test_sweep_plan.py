"""Settings, shared stages, prices and tables of sweeps, without a run."""

import json

import pytest
import sweep_plan
import sweep_results

# Settings.


def test_a_grid_is_all_combinations_named_by_their_values():
    found = sweep_plan.settings(["alpha=0.2,0.5; seed=0,1"], set())
    assert [setting.name for setting in found] == [
        "alpha=0.2_seed=0",
        "alpha=0.2_seed=1",
        "alpha=0.5_seed=0",
        "alpha=0.5_seed=1",
    ]
    assert [s.group for s in found[1:3]] == ["alpha=0.2", "alpha=0.5"]
    assert found[2].arguments == ["--alpha=0.5", "--seed=0"]


def test_a_title_stands_for_what_a_grid_has_in_common():
    grids = [
        "scratch: from_scratch=true; seed=3,4",
        "files: flagfile=a/sdv.txt,a/soft.txt; stages=base,sp",
        "one: seed=5",
    ]
    found = sweep_plan.settings(grids, {"stages"})
    assert [setting.name for setting in found] == [
        "scratch_seed=3",
        "scratch_seed=4",
        "files_sdv",
        "files_soft",
        "one",
    ]
    assert [s.group for s in found[:3]] == ["scratch", "scratch", "files_sdv"]
    assert found[2].flags == {"flagfile": "a/sdv.txt", "stages": "base,sp"}


def test_lists_are_separated_by_bars():
    found = sweep_plan.settings(["stages=base|base,sp"], {"stages"})
    assert [s.flags["stages"] for s in found] == ["base", "base,sp"]


@pytest.mark.parametrize(
    ("grids", "match"),
    [
        ([], "at least one setting"),
        ([""], "name a flag"),
        (["title:"], "name a flag"),
        (["alpha"], "flag=value"),
        (["alpha=0.2,,0.5"], "flag=value"),
        (["seed=0; seed=1"], "each flag once"),
        (["seed=0", "seed=0,1"], "two of seed=0"),
    ],
)
def test_grids_that_say_nothing_are_refused(grids, match):
    with pytest.raises(ValueError, match=match):
        sweep_plan.settings(grids, set())


# Shared stages.


def test_a_stage_is_trained_by_the_first_that_needs_it():
    keys = {
        "a": {"base": "0", "sp": "0 rnn", "hrl": "0 rnn 0.2"},
        "b": {"base": "0", "sp": "0 ff1", "hrl": "0 ff1 0.2"},
        "c": {"base": "0", "sp": "0 ff1", "hrl": "0 ff1 0.5"},
        "d": {"base": "1", "sp": "1 rnn"},
    }
    owners = sweep_plan.owners(keys, lambda run, stage: 0)
    assert owners["b"] == {"base": "a", "sp": "b", "hrl": "b"}
    assert owners["c"] == {"base": "a", "sp": "b", "hrl": "c"}
    assert owners["d"] == {"base": "d", "sp": "d"}
    owners = sweep_plan.owners(keys, lambda run, stage: run < "c")
    assert owners["a"] == {"base": "c", "sp": "a", "hrl": "a"}


# The price at which accuracy still holds.


def test_the_price_is_found_between_one_that_holds_and_one_that_does_not():
    tried, price = {}, 1.0
    while price is not None:
        tried[price] = price <= 0.1
        price = sweep_plan.next_price(tried, 1.0)
    # A quarter until one holds, then the geometric mean of the nearest.
    assert list(tried)[:4] == [1.0, 0.25, 0.0625, 0.125]
    best = max(price for price in tried if tried[price])
    assert 0.1 / 1.1 < best <= 0.1
    assert sweep_plan.next_price({1.0: True}, 1.0) == 4.0
    # Prices need not act in order: only what is above the best one limits it.
    assert sweep_plan.next_price({1.0: False, 4.0: True}, 1.0) == 16.0


# The table.


def test_what_a_stage_notes_beside_its_splits_is_no_split(tmp_path):
    validation = {"accuracy": 0.9, "macs_fraction": 0.5}
    stage = {"threshold": 0.4, "retreats": 1, "validation": validation}
    result = {"stages": {"gates": stage}}
    (tmp_path / "result.json").write_text(json.dumps(result))
    found = sweep_results.read(str(tmp_path), "gates")
    assert found == {"validation": validation}


def test_means_and_deviations_are_over_the_seeds_of_a_setting(tmp_path):
    def summaries(accuracy, macs):
        return {"test": {"accuracy": accuracy, "macs_fraction": macs}}

    rows = sweep_results.rows(
        [
            ("a", "hrl", summaries(0.90, 0.5)),
            ("b", "sp", summaries(0.80, 1.0)),
            ("a", "hrl", summaries(0.94, 0.7)),
        ]
    )
    assert [(row["setting"], row["n"]) for row in rows] == [("a", 2), ("b", 1)]
    # The sample's deviation of two is their distance over the root of 2.
    assert rows[0]["accuracy"] == pytest.approx(0.92)
    assert rows[0]["accuracy_std"] == pytest.approx(0.04 / 2**0.5)
    assert rows[1]["accuracy_std"] is None
    lines = sweep_results.table(rows).splitlines()
    assert len(set(map(len, lines))) == 1  # numbers end together
    assert "92.00 +- 2.83 %" in lines[1] and "60.0 +- 14.1 %" in lines[1]
    assert "80.00 %" in lines[2] and "+-" not in lines[2]
    sweep_results.write_csv(tmp_path / "sweep.csv", rows)
    last = (tmp_path / "sweep.csv").read_text().splitlines()[-1]
    assert last == "b,sp,test,1,0.8,,1.0,"
