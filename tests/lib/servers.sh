# shellcheck shell=bash
# Real database servers for tests: finds or installs MariaDB, fetches Oracle's MySQL into the cache, and starts private
# instances on loopback in directories of one's own. Everything started here is stopped by id when the script ends.
# Sourced after common.sh.

# --- MariaDB -----------------------------------------------------------------------------------------------------

# Sets MARIADBD, MARIADB_INSTALL_DB and MARIADB_CLIENT. The -core packages hold the programs and start no service.
mariadb_install() {
    PATH=$PATH:/usr/sbin:/usr/local/sbin
    if ! command -v mariadbd >/dev/null || ! command -v mariadb-install-db >/dev/null; then
        apt_need "$(mariadb_package server)" || return 1
    fi
    MARIADBD=$(command -v mariadbd) || return 1
    MARIADB_INSTALL_DB=$(command -v mariadb-install-db) || return 1
    mariadb_client_install
}

# Sets MARIADB_PLUGIN_DIR to a directory that has the plugin auth_ed25519, or to `none`. The plugin is in a package that
# would start a service: where that is not installed, only the file is taken out of it.
mariadb_plugins() {
    local cached new
    MARIADB_PLUGIN_DIR=$("$MARIADBD" --no-defaults --user="$(mariadb_user)" --verbose --help 2>/dev/null |
        awk '$1 == "plugin-dir" { print $2 }')
    [[ ! -e $MARIADB_PLUGIN_DIR/auth_ed25519.so ]] || return 0
    cached=$(cache_dir)/mariadb-plugins
    MARIADB_PLUGIN_DIR=$cached
    [[ ! -e $cached/auth_ed25519.so ]] || return 0
    new=$cached.new
    rm -rf "$new"
    mkdir -p "$new/tree" "$cached"
    say "fetching MariaDB's plugin auth_ed25519 into $cached (once)"
    if (cd "$new" && apt-get download -q mariadb-server) >&2 && dpkg-deb -x "$new"/mariadb-server_*.deb "$new/tree"; then
        find "$new/tree" -name auth_ed25519.so -exec cp {} "$cached/" \;
    fi
    rm -rf "$new"
    [[ ! -e $cached/auth_ed25519.so ]] || return 0
    warn "MariaDB's plugin auth_ed25519 could not be had: logins with it are NOT TESTED."
    MARIADB_PLUGIN_DIR=none
}

# Sets MARIADB_CLIENT.
mariadb_client_install() {
    command -v mariadb >/dev/null || apt_need "$(mariadb_package client)" || return 1
    MARIADB_CLIENT=$(command -v mariadb)
}

# Newer releases say mariadb-server-core, older ones put the version behind it.
mariadb_package() {
    local name="mariadb-$1-core"
    apt_lists_need
    if [[ -z $(apt-cache madison "$name" 2>/dev/null) ]]; then
        apt-cache pkgnames "$name-" 2>/dev/null | sort -V | tail -n 1 | grep . || printf '%s\n' "$name"
    else
        printf '%s\n' "$name"
    fi
}

# The account a server runs under: root's instances drop to `mysql` where that account exists.
mariadb_user() {
    if ((EUID != 0)); then
        id -un
    elif id -u mysql >/dev/null 2>&1; then
        printf 'mysql\n'
    else
        printf 'root\n'
    fi
}

# A server that starts clears its temporary directory of tables, other servers' included, which then crash: each has its
# own.

# Starts a fresh MariaDB. Sets SERVER_PID and SERVER_SOCKET; root has no password, over the socket or 127.0.0.1.
# mariadb_start DIR PORT [OPTION…]
mariadb_start() { mariadb_make_data "$1" && mariadb_serve "$@"; }

# Makes the data directory of a fresh MariaDB in DIR.
# mariadb_make_data DIR
mariadb_make_data() {
    local dir=$1 user
    user=$(mariadb_user)
    mkdir -p "$dir/data"
    ((EUID != 0)) || chown "$user" "$dir" "$dir/data"
    "$MARIADB_INSTALL_DB" --no-defaults --user="$user" --datadir="$dir/data" --tmpdir="$dir" \
        --auth-root-authentication-method=normal --skip-test-db >"$dir/install.log" 2>&1 || {
        # What went wrong stands far above its farewell.
        grep -i -m 20 error "$dir/install.log" >&2 || tail -n 20 "$dir/install.log" >&2
        warn "mariadb-install-db failed"
        return 1
    }
}

# Starts a MariaDB on the data directory that is in DIR. Sets SERVER_PID and SERVER_SOCKET.
# mariadb_serve DIR PORT [OPTION…]
mariadb_serve() {
    local dir=$1 port=$2 user
    shift 2
    user=$(mariadb_user)
    "$MARIADBD" --no-defaults --user="$user" --datadir="$dir/data" --tmpdir="$dir" --bind-address=127.0.0.1 --port="$port" \
        --socket="$dir/s.sock" --pid-file="$dir/pid" --log-error="$dir/err.log" "$@" >"$dir/out.log" 2>&1 &
    server_started "$!" "$dir" "$MARIADB_CLIENT"
}

# --- Oracle's MySQL ----------------------------------------------------------------------------------------------
# Debian's stable releases do not carry it, its unstable suite does. It is fetched from there by an apt configuration
# of its own and unpacked into a directory, with the C library it was built for; nothing of the system is touched.

# Makes PREFIX hold MySQL, with wrappers PREFIX/bin/mysqld and PREFIX/bin/mysql. Sets MYSQLD and MYSQL_CLIENT.
# Fetched once; fails, saying so loudly, when it cannot be had.
# mysql_fetch PREFIX
mysql_fetch() {
    local prefix=$1
    mkdir -p "$(dirname "$prefix")"
    if [[ ! -e $prefix/complete ]]; then
        # Two runs at once must not unpack into one another.
        (
            flock 9
            [[ -e $prefix/complete ]] || mysql_fetch_into "$prefix"
        ) 9>"$prefix.lock" || {
            warn "-----------------------------------------------------------------------------"
            warn "Oracle's MySQL could not be had: everything runs against MariaDB ALONE."
            warn "-----------------------------------------------------------------------------"
            return 1
        }
    fi
    MYSQLD=$prefix/bin/mysqld
    MYSQL_CLIENT=$prefix/bin/mysql
}

mysql_fetch_into() {
    local prefix=$1 new=$1.new config=$1.apt uri key suite packages
    if ! command -v apt-get >/dev/null || ! command -v dpkg-deb >/dev/null; then
        warn "no apt-get here"
        return 1
    fi
    read -r uri key < <(distribution_source) || {
        warn "no source of this distribution found among this machine's package sources"
        return 1
    }
    suite=$(mysql_suite) || return 1
    rm -rf "$new" "$config"
    mkdir -p "$new" "$config"/{lists/partial,archives/partial,parts}
    mysql_apt_config "$config" "$uri" "$suite" "$key"
    export APT_CONFIG=$config/apt.conf
    say "fetching Oracle's MySQL into $prefix (once)"
    apt-get update -q >"$config/log" 2>&1 || {
        tail -n 5 "$config/log" >&2
        return 1
    }
    read -r -a packages < <(mysql_packages) || {
        warn "suite $suite has no mysql-server-core"
        return 1
    }
    apt-get install -q -y --no-install-recommends --download-only "${packages[@]}" >>"$config/log" 2>&1 || {
        tail -n 5 "$config/log" >&2
        return 1
    }
    unset APT_CONFIG
    for archive in "$config"/archives/*.deb; do
        dpkg-deb -x "$archive" "$new" || return 1
    done
    mysql_write_wrappers "$new" || return 1
    "$new/bin/mysqld" --version >&2 || return 1
    touch "$new/complete"
    rm -rf "$prefix" "$config"
    mv "$new" "$prefix"
}

# Debian: the unstable suite. Ubuntu carries MySQL in its releases.
mysql_suite() {
    local ID='' VERSION_CODENAME=''
    # shellcheck disable=SC1091
    . /etc/os-release
    if [[ $ID == debian ]]; then
        printf 'sid\n'
    else
        printf '%s\n' "$VERSION_CODENAME"
    fi
}

mysql_apt_config() {
    local config=$1 uri=$2 suite=$3 key=$4 signed=''
    [[ $key == - ]] || signed="[signed-by=$key] "
    printf 'deb %s%s %s main universe\n' "$signed" "$uri" "$suite" >"$config/sources.list"
    [[ $suite != sid ]] || sed -i 's/ universe$//' "$config/sources.list"
    # An empty status file makes apt fetch the libraries too, whatever the system has. A mirror that lags behind is good
    # enough for tests; its signature is checked all the same.
    cat >"$config/apt.conf" <<CONF
Dir::State "$config";
Dir::State::lists "$config/lists";
Dir::State::status "/dev/null";
Dir::Cache "$config";
Dir::Cache::archives "$config/archives";
Dir::Etc::SourceList "$config/sources.list";
Dir::Etc::SourceParts "$config/parts";
Dir::Etc::Preferences "/dev/null";
Dir::Etc::PreferencesParts "$config/parts";
APT::Sandbox::User "$(id -un)";
APT::Install-Recommends "false";
Acquire::Check-Valid-Until "false";
Debug::NoLocking "true";
CONF
}

# Server and client under whatever name the suite has them.
mysql_packages() {
    local server
    server=$(apt-cache pkgnames mysql-server-core | sort -V | tail -n 1)
    [[ -n $server ]] || return 1
    printf '%s %s\n' "$server" "${server/server/client}"
}

# Prints "URI KEYRING" ("-" where the source names none) of the machine's own source of this distribution's packages.
distribution_source() {
    local VERSION_CODENAME=''
    # shellcheck disable=SC1091
    . /etc/os-release
    all_sources | awk -F '\t' -v suite="$VERSION_CODENAME" '
        (" " $2 " ") ~ (" " suite " ") && (" " $3 " ") ~ / main / {
            print $1, ($4 ~ /^\// ? $4 : "-"); found = 1; exit
        }
        END { exit !found }'
}

# Every enabled package source, as "URI<tab>suites<tab>components<tab>keyring", from both kinds of file.
all_sources() {
    local file
    for file in /etc/apt/sources.list.d/*.sources; do
        [[ -e $file ]] || continue
        awk -v RS='' -F '\n' '{
            uri = suites = components = key = ""; enabled = 1; types = ""
            for (i = 1; i <= NF; i++) {
                if ($i ~ /^#/ || $i !~ /^[A-Za-z-]+:/) continue
                name = tolower(substr($i, 1, index($i, ":") - 1))
                value = substr($i, index($i, ":") + 1); gsub(/^[ \t]+|[ \t]+$/, "", value)
                if (name == "types") types = value
                if (name == "uris") { split(value, parts, " "); uri = parts[1] }
                if (name == "suites") suites = value
                if (name == "components") components = value
                if (name == "signed-by") key = value
                if (name == "enabled" && tolower(value) ~ /^(no|false|0)$/) enabled = 0
            }
            if (enabled && uri != "" && (" " types " ") ~ / deb /) printf "%s\t%s\t%s\t%s\n", uri, suites, components, key
        }' "$file"
    done
    for file in /etc/apt/sources.list /etc/apt/sources.list.d/*.list; do
        [[ -e $file ]] || continue
        awk '$1 == "deb" {
            key = ""; first = 2
            if ($2 ~ /^\[/) {
                while (first <= NF) {
                    word = $first; gsub(/[][]/, "", word)
                    if (word ~ /^signed-by=/) key = substr(word, 11)
                    closed = ($first ~ /\]$/); first++
                    if (closed) break
                }
            }
            components = ""
            for (i = first + 2; i <= NF; i++) components = components " " $i
            printf "%s\t%s\t%s\t%s\n", $first, $(first + 1), components, key
        }' "$file"
    done
}

# The programs run under the loader and libraries they came with. The wrappers take the options of the programs
# themselves; option files are never read.
mysql_write_wrappers() {
    local root=$1 loader libc
    loader=$(cd "$root" && find . -name 'ld-linux*.so.*' | head -n 1)
    libc=$(cd "$root" && find . -name 'libc.so.6' | head -n 1)
    [[ -n $loader && -n $libc && -x $root/usr/sbin/mysqld ]] || {
        warn "the packages do not hold what was expected"
        return 1
    }
    mkdir -p "$root/bin"
    mysql_wrapper "$loader" "$(dirname "$libc")" usr/sbin/mysqld >"$root/bin/mysqld" <<'WRAPPER'
if [ "$(id -u)" = 0 ]; then set -- --user=root "$@"; fi
set -- --basedir="$root/usr" --lc-messages-dir="$root/usr/share/mysql" --secure-file-priv=NULL --loose-mysqlx=OFF "$@"
WRAPPER
    mysql_wrapper "$loader" "$(dirname "$libc")" usr/bin/mysql >"$root/bin/mysql" </dev/null
    chmod +x "$root/bin/mysqld" "$root/bin/mysql"
}

# mysql_wrapper LOADER LIBRARIES PROGRAM, with lines to insert on standard input
mysql_wrapper() {
    cat <<'TOP'
#!/bin/sh
# Runs the program with the loader and libraries it was packaged with. Paths follow this file.
root=$(cd "$(dirname "$0")/.." && pwd)
if [ "${1:-}" = --no-defaults ]; then shift; fi
TOP
    cat
    cat <<BOTTOM
exec "\$root/$1" --library-path "\$root/$2:\$root/usr/lib/mysql/private" "\$root/$3" \\
    --no-defaults --plugin-dir="\$root/usr/lib/mysql/plugin" "\$@"
BOTTOM
}

# Starts a fresh MySQL. Sets SERVER_PID and SERVER_SOCKET; root has no password.
# mysql_start DIR PORT [OPTION…]
mysql_start() {
    local dir=$1 port=$2
    shift 2
    mkdir -p "$dir"
    "$MYSQLD" --datadir="$dir/data" --tmpdir="$dir" --initialize-insecure >"$dir/install.log" 2>&1 || {
        tail -n 20 "$dir/install.log" >&2
        warn "mysqld --initialize-insecure failed"
        return 1
    }
    "$MYSQLD" --datadir="$dir/data" --tmpdir="$dir" --bind-address=127.0.0.1 --port="$port" --socket="$dir/s.sock" \
        --pid-file="$dir/pid" --log-error="$dir/err.log" "$@" >"$dir/out.log" 2>&1 &
    server_started "$!" "$dir" "$MYSQL_CLIENT"
}

# --- both --------------------------------------------------------------------------------------------------------

# server_started PID DIR CLIENT
server_started() {
    SERVER_PID=$1
    SERVER_SOCKET=$2/s.sock
    on_exit "stop_process $SERVER_PID"
    wait_until 60 "$SERVER_PID" "$3" --no-defaults -S "$SERVER_SOCKET" -uroot -e 'select 1' || {
        tail -n 20 "$2/err.log" "$2/out.log" >&2 || true
        warn "the server in $2 did not come up"
        return 1
    }
}

# Ends a server started here before the script ends.
stop_server() { stop_process "$1" 30; }

# Runs SQL from standard input as root.
# server_sql CLIENT SOCKET
server_sql() { "$1" --no-defaults -S "$2" -uroot --batch; }

# Certificates for a server that makes none itself (MariaDB before 11.4), as options for its command line.
# Sets TLS_OPTIONS.
# make_certificate DIR
make_certificate() {
    need_command openssl openssl || return 1
    openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=127.0.0.1 -addext subjectAltName=IP:127.0.0.1 \
        -keyout "$1/key.pem" -out "$1/cert.pem" >/dev/null 2>&1 || return 1
    ((EUID != 0)) || chown "$(mariadb_user)" "$1/key.pem" "$1/cert.pem"
    # shellcheck disable=SC2034 # read by the script that sources this
    TLS_OPTIONS=(--ssl-cert="$1/cert.pem" --ssl-key="$1/key.pem")
}
