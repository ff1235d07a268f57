#!/usr/bin/env bash
# Builds wheel and sdist into FOLDER (default: dist), installs each into a fresh environment and runs it away from the checkout.
set -euo pipefail
cd "$(dirname "$0")/.."
mkdir -p "${1:-dist}"
dist=$(cd "${1:-dist}" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/build" && "$work/build/bin/pip" install --quiet build twine
"$work/build/bin/python" -m build --outdir "$dist" .
"$work/build/bin/python" -m twine check --strict "$dist"/*.whl "$dist"/*.tar.gz
cd "$work"
for file in "$dist"/*.whl "$dist"/*.tar.gz; do
  python3 -m venv --clear "$work/venv" && "$work/venv/bin/pip" install --quiet "$file"
  "$work/venv/bin/python" -c "import waterbed; print(waterbed.__file__)" | grep -q "$work/venv"
  "$work/venv/bin/waterbed" paper --scale demo --dry-run --out "$work/paper"
  "$work/venv/bin/waterbed" demo --quick --out "$work/demo-$(basename "$file")"
  test -s "$work/demo-$(basename "$file")/report.html"
  echo "works: $(basename "$file")"
done
