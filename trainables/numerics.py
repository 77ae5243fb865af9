"""How a machine computes: in which precision, and whether XLA compiles what trains.

Under a mixed policy the layers of the backbone compute in 16 bits; weights, moments, BatchNorm statistics,
preprocessing, the head, scores and loss stay float32. On GPUs the 16 bits are those of float16: TensorFlow's own guide
to mixed precision names it for GPUs and bfloat16 for TPUs, and some of its GPU kernels lack bfloat16.
XLA compiles the training step above the cut; what is frozen runs the same with and without it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from trainables.errors import UsageError

PRECISIONS: Mapping[str, str] = {
    "auto": "`mixed_float16` if all GPUs have tensor cores, else `float32`",
    "float32": "32 bits throughout",
    "mixed_float16": "the backbone computes in float16, weights and scores are float32",
    "mixed_bfloat16": "the same with bfloat16, which has a wider range and fewer digits",
}
"""The valid precisions, each with its description for help and docs."""

JIT: Mapping[str, str] = {
    "auto": "`on` if there is a GPU",
    "on": "XLA compiles the training step",
    "off": "TensorFlow runs the training step operation by operation",
}
"""When XLA compiles the training step."""

TENSOR_CORES = (7, 0)
"""Compute capability from which on GPUs multiply float16 matrices faster than float32 ones."""

Capability = tuple[int, int] | None
"""(major, minor) of a GPU; None where the driver names none."""


@dataclass(frozen=True)
class Numerics:
    """A choice that was made: ``precision`` is the name of a Keras dtype policy, ``jit`` means XLA."""

    precision: str = "float32"
    jit: bool = False

    def __str__(self) -> str:
        return f"{self.precision}{', XLA' if self.jit else ''}"


FLOAT32 = Numerics()


def choose_numerics(
    precision: str = "auto", jit: str = "auto", gpus: Sequence[Capability] | None = None
) -> Numerics:
    """What pays on a machine with ``gpus``, unless something is asked for.

    Args:
        precision: one of PRECISIONS; auto is mixed_float16 if all GPUs have tensor cores, else float32.
        jit: one of JIT; auto is on if there are GPUs.
        gpus: capability of each; this machine's if not given.

    Raises:
        UsageError: another word.
    """
    for name, word, known in (("precision", precision, PRECISIONS), ("jit", jit, JIT)):
        if word not in known:
            raise UsageError(f"{name}: expected one of {', '.join(known)}, received {word!r}")
    if "auto" in (precision, jit) and gpus is None:
        gpus = visible_gpus()
    if precision == "auto":
        fast = bool(gpus) and all(gpu is not None and gpu >= TENSOR_CORES for gpu in gpus or ())
        precision = "mixed_float16" if fast else "float32"
    return Numerics(precision, bool(gpus) if jit == "auto" else jit == "on")


def visible_gpus() -> list[Capability]:
    """The compute capability of each GPU that this process sees."""
    import tensorflow as tf

    details = map(tf.config.experimental.get_device_details, tf.config.list_physical_devices("GPU"))
    return [found.get("compute_capability") for found in details]
