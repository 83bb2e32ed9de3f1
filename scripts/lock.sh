#!/bin/bash
# Resolves pyproject.toml into lock files that hold for every supported Python and name no index.
set -euo pipefail
cd -- "$(dirname -- "$(readlink -f -- "$0")")/.."
if [ ! -x build/lock/bin/uv ]; then
    .venv/bin/python -m venv build/lock
    build/lock/bin/pip install --quiet uv
fi
resolve() {
    build/lock/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
        --no-header --no-emit-index-url --no-annotate "$@" pyproject.toml
}
resolve -o requirements.lock
resolve --extra dev -o requirements-dev.lock
