#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Makes a checkout ready: the Debian packages of bindep.txt that are missing, and a virtual environment in .venv.
# A second run changes nothing and takes well under a second. Without root or on another system it says what is
# missing and goes on with what can be had. Usage: tools/install.sh [--profile runtime|test] [--no-packages] [--force]
set -euo pipefail
cd "$(dirname "$(readlink -f "$0")")/.."

VENV="$PWD/.venv"
STAMP="$VENV/.volmgr-installed"
POLICY=/usr/sbin/policy-rc.d
POLICY_MARK="volmgr tools/install.sh: no service starts while its packages are installed"

profile=test packages=yes force=no policy_is_ours=no
while [ $# -gt 0 ]; do
    case "$1" in
        --profile) profile="${2:?--profile needs runtime or test}"; shift ;;
        --no-packages) packages=no ;;
        --force) force=yes ;;
        -h | --help) sed -n '3,5s/^# //p' "$0"; exit 0 ;;
        *) echo "install: unknown argument $1" >&2; exit 2 ;;
    esac
    shift
done
case "$profile" in
    runtime) extras=postgresql,mysql ;;
    test) extras=test,docs,postgresql,mysql ;;
    *) echo "install: unknown profile $profile (runtime, test)" >&2; exit 2 ;;
esac

say() { echo "install: $*"; }

# Two makes at once must not build one environment.
mkdir -p build
exec 9>build/.install.lock
flock 9

as_root() {
    if [ "$(id -u)" -eq 0 ]; then "$@"; else sudo -n "$@"; fi
}

can_be_root() {
    [ "$(id -u)" -eq 0 ] || { command -v sudo >/dev/null && sudo -n true 2>/dev/null; }
}

wanted_packages() {
    awk -v profile="$profile" '
        /^[[:space:]]*(#|$)/ { next }
        { selector = $0; sub(/^[^[]*\[?/, "", selector); sub(/\].*/, "", selector); needed = 1
          count = split(selector, words, /[[:space:]]+/)
          for (i = 1; i <= count; i++)
              if (words[i] != "" && words[i] !~ /^platform:/ && words[i] != profile) needed = 0
          if (needed) print $1 }' bindep.txt
}

missing_packages() {
    # Without "comm": the list keeps the order of bindep.txt.
    local installed
    installed=" $(dpkg-query -W -f '${Package} ${db:Status-Status}\n' 2>/dev/null |
        awk '$2 == "installed" { printf "%s ", $1 }')"
    local name
    for name in $(wanted_packages); do
        case "$installed" in *" $name "*) ;; *) echo "$name" ;; esac
    done
}

restore_policy() {
    if [ "$policy_is_ours" = yes ]; then as_root rm -f "$POLICY"; policy_is_ours=no; fi
}
trap restore_policy EXIT
trap 'exit 130' INT TERM HUP

forbid_services() {
    # One that somebody else put there stays as it is; one that a killed run left behind is ours to take away.
    if [ ! -e "$POLICY" ] || grep -qF "$POLICY_MARK" "$POLICY" 2>/dev/null; then
        policy_is_ours=yes
        printf '#!/bin/sh\n# %s\nexit 101\n' "$POLICY_MARK" | as_root tee "$POLICY" >/dev/null
        as_root chmod 755 "$POLICY"
    fi
}

apt() {
    as_root env DEBIAN_FRONTEND=noninteractive NEEDRESTART_MODE=l apt-get -q -y -o DPkg::Lock::Timeout=300 \
        -o Dpkg::Options::=--force-confold "$@"
}

install_packages() {
    # One unknown name fails a whole apt-get, so names that this distribution lacks are left out first.
    local log=build/install-packages.log name known=()
    say "installing $# Debian packages: $*"
    forbid_services
    apt update >"$log" 2>&1 || say "apt-get update failed, see $log; going on with the lists that are there"
    for name in "$@"; do
        if apt-cache show "$name" >/dev/null 2>&1; then known+=("$name"); else say "this distribution has no $name"; fi
    done
    if [ ${#known[@]} -gt 0 ] && ! apt install --no-install-recommends "${known[@]}" >>"$log" 2>&1; then
        say "apt-get failed, trying one package at a time, see $log"
        for name in "${known[@]}"; do
            apt install --no-install-recommends "$name" >>"$log" 2>&1 || say "$name could not be installed, see $log"
        done
    fi
    restore_policy
}

find_python() {
    local name
    for name in ${PYTHON:+"$PYTHON"} python3 /usr/bin/python3 python3.13 python3.12 python3.11; do
        if "$name" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            command -v "$name"
            return
        fi
    done
    return 1
}

still_missing=""
if [ "$packages" = yes ]; then
    if ! command -v dpkg-query >/dev/null; then
        say "not a Debian system; install the equivalents of: $(wanted_packages | xargs)"
    else
        still_missing="$(missing_packages | xargs)"
        tried="$(cat build/.install-missing 2>/dev/null || true)"
        if [ -n "$still_missing" ] && { [ "$still_missing" != "$tried" ] || [ "$force" = yes ]; }; then
            if can_be_root; then
                # shellcheck disable=SC2086 # a list of names
                install_packages $still_missing
                still_missing="$(missing_packages | xargs)"
            else
                say "neither root nor sudo without a password"
            fi
            echo "$still_missing" >build/.install-missing
        fi
        [ -z "$still_missing" ] || say "missing, what needs them cannot run here: $still_missing"
    fi
fi

# The folder is part of it: an environment that was copied elsewhere does not work there.
want="$({ echo "$profile $PWD"; cat setup.cfg bindep.txt "$0"; sed -n '/^\[build-system\]/,/^$/p' pyproject.toml; } | sha256sum)"
if [ "$force" = no ] && [ -x "$VENV/bin/python" ] && [ "$(cat "$STAMP" 2>/dev/null)" = "$want" ]; then
    exit 0
fi
if ! "$VENV/bin/python" -c "import sys; sys.exit(sys.prefix != '$VENV')" 2>/dev/null; then
    python="$(find_python)" || { say "no python3 >= 3.11 with venv found (Debian: python3 and python3-venv)" >&2; exit 1; }
    say "creating .venv with $("$python" --version) ($python)"
    "$python" -m venv --clear "$VENV"
fi
say "installing volmgr[$extras] and its dependencies into .venv"
rm -f "$STAMP"
if ! "$VENV/bin/python" -m pip install --quiet --disable-pip-version-check --retries 5 -e ".[$extras]" \
    >build/install-pip.log 2>&1; then
    tail -n 20 build/install-pip.log >&2
    say "pip failed, the whole output is in build/install-pip.log" >&2
    exit 1
fi
echo "$want" >"$STAMP"
say "done; $("$VENV/bin/python" --version), .venv/bin has volmgr, volmgr-volume, volmgr-manage and volmgr-status"
