#!/bin/sh
# A container engine for the sandbox, on a fresh Debian machine, as root: installs Docker and debootstrap where they
# are missing, starts the daemon, builds the image. Does nothing that is already done.
set -eu
cd "$(dirname "$0")/.."
python=${PYTHON:-.venv/bin/python}
log=${DREAMPRM_ENGINE_LOG:-/var/log/dreamprm-dockerd.log}

answers() { "$python" -c 'from dreamprm_sandbox.docker import connect; connect()' 2>/dev/null; }

need() { # COMMAND PACKAGE
    command -v "$1" >/dev/null 2>&1 && return
    if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null 2>&1; then
        echo "$1 is missing: install it (on Debian, as root: apt-get install $2), then run this again" >&2
        exit 1
    fi
    [ -n "${updated:-}" ] || apt-get -qq update
    updated=yes
    DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends "$2" >/dev/null
}

if ! answers; then
    need dockerd docker.io
    if [ -d /run/systemd/system ]; then
        systemctl start docker
    elif ! answers; then
        # Sandboxes have no network: the daemon needs no bridge and no firewall rules.
        setsid nohup dockerd --bridge=none --iptables=false --ip6tables=false --ip-forward=false --ip-masq=false \
            >"$log" 2>&1 </dev/null &
    fi
    tries=60
    until answers; do
        tries=$((tries - 1))
        if [ "$tries" = 0 ]; then
            echo "the container engine does not start; its last words:" >&2
            tail -n 5 "$log" >&2 2>/dev/null || true
            exit 1
        fi
        sleep 0.5
    done
fi
"$python" -m dreamprm_sandbox.image found || { need debootstrap debootstrap && "$python" -m dreamprm_sandbox.image build; }
