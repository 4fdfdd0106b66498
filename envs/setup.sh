#!/bin/bash
# Makes the machine able to build, test and run the project: missing Debian packages, then the
# virtual environment .venv from the locked requirements, then this package in it. Does nothing
# when all of it is there.
#   PYTHON=...       the interpreter to use (3.11 or later)
#   FTMB_NO_APT=1    never install Debian packages (where the machine is not Debian, or not yours)
#   FTMB_SERVICES=1  those too that bring a service; without it only where none would be started
step=setup
source "$(dirname "$0")/common.sh"

# May packages start services on this machine? Not where its administrator forbids it (exit 101).
services_start() {
    local policy=/usr/sbin/policy-rc.d code=0
    [[ -x $policy ]] || return 0
    "$policy" any start >/dev/null 2>&1 || code=$?
    ((code != 101))
}

missing_debian_packages() {
    local name rest services=${FTMB_SERVICES:-}
    [[ -n $services ]] || services_start || services=1
    while read -r name rest; do
        [[ -z $name || $name == \#* ]] && continue
        [[ $name == \?* && -z $services ]] && continue
        name=${name#\?}
        [[ $(dpkg-query -W -f='${db:Status-Status}' "$name" 2>/dev/null) == installed ]] \
            || echo "$name"
    done <envs/debian.txt
}

# May this user install packages? Sets `as_root` to what must stand before apt-get.
may_install() {
    local command=$1
    as_root=()
    [[ $(id -u) == 0 ]] && return
    command -v sudo >/dev/null || fail "Debian packages are missing and this user cannot" \
        "install them; as root run: apt-get update && $command"
    if ! sudo -n true 2>/dev/null; then
        [[ -t 0 ]] || fail "Debian packages are missing and sudo asks for a password;" \
            "run: sudo apt-get update && sudo $command"
        sudo true || fail "sudo refused; as root run: apt-get update && $command"
    fi
    as_root=(sudo)
}

install_debian_packages() {
    local missing as_root
    command -v dpkg-query >/dev/null || fail "this is not Debian: install what" \
        "envs/debian.txt lists by your own means, then run: FTMB_NO_APT=1 make setup"
    mapfile -t missing < <(missing_debian_packages)
    ((${#missing[@]})) || return 0
    local command="apt-get install -y --no-install-recommends ${missing[*]}"
    may_install "$command"
    local apt=("${as_root[@]}" env DEBIAN_FRONTEND=noninteractive
        apt-get -o DPkg::Lock::Timeout=300)
    say "installing Debian packages: ${missing[*]}"
    logged apt-update "${apt[@]}" update \
        || fail "apt-get update failed; its words are in results/logs/apt-update.log"
    logged apt-install "${apt[@]}" install -y --no-install-recommends "${missing[@]}" \
        || fail "this failed (log: results/logs/apt-install.log): $command"
}

# A Debian python3 without python3-venv has the module venv, but not ensurepip: ask for both.
usable_python() {
    "$1" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null
}

find_python() {
    local candidate
    for candidate in ${PYTHON:+"$PYTHON"} python3 /usr/bin/python3 python3.{11,12,13}; do
        if command -v "$candidate" >/dev/null && usable_python "$candidate"; then
            command -v "$candidate"
            return 0
        fi
    done
    fail "no Python 3.11 or later with venv and ensurepip;" \
        "on Debian 12: apt-get install python3-venv"
}

# The lines of one package in the lock: "name==version \", then its hashes.
locked() {
    awk -v name="$1==" 'index($0, name) == 1 {on = 1} on {print; if (!/\\$/) exit}' "$lock"
}

hash_of() { sha256sum <"$1" | cut -d' ' -f1; }

make_environment() {
    local python
    python=$(find_python)
    say "making .venv with $("$python" --version) from $lock (a minute or two)"
    rm -f .venv/ftmb-environment .venv/ftmb-package
    logged venv "$python" -m venv --clear .venv \
        || fail "could not make .venv (log: results/logs/venv.log)"
    # A few packages come as source only. Built in isolation they would fetch a setuptools without
    # a hash, so the locked one goes in first and builds them.
    locked setuptools >.venv/setuptools.txt
    logged pip-setuptools "${pip[@]}" --require-hashes -r .venv/setuptools.txt \
        && logged pip "${pip[@]}" --require-hashes --no-build-isolation -r "$lock" \
        || fail "pip could not install the locked requirements (logs: results/logs/pip*.log);" \
            "is a package index reachable from here?"
    echo "$1" >.venv/ftmb-environment
}

# Editable, with the build backend from the lock: no download, nothing compiled.
install_package() {
    logged pip-package "${pip[@]}" --no-deps --no-index --no-build-isolation --editable . \
        || fail "could not install this package into .venv (log: results/logs/pip-package.log)"
    echo "$1" >.venv/ftmb-package
}

lock=envs/requirements.txt
pip=(.venv/bin/python -m pip --disable-pip-version-check --no-input install)
mkdir -p results
exec 9>results/.setup.lock
flock 9 # two `make` at once must not build one .venv

[[ -n ${FTMB_NO_APT:-} ]] || install_debian_packages
# The scripts in .venv/bin name its absolute place, so a copied or moved tree needs its own.
environment="$(hash_of "$lock") $root"
if [[ $(cat .venv/ftmb-environment 2>/dev/null) != "$environment" ]] \
    || ! .venv/bin/python -c '' 2>/dev/null; then
    make_environment "$environment"
fi
package=$(hash_of pyproject.toml)
[[ $(cat .venv/ftmb-package 2>/dev/null) == "$package" ]] || install_package "$package"
say "ready: .venv/bin/ftmb"
