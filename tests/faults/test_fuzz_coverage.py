"""Fuzz the parsers of binary files with atheris, which keeps inputs that reach new code.

Each parser runs in a separate process for a few seconds (UNFREEZE_FUZZ_SECONDS) and starts from one good file. These
findings end the process: an exception that is not one of ours, a crash, an input that takes 20 seconds or 3 GB.
"""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

pytest.importorskip("atheris", reason="atheris has no build for this Python or system")

SECONDS = os.environ.get("UNFREEZE_FUZZ_SECONDS", "4")

FUZZER = """\
import sys, warnings
from pathlib import Path
import atheris
with atheris.instrument_imports(include=["yaml", "json", "PIL", "search", "trainables"]):
    import json, yaml
    from PIL import Image
    from search.config.config_file import load_config
    from search.config.enqueue import read_enqueue
    from search.config.space import full_space, load_space
    from trainables.modalities.image.images import decode_image
from trainables.errors import UnfreezeError

warnings.simplefilter("ignore")
parser, file = sys.argv[1], Path(sys.argv[2]) / "input"
space = full_space(3)
readers = {
    "config": lambda: load_config(file),
    "space": lambda: load_space(file, 3),
    "enqueue": lambda: read_enqueue(file, space),
    "image": lambda: decode_image(file, (8, 8)),
}

def once(content):
    file.write_bytes(content)
    try:
        readers[parser]()
    except UnfreezeError as error:
        assert 0 < len(str(error)) < 4000

atheris.Setup(sys.argv[:1] + sys.argv[3:], once)
atheris.Fuzz()
"""


def picture(kind: str) -> bytes:
    file = io.BytesIO()
    Image.linear_gradient("L").resize((16, 12)).convert("P").save(file, kind)
    return file.getvalue()


GOOD: dict[str, list[bytes]] = {
    "config": [
        b"data: digits\ntrials: 3\nmethod: finetune\ntime_budget: 1h30m\ncpus_per_trial: 0.5\nregister: true\n"
    ],
    "space": [
        b"learning_rate: {low: 1e-4, high: 1e-2, log: true}\nhead_units: [0, 64]\nhorizontal_flip: true\n",
        b"unfreeze_depth: {low: 0, high: 2, step: 1}\ndropout: 0.1\n",
    ],
    "enqueue": [
        b'{"unfreeze_depth": 1, "learning_rate": 1e-3}\n{"horizontal_flip": true, "head_units": 64}\n'
    ],
    "image": [picture(kind) for kind in ("png", "gif", "bmp", "tiff")],
}


@pytest.mark.slow
@pytest.mark.parametrize("parser", GOOD)
def test_parsers_raise_only_our_own_errors(parser: str, tmp_path: Path) -> None:
    seeds = tmp_path / "good"
    seeds.mkdir()
    for number, content in enumerate(GOOD[parser]):
        (seeds / str(number)).write_bytes(content)
    limits = [f"-max_total_time={SECONDS}", "-max_len=2000", "-timeout=20", "-rss_limit_mb=3000", "-seed=1"]
    command = [sys.executable, "-c", FUZZER, parser, str(tmp_path), f"-artifact_prefix={tmp_path}/", *limits]
    done = subprocess.run(
        [*command, str(seeds)], capture_output=True, text=True, errors="replace", timeout=300, check=False
    )
    said = done.stdout + done.stderr
    assert done.returncode == 0, said[-4000:]
    runs = re.search(r"Done (\d+) runs", said)
    assert runs is not None
    assert int(runs[1]) > 100
