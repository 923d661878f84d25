# shellcheck shell=bash
# Small things every script here needs: messages, packages, the cache, free ports, and stopping what was started.
# Sourced, never run. Expects `set -euo pipefail` in the script that sources it.

say() { printf '==> %s\n' "$*" >&2; }
warn() { printf '!!! %s\n' "$*" >&2; }
die() {
    warn "$*"
    exit 1
}

# --- stopping what was started -----------------------------------------------------------------------------------
# Commands given to `on_exit` run in reverse order however the script ends, Ctrl-C included.

EXIT_COMMANDS=()

on_exit() { EXIT_COMMANDS+=("$*"); }

run_exit_commands() {
    local status=$? i
    trap - EXIT
    trap '' INT TERM # a second Ctrl-C must not leave a server behind
    for ((i = ${#EXIT_COMMANDS[@]} - 1; i >= 0; i--)); do
        eval "${EXIT_COMMANDS[i]}" || true
    done
    exit "$status"
}

trap run_exit_commands EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# A directory that is gone when the script ends. Others may enter it: a server started by root runs as another user.
# make_temp_dir VARIABLE
make_temp_dir() {
    local -n made_dir=$1
    made_dir=$(mktemp -d "${TMPDIR:-/tmp}/sidepool-XXXXXX")
    chmod 755 "$made_dir"
    on_exit "rm -rf '$made_dir'"
}

# Ends one process by its id: politely, and after SECONDS (default 20) for good.
# stop_process PID [SECONDS]
stop_process() {
    local pid=$1 tenths=$((${2:-20} * 10))
    kill -TERM "$pid" 2>/dev/null || return 0
    while kill -0 "$pid" 2>/dev/null; do
        if ((tenths-- <= 0)); then
            warn "process $pid did not stop when asked; killing it"
            kill -KILL "$pid" 2>/dev/null || true
            return 0
        fi
        sleep 0.1
    done
}

# Polls a command until it succeeds. Fails when SECONDS have passed or, with a PID other than 0, when that process ends.
# wait_until SECONDS PID COMMAND…
wait_until() {
    local deadline=$((SECONDS + $1)) pid=$2
    shift 2
    until "$@" >/dev/null 2>&1; do
        ((SECONDS < deadline)) || return 1
        [[ $pid == 0 ]] || kill -0 "$pid" 2>/dev/null || return 1
        sleep 0.1
    done
}

# --- ports -------------------------------------------------------------------------------------------------------

declare -A PORTS_TAKEN=()

port_is_busy() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

# A port nobody listens on, below the range the kernel hands to outgoing connections.
# free_port VARIABLE
free_port() {
    local -n found_port=$1
    local candidate tries
    for ((tries = 0; tries < 200; tries++)); do
        candidate=$((20000 + RANDOM % 12000))
        [[ -z ${PORTS_TAKEN[$candidate]:-} ]] || continue
        if ! port_is_busy "$candidate"; then
            PORTS_TAKEN[$candidate]=1
            # shellcheck disable=SC2034 # a name reference: the caller reads it
            found_port=$candidate
            return 0
        fi
    done
    die "no free port found between 20000 and 32000"
}

# --- packages and the cache --------------------------------------------------------------------------------------

# Where downloads, Python environments and Node modules are kept between runs.
cache_dir() {
    local dir=${SIDEPOOL_TEST_CACHE:-${XDG_CACHE_HOME:-${HOME:-/tmp}/.cache}/sidepool-tests}
    mkdir -p "$dir"
    (cd "$dir" && pwd)
}

# as_root COMMAND…
as_root() {
    if ((EUID == 0)); then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo "$@"
    else
        warn "this needs root and there is no sudo; as root, run: $*"
        return 1
    fi
}

have_package() { [[ $(dpkg-query -W -f='${db:Status-Abbrev}' "$1" 2>/dev/null) == ii* ]]; }

# Installs the named Debian packages that are not there yet. Services they bring are not wanted here, and most of
# these bring none.
# apt_need PACKAGE…
apt_need() {
    local missing=() package
    command -v apt-get >/dev/null || {
        warn "this is not Debian or Ubuntu; install by hand what corresponds to: $*"
        return 1
    }
    for package in "$@"; do
        have_package "$package" || missing+=("$package")
    done
    ((${#missing[@]})) || return 0
    say "installing ${missing[*]}"
    apt_lists_need
    # Lists that are there may be too old to install from.
    apt_install "${missing[@]}" || {
        as_root apt-get update -q >&2 && apt_install "${missing[@]}"
    } || {
        warn "could not install: ${missing[*]}"
        return 1
    }
}

# Fetches the package lists where there are none, as on a machine (or in an image) that never asked for them: without
# lists apt-cache knows no names. What this cannot do, the installation that follows will say.
apt_lists_need() {
    compgen -G '/var/lib/apt/lists/*_Packages*' >/dev/null || as_root apt-get update -q >&2 || true
}

apt_install() {
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "$@" >&2
}

# Installs PACKAGE only where COMMAND cannot be found, so that one's own installation of a tool is respected.
# need_command COMMAND PACKAGE…
need_command() {
    command -v "$1" >/dev/null || apt_need "${@:2}"
}

# A Python of the system, with venv: a version manager's shim may have no headers, no venv, or another version tomorrow.
# system_python
system_python() {
    need_command python3 python3 || return 1
    if [[ -x /usr/bin/python3 ]]; then
        printf '/usr/bin/python3\n'
    else
        command -v python3
    fi
}

# What compiling needs beside a Rust toolchain: some crates build C.
build_tools_install() {
    command -v cargo >/dev/null || die "no cargo: a Rust toolchain is needed (version in Cargo.toml, rust-version)"
    need_command cc gcc libc6-dev && need_command make make
}
