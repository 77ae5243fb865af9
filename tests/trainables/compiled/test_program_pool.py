"""The pool of idle programs: which are kept, and that dropped ones free their memory."""

from __future__ import annotations

import gc
from pathlib import Path

import pytest
from tensorflow.python.framework.func_graph import FuncGraph

from trainables.backbones.spec import BackboneSpec
from trainables.compiled.program import Program
from trainables.compiled.program_pool import ProgramPool
from trainables.compiled.shapes import ProgramShape
from trainables.modalities.image.backbones import load
from trainables.modalities.image.datasets import prepare
from trainables.training.workbench import Workbench


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Workbench:
    folder: Path = tmp_path_factory.mktemp("idle ü 字")
    load(BackboneSpec("print")).save(folder / "backbone.keras")
    task = prepare("digits", image_size=(32, 32), directory=folder / "digits")
    return Workbench.open(folder / "backbone.keras", task.directory)


def shape(images: int, depth: int = 1) -> ProgramShape:
    return ProgramShape(
        depth=depth,
        classes=10,
        batch_size=images,
        exact=False,
        adapt=True,
        momentum=0.9,
    )


def program(bench: Workbench, images: int, depth: int = 1) -> Program:
    return Program(bench.backbone, shape(images, depth), bench.activations.stages)


def test_the_longest_idle_programs_are_dropped_first(bench: Workbench) -> None:
    idle = ProgramPool(max_programs=2)
    first, second, third = (program(bench, images) for images in (8, 16, 24))
    idle.release(first)
    idle.release(second)
    assert idle.acquire(shape(8)) is first
    idle.release(first)
    idle.release(third)
    assert len(idle) == 2
    assert idle.acquire(shape(16)) is None
    assert idle.acquire(shape(8)) is first
    assert idle.acquire(shape(24)) is third
    assert (len(idle), idle.bytes) == (0, 0)


def test_several_programs_of_one_shape_can_be_idle(bench: Workbench) -> None:
    idle, both = ProgramPool(), {program(bench, 8), program(bench, 8)}
    for one in both:
        idle.release(one)
    assert {idle.acquire(shape(8)), idle.acquire(shape(8))} == both
    assert idle.acquire(shape(8)) is None


def test_bytes_are_bounded_but_the_newest_program_stays(bench: Workbench) -> None:
    small, large = program(bench, 8), program(bench, 8, depth=3)
    assert large.bytes > small.bytes > 2**20
    idle = ProgramPool(max_bytes=large.bytes)
    idle.release(small)
    idle.release(large)
    assert (len(idle), idle.bytes) == (1, large.bytes)
    idle = ProgramPool(max_bytes=0)
    idle.release(large)
    idle.release(small)
    assert idle.acquire(shape(8)) is small


def test_a_dropped_program_leaves_no_graph_behind(bench: Workbench) -> None:
    """TensorFlow would keep every graph that a Keras optimizer is part of."""
    idle = ProgramPool(max_programs=0)

    def dropped(images: int) -> int:
        made = program(bench, images)
        made.compile("uint8", "float16")
        idle.release(made)
        del made
        gc.collect()
        return sum(isinstance(thing, FuncGraph) for thing in gc.get_objects())

    before = dropped(8)
    assert [dropped(images) for images in (16, 24)] == [before, before]
