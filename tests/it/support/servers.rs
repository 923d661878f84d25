//! Private database servers: one MariaDB and one MySQL per test process, each in a temporary
//! directory on a free loopback port, gone when the process is.
//!
//! The binaries come from the environment that `tests/run --env` prints. A server runs below a shell
//! that waits for the test process's end on its standard input, so nothing is left behind even when
//! a test aborts.

use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, Instant};

/// Which make of server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Make {
    MariaDb,
    MySql,
}

/// A running private server.
#[derive(Debug)]
pub struct Server {
    pub make: Make,
    pub port: u16,
    pub dir: PathBuf,
    child: Mutex<Child>,
}

/// The account most tests use; it may do everything in databases whose names begin with `t_`.
pub const USER: &str = "app";
pub const PASSWORD: &str = "app-secret";

/// The servers that can be had here: MariaDB always, MySQL where its binary was found.
pub fn makes() -> Vec<Make> {
    let mut makes = vec![Make::MariaDb];
    if std::env::var_os("SIDEPOOL_TEST_MYSQLD").is_some() {
        makes.push(Make::MySql);
    }
    makes
}

/// The process's shared server of that make, started at first use.
pub fn shared(make: Make) -> &'static Server {
    static MARIADB: OnceLock<Server> = OnceLock::new();
    static MYSQL: OnceLock<Server> = OnceLock::new();
    let cell = match make {
        Make::MariaDb => &MARIADB,
        Make::MySql => &MYSQL,
    };
    cell.get_or_init(|| Server::start(make, &[]))
}

impl Server {
    /// Starts a server of its own with extra options.
    pub fn start(make: Make, options: &[&str]) -> Self {
        Self::start_in(&std::env::temp_dir(), make, options)
    }

    /// The same with its files in a new directory below `base`.
    pub fn start_in(base: &Path, make: Make, options: &[&str]) -> Self {
        let dir = fresh_dir(base, make);
        initialise(make, &dir);
        let port = free_port();
        let child = launch(make, &dir, port, options);
        let server = Self {
            make,
            port,
            dir,
            child: Mutex::new(child),
        };
        server.wait_ready();
        server.create_account();
        server
    }

    /// `host:port` of the server.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Path of the server's Unix socket.
    pub fn socket(&self) -> PathBuf {
        self.dir.join("s.sock")
    }

    /// Creates a routine as root: one statement, with `;` inside.
    pub fn routine(&self, sql: &str) {
        let out = self
            .root_command(sql)
            .arg("--delimiter=//")
            .output()
            .unwrap();
        assert!(
            out.status.success(),
            "{sql}: {}",
            String::from_utf8_lossy(&out.stderr)
        );
    }

    /// Runs SQL as root through the server's own shell and returns what it printed, tab-separated.
    pub fn root(&self, sql: &str) -> String {
        let out = self.root_command(sql).output().unwrap();
        assert!(
            out.status.success(),
            "{sql}: {}",
            String::from_utf8_lossy(&out.stderr)
        );
        String::from_utf8(out.stdout).unwrap().trim_end().to_owned()
    }

    /// Creates a database of that name anew.
    pub fn database(&self, name: &str) {
        assert!(name.starts_with("t_"), "the account's grants cover t_%");
        self.root(&format!(
            "DROP DATABASE IF EXISTS {name}; CREATE DATABASE {name}"
        ));
    }

    /// Stops the server as an administrator would, and waits for its end. Its data stay for
    /// [`restart`](Self::restart) until this is dropped.
    pub fn stop(&self) {
        let mut child = self.child.lock().unwrap();
        drop(child.stdin.take());
        child.wait().unwrap();
    }

    /// Starts it again on the same port and data after [`stop`](Self::stop).
    pub fn restart(&self, options: &[&str]) {
        *self.child.lock().unwrap() = launch(self.make, &self.dir, self.port, options);
        self.wait_ready();
    }

    fn root_command(&self, sql: &str) -> Command {
        let client = match self.make {
            Make::MariaDb => tool("SIDEPOOL_TEST_MARIADB_CLIENT", "mariadb"),
            Make::MySql => tool("SIDEPOOL_TEST_MYSQL_CLIENT", "mysql"),
        };
        let mut command = Command::new(client);
        command.arg(format!("--socket={}", self.socket().display()));
        // The server takes the statements apart, not the shell, which would cut a routine's body.
        command.args([
            "--protocol=socket",
            "--delimiter=$$",
            "-uroot",
            "-N",
            "-B",
            "-e",
            sql,
        ]);
        command.stdin(Stdio::null());
        command
    }

    fn wait_ready(&self) {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let up = TcpStream::connect(("127.0.0.1", self.port)).is_ok()
                && self
                    .root_command("SELECT 1")
                    .output()
                    .is_ok_and(|out| out.status.success());
            if up {
                return;
            }
            if Instant::now() > deadline {
                let log = std::fs::read_to_string(self.dir.join("err.log")).unwrap_or_default();
                panic!("{:?} did not come up:\n{log}", self.make);
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn create_account(&self) {
        self.root(&format!(
            "CREATE USER '{USER}'@'%' IDENTIFIED BY '{PASSWORD}'; \
             GRANT ALL ON `t\\_%`.* TO '{USER}'@'%'; GRANT PROCESS ON *.* TO '{USER}'@'%'"
        ));
    }
}

/// A server of a test's own goes with the test. Shared ones are statics, which are never dropped: the
/// shell above them sees the process's end.
impl Drop for Server {
    /// Nobody waits for its end: the shell above it cleans up.
    fn drop(&mut self) {
        let stdin = self.child.lock().ok().and_then(|mut c| c.stdin.take());
        match stdin {
            Some(mut stdin) => drop(stdin.write_all(b"gone")),
            // It was stopped; only its files are left.
            None => drop(std::fs::remove_dir_all(&self.dir)),
        }
    }
}

/// Where a server that makes many tables is fastest: in memory, if there is enough of it, else the usual
/// place.
pub fn fast_dir() -> PathBuf {
    const ENOUGH_KB: u64 = 2_000_000;
    let memory = PathBuf::from("/dev/shm");
    let df = Command::new("df").args(["-k", "/dev/shm"]).output();
    let free = df.ok().and_then(|out| {
        let text = String::from_utf8(out.stdout).ok()?;
        text.lines()
            .nth(1)?
            .split_whitespace()
            .nth(3)?
            .parse::<u64>()
            .ok()
    });
    match free {
        Some(free) if free > ENOUGH_KB => memory,
        _ => std::env::temp_dir(),
    }
}

fn fresh_dir(base: &Path, make: Make) -> PathBuf {
    let name = format!("sidepool-{make:?}-").to_lowercase();
    let dir = tempfile::Builder::new()
        .prefix(&name)
        .tempdir_in(base)
        .unwrap()
        .keep();
    if make == Make::MariaDb {
        assert!(
            Command::new("chown")
                .arg(run_as())
                .arg(&dir)
                .status()
                .unwrap()
                .success()
        );
    }
    dir
}

/// Creates the system tables.
fn initialise(make: Make, dir: &Path) {
    let mut command = match make {
        Make::MariaDb => {
            let mut c = Command::new(tool(
                "SIDEPOOL_TEST_MARIADB_INSTALL_DB",
                "mariadb-install-db",
            ));
            c.args([
                "--no-defaults",
                "--auth-root-authentication-method=normal",
                "--skip-test-db",
            ]);
            c.arg(format!("--user={}", run_as()));
            c.arg(format!("--datadir={}", dir.join("data").display()));
            // A server that starts removes the temporary tables of all that share its directory.
            c.arg(format!("--tmpdir={}", dir.display()));
            c
        }
        Make::MySql => {
            let mut c = Command::new(tool("SIDEPOOL_TEST_MYSQLD", "mysqld"));
            c.args(["--initialize-insecure", "--secure-file-priv=NULL"]);
            c.arg(format!("--datadir={}", dir.join("data").display()));
            c
        }
    };
    let out = command.stdin(Stdio::null()).output().unwrap();
    assert!(
        out.status.success(),
        "{make:?}: {}",
        String::from_utf8_lossy(&out.stderr)
    );
}

/// Starts the server below a shell that ends it when its standard input closes. The files stay, for a
/// restart, unless the word "gone" came first or the test process has ended.
fn launch(make: Make, dir: &Path, port: u16, options: &[&str]) -> Child {
    let program = match make {
        Make::MariaDb => tool("SIDEPOOL_TEST_MARIADBD", "mariadbd"),
        Make::MySql => tool("SIDEPOOL_TEST_MYSQLD", "mysqld"),
    };
    let script = r#"
        dir=$1; keeper=$2; shift 2
        "$@" >>"$dir/out.log" 2>&1 </dev/null &
        server=$!
        if [ "$(cat)" = gone ]; then
            kill -9 "$server"; wait "$server"; rm -rf "$dir"
        else
            kill "$server" 2>/dev/null
            wait "$server"
            kill -0 "$keeper" 2>/dev/null || rm -rf "$dir"
        fi
    "#;
    let mut command = Command::new("setsid");
    command
        .args(["sh", "-c", script, "sh"])
        .arg(dir)
        .arg(std::process::id().to_string());
    command.arg(program);
    if make == Make::MariaDb {
        command.args(["--no-defaults".to_owned(), format!("--user={}", run_as())]);
        if let Some(plugins) = plugin_dir() {
            command.arg(format!("--plugin-dir={}", plugins.display()));
        }
    } else {
        command.args(["--mysqlx=OFF", "--secure-file-priv=NULL"]);
    }
    command.arg(format!("--datadir={}", dir.join("data").display()));
    command.arg(format!("--tmpdir={}", dir.display()));
    command.arg(format!("--socket={}", dir.join("s.sock").display()));
    command.arg(format!("--pid-file={}", dir.join("pid").display()));
    command.arg(format!("--log-error={}", dir.join("err.log").display()));
    command.args([
        "--bind-address=127.0.0.1".to_owned(),
        format!("--port={port}"),
    ]);
    command.args(["--max-allowed-packet=64M", "--local-infile=1"]);
    command.args(options);
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command.spawn().unwrap()
}

/// Where MariaDB finds its plugins, if that is not where it was built to look.
fn plugin_dir() -> Option<PathBuf> {
    let dir = std::env::var_os("SIDEPOOL_TEST_MARIADB_PLUGIN_DIR")?;
    (dir != "none").then(|| PathBuf::from(dir))
}

/// Whether MariaDB's plugin for ed25519 can be had; `tests/run` says so loudly where not.
pub fn has_ed25519() -> bool {
    std::env::var_os("SIDEPOOL_TEST_MARIADB_PLUGIN_DIR").is_none_or(|dir| dir != "none")
}

fn tool(variable: &str, fallback: &str) -> PathBuf {
    std::env::var_os(variable).map_or_else(|| PathBuf::from(fallback), PathBuf::from)
}

/// The account that mariadbd runs under: one's own, but root's servers drop to `mysql` where there is
/// such an account. The packages that hold the programs alone make none.
fn run_as() -> String {
    let id = |arguments: &[&str]| {
        let out = Command::new("id").args(arguments).output().unwrap();
        out.status
            .success()
            .then(|| String::from_utf8(out.stdout).unwrap().trim().to_owned())
    };
    match id(&["-un"]).unwrap().as_str() {
        "root" => id(&["-un", "mysql"]).unwrap_or_else(|| "root".to_owned()),
        user => user.to_owned(),
    }
}

/// A port nobody listens on now, and that nobody else here is given. Below those that the kernel
/// gives to outgoing connections, which could take it before it is bound.
pub fn free_port() -> u16 {
    const FIRST: u32 = 10_000;
    const COUNT: u32 = 20_000;
    static NEXT: AtomicU32 = AtomicU32::new(0);
    loop {
        let at =
            NEXT.fetch_add(1, Ordering::Relaxed) + std::process::id().wrapping_mul(211) % COUNT;
        let port = u16::try_from(FIRST + at % COUNT).unwrap();
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}
