"""Decodes a stream of images on all cores, in bounded memory, into one file of raw pixels.

It uses threads, not processes: Pillow and hashlib release the interpreter lock while they work, and a user's script
that calls this package is not started again in child processes.
"""

from __future__ import annotations

import hashlib
import os
import warnings
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from trainables.data.build_task import DecodingResult, Progress
from trainables.data.inputs.source import Encoded
from trainables.errors import DataError
from trainables.modalities.image.images import decode_image

CHUNK_IMAGES = 32
CHUNK_BYTES = 4 << 20
"""A chunk, the work of one thread, ends with the image that reaches either limit."""

MAX_THREADS = 32


@dataclass(frozen=True, eq=False)
class _Chunk:
    """Pixels (n, H, W, 3) and digests of the readable images, and for every image its error message or None."""

    pixels: NDArray[np.uint8]
    digests: list[bytes]
    contents: list[bytes]
    reasons: list[str | None]


def decode_all(
    images: Iterable[Encoded | None],
    total: int,
    size: tuple[int, int],
    sink: BinaryIO,
    progress: Progress | None = None,
) -> DecodingResult:
    """Decode ``images`` to ``size`` (H, W) and write the pixels of the readable ones to ``sink``, in order.

    Memory is bounded by the chunks of the threads, whatever the number of images.

    Args:
        images: encoded images; None for one that is missing.
        total: their number, for ``progress``.
        size: (H, W) in pixels.
        sink: file for the raw uint8 pixels (H, W, 3) of each image.
        progress: called with the number of decoded images and ``total``.
    """
    result, done = DecodingResult(), 0
    for chunk in _in_threads(images, size):
        for row, reason in enumerate(chunk.reasons, start=done):
            if reason is None:
                result.rows.append(row)
            else:
                result.bad.append((row, reason))
        result.digests.extend(chunk.digests)
        result.contents.extend(chunk.contents)
        sink.write(chunk.pixels.data)
        done += len(chunk.reasons)
        if progress is not None:
            progress(done, total)
    return result


def available_cores() -> int:
    """Return the number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _in_threads(images: Iterable[Encoded | None], size: tuple[int, int]) -> Iterator[_Chunk]:
    threads = min(available_cores(), MAX_THREADS)
    waiting: deque[Future[_Chunk]] = deque()
    with warnings.catch_warnings(), ThreadPoolExecutor(threads, "decode") as pool:
        # Pillow warns about unusual files that it reads all the same.
        warnings.filterwarnings("ignore", module="PIL")
        for batch in _batches(images):
            waiting.append(pool.submit(_decode, batch, size))
            # One chunk more than threads waits, so that no thread idles; results are taken in the order of the images.
            if len(waiting) > threads + 1:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _batches(images: Iterable[Encoded | None]) -> Iterator[list[Encoded | None]]:
    batch: list[Encoded | None] = []
    held = 0
    for image in images:
        batch.append(image)
        held += 0 if image is None or isinstance(image, Path) else len(image)
        if len(batch) == CHUNK_IMAGES or held >= CHUNK_BYTES:
            yield batch
            batch, held = [], 0
    if batch:
        yield batch


def _decode(batch: list[Encoded | None], size: tuple[int, int]) -> _Chunk:
    pixels = np.empty((len(batch), *size, 3), dtype=np.uint8)
    digests: list[bytes] = []
    contents: list[bytes] = []
    reasons: list[str | None] = []
    for image in batch:
        try:
            if image is None:
                raise DataError("there is no image")
            pixels[len(digests)] = decode_image(image, size)
            # The file is hashed after it was decoded: only then is it known to be a file, and one that ends.
            contents.append(_content_digest(image))
            digests.append(hashlib.sha256(pixels[len(digests)]).digest())
            reasons.append(None)
        except DataError as error:
            reasons.append(str(error))
    return _Chunk(pixels[: len(digests)], digests, contents, reasons)


def _content_digest(image: Encoded) -> bytes:
    """Return the SHA-256 of an encoded image.

    Raises:
        DataError: its file can't be read any more.
    """
    if not isinstance(image, Path):
        return hashlib.sha256(image).digest()
    try:
        with image.open("rb") as file:
            return hashlib.file_digest(file, "sha256").digest()
    except OSError as error:
        raise DataError(error.strerror or str(error)) from error
