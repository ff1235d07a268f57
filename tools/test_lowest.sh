#!/usr/bin/env bash
# Runs the tests with the lowest version that pyproject.toml allows of each direct dependency.
set -euo pipefail
cd "$(dirname "$0")/.."
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/tools" && "$folder/tools/bin/pip" install --quiet uv
uv="$folder/tools/bin/uv"
"$uv" pip compile --quiet --resolution lowest-direct --python "$(command -v python3)" --extra test pyproject.toml -o "$folder/lowest.txt"
python3 -m venv "$folder/venv"
"$uv" pip install --quiet --python "$folder/venv/bin/python" -r "$folder/lowest.txt"
"$uv" pip install --quiet --python "$folder/venv/bin/python" --no-deps -e .
"$folder/venv/bin/python" -m pytest -q -p no:cacheprovider "$@"
