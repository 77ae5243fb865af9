"""Chooses how a machine computes: in which precision, and whether XLA compiles the training step.

Under a mixed policy the layers of the backbone compute in 16 bits. Weights, optimizer moments, BatchNorm statistics,
preprocessing, the head, scores and the loss stay float32. GPUs use float16: TensorFlow's guide to mixed precision
recommends it for GPUs (and bfloat16 for TPUs), and some of its GPU kernels do not support bfloat16. XLA compiles the
training step above the cut; the frozen prefix runs the same with and without it.
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
"""Lowest compute capability of GPUs that have tensor cores, which multiply float16 faster than float32."""

Capability = tuple[int, int] | None
"""(major, minor) compute capability of a GPU; None if the driver does not report it."""


@dataclass(frozen=True)
class Numerics:
    """How a machine computes.

    Attributes:
        precision: name of a Keras dtype policy, such as ``mixed_float16``.
        jit: whether XLA compiles the training step.
    """

    precision: str = "float32"
    jit: bool = False

    def __str__(self) -> str:
        return f"{self.precision}{', XLA' if self.jit else ''}"


FLOAT32 = Numerics()


def choose_numerics(
    precision: str = "auto", jit: str = "auto", gpus: Sequence[Capability] | None = None
) -> Numerics:
    """Return the requested numerics, and choose what is fastest on a machine with ``gpus`` where ``auto`` is requested.

    Args:
        precision: one of :data:`PRECISIONS`; auto is mixed_float16 if all GPUs have tensor cores, else float32.
        jit: one of :data:`JIT`; auto is on if there are GPUs.
        gpus: compute capability of each GPU; those of this machine if None.

    Raises:
        UsageError: ``precision`` or ``jit`` is none of the valid values.
    """
    for name, word, known in (("precision", precision, PRECISIONS), ("jit", jit, JIT)):
        if word not in known:
            raise UsageError(f"{name}: expected one of {', '.join(known)}, received {word!r}")
    if "auto" in (precision, jit) and gpus is None:
        gpus = gpu_capabilities()
    if precision == "auto":
        fast = bool(gpus) and all(gpu is not None and gpu >= TENSOR_CORES for gpu in gpus or ())
        precision = "mixed_float16" if fast else "float32"
    return Numerics(precision, bool(gpus) if jit == "auto" else jit == "on")


def gpu_capabilities() -> list[Capability]:
    """Return the compute capability of each GPU that this process sees. Loads TensorFlow."""
    import tensorflow as tf

    details = map(tf.config.experimental.get_device_details, tf.config.list_physical_devices("GPU"))
    return [found.get("compute_capability") for found in details]
