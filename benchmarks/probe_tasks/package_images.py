"""Labelled images that packages carry: handwritten digits, emoji, drawings and photographs, and textures."""

from __future__ import annotations

import io
import json
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.probe_tasks.package_files import debian_files, npm_files

Example = tuple[str, Image.Image]
"""A label and an RGB image of any size."""

DIGITS_PER_LABEL = 100
MAX_PER_GROUP = 120
MIN_PER_KIND = 12
PEOPLE_LABELS = 160
STAMP_GROUPS = ("animals", "clothes", "food", "household", "plants", "seasonal", "town", "vehicles")
MIN_PER_TEXTURE_SET, MAX_PER_TEXTURE_SET = 40, 60


def digits(downloads: Path) -> list[Example]:
    """scikit-learn's handwritten digits, 8 × 8 pixels: 10 labels, 100 images of each."""
    from sklearn.datasets import load_digits

    data = load_digits()
    pixels = np.rint(data.images * (255 / 16)).astype(np.uint8)
    return [
        (str(digit), Image.fromarray(pixels[row]).convert("RGB"))
        for digit in range(10)
        for row in np.flatnonzero(data.target == digit)[:DIGITS_PER_LABEL]
    ]


def emoji_groups(downloads: Path) -> list[Example]:
    """Emoji of one vendor in eight large groups of Unicode, without flags: at most 120 images of each."""
    found: dict[str, list[Image.Image]] = {}
    for entry, image in _emoji(downloads):
        if entry["category"] not in ("Component", "Flags"):
            found.setdefault(entry["category"], []).append(image)
    generator = np.random.default_rng(0)
    return [
        (label, images[row])
        for label, images in sorted(found.items())
        for row in generator.permutation(len(images))[:MAX_PER_GROUP]
    ]


def emoji_kinds(downloads: Path) -> list[Example]:
    """Emoji of one vendor in the subgroups of Unicode that have at least 12, without flags: some 50 labels."""
    found = [(e["subcategory"], image) for e, image in _emoji(downloads) if e["category"] != "Flags"]
    counts = Counter(label for label, _ in found)
    return [(label, image) for label, image in found if counts[label] >= MIN_PER_KIND]


def emoji_people(downloads: Path) -> list[Example]:
    """Emoji of one vendor that come in six skin colours: 160 labels with six images each."""
    found = []
    for entry, _ in _emoji(downloads):
        variants = _single_tones(entry)
        if len(variants) == 5:
            found.append((entry["short_name"], [entry["image"], *variants]))
    chosen = dict(sorted(found)[:PEOPLE_LABELS])
    wanted = {name: label for label, names in chosen.items() for name in names}
    images = _emoji_files(downloads)
    return [(label, _on_white(images[name])) for name, label in wanted.items() if name in images]


def stamps(downloads: Path) -> list[Example]:
    """Drawings and photographs of Tux Paint in eight groups."""
    files = debian_files("tuxpaint-stamps-default", downloads, _is_png)
    found = []
    for name, content in sorted(files.items()):
        group = name.partition("/stamps/")[2].partition("/")[0]
        if group in STAMP_GROUPS:
            found.append((group, _on_white(content)))
    return found


def textures(downloads: Path) -> list[Example]:
    """Textures of the game OpenArena; the label is the set that a texture belongs to."""
    packed = debian_files("openarena-081-textures", downloads, lambda name: name.endswith(".pk3"))
    sets: dict[str, list[bytes]] = {}
    for content in packed.values():
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            for name in sorted(archive.namelist()):
                parts = PurePosixPath(name).parts
                if len(parts) == 3 and parts[0] == "textures" and name.endswith((".jpg", ".tga", ".png")):
                    sets.setdefault(parts[1], []).append(archive.read(name))
    # Some sets contain the same file under two names; both could land in different splits.
    unique = {label: list(dict.fromkeys(contents)) for label, contents in sets.items()}
    generator = np.random.default_rng(0)
    found = []
    for label, contents in sorted(unique.items()):
        if len(contents) >= MIN_PER_TEXTURE_SET:
            for row in generator.permutation(len(contents))[:MAX_PER_TEXTURE_SET]:
                # The alpha channel of a texture holds its gloss, not its shape.
                found.append((label, Image.open(io.BytesIO(contents[row])).convert("RGB")))
    return found


def _emoji(downloads: Path) -> Iterable[tuple[dict[str, Any], Image.Image]]:
    images = _emoji_files(downloads)
    entries = json.loads(images["emoji.json"])
    for entry in sorted(entries, key=lambda e: str(e["unified"])):
        if entry["has_img_google"] and entry["image"] in images:
            yield entry, _on_white(images[entry["image"]])


def _single_tones(entry: dict[str, Any]) -> list[str]:
    """File names of the variants of one person in one skin colour."""
    variants = entry.get("skin_variations", {})
    return [v["image"] for tone, v in sorted(variants.items()) if "-" not in tone and v["has_img_google"]]


def _emoji_files(downloads: Path) -> dict[str, bytes]:
    wanted: Callable[[str], bool] = lambda name: name.endswith("/emoji.json") or "/img/google/64/" in name  # noqa: E731
    found = npm_files("emoji-datasource-google", "16.0.0", downloads, wanted)
    return {PurePosixPath(name).name: content for name, content in found.items()}


def _is_png(name: str) -> bool:
    return "/stamps/" in name and name.endswith(".png")


def _on_white(content: bytes) -> Image.Image:
    """Decode an image and lay its transparent parts on white."""
    image = Image.open(io.BytesIO(content)).convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
