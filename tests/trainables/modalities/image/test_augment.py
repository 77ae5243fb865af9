"""Augmentation: each distortion has the stated range, and the draws depend on their key alone."""

from __future__ import annotations

import numpy as np
import pytest

from trainables.modalities.image.augment import DRAWS_PER_IMAGE, distort, draw


def picture(size: int = 32) -> np.ndarray:
    rows, columns = np.mgrid[0:size, 0:size].astype(np.float32)
    return np.repeat((rows * 3 + columns)[None, :, :, None], 3, axis=-1)


def distorted(
    draws: list[float], strength: float, flip: float = 0.0, image: np.ndarray | None = None
) -> np.ndarray:
    image = picture() if image is None else image
    return np.asarray(distort(image, np.array([draws], np.float32), np.float32(strength), np.float32(flip)))


def test_strength_zero_changes_no_pixel() -> None:
    draws = draw(4, 1, 2)
    images = np.random.default_rng(0).uniform(0, 255, (4, 17, 23, 3)).astype(np.float32)
    np.testing.assert_array_equal(np.asarray(distort(images, draws, np.float32(0), np.float32(0))), images)


def test_full_shift_moves_by_a_fifth_of_the_width_and_fills_with_the_nearest_pixel() -> None:
    shifted = distorted([0, 1, 0, 0, 0, 0, 1], 1.0, image=picture(20))
    np.testing.assert_allclose(shifted[0, :, :16], picture(20)[0, :, 4:], atol=1e-3)
    np.testing.assert_allclose(shifted[0, :, 16:], np.repeat(picture(20)[0, :, -1:], 4, axis=1), atol=1e-3)


def test_flip_mirrors_half_of_the_images_and_only_when_on() -> None:
    np.testing.assert_allclose(distorted([0, 0, 0, 0, 0, 0, -1], 0.0, 1.0), picture()[:, :, ::-1], atol=1e-3)
    np.testing.assert_allclose(distorted([0, 0, 0, 0, 0, 0, 1], 0.0, 1.0), picture(), atol=1e-3)
    np.testing.assert_allclose(distorted([0, 0, 0, 0, 0, 0, -1], 0.0, 0.0), picture(), atol=1e-3)


def test_full_rotation_is_forty_degrees_about_the_centre() -> None:
    size = 65
    image = np.zeros((1, size, size, 3), np.float32)
    image[0, 32, 32:60] = 255.0  # a ray from the centre to the right
    turned = distorted([1, 0, 0, 0, 0, 0, 1], 1.0, image=image)[0, :, :, 0]
    rows, columns = np.nonzero(turned > 100)
    far = columns > 40
    angle = np.degrees(np.arctan2(np.abs(rows[far] - 32), columns[far] - 32)).mean()
    assert angle == pytest.approx(40, abs=2)
    assert turned[32, 32] > 100


def test_zoom_and_shear_stay_within_a_fifth() -> None:
    column = np.zeros((1, 101, 101, 3), np.float32)
    column[0, :, 90] = 255.0
    zoomed = distorted([0, 0, 0, 0, 1, 0, 1], 1.0, image=column)[0, 50, :, 0]
    assert int(zoomed.argmax()) == 50 + round(40 / 1.2)
    sheared = distorted([0, 0, 0, 1, 0, 0, 1], 1.0, image=column)[0, :, :, 0]
    assert abs(int(sheared[70].argmax()) - int(sheared[50].argmax())) == 4


def test_draws_depend_on_the_key_alone() -> None:
    np.testing.assert_array_equal(draw(5, 3, 1), draw(5, 3, 1))
    assert not np.array_equal(draw(5, 3, 1), draw(5, 3, 2))
    assert draw(5, 3, 1).shape == (5, DRAWS_PER_IMAGE)
    assert np.abs(draw(1000, 0)).max() <= 1
