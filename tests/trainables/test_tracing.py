"""Tests of the private API of TensorFlow and Keras on which tracing and training rely.

These tests fail if a new version moves what we use. Without the registry of gradients, graphs could no longer be freed.
"""

from __future__ import annotations

from collections.abc import Iterator

import keras
import pytest
import tensorflow as tf

from trainables import tracing
from trainables.compiled.suffix import trainable_copy


def custom_gradients() -> set[str]:
    return {name for name in tracing._gradients() if name.startswith("CustomGradient-")}


def traced_silu() -> None:
    tf.function(tf.nn.silu).get_concrete_function(tf.TensorSpec([2], tf.float32))


def test_tensorflow_registers_custom_gradients_where_we_look_for_them() -> None:
    before = custom_gradients()
    traced_silu()
    assert custom_gradients() > before


def test_tracing_removes_the_gradients_that_it_registered_and_no_others() -> None:
    traced_silu()
    before = custom_gradients()
    with tracing.tracing():
        traced_silu()
        assert custom_gradients() > before
    assert custom_gradients() == before


@pytest.fixture
def unchecked() -> Iterator[None]:
    """The registry is looked up again, in the test and after it."""
    tracing._gradients.cache_clear()
    yield
    tracing._gradients.cache_clear()


@pytest.mark.usefixtures("unchecked")
def test_tracing_without_the_registry_works_and_warns_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(tracing, "_registry", lambda: None)
    for _ in range(2):
        with tracing.tracing():
            traced_silu()
    (warning,) = caplog.messages
    assert f"received {tf.__version__}" in warning
    assert "Missing there: gradient_registry._registry" in warning


@pytest.mark.usefixtures("unchecked")
def test_another_major_version_of_tensorflow_causes_a_warning(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(tf, "__version__", "3.0.0")
    assert tracing._gradients() == {}
    assert "received 3.0.0" in caplog.text


def test_batch_norm_inside_a_nested_model_is_found_and_frozen() -> None:
    inner = keras.Sequential([keras.Input((4,)), keras.layers.BatchNormalization(), keras.layers.Dense(2)])
    inputs = keras.Input((4,))
    copy = trainable_copy(keras.Model(inputs, inner(inputs)), adapt=False, momentum=0.5)
    (norm,) = [
        layer for layer in copy.layers[-1].layers if isinstance(layer, keras.layers.BatchNormalization)
    ]
    assert not norm.trainable
    assert norm.momentum == 0.5
