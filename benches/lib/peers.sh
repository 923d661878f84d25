# shellcheck shell=bash
# The private server of a comparison and what stands in front of it. Sourced by benches/compare, whose variables it
# uses. Everything listens on 127.0.0.1 on a free port and ends with the script.

BENCH_USER=bench
BENCH_PASSWORD=bench-password
BENCH_DATABASE=bench

# Durability costs nothing here: a disk's speed is not what is compared.
start_server() {
    local options=(--max-connections="$((SESSIONS * 2 + 200))" --max-connect-errors=1000000 --skip-name-resolve
        --skip-log-bin --innodb-flush-log-at-trx-commit=0 --innodb-buffer-pool-size=256M --max-allowed-packet=64M
        --back-log=1000)
    free_port DB_PORT
    say "starting $SERVER on port $DB_PORT"
    case $SERVER in
    mariadb) mariadb_start "$WORK/server" "$DB_PORT" "${options[@]}" --performance-schema=OFF ;;
    mysql) mysql_start "$WORK/server" "$DB_PORT" "${options[@]}" --performance-schema=OFF ;;
    esac || die "no server, no comparison"
    if [[ $SERVER == mariadb ]]; then
        SERVER_CLIENT=$MARIADB_CLIENT
    else
        SERVER_CLIENT=$MYSQL_CLIENT
    fi
}

# The account, the tables of sysbench, and one with large rows.
fill_server() {
    server_sql "$SERVER_CLIENT" "$SERVER_SOCKET" >/dev/null <<SQL
CREATE DATABASE $BENCH_DATABASE;
CREATE USER '$BENCH_USER'@'127.0.0.1' IDENTIFIED BY '$BENCH_PASSWORD';
CREATE USER '$BENCH_USER'@'localhost' IDENTIFIED BY '$BENCH_PASSWORD';
GRANT ALL ON $BENCH_DATABASE.* TO '$BENCH_USER'@'127.0.0.1';
GRANT ALL ON $BENCH_DATABASE.* TO '$BENCH_USER'@'localhost';
CREATE TABLE $BENCH_DATABASE.large (id INT PRIMARY KEY, pad VARCHAR(1000) NOT NULL);
INSERT INTO $BENCH_DATABASE.large
    WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000) SELECT i, REPEAT('x', 1000) FROM n;
INSERT INTO $BENCH_DATABASE.large SELECT id + 1000, pad FROM $BENCH_DATABASE.large;
INSERT INTO $BENCH_DATABASE.large SELECT id + 2000, pad FROM $BENCH_DATABASE.large;
INSERT INTO $BENCH_DATABASE.large SELECT id + 4000, pad FROM $BENCH_DATABASE.large;
SQL
    # From here on MySQL knows the account's password, and a login over plain TCP need not send it.
    "$SERVER_CLIENT" --no-defaults -S "$SERVER_SOCKET" -u"$BENCH_USER" -p"$BENCH_PASSWORD" -e 'SELECT 1' >/dev/null 2>&1 ||
        die "the account cannot log in"
    say "filling a table of $ROWS rows"
    sysbench oltp_read_write --mysql-host=127.0.0.1 --mysql-port="$DB_PORT" --mysql-user="$BENCH_USER" \
        --mysql-password="$BENCH_PASSWORD" --mysql-db="$BENCH_DATABASE" --table-size="$ROWS" --tables=1 prepare \
        >"$WORK/prepare.log" 2>&1 || {
        tail -n 20 "$WORK/prepare.log" >&2
        die "sysbench could not fill the table"
    }
}

# NAME<tab>PORT<tab>PID<tab>VERSION of each peer; 0 for no process.
PEER_LINES=()

start_peers() {
    local peer
    for peer in ${PEERS//,/ }; do
        case $peer in
        direct) PEER_LINES+=("direct"$'\t'"$DB_PORT"$'\t'0$'\t'"") ;;
        haproxy) start_haproxy ;;
        sidepool) start_sidepool sidepool "$((SESSIONS + 20))" ;;
        sidepool-shared) start_sidepool sidepool-shared "$POOL" ;;
        proxysql) start_proxysql ;;
        *) die "no peer '$peer'" ;;
        esac
    done
}

# The account's password is known from the start, so that no client need send it first; the rest is as by default but
# for the size of the pool. No TLS to the server: the others use none either.
# start_sidepool NAME CONNECTIONS
start_sidepool() {
    local dir=$WORK/$1
    mkdir -p "$dir"
    printf '%s' "$BENCH_PASSWORD" >"$dir/password"
    chmod 600 "$dir/password"
    unset SIDEPOOL_PORT
    sidepool_start "$BINARY" "$dir" "127.0.0.1:$DB_PORT" \
        SIDEPOOL_SERVER__WORKER_THREADS="$WORKERS" \
        SIDEPOOL_POOL__MAX_CONNECTIONS="$2" \
        SIDEPOOL_POOL__MAX_IDLE_PERCENT=100 \
        SIDEPOOL_LISTENER__0__MAX_CLIENTS="$((SESSIONS + 100))" \
        SIDEPOOL_BACKEND__TLS__MODE=off \
        SIDEPOOL_AUTH__USER__0__NAME="$BENCH_USER" \
        SIDEPOOL_AUTH__USER__0__PASSWORD_FILE="$dir/password" ||
        die "$1 did not start"
    PEER_LINES+=("$1"$'\t'"$SIDEPOOL_PORT"$'\t'"$SIDEPOOL_PID"$'\t'"$("$BINARY" version | head -n 1)")
}

start_haproxy() {
    local port dir=$WORK/haproxy
    mkdir -p "$dir"
    free_port port
    cat >"$dir/haproxy.cfg" <<CONF
global
    nbthread $WORKERS
    maxconn $((SESSIONS + 100))
defaults
    mode tcp
    timeout connect 5s
    timeout client 1h
    timeout server 1h
listen mysql
    bind 127.0.0.1:$port backlog 1000
    server db 127.0.0.1:$DB_PORT
CONF
    haproxy -db -f "$dir/haproxy.cfg" >"$dir/log" 2>&1 &
    peer_started haproxy "$port" "$!" "$dir" "$(haproxy -v | head -n 1)"
}

start_proxysql() {
    local port admin dir=$WORK/proxysql
    command -v proxysql >/dev/null || {
        say "proxysql is not installed: left out"
        return 0
    }
    mkdir -p "$dir"
    free_port port
    free_port admin
    cat >"$dir/proxysql.cnf" <<CONF
datadir="$dir"
admin_variables = { admin_credentials="admin:admin"; mysql_ifaces="127.0.0.1:$admin" }
mysql_variables = {
    threads=$WORKERS; max_connections=$((SESSIONS + 100)); interfaces="127.0.0.1:$port"; monitor_enabled=false
    server_version="8.0.0"; default_query_timeout=3600000
}
mysql_servers = ( { address="127.0.0.1"; port=$DB_PORT; hostgroup=0; max_connections=$((SESSIONS + 20)) } )
mysql_users = ( { username="$BENCH_USER"; password="$BENCH_PASSWORD"; default_hostgroup=0; max_connections=$((SESSIONS + 100)) } )
CONF
    proxysql -f --initial -c "$dir/proxysql.cnf" -D "$dir" >"$dir/log" 2>&1 &
    peer_started proxysql "$port" "$!" "$dir" "$(proxysql --version 2>&1 | head -n 1)"
}

# peer_started NAME PORT PID DIR VERSION
peer_started() {
    on_exit "stop_process $3"
    wait_until 20 "$3" port_is_busy "$2" || {
        tail -n 20 "$4/log" >&2
        die "$1 did not start"
    }
    PEER_LINES+=("$1"$'\t'"$2"$'\t'"$3"$'\t'"$5")
}

# What measure.py is to know, as one file.
plan() {
    {
        printf 'user\t%s\npassword\t%s\ndatabase\t%s\nload\t%s\nserver\t%s\n' \
            "$BENCH_USER" "$BENCH_PASSWORD" "$BENCH_DATABASE" "$LOAD" "$SERVER_PID"
        printf 'fact\tserver\t%s\n' "$(server_sql "$SERVER_CLIENT" "$SERVER_SOCKET" <<<'SELECT @@version' | tail -n 1)"
        printf 'fact\tworker threads of each proxy\t%s\n' "$WORKERS"
        printf 'fact\tbackend connections of sidepool-shared\t%s\n' "$POOL"
        printf 'fact\tsource\t%s\n' "$(git describe --always --dirty 2>/dev/null || printf unknown)"
        printf 'peer\t%s\n' "${PEER_LINES[@]}"
    } >"$WORK/plan"
    printf '%s\n' "$WORK/plan"
}
