"""Reads the parts of a Keras graph that Keras has no public API for.

This is the only module that uses private names of Keras. ``tests/trainables/backbones/test_keras_internals.py`` fails
when a version of Keras changes one of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any, NoReturn

import keras
from keras.src.models import Functional, Sequential

from trainables.errors import BackboneError
from trainables.private_api import TESTED_VERSIONS, expect_private_api

TESTED_KERAS = TESTED_VERSIONS["keras"]
"""Versions of Keras whose private names were compared with what is read here."""

# A subclass that overrides `call` computes something else than its graph of operations.
_GRAPH_CALLS = (Functional.call, Sequential.call)


@dataclass(frozen=True)
class Origin:
    """Where a symbolic tensor comes from: output ``index`` of call number ``node`` of ``operation``."""

    operation: Any
    node: int
    index: int


@dataclass(frozen=True, eq=False)
class GraphNode:
    """One call of an operation in a graph.

    Attributes:
        operation: the layer or function that is called.
        arguments: its arguments; ``arguments.fill_in({id(tensor): new_tensor})`` returns them as (args, kwargs) with
            the tensors replaced.
        inputs: symbolic tensors among the arguments.
        outputs: symbolic tensors that the call returns.
        is_input: whether the call stands for an input of a model and has no inputs itself.
    """

    operation: Any
    arguments: Any
    inputs: tuple[Any, ...]
    outputs: tuple[Any, ...]
    is_input: bool


@cache
def require_private_api() -> None:
    """Check the version of Keras. A process checks it once, because the functions here run for every tensor.

    Raises:
        BackboneError: it has another major version than the tested ones, or lacks a method that is used here.
    """
    missing = [] if hasattr(keras.Layer, "_flatten_layers") else ["Layer._flatten_layers"]
    expect_private_api(
        "keras", TESTED_KERAS, "reads the graphs of models", missing, keras.__version__, BackboneError
    )


def tensor_origin(tensor: Any) -> Origin:
    """The call that made a symbolic ``tensor``. Copies that Keras makes of a tensor have the same origin.

    Raises:
        BackboneError: this version of Keras stores graphs in another way.
    """
    require_private_api()
    try:
        operation, node, index = tensor._keras_history
        return Origin(operation, int(node), int(index))
    except (AttributeError, TypeError, ValueError) as error:
        _refuse_version(error)


def origin_node(tensor: Any) -> GraphNode:
    """The call that made a symbolic ``tensor``, with its inputs and outputs.

    Raises:
        BackboneError: this version of Keras stores graphs in another way.
    """
    origin = tensor_origin(tensor)
    try:
        node = origin.operation._inbound_nodes[origin.node]
        return GraphNode(
            node.operation,
            node.arguments,
            tuple(node.input_tensors),
            tuple(node.outputs),
            bool(node.is_input),
        )
    except (AttributeError, IndexError, TypeError) as error:
        _refuse_version(error)


def is_graph(operation: Any) -> bool:
    """Whether ``operation`` is a functional or sequential model whose call runs its graph and nothing else."""
    return isinstance(operation, (Functional, Sequential)) and type(operation).call in _GRAPH_CALLS


def all_layers(model: Any) -> list[Any]:
    """Every layer inside ``model``, those inside nested models and wrappers included.

    Raises:
        BackboneError: this version of Keras stores layers in another way.
    """
    require_private_api()
    try:
        return list(model._flatten_layers(include_self=False, recursive=True))
    except (AttributeError, TypeError) as error:
        _refuse_version(error)


def _refuse_version(error: Exception) -> NoReturn:
    raise BackboneError(
        f"Keras {keras.__version__} stores models in a way that this version of unfreeze can't read ({error}); "
        f"install a tested version: pip install 'keras=={TESTED_KERAS[-1]}'"
    ) from error
