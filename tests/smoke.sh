#!/usr/bin/env bash
# Runs the demo and a few tests with each version of Python that is given, in an environment of its own (.venv-3.13).
# A version that is not installed, or whose packages cannot be, is named and left out.
set -euo pipefail
cd "$(dirname "$0")/.."
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
for version in "$@"; do
    # Programs of pyenv work for a version that is chosen only.
    chosen=$(pyenv versions --bare 2>/dev/null | grep -E "^${version/./\\.}(\.|$)" | tail -n 1 || true)
    if ! python=$(PYENV_VERSION=$chosen "python$version" -c 'import sys; print(sys.executable)' 2>/dev/null); then
        echo "smoke: Python $version is not installed here, and is left out"
        continue
    fi
    echo "smoke: Python $version"
    if ! make --no-print-directory setup VENV=".venv-$version" PYTHON="$python"; then
        echo "smoke: the packages for Python $version cannot be installed here, and it is left out"
        continue
    fi
    ".venv-$version/bin/python" -m pipelines.batch --config configs/natality.json \
        --set "output.path=$scratch/$version/out" --set "dead_letters.path=$scratch/$version/dead"
    ".venv-$version/bin/python" -m pytest -q -n 0 tests/inference/test_predict.py tests/pipelines/test_commands.py \
        tests/pipelines/test_row_estimate.py tests/model/test_signature.py
done
