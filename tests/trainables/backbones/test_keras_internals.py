"""The private names of Keras that the package relies on mean what :mod:`trainables.backbones.keras_internals` says."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import pytest
from keras import layers

import trainables
from trainables.backbones.keras_internals import (
    TESTED_KERAS,
    all_layers,
    is_graph,
    origin_node,
    require_private_api,
    tensor_origin,
)
from trainables.errors import BackboneError

PRIVATE = re.compile(r"\bkeras\.src\b|\._(keras_history|inbound_nodes|flatten_layers)\b")


def test_an_origin_names_the_operation_the_call_and_the_output() -> None:
    image = keras.Input((8, 8, 3))
    shared = layers.Conv2D(3, 3, padding="same")
    first = shared(image)
    second = shared(first)
    left, right = keras.ops.split(second, 2, axis=1)
    assert tensor_origin(first).operation is tensor_origin(second).operation is shared
    assert (tensor_origin(first).node, tensor_origin(second).node) == (0, 1)
    assert (tensor_origin(left).index, tensor_origin(right).index) == (0, 1)
    assert tensor_origin(left).operation is tensor_origin(right).operation


def test_the_tensors_of_a_model_have_the_origin_of_those_it_was_made_of() -> None:
    image = keras.Input((8,))
    output = layers.Dense(2)(image)
    model = keras.Model(image, output)
    assert tensor_origin(model.outputs[0]) == tensor_origin(output)
    assert tensor_origin(model.inputs[0]) == tensor_origin(image)


def test_a_node_holds_what_a_call_takes_and_returns() -> None:
    image, other = keras.Input((8,)), keras.Input((8,))
    add = layers.Add()
    total = add([image, other])
    node = origin_node(total)
    assert node.operation is add
    assert [tensor_origin(t) for t in node.inputs] == [tensor_origin(image), tensor_origin(other)]
    assert [tensor_origin(t) for t in node.outputs] == [tensor_origin(total)]
    assert not node.is_input
    assert origin_node(image).is_input
    assert origin_node(image).inputs == ()


def test_the_arguments_of_a_node_can_be_filled_with_other_tensors() -> None:
    image, other = keras.Input((8,)), keras.Input((8,))
    total = layers.Add()([image, image])
    args, kwargs = origin_node(total).arguments.fill_in({id(t): other for t in origin_node(total).inputs})
    assert args == ([other, other],)
    assert kwargs == {}


def test_only_models_whose_call_runs_their_graph_are_graphs() -> None:
    class Doubled(keras.Model):  # type: ignore[misc]
        def call(self, inputs: Any) -> Any:
            return 2 * super().call(inputs)

    image = keras.Input((8,))
    output = layers.Dense(2)(image)
    assert is_graph(keras.Model(image, output))
    assert is_graph(keras.Sequential([keras.Input((8,)), layers.Dense(2)]))
    assert not is_graph(Doubled(image, output))
    assert not is_graph(layers.Dense(2))


def test_all_layers_opens_nested_models_and_wrappers() -> None:
    inner = keras.Sequential([keras.Input((4, 8)), layers.TimeDistributed(layers.Dense(2, name="wrapped"))])
    image = keras.Input((4, 8))
    model = keras.Model(image, inner(image))
    assert "wrapped" in {layer.name for layer in all_layers(model)}
    assert model not in all_layers(model)


@pytest.mark.parametrize("read", [tensor_origin, origin_node, all_layers])
def test_another_way_of_storing_graphs_is_an_error_that_names_the_version(read: Any) -> None:
    with pytest.raises(BackboneError, match=rf"Keras {re.escape(keras.__version__)} stores models in a way"):
        read(object())


def minor(version: str) -> str:
    return version.rpartition(".")[0]


def test_the_installed_keras_is_a_tested_version() -> None:
    assert minor(keras.__version__) in {minor(tested) for tested in TESTED_KERAS}


@pytest.fixture
def unchecked() -> Iterator[None]:
    """The version of Keras is checked again, in the test and after it."""
    require_private_api.cache_clear()
    yield
    require_private_api.cache_clear()


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("read", [tensor_origin, origin_node, all_layers])
def test_another_major_version_is_refused(read: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keras, "__version__", "4.0.0")
    with pytest.raises(BackboneError, match=r"keras: .*received 4\.0\.0.*pip install 'keras==3\."):
        read(object())


@pytest.mark.usefixtures("unchecked")
def test_an_untested_minor_version_is_refused_only_if_a_name_is_missing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(keras, "__version__", "3.99.0")
    require_private_api()
    require_private_api.cache_clear()
    monkeypatch.delattr(keras.Layer, "_flatten_layers")
    with pytest.raises(BackboneError, match=r"Missing there: Layer\._flatten_layers"):
        require_private_api()


def test_no_other_module_uses_private_names_of_keras() -> None:
    root = Path(trainables.__file__).parent
    users = [path.name for path in root.rglob("*.py") if PRIVATE.search(path.read_text(encoding="utf-8"))]
    assert users == ["keras_internals.py"]
