"""Lists the calls of a functional Keras graph, and replays them on other tensors.

The functions traverse operations instead of ``model.layers``, because a graph may contain operations that are no
layers, and one layer may be called several times.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras

from trainables.backbones.keras_internals import GraphNode, is_graph, origin_node, tensor_origin
from trainables.errors import BackboneError

TensorKey = tuple[int, int, int]
"""The identity of a symbolic tensor: id of the operation that made it, number of the call, number of the output."""


@dataclass(frozen=True)
class Call:
    """One call of an operation in a graph.

    Attributes:
        operation: the layer or function.
        arguments: its arguments, as Keras stores them.
        inputs: symbolic tensors among the arguments.
        outputs: symbolic tensors that it returns.
    """

    operation: Any
    arguments: Any
    inputs: tuple[Any, ...]
    outputs: tuple[Any, ...]

    @property
    def kind(self) -> str:
        """The name of the class of the operation, such as ``Conv2D``."""
        return type(self.operation).__name__


def tensor_key(tensor: Any) -> TensorKey:
    """Return the identity of a symbolic tensor. Copies that Keras makes of a tensor have the same key."""
    origin = tensor_origin(tensor)
    return id(origin.operation), origin.node, origin.index


def find_calls(inputs: Sequence[Any], outputs: Sequence[Any]) -> list[Call]:
    """Return all calls between ``inputs`` and ``outputs`` in topological order, the same order in every process.

    Raises:
        BackboneError: ``outputs`` depend on something that is not reached from ``inputs``.
    """
    known = {tensor_key(tensor) for tensor in inputs}
    ordered: list[GraphNode] = []
    done: set[TensorKey] = set()
    # Depth first with a stack of our own: deep networks would exceed Python's limit of recursion. A node is put back
    # with `ready` set, so that it is appended after all nodes that lead to it.
    todo = [(t, False) for t in reversed(outputs) if tensor_key(t) not in known]
    while todo:
        tensor, ready = todo.pop()
        node, call = origin_node(tensor), (*tensor_key(tensor)[:2], 0)
        if call in done:
            continue
        if ready:
            done.add(call)
            ordered.append(node)
            continue
        if node.is_input:
            raise BackboneError(f"backbone: {node.operation.name!r} is not connected to the image input")
        todo.append((tensor, True))
        todo.extend((t, False) for t in reversed(node.inputs) if tensor_key(t) not in known)
    return [Call(node.operation, node.arguments, node.inputs, node.outputs) for node in ordered]


def replay(
    inputs: Sequence[Any],
    outputs: Sequence[Any],
    fed: Sequence[Any],
    swap: Mapping[int, Callable[..., Any]],
) -> list[Any]:
    """Apply the graph from ``inputs`` to ``outputs`` to the tensors ``fed``, and return the new outputs.

    Layers are called again, not copied, so weights are shared. Nested models are opened. A ``training`` argument that
    was fixed in the graph is dropped, so that the caller of the new model decides.

    Args:
        inputs: symbolic tensors.
        outputs: symbolic tensors that depend on ``inputs`` alone.
        fed: tensors in place of ``inputs``.
        swap: replacements of operations, by the id of the operation.
    """
    values = {tensor_key(t): new for t, new in zip(inputs, fed, strict=True)}
    for call in find_calls(inputs, outputs):
        operation = swap.get(id(call.operation), call.operation)
        # Keras looks tensors up by their id, so that copies of one tensor need an entry each.
        args, kwargs = call.arguments.fill_in({id(t): values[tensor_key(t)] for t in call.inputs})
        if is_graph(operation):
            made = replay(operation.inputs, operation.outputs, _tensors(args, kwargs), swap)
        else:
            made = operation(*args, **{name: v for name, v in kwargs.items() if name != "training"})
        values.update(zip(map(tensor_key, call.outputs), keras.tree.flatten(made), strict=True))
    return [values[tensor_key(t)] for t in outputs]


def find_operations(inputs: Sequence[Any], outputs: Sequence[Any]) -> list[Any]:
    """Return every operation of the graph once, with nested models opened, in the order of their first calls."""
    found: dict[int, Any] = {}
    for call in find_calls(inputs, outputs):
        if is_graph(call.operation):
            inner = find_operations(call.operation.inputs, call.operation.outputs)
            found.update((id(operation), operation) for operation in inner)
        else:
            found[id(call.operation)] = call.operation
    return list(found.values())


def has_own_name(operation: Any) -> bool:
    """Whether a person named ``operation``. Keras' own names (``conv2d_17``) count what the process built before."""
    return re.fullmatch(rf"{_snake(type(operation).__name__)}(_\d+)?", operation.name) is None


def name_uniquely(operations: Sequence[Any]) -> None:
    """Rename ``operations`` so that all names differ and none depends on what the process built before."""
    taken: set[str] = set()
    for operation in operations:
        stem = operation.name if has_own_name(operation) else _snake(type(operation).__name__)
        name, count = stem, 0
        while name in taken:
            count += 1
            name = f"{stem}_{count}"
        taken.add(name)
        operation.name = name


def _tensors(args: Any, kwargs: Any) -> list[Any]:
    return [t for t in keras.tree.flatten((args, kwargs)) if isinstance(t, keras.KerasTensor)]


def _snake(name: str) -> str:
    name = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub("([a-z])([A-Z])", r"\1_\2", name).lower()
