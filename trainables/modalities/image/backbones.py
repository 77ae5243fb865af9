"""Loads image backbones by name: from this or another package, from ``keras.applications``, or from a file."""

from __future__ import annotations

import keras

from trainables.backbones.backbone import Backbone
from trainables.backbones.initialization import fresh_weights
from trainables.backbones.spec import BackboneSpec
from trainables.errors import BackboneError
from trainables.modalities.image.backbone_sources import find_backbone_source
from trainables.modalities.image.normalise import normalise


def load(spec: BackboneSpec) -> Backbone:
    """Load the backbone that ``spec`` describes.

    Raises:
        BackboneError: there is no such backbone, its weights are missing or do not fit, its file can't be read safely,
            or it has nothing to train.

    >>> load(BackboneSpec("print")).input_size  # doctest: +SKIP
    (32, 32)
    """
    if keras.config.image_data_format() != "channels_last":
        raise BackboneError("Keras' image_data_format: expected channels_last, received channels_first")
    source = find_backbone_source(spec)
    model = normalise(source, spec.input_size)
    if source.random_weights:
        model.set_weights(fresh_weights(model, spec.seed))
    return Backbone(spec, source.name, source.weights, model)
