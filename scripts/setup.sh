#!/bin/bash
# Makes a fresh Debian 12+ or Ubuntu 22.04+ ready to run Longshore from this checkout.
#
# Starts no service, and leaves those that run alone. A package is installed only if what it brings is
# missing; tools that come with a service or would replace another package (the docker CLI and the dockerd
# that tests and benchmarks compare with, docker-registry, busybox) are unpacked into build/tools instead.
set -euo pipefail
cd -- "$(dirname -- "$(readlink -f -- "$0")")/.."
readonly TOOLS=$PWD/build/tools
readonly STAMP=.venv/.longshore-setup
export PATH=$PATH:/usr/sbin:/sbin:$TOOLS/usr/bin:$TOOLS/usr/sbin:$TOOLS/bin

main() {
    install_packages
    unpack_tools
    make_venv
}

say() { printf 'setup: %s\n' "$*"; }
die() { printf 'setup: %s\n' "$*" >&2; exit 1; }
has() { command -v "$1" >/dev/null 2>&1; }

# ---------------------------------------------------------------------------------------------- packages

install_packages() {
    local missing=()
    has containerd || missing+=(containerd)
    has runc || missing+=(runc)
    has crun || missing+=(crun)
    has nft || missing+=(nftables)
    ldconfig -p | grep -q 'libnftables\.so\.1' || missing+=(libnftables1)
    has ip || missing+=(iproute2)
    has iptables || missing+=(iptables)
    has tini || missing+=(tini)
    has tmux || missing+=(tmux)
    # The one Compose that is a program of its own, looked for once; without it, its test is skipped.
    has docker-compose || [ -e "$STAMP" ] || ! packaged docker-compose || missing+=(docker-compose)
    has ps || missing+=(procps)
    python=$(find_python) || python=
    if [ -z "$python" ]; then
        missing+=($(python_package))
    elif [ ! -x .venv/bin/python ] && ! "$python" -c 'import venv, ensurepip' 2>/dev/null; then
        missing+=("$(basename "$python")-venv")
    fi
    if [ ${#missing[@]} -gt 0 ]; then
        say "installing ${missing[*]}"
        without_services apt_install "${missing[@]}"
    fi
    python=$(find_python) || die "no Python 3.11 or newer was found, and apt has none"
}

find_python() {
    local candidate
    for candidate in /usr/bin/python3 python3 python3.13 python3.12 python3.11 python3.14; do
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            command -v "$candidate"
            return
        fi
    done
    return 1
}

# Debian 12's python3 is 3.11; Ubuntu 22.04's is 3.10, with 3.11 beside it.
python_package() {
    refresh_apt
    if apt-cache show python3 2>/dev/null | grep -qE '^Version: 3\.(1[1-9]|[2-9][0-9])'; then
        echo python3 python3-venv
    else
        echo python3.11 python3.11-venv
    fi
}

packaged() {
    refresh_apt
    apt-cache show "$1" >/dev/null 2>&1
}

need_root() { [ "$(id -u)" -eq 0 ] || die "run as root once: $* must be installed"; }

refresh_apt() {
    need_root packages
    [ -n "${apt_fresh:-}" ] || apt-get update -qq >/dev/null || say "apt-get update failed; going on with the lists at hand"
    apt_fresh=1
}

apt_install() {
    refresh_apt
    DEBIAN_FRONTEND=noninteractive NEEDRESTART_SUSPEND=1 \
        apt-get install -y -qq --no-install-recommends "$@" </dev/null >/dev/null
}

# Packages of services start them on installation unless this policy says no. A policy that was there
# before is put back; a service that came with a package we installed does not start at the next boot either.
without_services() {
    need_root packages
    local policy=/usr/sbin/policy-rc.d saved= status=0 had_containerd=
    has containerd && had_containerd=1
    if [ -e "$policy" ] || [ -L "$policy" ]; then
        saved=$(mktemp -u "$policy.longshore.XXXXXX")
        mv "$policy" "$saved"
    fi
    restore_policy() {
        rm -f "$policy"
        [ -z "$saved" ] || mv "$saved" "$policy"
        saved=
        trap - EXIT
    }
    trap restore_policy EXIT
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 755 "$policy"
    "$@" || status=$?
    restore_policy
    if [ -z "$had_containerd" ] && has systemctl; then
        systemctl disable --quiet containerd.service 2>/dev/null || true
    fi
    return "$status"
}

# ------------------------------------------------------------------------------------------------- tools

unpack_tools() {
    if ! has docker; then
        unpack docker-cli || unpack docker.io || die "no package with the docker CLI was found"
    fi
    has dockerd || unpack docker.io || say "no dockerd found: tests and benchmarks that compare with it are skipped"
    has docker-registry || unpack docker-registry || say "no docker-registry found: tests that pull and push are skipped"
    find_busybox >/dev/null || unpack busybox-static || die "no static busybox was found"
}

unpack() {
    local deb directory
    refresh_apt
    directory=$(mktemp -d)
    chmod 755 "$directory"
    if ! (cd "$directory" && apt-get download -qq "$1" >/dev/null 2>&1); then
        rmdir "$directory"
        return 1
    fi
    say "unpacking $1 into build/tools"
    mkdir -p "$TOOLS"
    for deb in "$directory"/*.deb; do
        dpkg -x "$deb" "$TOOLS"
    done
    rm -r "$directory"
    install_libraries
}

# What was unpacked brings no dependencies; the few libraries it is linked with are plain packages.
install_libraries() {
    local program
    for program in "$TOOLS"/usr/sbin/dockerd "$TOOLS"/usr/bin/docker; do
        if [ -x "$program" ] && ldd "$program" 2>/dev/null | grep -q 'libdevmapper.* not found'; then
            without_services apt_install libdevmapper1.02.1
        fi
    done
}

find_busybox() {
    local candidate
    for candidate in /bin/busybox /usr/bin/busybox "$TOOLS/bin/busybox" "$TOOLS/usr/bin/busybox"; do
        if [ -x "$candidate" ] && ! ldd "$candidate" 2>/dev/null | grep -q '=>'; then
            echo "$candidate"
            return
        fi
    done
    return 1
}

# -------------------------------------------------------------------------------------------------- venv

make_venv() {
    local want
    if [ -e .venv ] && ! .venv/bin/python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
        say "replacing .venv, whose Python is gone or too old"
        rm -rf .venv
    fi
    want=$(cat requirements-dev.lock pyproject.toml | sha256sum | cut -d' ' -f1)
    if [ -x .venv/bin/python ] && [ "$(cat "$STAMP" 2>/dev/null)" = "$want $PWD" ]; then
        return
    fi
    say "installing the Python packages of requirements-dev.lock into .venv"
    [ -x .venv/bin/python ] || "$python" -m venv .venv
    .venv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.lock
    .venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
    printf '%s' "$want $PWD" >"$STAMP"
}

main "$@"
