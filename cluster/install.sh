#!/usr/bin/env bash
# Install unfreeze and the pinned versions of its requirements into ~/.unfreeze/venv on this node.
#
#   install.sh SOURCE [REQUIREMENT…]
#   install.sh --digest SOURCE [REQUIREMENT…]
#
# SOURCE is a copy of the repository. REQUIREMENT is an additional package for this cluster, for example
# "psycopg[binary]". UNFREEZE_PYTHON names the Python that creates the environment (default: python3); all nodes need
# the same minor version.
#
# The environment keeps two digests, one of the requirements and one of the source. If both are current, nothing is
# done. If only the source has changed, it is installed again, which takes seconds and needs no network. If you build a
# machine image that contains the requirements, write the output of --digest to ~/.unfreeze/venv/.unfreeze-requirements.
# Packages come from where pip is configured to find them: for nodes without internet access, name a mirror or a folder
# of wheels in /etc/pip.conf.
set -euo pipefail

only_digest=
if [ "${1:-}" = --digest ]; then
  only_digest=yes
  shift
fi
source_folder=$(cd "$1" && pwd)
shift
home=$HOME/.unfreeze
venv=$home/venv
python=${UNFREEZE_PYTHON:-python3}

say() { printf 'unfreeze: %s\n' "$*"; }
digest() { sha256sum | cut -d' ' -f1; }

# TensorFlow uses a GPU only if its CUDA libraries are installed as well.
if command -v nvidia-smi >/dev/null; then set -- "$@" "tensorflow[and-cuda]"; fi

requirements=$({ cat "$source_folder/constraints.txt" "$source_folder/pyproject.toml" && printf '%s\n' "$@"; } | digest)
if [ "$only_digest" ]; then
  echo "$requirements"
  exit 0
fi

mkdir -p "$home"
# Two installations may run at once on one machine. The second waits for the lock and then finds everything installed.
exec 9>"$home/.lock"
flock 9

source=$(cd "$source_folder" &&
  find search trainables pyproject.toml -type f ! -name '*.pyc' -print0 | LC_ALL=C sort -z | xargs -0 sha256sum | digest)

if [ "$(cat "$venv/.unfreeze-requirements" 2>/dev/null)" != "$requirements" ]; then
  if ! "$python" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
    say "expected Python 3.11 or newer with venv as $python on $(hostname), received" \
      "$("$python" --version 2>&1 || echo nothing); choose another one with UNFREEZE_PYTHON (on Debian: apt install python3-venv)" >&2
    exit 1
  fi
  say "installing the requirements into $venv (takes minutes the first time)"
  rm -f "$venv/.unfreeze-source" "$venv/.unfreeze-requirements"
  "$python" -m venv "$venv"
  list=$(mktemp)
  "$venv/bin/python" - "$source_folder/pyproject.toml" >"$list" <<'PYTHON'
import sys
import tomllib

with open(sys.argv[1], "rb") as file:
    project = tomllib.load(file)
print(*project["project"]["dependencies"], *project["build-system"]["requires"], sep="\n")
PYTHON
  "$venv/bin/python" -m pip install -q --disable-pip-version-check -c "$source_folder/constraints.txt" -r "$list" "$@"
  rm -f "$list"
  echo "$requirements" >"$venv/.unfreeze-requirements"
fi

if [ "$(cat "$venv/.unfreeze-source" 2>/dev/null)" != "$source" ]; then
  say "installing unfreeze"
  "$venv/bin/python" -m pip install -q --disable-pip-version-check --no-deps --no-build-isolation --force-reinstall \
    "$source_folder"
  echo "$source" >"$venv/.unfreeze-source"
fi

# `ray up`, `ray submit` and `ray down` look for `python` and `ray` in a login shell. The lines must be at the top,
# because many .bashrc files return early in a shell that is not interactive.
if ! grep -qs '^# unfreeze: begin' "$HOME/.bashrc"; then
  touch "$HOME/.bashrc"
  {
    echo '# unfreeze: begin (added by cluster/install.sh)'
    echo 'export PATH="$HOME/.unfreeze/venv/bin:$PATH"'
    echo 'if [ -f "$HOME/.unfreeze/environment" ]; then . "$HOME/.unfreeze/environment"; fi'
    echo '# unfreeze: end'
    cat "$HOME/.bashrc"
  } >"$home/.bashrc"
  cat "$home/.bashrc" >"$HOME/.bashrc"
  rm "$home/.bashrc"
fi
say "$(hostname) is ready"
