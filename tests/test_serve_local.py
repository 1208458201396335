"""Versions that come and go, the scripts, and the files for TF Serving."""

import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import time

import predictor
import pytest
import serving_cases
import tensorflow as tf
from cases import pixels
from google.protobuf import text_format
from tensorflow_serving.apis import get_model_status_pb2
from tensorflow_serving.config import model_server_config_pb2

ROOT = pathlib.Path(__file__).parent.parent
STATES = get_model_status_pb2.ModelVersionStatus


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return serving_cases.export_tiny(tmp_path_factory.mktemp("served"))


def new_version(folder, number):
    writing = os.path.join(folder, f"{number}.writing")
    shutil.copytree(os.path.join(folder, "1"), writing)
    os.rename(writing, os.path.join(folder, str(number)))


def newest(model):
    return model.status().model_version_status[0]


def test_a_new_version_replaces_the_old_one(folder, tmp_path):
    shutil.copytree(os.path.join(folder, "1"), tmp_path / "1")
    for ignored in ("notes", "3.writing", "-4"):
        (tmp_path / ignored).mkdir()
    model = predictor.Model("skipnet", str(tmp_path))
    images = {"images": pixels(1)}
    with model.use(1) as old:
        new_version(tmp_path, 2)
        model.refresh()
        # What began before the swap is computed to its end.
        assert old.run("", images)["macs"] > 0
    with pytest.raises(RuntimeError, match="closed Session"):
        old.run("", images)
    with model.use() as version:
        assert version.number == 2
    with pytest.raises(tf.errors.NotFoundError, match=r"Specific\(skipnet, 1"):
        model.use(1).__enter__()
    states = model.status().model_version_status
    got = [(state.version, state.state) for state in states]
    assert got == [(2, STATES.AVAILABLE), (1, STATES.END)]


def test_a_version_that_does_not_load_replaces_nothing(folder, tmp_path):
    shutil.copytree(os.path.join(folder, "1"), tmp_path / "1")
    model = predictor.Model("skipnet", str(tmp_path))
    (tmp_path / "2").mkdir()  # nothing is in it yet
    model.refresh()
    with model.use() as version:
        assert version.number == 1
    assert newest(model).version == 2 and newest(model).status.error_message
    shutil.copytree(tmp_path / "1", tmp_path / "2", dirs_exist_ok=True)
    model.watch(0.05)
    end = time.monotonic() + 60
    while newest(model).state != STATES.AVAILABLE and time.monotonic() < end:
        time.sleep(0.05)
    model.close()
    with model.use(2) as version:
        assert version.run("", {"images": pixels(1)})["macs"] > 0


def test_a_folder_without_versions_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match="holds no version"):
        predictor.Model("skipnet", str(tmp_path))


def test_the_scripts_from_start_to_end(folder):
    scripts = ROOT / "savedmodels"
    server = subprocess.Popen(
        [
            sys.executable,
            scripts / "serve_local.py",
            f"--model_base_path={folder}",
            "--rest_api_port=0",
            "--port=0",
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    with server:
        try:
            url = re.search(r"http://\S+", server.stdout.readline())[0]
            client = [sys.executable, scripts / "client.py", f"--url={url}"]
            image = serving_cases.png(pixels(1)[0])
            good = subprocess.run(client, input=image, capture_output=True)
            bad = subprocess.run(client, input=b"text", capture_output=True)
        finally:
            server.send_signal(signal.SIGTERM)
        assert server.wait(30) == 0
    assert good.returncode == 0 and b" of 4 blocks, " in good.stdout
    assert bad.returncode == 1 and bad.stdout == b""
    assert bad.stderr.startswith(b"-: error: HTTP 400: ")


@pytest.mark.slow
def test_a_server_without_versions_says_what_to_do(tmp_path):
    got = subprocess.run(
        [
            sys.executable,
            ROOT / "savedmodels" / "serve_local.py",
            f"--model_base_path={tmp_path}",
        ],
        capture_output=True,
        text=True,
    )
    assert got.returncode == 1
    assert "error: " in got.stderr and "export.py" in got.stderr
    assert "Traceback" not in got.stderr


def config(name):
    return (ROOT / "savedmodels" / "serving" / name).read_text()


def test_the_model_config_is_one_of_tf_serving():
    parsed = model_server_config_pb2.ModelServerConfig()
    text_format.Parse(config("models.config"), parsed)
    (model,) = parsed.model_config_list.config
    assert model.model_platform == "tensorflow"
    # The compose file mounts the versions there.
    assert f"}}:{model.base_path}:ro" in config("compose.yaml")


def test_the_largest_padded_batch_is_the_largest_batch():
    batching = config("batching.config")
    largest = re.search(r"^max_batch_size { value: (\d+) }", batching, re.M)
    allowed = re.findall(r"^allowed_batch_sizes: (\d+)", batching, re.M)
    assert [int(size) for size in allowed] == sorted(map(int, allowed))
    assert allowed[-1] == largest[1]
