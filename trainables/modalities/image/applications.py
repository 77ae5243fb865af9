"""Table of the models of ``keras.applications``: their preprocessing and the input size of their ImageNet weights.

It is plain data, so that a name can be checked without importing Keras. A new model is one entry.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass

PREPROCESSING_MODES: Mapping[str, str] = {
    "none": "raw pixels, 0 to 255",
    "tf": "scaled to the range −1 to 1",
    "torch": "scaled to the range 0 to 1, then normalised by ImageNet's mean and standard deviation",
    "caffe": "channels in the order BGR, ImageNet's mean subtracted",
    "unit": "scaled to the range 0 to 1",
}
"""The modes of :func:`trainables.modalities.image.preprocessing.preprocess`, each with its description for help and
docs."""


@dataclass(frozen=True)
class Application:
    """One model of ``keras.applications``.

    Attributes:
        name: as ``keras.applications`` spells it.
        preprocessing: what its family's ``preprocess_input`` does; ``none`` if the model's own first layers do it.
        input_size: height and width in pixels at which the ImageNet weights were trained.
        min_input_size: smallest height and width in pixels that the network accepts.
    """

    name: str
    preprocessing: str
    input_size: int
    min_input_size: int = 32


def _family(preprocessing: str, sizes: dict[str, int], min_input_size: int = 32) -> tuple[Application, ...]:
    return tuple(Application(name, preprocessing, size, min_input_size) for name, size in sizes.items())


_CONVNEXT = ("Tiny", "Small", "Base", "Large", "XLarge")
_EFFICIENTNET = (224, 240, 260, 300, 380, 456, 528, 600)
_EFFICIENTNET_V2 = {"B0": 224, "B1": 240, "B2": 260, "B3": 300, "S": 384, "M": 480, "L": 480}
_RESNET = ("50", "101", "152")

APPLICATIONS: dict[str, Application] = {
    application.name: application
    for application in (
        *_family("none", {f"ConvNeXt{size}": 224 for size in _CONVNEXT}),
        *_family("torch", {f"DenseNet{layers}": 224 for layers in (121, 169, 201)}),
        *_family("none", {f"EfficientNetB{i}": size for i, size in enumerate(_EFFICIENTNET)}),
        *_family("none", {f"EfficientNetV2{kind}": size for kind, size in _EFFICIENTNET_V2.items()}),
        *_family("tf", {"InceptionResNetV2": 299, "InceptionV3": 299}, min_input_size=75),
        *_family("tf", {"MobileNet": 224, "MobileNetV2": 224}),
        *_family("none", {"MobileNetV3Large": 224, "MobileNetV3Small": 224}),
        *_family("tf", {"NASNetLarge": 331, "NASNetMobile": 224}),
        *_family("caffe", {f"ResNet{layers}": 224 for layers in _RESNET}),
        *_family("tf", {f"ResNet{layers}V2": 224 for layers in _RESNET}),
        *_family("caffe", {"VGG16": 224, "VGG19": 224}),
        *_family("tf", {"Xception": 299}, min_input_size=71),
    )
}
"""All models by name."""


def find_application(name: str) -> Application | None:
    """Return the application called ``name``, ignoring case, hyphens and underscores; None if there is none."""
    wanted = plain_name(name)
    return next((a for a in APPLICATIONS.values() if plain_name(a.name) == wanted), None)


def similar_names(name: str, *others: str) -> list[str]:
    """Return up to three names of applications (or of ``others``) similar to ``name``, the closest first."""
    known = {plain_name(known): known for known in (*APPLICATIONS, *others)}
    return [known[match] for match in difflib.get_close_matches(plain_name(name), known, n=3, cutoff=0.6)]


def plain_name(name: str) -> str:
    """Return ``name`` as it is compared: in lower case, without hyphens and underscores."""
    return name.lower().replace("-", "").replace("_", "")
