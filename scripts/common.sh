# Shared by the other scripts: where we are, and a virtual environment that has what is needed.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export PIP_DISABLE_PIP_VERSION_CHECK=1
PYTHON=.venv/bin/python

# Installs if the environment is missing, or older than what it is made from.
ensure_installed() {
    if [ ! -f .venv/.installed ] || [ pyproject.toml -nt .venv/.installed ] || [ constraints.txt -nt .venv/.installed ]; then
        scripts/install
    fi
}
