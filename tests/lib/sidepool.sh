# shellcheck shell=bash
# Starts the program itself and waits until it says it is ready. Sourced after common.sh.

# Where cargo puts what it builds.
target_dir() {
    cargo metadata --format-version 1 --no-deps --locked 2>/dev/null |
        sed -n 's/.*"target_directory":"\([^"]*\)".*/\1/p' | grep . || printf '%s\n' "${CARGO_TARGET_DIR:-target}"
}

# Sets SIDEPOOL_BIN, unless it is set: the program that cargo built last.
find_binary() {
    if [[ -z ${SIDEPOOL_BIN:-} ]]; then
        # shellcheck disable=SC2012 # two known names, newest first
        SIDEPOOL_BIN=$(ls -t "$(target_dir)"/{release,debug}/sidepool 2>/dev/null | head -n 1) || true
    fi
    [[ -x ${SIDEPOOL_BIN:-} ]] || die "no sidepool to test: build it, or name it in SIDEPOOL_BIN"
    say "testing $SIDEPOOL_BIN"
}

# http_get PORT PATH: prints the body; fails unless the answer is 200. Needs nothing but bash.
http_get() {
    local line status='' answering=1
    exec 8<>"/dev/tcp/127.0.0.1/$1" || return 1
    printf 'GET %s HTTP/1.0\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n' "$2" >&8
    read -r -t 10 _ status _ <&8 || answering=0
    while ((answering)) && IFS= read -r -t 10 line <&8 && [[ $line != $'\r' && -n $line ]]; do :; done
    ((answering)) && timeout 20 cat <&8
    exec 8<&-
    [[ $status == 200 ]]
}

# Starts BINARY in front of BACKEND with its log in DIR, and waits for /ready. Sets SIDEPOOL_PID, SIDEPOOL_PORT and
# SIDEPOOL_ADMIN_PORT. Further settings are given as SIDEPOOL_SECTION__KEY=VALUE. SIDEPOOL_READY_SECONDS: how long it
# may take to get ready (30).
# sidepool_start BINARY DIR BACKEND [SETTING…]
sidepool_start() {
    local binary=$1 dir=$2 backend=$3 name hidden=()
    shift 3
    mkdir -p "$dir"
    : >"$dir/empty.toml" # so that a configuration of the machine's own is not read
    [[ -n ${SIDEPOOL_PORT:-} ]] || free_port SIDEPOOL_PORT
    free_port SIDEPOOL_ADMIN_PORT
    # Variables of these scripts are no settings.
    for name in $(compgen -e SIDEPOOL_ || true); do
        [[ $name == *__* ]] || hidden+=(-u "$name")
    done
    env "${hidden[@]}" \
        SIDEPOOL_BACKEND__ADDRESSES="$backend" \
        SIDEPOOL_LISTENER__0__ADDRESS="127.0.0.1:$SIDEPOOL_PORT" \
        SIDEPOOL_ADMIN__ADDRESS="127.0.0.1:$SIDEPOOL_ADMIN_PORT" \
        "$@" "$binary" --config "$dir/empty.toml" >"$dir/sidepool.log" 2>&1 &
    SIDEPOOL_PID=$!
    on_exit "stop_process $SIDEPOOL_PID 40"
    wait_until "${SIDEPOOL_READY_SECONDS:-30}" "$SIDEPOOL_PID" http_get "$SIDEPOOL_ADMIN_PORT" /ready || {
        warn "sidepool did not become ready; the last lines of its log:"
        tail -n 30 "$dir/sidepool.log" >&2
        return 1
    }
}

# Prints how often each reason has pinned a session so far, as lines of REASON and a number. Fails if that is not to be had.
sidepool_pins() {
    http_get "$SIDEPOOL_ADMIN_PORT" /metrics |
        sed -n 's/^sidepool_session_pins_total{reason="\([a-z_]*\)"} \([0-9]*\)$/\1 \2/p' | sort | grep .
}

# Prints what has pinned since, on one line, as `REASON N, REASON N`; nothing if nothing has.
# new_pins BEFORE: what sidepool_pins printed then, or nothing: since the start
new_pins() {
    local now
    now=$(sidepool_pins) || return 1
    awk 'NR == FNR { before[$1] = $2; next }
        $2 > before[$1] { printf "%s%s %d", between, $1, $2 - before[$1]; between = ", " }
        END { if (between) print "" }' <(printf '%s\n' "$1") <(printf '%s\n' "$now")
}

# sidepool_metric NAME: the value of one series without labels, or of NAME{LABEL="VALUE"}.
sidepool_metric() {
    http_get "$SIDEPOOL_ADMIN_PORT" /metrics | awk -v name="$1" '$1 == name { print $2; found = 1 } END { exit !found }'
}
