"""Writes served models in the formats of other runtimes, and runs them there to compare the predictions."""

from __future__ import annotations

import json
import tempfile
import warnings
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from trainables.errors import BackboneError
from trainables.serving.export_layers import as_convertible_model, as_inference_model

CLASS_NAMES_KEY = "class_names"
"""Key of the class names: a JSON list in ONNX's metadata and in the SavedModel's extra assets."""

Images = NDArray[np.uint8]
Probabilities = NDArray[np.float32]
Predictor = Callable[[Images], Probabilities]


def largest_difference(model: Any, answer: Predictor, images: Sequence[Images]) -> tuple[float, int]:
    """Return the largest difference of two probabilities, and the number of images with another class.

    Args:
        model: the Keras model.
        answer: the exported model.
        images: uint8 (H, W, 3) each, of any size.

    Raises:
        BackboneError: the exported model returns another shape.
    """
    difference, others = 0.0, 0
    for image in images:
        expected, exported = np.asarray(model.predict_on_batch(image[None])), answer(image[None])
        if exported.shape != expected.shape:
            raise BackboneError(f"export: expected probabilities {expected.shape}, received {exported.shape}")
        difference = float(np.maximum(difference, np.abs(expected - exported).max()))  # maximum keeps NaN
        others += int(expected.argmax() != exported.argmax())
    return difference, others


def write_saved_model(model: Any, classes: Sequence[str], path: Path) -> None:
    """Write a SavedModel folder with the class names in its extra assets."""
    _save(as_inference_model(model), path)
    extra = path / "assets.extra"
    extra.mkdir(exist_ok=True)
    (extra / f"{CLASS_NAMES_KEY}.json").write_text(
        json.dumps(list(classes), ensure_ascii=False), encoding="utf-8"
    )


def _save(model: Any, path: Path) -> None:
    model.export(str(path), format="tf_saved_model", verbose=False)


def open_saved_model(path: Path) -> Predictor:
    """Load a SavedModel with TensorFlow."""
    import tensorflow as tf

    loaded = tf.saved_model.load(str(path))
    return lambda images: np.asarray(loaded.serve(images))


def write_tflite(model: Any, classes: Sequence[str], path: Path) -> None:
    """Write a TFLite file with the class names in ``labels.txt`` of its appended archive."""
    import tensorflow as tf

    with tempfile.TemporaryDirectory(prefix="unfreeze-export-") as folder:
        _save(as_convertible_model(model), Path(folder) / "model")
        path.write_bytes(tf.lite.TFLiteConverter.from_saved_model(f"{folder}/model").convert())
    with zipfile.ZipFile(
        path, "a"
    ) as archive:  # appended to the model, where TFLite's own tools expect labels
        archive.writestr("labels.txt", "".join(f"{name}\n" for name in classes))


def open_tflite(path: Path) -> Predictor:
    """Open a TFLite file with the interpreter of TensorFlow."""
    import tensorflow as tf

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a deprecation: the interpreter will move to another package
        interpreter = tf.lite.Interpreter(model_path=str(path))
    entry, result = interpreter.get_input_details()[0], interpreter.get_output_details()[0]

    def predict(images: Images) -> Probabilities:
        interpreter.resize_tensor_input(entry["index"], images.shape)
        interpreter.allocate_tensors()
        interpreter.set_tensor(entry["index"], images)
        interpreter.invoke()
        return np.array(interpreter.get_tensor(result["index"]))

    return predict


def write_onnx(model: Any, classes: Sequence[str], path: Path) -> None:
    """Write an ONNX file with the class names in its metadata."""
    import onnx

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecated names of NumPy in the converter
        ready = as_convertible_model(model)
        spec = keras.InputSpec(dtype=ready.inputs[0].dtype, shape=ready.inputs[0].shape, name="images")
        ready.export(str(path), format="onnx", verbose=False, input_signature=[spec])
    document = onnx.load(str(path))
    onnx.helper.set_model_props(document, {CLASS_NAMES_KEY: json.dumps(list(classes), ensure_ascii=False)})
    onnx.save(document, str(path))


def open_onnx(path: Path) -> Predictor:
    """Open an ONNX file with ONNX Runtime on the CPU."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda images: np.asarray(session.run(None, {name: images})[0])
