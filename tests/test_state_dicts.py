"""Other names of a dense network's weights, and the files they are in."""

import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest
from cases import images
from cases import skipnet
from cases import trained

import skipnet_tf
from skipnet_tf import checkpoints
from skipnet_tf import interop
from skipnet_tf import models
from skipnet_tf import state_dicts
from skipnet_tf.resnet import ResNet

_SCRIPT = (
    pathlib.Path(__file__).parent.parent / "trainers" / "import_weights.py"
)


def _state_dict(resnet, projections=None):
    """A basic network's weights as a CIFAR network has them in PyTorch.

    `projections` is the name of its shortcuts; none are written without.
    """
    given = {}

    def write(convolution, norm, name, norm_name):
        given[f"{name}.weight"] = convolution.kernel.numpy().transpose(
            3, 2, 0, 1
        )
        given[f"{norm_name}.weight"] = norm.gamma.numpy()
        given[f"{norm_name}.bias"] = norm.beta.numpy()
        given[f"{norm_name}.running_mean"] = norm.moving_mean.numpy()
        given[f"{norm_name}.running_var"] = norm.moving_variance.numpy()

    write(resnet.stem_conv, resnet.stem_norm, "conv1", "bn1")
    for block in resnet.blocks:
        group, number = block.name.removeprefix("group").split("_block")
        name = f"layer{group}.{number}"
        for index in (0, 1):
            write(
                block.convolutions[index],
                block.norms[index],
                f"{name}.conv{index + 1}",
                f"{name}.bn{index + 1}",
            )
        if projections and block.projection is not None:
            name = f"{name}.{projections}"
            pair = block.projection, block.projection_norm
            write(*pair, f"{name}.0", f"{name}.1")
    given["linear.weight"] = resnet.classifier.kernel.numpy().T
    given["linear.bias"] = resnet.classifier.bias.numpy()
    return given


def _dense(classes=3, filters=(4, 8)):
    return ResNet((2, 1), filters, num_classes=classes)


@pytest.fixture
def network():
    return trained(_dense(), images(4, 8, 8, 3))


@pytest.fixture
def option_a(network):
    """A network with shortcuts without parameters, and its state dict."""
    given = _state_dict(network)
    loaded = _dense()
    skipnet_tf.load_pytorch_weights(loaded, given)
    return loaded, given


@pytest.mark.parametrize("projections", ["shortcut", "downsample"])
def test_both_names_of_a_projection_are_known(network, projections):
    given = _state_dict(network, projections)
    given = {f"module.{name}": value for name, value in given.items()}
    loaded = _dense()
    skipnet_tf.load_pytorch_weights(loaded, given)
    pixels = images(4, 8, 8, 3)
    np.testing.assert_array_equal(loaded(pixels), network(pixels))


def test_shortcuts_without_parameters_are_exact(option_a):
    block = option_a[0].blocks[2]
    maps = images(3, 7, 6, 4)
    # Every second pixel, a quarter of the new width of zeros on each side.
    expected = np.pad(maps[:, ::2, ::2], [(0, 0)] * 3 + [(2, 2)])
    np.testing.assert_array_equal(block.shortcut(maps), expected)


def test_such_shortcuts_are_for_small_networks_that_lack_all_of_them(network):
    given = _state_dict(network, "downsample")
    assert given.pop("layer2.0.downsample.0.weight") is not None
    with pytest.raises(ValueError, match="missing.*downsample.0.weight"):
        skipnet_tf.load_pytorch_weights(network, given)
    # Three times the channels: no such shortcut is known.
    given = _state_dict(_dense(filters=(4, 12)))
    with pytest.raises(ValueError, match="missing.*downsample"):
        skipnet_tf.load_pytorch_weights(_dense(filters=(4, 12)), given)


def test_matched_shortcuts_change_nothing_at_inference(option_a):
    model, pixels = option_a[0], images(16, 8, 8, 3)
    before = model(pixels).numpy()
    assert interop.match_shortcuts(model, pixels) == 1
    np.testing.assert_allclose(model(pixels), before, rtol=1e-4, atol=1e-4)
    norm = model.blocks[2].projection_norm
    assert np.any(norm.moving_mean) and np.any(norm.beta)
    # No identity any more: what training would make of it stays.
    assert interop.match_shortcuts(model, pixels) == 0


def test_matched_shortcuts_start_training_from_the_same_function(option_a):
    model, pixels = option_a[0], images(16, 8, 8, 3)
    features = model.blocks[1](model.blocks[0](model.stem(pixels)))
    block = model.blocks[2]
    inferred = block.shortcut(features)
    plain = block.shortcut(features, training=True)
    skipnet_tf.load_pytorch_weights(model, option_a[1])
    interop.match_shortcuts(model, pixels)
    matched = block.shortcut(features, training=True)
    np.testing.assert_allclose(matched, inferred, rtol=1e-4, atol=1e-4)
    assert np.abs(plain - inferred).max() > 0.1


def test_projections_that_were_trained_or_drawn_are_not_matched(network):
    for model in (network, _dense(), skipnet("rnn")):
        before = model.get_weights()
        assert interop.match_shortcuts(model, images(4, 8, 8, 3)) == 0
        for one, other in zip(before, model.get_weights(), strict=True):
            np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("gate", ["rnn", "pool"])
def test_a_gated_network_takes_dense_weights(network, gate):
    gated = skipnet(gate, blocks=(2, 1))
    own = [w.numpy() for g in gated.gates for w in g.weights]
    skipnet_tf.load_pytorch_weights(gated, _state_dict(network, "shortcut"))
    pixels = images(4, 8, 8, 3)
    np.testing.assert_array_equal(gated(pixels), network(pixels))
    after = [w.numpy() for g in gated.gates for w in g.weights]
    for one, other in zip(own, after, strict=True):
        np.testing.assert_array_equal(one, other)


def test_missing_and_extra_entries_name_each_other(network):
    given = _state_dict(network, "shortcut")
    given["layer1.1.convolution1.weight"] = given.pop("layer1.1.conv1.weight")
    with pytest.raises(ValueError) as error:
        skipnet_tf.load_pytorch_weights(_dense(), given)
    for named in (
        "missing entries: layer1.1.conv1.weight "
        "(for layer1.1.convolution1.weight?)",
        "does not have: layer1.1.convolution1.weight "
        "(for layer1.1.conv1.weight?)",
    ):
        assert named in str(error.value)


def test_other_classes_are_told_and_a_new_classifier_helps(network):
    given = _state_dict(network, "shortcut")
    model = _dense(classes=7)
    with pytest.raises(ValueError, match="3 classes.*has 7.*new_classifier"):
        skipnet_tf.load_pytorch_weights(model, given)
    own = [weight.numpy() for weight in model.classifier.weights]
    skipnet_tf.load_pytorch_weights(model, given, new_classifier=True)
    for one, other in zip(own, model.classifier.weights):
        np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(
        model.blocks[-1].norms[1].gamma, network.blocks[-1].norms[1].gamma
    )
    # It need not be there at all.
    del given["linear.weight"], given["linear.bias"]
    skipnet_tf.load_pytorch_weights(model, given, new_classifier=True)


def _write(given, path, legacy=False):
    torch = pytest.importorskip("torch")
    tensors = {name: torch.tensor(value) for name, value in given.items()}
    tensors["bn1.num_batches_tracked"] = torch.tensor(7)
    torch.save(
        {"state_dict": tensors, "epoch": 3},
        path,
        _use_new_zipfile_serialization=not legacy,
    )


@pytest.mark.parametrize("legacy", [False, True])
def test_pytorch_files_are_read(network, tmp_path, legacy):
    given = _state_dict(network)
    _write(given, tmp_path / "weights.pth.tar", legacy)
    model = _dense()
    checkpoints.load_weights(model, str(tmp_path / "weights.pth.tar"))
    expected = _dense()
    skipnet_tf.load_pytorch_weights(expected, given)
    for one, other in zip(model.weights, expected.weights, strict=True):
        np.testing.assert_array_equal(one, other)


def test_safetensors_are_read(network, tmp_path):
    numpy = pytest.importorskip("safetensors.numpy")
    given = _state_dict(network)
    half = {n: v.astype("float16") for n, v in given.items()}
    path = str(tmp_path / "weights.safetensors")
    # As they lie: the writer ignores strides.
    numpy.save_file({n: np.ascontiguousarray(v) for n, v in half.items()}, path)
    read = state_dicts.read_state_dict(path)
    assert read.keys() == given.keys()
    for name, value in read.items():
        assert value.dtype == "float32"
        np.testing.assert_array_equal(value, half[name])


def test_files_that_hold_anything_but_weights_are_refused(tmp_path):
    torch = pytest.importorskip("torch")
    pytest.importorskip("safetensors")
    torch.save(torch.nn.Linear(2, 3), tmp_path / "network.pt")
    torch.save({"epoch": 3}, tmp_path / "epoch.pt")
    for name in ("broken.pt", "broken.safetensors"):
        (tmp_path / name).write_bytes(b"no weights")
    for name in (
        "network.pt",
        "epoch.pt",
        "broken.pt",
        "broken.safetensors",
        "missing.pt",
    ):
        with pytest.raises(ValueError, match=f"`path`.*Received: .*{name}"):
            state_dicts.read_state_dict(str(tmp_path / name))


@pytest.mark.parametrize(
    ("suffix", "package"), [("pth", "torch"), ("safetensors", "safetensors")]
)
def test_a_missing_package_is_named(tmp_path, monkeypatch, suffix, package):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    path = tmp_path / f"weights.{suffix}"
    path.touch()
    with pytest.raises(ImportError, match=f"{package}.*skipnet_tf.interop"):
        state_dicts.read_state_dict(str(path))


@pytest.mark.parametrize("suffix", [".keras", ".weights.h5"])
def test_our_files_lend_all_but_their_classifier(network, tmp_path, suffix):
    path = str(tmp_path / f"dense{suffix}")
    network.save(path) if suffix == ".keras" else network.save_weights(path)
    gated = skipnet("pool", blocks=(2, 1), num_classes=5)
    own = gated.backbone.classifier.kernel.numpy()
    with pytest.raises(ValueError, match="3 classes.*has 5.*new_classifier"):
        checkpoints.load_weights(gated, path)
    checkpoints.load_weights(gated, path, new_classifier=True)
    np.testing.assert_array_equal(gated.backbone.classifier.kernel, own)
    for one, other in zip(
        gated.backbone.weights[:-2], network.weights[:-2], strict=True
    ):
        np.testing.assert_array_equal(one, other)


def test_a_file_of_a_network_that_strides_elsewhere_is_refused(tmp_path):
    path = str(tmp_path / "strides.keras")
    arguments = {"blocks": (1, 1), "filters": (2, 4), "bottleneck": True}
    ResNet(**arguments, stride_on="1x1").save(path)
    with pytest.raises(ValueError, match="another architecture"):
        checkpoints.load_weights(ResNet(**arguments), path)


@pytest.mark.slow
def test_the_script_writes_a_gated_network(tmp_path):
    dense = trained(skipnet_tf.cifar_resnet(8, 7), images(4, 8, 8, 3))
    _write(_state_dict(dense, "shortcut"), tmp_path / "resnet8.th")
    result = _run(
        f"--checkpoint={tmp_path}/resnet8.th",
        "--family=cifar",
        "--depth=8",
        "--gate=pool",
        f"--out={tmp_path}/skipnet.keras",
    )
    assert result.returncode == 0, result.stderr
    # Stem, two convolutions in each of three blocks and two projections with
    # 5 entries each, a counter and two of the classifier.
    assert "48 entries, 7 classes, depth 8" in result.stdout
    model = keras.saving.load_model(tmp_path / "skipnet.keras")
    pixels = images(4, 32, 32, 3)
    np.testing.assert_array_equal(
        model(pixels), models.from_resnet(dense, "pool")(pixels)
    )


@pytest.mark.slow
def test_the_script_tells_mistakes_in_one_line(tmp_path):
    for arguments, named in (
        ([], "--checkpoint"),
        (["--checkpoint=a.pth", "--depth=8", "--family=cifar"], "`path`"),
    ):
        result = _run(*arguments, f"--out={tmp_path}/network.keras")
        assert result.returncode != 0
        assert "Traceback" not in result.stderr
        assert named in result.stderr.splitlines()[-1]


def _run(*arguments):
    return subprocess.run(
        [sys.executable, str(_SCRIPT), *arguments],
        capture_output=True,
        text=True,
        env={"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""},
        check=False,
    )
