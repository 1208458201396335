"""The report of a run: pictures, data and page."""

import base64
import csv
import html.parser
import json
import os
import random
import re
import shutil
import subprocess
import sys
from xml.etree import ElementTree

import cases
import numpy as np
import pytest
import tensorflow as tf

import skipnet_tf
from skipnet_tf import analysis
from skipnet_tf import data
from skipnet_tf import evaluation
from skipnet_tf import flops
from skipnet_tf.analysis import __main__ as command
from skipnet_tf.analysis import exhibits
from skipnet_tf.analysis import image_exhibits
from skipnet_tf.analysis import plots
from skipnet_tf.analysis import report as pages
from skipnet_tf.runs import Run
from skipnet_tf.runs import open_run

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
SPLIT = "test[:40]"


class Page(html.parser.HTMLParser):
    """Tags, ids, links and pictures of a page."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.ids, self.links, self.images = [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        self.tags.append(tag)
        for name, values in (
            ("id", self.ids),
            ("href", self.links),
            ("src", self.images),
        ):
            if name in attributes:
                values.append(attributes[name])


def batches():
    return data.load("digits", SPLIT, batch_size=25)


@pytest.fixture(scope="module")
def divided():
    """A SkipNet that runs each block for some of the digits."""
    random.seed(0)  # Keras draws from it; tests seed it after this
    model = cases.skipnet("pool", num_classes=10)
    images, _ = next(iter(batches()))
    return cases.divide_opinions(model, images)


def write_run(folder, models, summaries):
    """What a trainer leaves behind."""
    for name, model in models.items():
        (folder / name).mkdir(parents=True)
        model.save(folder / name / "model.keras")
        log = "epoch,val_accuracy,val_executed_blocks\n1,0.5,1.0\n2,0.9,0.6\n"
        (folder / name / "log.csv").write_text(log)
    result = {
        "dataset": "digits",
        "data_dir": None,
        "validation_split": SPLIT,
        "test_split": "",
        "stages": {name: {"validation": summaries[name]} for name in models},
    }
    (folder / "result.json").write_text(json.dumps(result))
    return str(folder)


@pytest.fixture(scope="module")
def dense():
    return skipnet_tf.ResNet((2, 2), (4, 8), num_classes=10)


@pytest.fixture(scope="module")
def summaries(divided, dense):
    macs = flops.count(dense, (8, 8, 3)).total
    found = evaluation.summary(evaluation.collect(divided, batches()), macs)
    whole = {"macs": macs, "macs_fraction": 1.0, "executed_blocks": 1.0}
    whole |= {"accuracy": 0.5, "distinct_paths": 1}
    return {"base": found | whole, "hrl": found}


@pytest.fixture(scope="module")
def workdir(divided, dense, summaries, tmp_path_factory):
    models = {"base": dense, "hrl": divided}
    return write_run(tmp_path_factory.mktemp("run"), models, summaries)


DRAWN = ("accuracy_against_compute", "easiest_and_hardest")


@pytest.fixture(scope="module")
def report(workdir, tmp_path_factory):
    """The folder of the report of that run, with two of its pictures."""
    out = tmp_path_factory.mktemp("report") / "new"
    draw = pages._write_pictures
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            pages,
            "_write_pictures",
            lambda out, shown: draw(out, shown) if shown.name in DRAWN else "",
        )
        analysis.draw_all(workdir, str(out))
    return out


def rows_of(report, name):
    with open(report / "data" / f"{name}.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_pictures_are_not_empty_and_inside_the_page(report):
    page = Page((report / "report.html").read_text())
    assert "script" not in page.tags and "link" not in page.tags
    inside = []
    for source in page.images:
        kind, content = source.split(",", 1)
        assert kind == "data:image/svg+xml;base64"
        inside.append(base64.b64decode(content))
    assert inside == [(report / f"{name}.svg").read_bytes() for name in DRAWN]
    for name, drawn in zip(DRAWN, inside):
        assert ElementTree.fromstring(drawn).tag.endswith("svg")
        picture = tf.io.decode_png((report / f"{name}.png").read_bytes())
        height, width = picture.shape[:2]
        assert height >= 500 and width >= 900
        assert len(np.unique(picture)) > 10, f"{name} is empty"


def test_links_of_the_page_lead_somewhere(report):
    page = Page((report / "report.html").read_text())
    inside = [link[1:] for link in page.links if link.startswith("#")]
    assert inside and set(inside) <= set(page.ids)
    assert len(page.ids) == len(set(page.ids))
    files = [link for link in page.links if not link.startswith("#")]
    assert files and all((report / link).stat().st_size for link in files)


def test_the_numbers_of_the_page_follow_from_the_data(report, summaries):
    page = (report / "report.html").read_text()
    images = rows_of(report, "images_hrl")
    right = np.mean([row["label"] == row["prediction"] for row in images])
    spent = np.mean([int(row["macs"]) for row in images])
    share = spent / summaries["base"]["macs"]
    assert (
        f"hrl spends {100 * share:.1f} % of the dense network&#x27;s "
        f"multiply-adds at {100 * right:.2f} % accuracy"
    ) in page
    paths = [row["gates"] for row in images]
    most = max(paths.count(path) for path in paths)
    assert f"take {len(set(paths))} distinct paths" in page
    assert f"{100 * most / len(paths):.0f} % take the commonest" in page


def test_an_image_on_its_own_path_costs_what_it_costs_others(report):
    own, other, *_ = rows_of(report, "own_paths")
    images = rows_of(report, "images_hrl")
    assert own["macs"] == other["macs"]
    spent = np.mean([int(row["macs"]) for row in images])
    assert float(own["macs"]) == pytest.approx(spent)
    changed = rows_of(report, "changed_predictions")
    skipping = {row["image"]: row["skipping"] for row in changed}
    for row in images:
        assert (
            skipping.get(row["image"], row["prediction"]) == row["prediction"]
        )


def test_claims_are_told_with_a_verdict_and_numbers(report):
    claims = {row["text"]: row for row in rows_of(report, "claims")}
    (scale,) = [row for text, row in claims.items() if "scale 2 " in text]
    moved = {scale: [] for scale in ("1.0", "2.0")}
    for row in rows_of(report, "input_scales"):
        moved.get(row["scale"], []).append(int(row["blocks"]))
    gain = np.subtract(moved["2.0"], moved["1.0"])
    assert scale["numbers"].startswith(f"{gain.mean():+.2f} blocks")
    error = 1.96 * gain.std(ddof=1) / np.sqrt(len(gain))
    expected = "cannot be told"
    if abs(gain.mean()) > error:
        expected = "holds" if gain.mean() > 0 else "does not hold"
    assert scale["verdict"] == expected
    assert scale["verdict"] in (report / "report.html").read_text()


def test_a_run_without_gates_shows_what_needs_none(
    dense, summaries, tmp_path, capsys
):
    workdir = write_run(tmp_path / "run", {"base": dense}, summaries)
    out = tmp_path / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pages, "_write_pictures", lambda *arguments: "")
        page = Page(open(analysis.draw_all(workdir, str(out))).read())
    assert page.ids == ["stages", "training_curves", "dense_accuracies"] + [
        "datasets"
    ]
    text = (out / "report.html").read_text()
    assert "(Fig. 8): no finished stage has gates." in text
    assert "trained through base. After base it is right" in text
    assert rows_of(out, "stages")[0]["accuracy"] == "0.5"


def test_the_skip_rates_in_the_data_are_those_of_the_images(report):
    images = rows_of(report, "images_hrl")
    for row in rows_of(report, "skip_rate_per_block"):
        if row["stage"] == "hrl":
            decisions = [i["gates"][int(row["block"]) - 1] for i in images]
            expected = decisions.count("0") / len(images)
            assert float(row["skip_rate"]) == pytest.approx(expected)


def test_groups_that_skip_alike_cannot_be_told_apart():
    # 100 images; shares of three groups that each image skips.
    few, many = np.full(100, 0.1), np.full(100, 0.5)
    noisy = 0.1 + np.tile([0.2, -0.19], 50)  # 0.105 on average

    def judged(*by_group):
        (claim,) = analysis.run_exhibits._group_claims(by_group, "")
        return claim.verdict

    assert judged(many, few, many) == "holds"
    assert judged(many, few, few - 0.05) == "does not hold"
    assert judged(noisy, few, many) == "cannot be told"


def test_images_are_shown_where_they_may_be(workdir):
    run = open_run(workdir)
    for shown, pictures in ((True, 3), (False, None)):
        study = exhibits.study(run, shows_images=shown)
        rows = {"most": ([0, 2, 3], ["a", "b", "c"]), "none": ([], [])}
        figure = study.photographs(rows, "Some")
        found = figure and sum(len(axes.images) for axes in figure.axes)
        assert found == pictures
        drawn = image_exhibits.easiest_and_hardest(study)
        assert (drawn.figure is None) != shown
        assert ("not shown" in drawn.caption) != shown
        assert len(drawn.data["easiest_and_hardest"]) == 16


def test_stages_are_compared_on_a_split_that_all_have_seen(workdir, tmp_path):
    run = shutil.copytree(workdir, tmp_path / "run")
    result = json.loads((run / "result.json").read_text())
    result["test_split"] = "test"
    result["stages"]["hrl"]["test"] = result["stages"]["hrl"]["validation"]
    (run / "result.json").write_text(json.dumps(result))
    assert open_run(str(run)).split == SPLIT
    result["stages"]["base"]["test"] = result["stages"]["base"]["validation"]
    (run / "result.json").write_text(json.dumps(result))
    assert open_run(str(run)).split == "test"


def test_what_is_left_out_is_named_with_the_reason(report):
    page = (report / "report.html").read_text()
    assert "Left out" in page
    assert "it needs runs with two prices alpha or more" in page
    assert not (report / "data" / "learners.csv").exists()


def test_random_decisions_say_nothing_about_images(divided, tmp_path):
    (tmp_path / "sp").mkdir()
    settings = json.dumps({"gating": "random"})
    (tmp_path / "sp" / "settings.json").write_text(settings)
    run = Run(str(tmp_path), "digits", None, SPLIT, {})
    routes = evaluation.collect(divided, batches())
    study = exhibits.Study(run, {"sp": divided}, {"sp": routes})
    for make in (
        analysis.run_exhibits.threshold_knob,
        analysis.image_exhibits.image_statistics,
        analysis.image_exhibits.input_scales,
        analysis.class_exhibits.class_difficulty,
        analysis.path_exhibits.own_paths,
    ):
        with pytest.raises(exhibits.LeftOut, match="at random"):
            make(study)
    (stage,) = exhibits.stages(study).data["stages"]
    assert stage["distinct_paths"] > 1 and stage["input_dependent"] is None
    shown = analysis.run_exhibits.skip_rate_per_block(study)
    assert shown.figure is not None and not shown.claims


def test_runs_side_by_side(workdir, tmp_path):
    analysis.compare([workdir, workdir], str(tmp_path / "out"))
    rows = rows_of(tmp_path / "out", "side_by_side")
    assert [row["stage"] for row in rows] == ["base", "hrl"] * 2
    assert {row["run"] for row in rows} == {workdir}
    assert (tmp_path / "out" / "side_by_side.png").exists()


def test_a_sweep_is_read_in_its_own_order(workdir, tmp_path):
    for name in ("a", "b"):
        shutil.copytree(workdir, tmp_path / name)
    (tmp_path / "unfinished").mkdir()
    names = [run.name for run in analysis.open_runs(str(tmp_path))]
    assert names == ["a", "b"]
    listed = [{"folder": f"elsewhere/{name}"} for name in ("b", "a", "gone")]
    (tmp_path / "sweep.json").write_text(json.dumps({"runs": listed}))
    names = [run.name for run in analysis.open_runs(str(tmp_path))]
    assert names == ["b", "a"]


def test_mistakes_end_in_one_line(workdir, tmp_path, monkeypatch):
    def message(*arguments):
        monkeypatch.setattr(sys, "argv", ["analysis", *arguments])
        with pytest.raises(SystemExit) as stopped:
            command.main()
        assert "\n" not in stopped.value.code
        return stopped.value.code

    empty = f"--workdir={tmp_path}"
    out = f"--out={tmp_path / 'out'}"
    assert message(empty, out).startswith("error: `workdir` must hold")
    both = f"--compare={tmp_path}"
    assert message(both, out).startswith("error: `workdir` must hold")
    (tmp_path / "file").write_text("")
    blocked = f"--out={tmp_path / 'file' / 'in'}"
    full = f"--workdir={workdir}"
    assert message(full, blocked).startswith("error: `out` must be")
    other = message(full, out, "--run=other")
    assert other.startswith("error: `run` must be one of")
    monkeypatch.setattr(plots.importlib.util, "find_spec", lambda name: None)
    assert "pip install skipnet_tf[demo]" in message(full, out)


@pytest.mark.slow
def test_the_export_script_takes_the_last_stage_of_a_run(workdir, tmp_path):
    done = subprocess.run(
        [
            sys.executable,
            os.path.join(ROOT, "savedmodels", "export.py"),
            f"--workdir={workdir}",
            f"--directory={tmp_path}",
            "--benchmark",
        ],
        env={**os.environ, "PYTHONPATH": ROOT},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    version, one, many = done.stdout.splitlines()
    assert version == str(tmp_path / "1")
    assert one.startswith("batch 1, ") and "times dense" in one
    assert many.startswith("batch 32, ") and "times dense" in many
    serve = tf.saved_model.load(version).signatures["serving_default"]
    got = serve(images=tf.zeros([1, 8, 8, 3], tf.uint8))
    assert got["gates"].shape == (1, 3)
    assert int(got["class_names"][0, 0]) == int(got["classes"][0, 0])


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("chromium"), reason="no browser")
def test_a_browser_draws_the_report(workdir, tmp_path):
    report = tmp_path / "report"
    analysis.draw_all(workdir, str(report))
    script = """<script>addEventListener("load", () => {
        document.title = [...document.images].map(i => i.naturalWidth).join();
    })</script></head>"""
    page = (report / "report.html").read_text().replace("</head>", script)
    (tmp_path / "page.html").write_text(page)
    done = subprocess.run(
        [
            "chromium",
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--enable-logging=stderr",
            "--dump-dom",
            f"file://{tmp_path / 'page.html'}",
        ],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ":CONSOLE" not in done.stderr
    widths = re.search("<title>(.*?)</title>", done.stdout)[1].split(",")
    assert len(widths) == len(list(report.glob("*.png"))) > 8
    assert all(int(width) > 0 for width in widths)
