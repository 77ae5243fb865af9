"""Backbones: pretrained networks without their head, with preprocessing, cuts and blocks."""

from __future__ import annotations

import threading
import zipfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

from trainables.backbones.blocks import find_blocks, name_blocks
from trainables.backbones.cuts import Cut, Segment, find_cuts, find_segments
from trainables.backbones.fingerprint import graph_digest
from trainables.backbones.initialization import fresh_weights
from trainables.backbones.keras_files import read_metadata, read_model, write_model
from trainables.backbones.spec import BackboneSpec
from trainables.errors import BackboneError


@dataclass(frozen=True)
class Block:
    """A unit of ``unfreeze_depth``: the part of the graph between its cut and that of the next block.

    Attributes:
        name: name of the block, unique in its backbone.
        parameters: number of weights.
        cut: the cut at which the block begins.
    """

    name: str
    parameters: int
    cut: Cut


class Backbone:
    """A network from raw pixels to pooled features that can be divided at the cuts between its blocks.

    Args:
        spec: which backbone it is.
        name: its name.
        weights: where its weights come from.
        model: functional Keras model, float32 (N, H, W, 3), RGB, 0..255 → (N, C). Its first layers preprocess, its last
            layer pools.
        starts: the numbers of the cuts at which the blocks begin; empty to find the blocks.

    Attributes:
        model: as above.
        cuts: all cuts of the graph, from its input to its output.
        blocks: from the first one above the preprocessing to the last one, which ends with the pooling. Their number
            is the largest ``unfreeze_depth``.
        digest: hexadecimal digest of configuration and weights.
        parameters: number of weights, trainable or not.

    Raises:
        BackboneError: the graph has no layers to train.
    """

    def __init__(
        self, spec: BackboneSpec, name: str, weights: str, model: Any, starts: Sequence[int] = ()
    ) -> None:
        self.spec = spec
        self.name = name
        self.weights = weights
        self.model = model
        self.cuts = find_cuts(model)
        segments = find_segments(model.inputs[0], model.outputs[0])
        grouped = _cut_at(segments, starts) if starts else find_blocks(segments)
        if not grouped:
            raise BackboneError(f"backbone {name}: expected layers with weights to train, found none")
        names = name_blocks(grouped)
        self.blocks = tuple(Block(n, _count(b), b[0].below) for n, b in zip(names, grouped, strict=True))
        self.parameters = int(model.count_params())
        self.digest = graph_digest(model)
        self._parts: dict[int, tuple[Any, Any | None]] = {0: (model, None)}
        self._lock = threading.Lock()

    @property
    def input_size(self) -> tuple[int, int]:
        """(height, width) of the input in pixels."""
        _, height, width, _ = self.model.inputs[0].shape
        return int(height), int(width)

    @property
    def starts(self) -> list[int]:
        """The numbers of the cuts at which the blocks begin."""
        # Cuts and blocks were found in one graph and refer to the same tensor objects, so their identities
        # can be compared.
        tensors = [id(cut.tensor) for cut in self.cuts]
        return [tensors.index(id(block.cut.tensor)) for block in self.blocks]

    def parts(self, depth: int) -> tuple[Any, Any | None]:
        """Divide the graph into (prefix, suffix), where the suffix consists of the top ``depth`` blocks.

        The prefix maps raw pixels to the tensor at the cut, the suffix maps that tensor to pooled features. Depth 0
        gives (the whole model, None); at ``len(blocks)`` the prefix only preprocesses. Both share their layers with
        ``model``.

        Raises:
            BackboneError: ``depth`` is not between 0 and the number of blocks.
        """
        if not 0 <= depth <= len(self.blocks):
            raise BackboneError(f"depth: expected 0 to {len(self.blocks)}, received {depth}")
        with self._lock:
            # Parts are cached: two models of the same part would be traced twice.
            if depth not in self._parts:
                tensor = self.blocks[-depth].cut.tensor
                prefix = keras.Model(self.model.inputs[0], tensor, name="prefix")
                self._parts[depth] = prefix, keras.Model(tensor, self.model.outputs[0], name="suffix")
            return self._parts[depth]

    def fresh_weights(self, seed: int) -> list[np.ndarray]:
        """Return newly initialised weights in the order of ``model.weights``, a function of ``seed``."""
        return fresh_weights(self.model, seed)

    def save(self, path: Path) -> None:
        """Write a ``.keras`` file that :meth:`open` reads back unchanged. It is complete as soon as it exists."""
        note = {"spec": asdict(self.spec), "name": self.name, "weights": self.weights}
        write_model(self.model, path, note | {"digest": self.digest, "starts": self.starts})

    @classmethod
    def open(cls, path: Path) -> Backbone:
        """Read a file that :meth:`save` wrote.

        Raises:
            BackboneError: there is no such file, something else wrote it, or it was changed since.
        """
        model = read_model(path)
        note = _note(path)
        if "starts" not in note:
            raise BackboneError(
                f"backbone {path}: expected a file saved by Backbone.save, received another model"
            )
        try:
            spec = BackboneSpec(**note["spec"])
            backbone = cls(spec, note["name"], note["weights"], model, note["starts"])
        except (LookupError, TypeError, ValueError) as error:
            raise BackboneError(f"backbone {path}: its note is damaged ({error})") from error
        # The digest was stored with the model; a file that was edited has another one.
        if backbone.digest != note.get("digest"):
            raise BackboneError(
                f"backbone {path}: expected digest {note.get('digest')}, received {backbone.digest}; "
                "the file was changed"
            )
        return backbone


def _note(path: Path) -> dict[str, Any]:
    try:
        return read_metadata(path)
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise BackboneError(f"backbone {path}: its note is damaged ({error})") from error


def _cut_at(segments: tuple[Segment, ...], starts: Sequence[int]) -> list[tuple[Segment, ...]]:
    ends = [*starts[1:], len(segments)]
    return [segments[start:end] for start, end in zip(starts, ends, strict=True)]


def _count(block: Sequence[Segment]) -> int:
    called = (call.operation for segment in block for call in segment.calls)
    # A layer that is called twice counts once.
    weights = {id(w): w for operation in called for w in getattr(operation, "weights", ())}
    return sum(int(np.prod(w.shape)) for w in weights.values())
