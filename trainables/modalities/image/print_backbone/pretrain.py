"""Pretrains the built-in backbone on printed characters rendered from the fonts of this machine.

    cd trainables/modalities/image/print_backbone
    dpkg -L $(cat font-packages.txt) \\
        | python -m trainables.modalities.image.print_backbone.pretrain --fonts - --out print.keras

writes the shipped weights on Debian 12 with the packages of ``font-packages.txt`` installed (``apt-get install $(cat
font-packages.txt)``). Without ``--fonts`` every font of the system is used. No handwriting is used, neither
scikit-learn's digits nor any other handwritten dataset. The measurements are in ``docs/print-backbone.md``.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from trainables.errors import UnfreezeError, UsageError
from trainables.modalities.image.print_backbone.fonts import SUFFIXES, find_fonts
from trainables.modalities.image.print_backbone.recipe import Recipe, pretrain
from trainables.modalities.image.print_backbone.render import render_glyphs


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    options = _parser().parse_args(arguments)
    try:
        return _run(options)
    except UnfreezeError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2 if isinstance(error, UsageError) else 1


def _run(options: argparse.Namespace) -> int:
    if options.out.suffix != ".keras":
        raise UsageError(f"--out: expected a path that ends in .keras, received {str(options.out)!r}")
    if options.steps < 1 or options.batch_size < 1:
        raise UsageError(
            f"--steps, --batch-size: expected 1 or more, received {options.steps}, {options.batch_size}"
        )
    glyphs = render_glyphs(find_fonts(_places(options.fonts)))
    print(f"{len(glyphs.labels)} glyphs of {len(glyphs.names)} families, digest {glyphs.digest}", flush=True)
    recipe = Recipe(steps=options.steps, batch_size=options.batch_size, seed=options.seed)
    outcome = pretrain(glyphs, recipe, verbose=True)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    outcome.backbone.save(options.out)
    print(
        f"held-out print accuracy {outcome.accuracy:.4f}, digits {outcome.digit_accuracy:.4f}\n"
        f"{options.out}: {options.out.stat().st_size / 1000:.0f} kB"
    )
    return 0


def _places(fonts: list[str] | None) -> list[Path] | None:
    if fonts != ["-"]:
        return [Path(font) for font in fonts] if fonts else None
    listed = [Path(line.strip()) for line in sys.stdin]
    return [path for path in listed if path.suffix.lower() in SUFFIXES and path.is_file()]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m trainables.modalities.image.print_backbone.pretrain", description=__doc__
    )
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="the .keras file to write")
    parser.add_argument(
        "--fonts",
        nargs="+",
        metavar="PATH",
        help="font files or folders; - reads a list from standard input (default: the system's fonts)",
    )
    parser.add_argument("--steps", type=int, default=Recipe.steps, metavar="N")
    parser.add_argument("--batch-size", type=int, default=Recipe.batch_size, metavar="N")
    parser.add_argument("--seed", type=int, default=Recipe.seed, metavar="N")
    return parser


if __name__ == "__main__":
    sys.exit(main())
