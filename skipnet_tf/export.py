"""SavedModels that skip: for TF Serving and every other TensorFlow program.

The exported network takes pixels or encoded images and computes, image by
image, only the blocks it decides to execute (Eq. 1). A version appears
complete, compared with the Keras model and verified, or not at all.
"""

import functools
import json
import os
from collections.abc import Mapping
from collections.abc import Sequence

import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2
from tensorflow.python.saved_model import fingerprinting_utils

from skipnet_tf import evaluation
from skipnet_tf import model_card
from skipnet_tf import policy
from skipnet_tf import preprocessing as preprocessings
from skipnet_tf import serving
from skipnet_tf import sessions
from skipnet_tf import verification
from skipnet_tf import versions
from skipnet_tf.frozen import PRECISIONS
from skipnet_tf.frozen import FrozenNetwork
from skipnet_tf.preprocessing import Preprocessing
from skipnet_tf.resnet import ResNet
from skipnet_tf.signatures import Signatures
from skipnet_tf.skipnet import SkipNet

_CHECKED_IMAGES = 3
_MOST_BATCHES = 250  # of four requests each: servers read a thousand
_DEFAULT_SIZE = 32  # pixels, where neither preprocessing nor network has one

# Largest difference of logits, as a part of the largest, and of a probability
# from its threshold where a decision may turn, on the same path.
_TOLERANCES = {"float32": (1e-4, 1e-5), "bfloat16": (5e-2, 5e-2)}


def export_saved_model(
    model: ResNet | SkipNet,
    directory: str,
    preprocessing: str | Preprocessing,
    forced: bool = False,
    class_names: Sequence[str] = (),
    top: int = 5,
    precision: str = "float32",
    warmup_batches: Sequence[int] = (1, 8),
    card: Mapping | None = None,
) -> str:
    """Writes the next version of a SavedModel.

    Signatures, inputs and outputs of each with the batch first:

    - `serving_default`: `images`, uint8 pixels `(batch, height, width, 3)`,
      normalised, never resized.
    - `image_bytes`: `bytes`, JPEG or PNG files `(batch,)`, decoded, resized
      and cropped as in evaluation.
    - `tunable`, of a network with gates: `images`, and `threshold` float32
      `(batch,)` in [0, 1]; a block runs where its probability is at least the
      image's threshold, never at 1.
    - `forced`: `images`, and `actions` float32 `(batch, gates)`, decisions to
      impose, 1 executes a block; the gates are computed all the same.

    Outputs: `logits` and `probabilities` `(batch, classes)`, `classes` int64
    `(batch, top)`, `class_names` `(batch, top)` where known,
    `gate_probabilities` and `gates` `(batch, gates)`, `macs` int64 `(batch,)`,
    multiply-adds spent on each image, gates included.

    Args:
        model: A `SkipNet` or dense `ResNet`, of any dtype policy and
            execution.
        directory: String, folder of the versions; made if missing.
        preprocessing: Name of a data set, see `preprocessing.get`, or a
            `Preprocessing`.
        forced: Bool, add the signature `forced`. Defaults to `False`.
        class_names: Sequence of strings, one for each class. Defaults to
            `()`, unknown.
        top: Positive int, classes to return, at most all. Defaults to `5`.
        precision: `"float32"` or `"bfloat16"`, of the convolutions; gates and
            classifier are float32 in any case. Defaults to `"float32"`.
        warmup_batches: Sequence of positive ints, images in the requests that
            a server answers before it is ready. Defaults to `(1, 8)`.
        card: Optional mapping of strings to JSON values, further facts for
            `model_card.json`, such as accuracy and flags.

    Returns:
        String, the folder of the new version.

    Raises:
        ValueError: If an argument is not as described.
        VerificationError: If the exported network and the Keras model
            disagree, or `verify_saved_model` finds it unfit; then there is no
            new version.
    """
    _check_arguments(model, forced, class_names, top, precision)
    _check_batches(warmup_batches)
    recipe = _find_preprocessing(preprocessing)
    size = recipe.size or model.get_config()["input_shape"][0] or _DEFAULT_SIZE
    facts = model_card.facts(model, recipe, precision, size, card or {})
    network = as_served(model)
    signatures = Signatures(
        FrozenNetwork(network, precision), network, recipe, class_names, top
    ).functions(forced)
    with versions.new_version(directory) as (folder, version):
        tf.saved_model.save(tf.Module(), folder, signatures=signatures)
        _slim(folder)
        requests = _warmup_requests(signatures, warmup_batches, size)
        serving.write(folder, requests)
        facts["signatures"] = sorted(signatures)
        with open(os.path.join(folder, "model_card.json"), "w") as file:
            json.dump(facts, file, indent=2)
        _check(folder, network, recipe, precision, size)
    return version


def as_served(
    model: ResNet | SkipNet, precision: str = "float32"
) -> ResNet | SkipNet:
    """A copy that computes in a precision and never what it skips.

    Args:
        model: The trained network, in whatever precision.
        precision: `"float32"` or `"bfloat16"`. Defaults to `"float32"`.

    Returns:
        A network of the same weights.
    """
    dtype = {"float32": "float32", "bfloat16": "mixed_bfloat16"}[precision]
    config = {**model.get_config(), "dtype": dtype}
    if isinstance(model, SkipNet):
        config["execution"] = "conditional"
    copy = type(model).from_config(config)
    copy.set_weights(model.get_weights())
    if isinstance(model, SkipNet):
        copy.stage = model.stage  # a stage may have an inference policy
    return copy


def _slim(folder):
    """Removes notes of static shapes, a fifth of a small network's file."""
    path = os.path.join(folder, "saved_model.pb")
    saved = saved_model_pb2.SavedModel()
    with open(path, "rb") as file:
        saved.ParseFromString(file.read())
    for function in saved.meta_graphs[0].graph_def.library.function:
        for node in function.node_def:
            node.attr.pop("_output_shapes", None)
        for argument in function.arg_attr.values():
            argument.attr.pop("_output_shapes", None)
    with open(path, "wb") as file:
        file.write(saved.SerializeToString(deterministic=True))
    fingerprinting_utils.write_fingerprint(folder)


def _warmup_requests(signatures, batches, size):
    """Each signature for pixels and files, with all and with no blocks."""
    requests = []
    for batch in batches:
        images = np.full((batch, size, size, 3), 128, np.uint8)
        file = tf.io.encode_png(images[0]).numpy()
        requests.append(("serving_default", {"images": images}))
        requests.append(("image_bytes", {"bytes": np.array([file] * batch)}))
        for threshold in (0, 1) if "tunable" in signatures else ():
            threshold = np.full(batch, threshold, np.float32)
            inputs = {"images": images, "threshold": threshold}
            requests.append(("tunable", inputs))
    return requests


def _check(folder, network, recipe, precision, size):
    """Loads what was written as a server does and raises if it is unfit."""
    meta_graph = sessions.read_meta_graph(folder)
    # Accelerators round as they please.
    with sessions.Session(folder) as session, tf.device("CPU:0"):
        _compare(session, network, recipe, precision, size)
        verification.verify_loaded(folder, meta_graph, session)


def _compare(session, network, recipe, precision, size):
    shape = (_CHECKED_IMAGES, size, size, 3)
    random = np.random.default_rng(0)
    images = random.integers(0, 256, shape, np.uint8)
    same = functools.partial(_check_same, network, precision)
    pixels = recipe.normalise(images)
    same(pixels, session.run("serving_default", images=images))
    files = np.array([tf.io.encode_png(image).numpy() for image in images])
    decoded = tf.stack([recipe.decode(file) for file in files])
    same(recipe.normalise(decoded), session.run("image_bytes", bytes=files))
    if "tunable" in session.signatures:
        threshold = np.array([0.3, 0.5, 0.7], np.float32)
        answer = session.run("tunable", images=images, threshold=threshold)
        same(pixels, answer, policy.Thresholded(threshold))
    if "forced" in session.signatures:
        actions = random.integers(0, 2, (_CHECKED_IMAGES, len(network.gates)))
        actions = actions.astype(np.float32)
        answer = session.run("forced", images=images, actions=actions)
        same(pixels, answer, policy.Forced(tf.constant(actions)))


def _check_same(network, precision, images, got, decide=None):
    """Compares an answer with the Keras model's on the same path."""
    tolerance, margin = _TOLERANCES[precision]
    gated = isinstance(network, SkipNet)
    routed = evaluation.route(network, images, got["gates"] if gated else None)
    verification.check_logits(
        routed["logits"].numpy(), got["logits"], tolerance, "the Keras model"
    )
    if (routed["macs"].numpy() != got["macs"]).any():
        raise verification.VerificationError(
            "the exported network counts other multiply-adds than the model"
        )
    if gated:
        _check_decisions(network, images, routed, got, decide, margin)


def _check_decisions(network, images, routed, got, decide, margin):
    if decide is None:
        decide = network.stage.inference_policy(network.threshold, images)
    probabilities = routed["probabilities"].numpy()
    # Within rounding of the probability, whoever may be right.
    low, high = (
        np.stack(
            [
                decide(tf.math.log(p) - tf.math.log1p(-p), gate)
                for gate, p in enumerate(
                    (probabilities + shift).clip(0, 1).transpose()
                )
            ],
            axis=1,
        )
        for shift in (-margin, margin)
    )
    if ((got["gates"] < low) | (got["gates"] > high)).any():
        raise verification.VerificationError(
            "the exported network does not decide what the Keras model does"
        )


def _check_arguments(model, forced, class_names, top, precision):
    ours = isinstance(model, (ResNet, SkipNet))
    _expect(ours, "`model` must be a SkipNet or ResNet", model)
    channels = model.get_config()["input_shape"][-1]
    _expect(channels == 3, "`model` must take 3 channels (RGB)", channels)
    gated = isinstance(model, SkipNet)
    _expect(gated or not forced, "`forced` needs a network with gates", forced)
    _expect(
        len(class_names) in (0, model.num_classes),
        f"`class_names` must hold {model.num_classes} names, one per class",
        class_names,
    )
    _expect(_positive(top), "`top` must be a positive int", top)
    known = precision in PRECISIONS
    _expect(known, f"`precision` must be one of {PRECISIONS}", precision)
    outside = not tf.distribute.has_strategy()
    _expect(outside, "export outside of a strategy's scope", "a call inside")


def _check_batches(batches):
    _expect(
        len(batches) <= _MOST_BATCHES and all(map(_positive, batches)),
        f"`warmup_batches` must be at most {_MOST_BATCHES} positive ints",
        batches,
    )


def _positive(number):
    return isinstance(number, int) and number > 0


def _expect(correct, expected, received):
    if not correct:
        raise ValueError(f"{expected}. Received: {received!r}")


def _find_preprocessing(preprocessing):
    if isinstance(preprocessing, Preprocessing):
        return preprocessing
    try:
        return preprocessings.get(preprocessing)
    except ValueError as error:
        raise ValueError(
            f"`preprocessing` must be a data set's name; {error}"
        ) from error
