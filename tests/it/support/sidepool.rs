//! Sidepool as its users run it: the real binary, configured by environment, in front of a server.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::servers::{Server, free_port};

/// A running Sidepool; ended when dropped.
#[derive(Debug)]
pub struct Sidepool {
    child: Child,
    pub port: u16,
    pub admin_port: u16,
    log: Arc<Mutex<String>>,
}

impl Sidepool {
    /// Starts one in front of `server` with further settings, and waits until it is ready.
    pub fn start(server: &Server, settings: &[(&str, &str)]) -> Self {
        let sidepool = Self::launch(&server.address(), settings);
        sidepool.wait_ready();
        sidepool
    }

    /// Starts one in front of `server` that shares that many backend connections.
    pub fn sharing(server: &Server, connections: usize) -> Self {
        Self::start(
            server,
            &[("SIDEPOOL_POOL__MAX_CONNECTIONS", &connections.to_string())],
        )
    }

    /// Starts one in front of `server` that reads a settings file too, and waits until it is ready.
    pub fn with_file(server: &Server, file: &Path, settings: &[(&str, &str)]) -> Self {
        let arguments = ["--config", file.to_str().unwrap()];
        let sidepool = Self::launch_with(&arguments, &server.address(), settings);
        sidepool.wait_ready();
        sidepool
    }

    /// Starts one in front of `address` without waiting for anything.
    pub fn launch(address: &str, settings: &[(&str, &str)]) -> Self {
        Self::launch_with(&[], address, settings)
    }

    /// The same with arguments on the command line.
    pub fn launch_with(arguments: &[&str], address: &str, settings: &[(&str, &str)]) -> Self {
        let (port, admin_port) = (free_port(), free_port());
        let mut command = Command::new(env!("CARGO_BIN_EXE_sidepool"));
        command
            .args(arguments)
            .env("SIDEPOOL_BACKEND__ADDRESSES", address)
            .env("SIDEPOOL_LISTENER__0__ADDRESS", format!("127.0.0.1:{port}"))
            .env("SIDEPOOL_ADMIN__ADDRESS", format!("127.0.0.1:{admin_port}"))
            .env("SIDEPOOL_LOG__LEVEL", "debug")
            .envs(settings.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let log = Arc::new(Mutex::new(String::new()));
        let (sink, stderr) = (Arc::clone(&log), child.stderr.take().unwrap());
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                let mut log = sink.lock().unwrap();
                log.push_str(&line);
                log.push('\n');
            }
        });
        Self {
            child,
            port,
            admin_port,
            log,
        }
    }

    /// Waits until `/ready` is green.
    pub fn wait_ready(&self) {
        self.wait("ready", |s| {
            s.get("/ready").is_some_and(|(status, _)| status == 200)
        });
    }

    /// Waits until something is true.
    pub fn wait(&self, what: &str, condition: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while !condition(self) {
            assert!(Instant::now() < deadline, "never {what}:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// `host:port` of its listener.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it has logged so far.
    pub fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// `GET path` of the admin port: status and body; `None` while nobody listens there.
    pub fn get(&self, path: &str) -> Option<(u16, String)> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.admin_port)).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
        write!(
            stream,
            "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        )
        .ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        let status = answer.split(' ').nth(1)?.parse().ok()?;
        let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
        Some((status, body.to_owned()))
    }

    /// The sum of all samples of a metric whose labels contain `labels`; 0 where there is none.
    pub fn metric(&self, name: &str, labels: &str) -> f64 {
        let (_, body) = self.get("/metrics").expect("metrics are served");
        let matching = body.lines().filter(|line| {
            line.strip_prefix(name)
                .is_some_and(|rest| rest.starts_with([' ', '{']))
                && line.contains(labels)
        });
        matching
            .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
            .sum()
    }

    /// Sends a signal by name, as `kill -NAME` does: a shell's own, since not every machine has the program.
    pub fn signal(&self, name: &str) {
        let pid = self.pid().to_string();
        assert!(
            Command::new("sh")
                .args(["-c", r#"kill "$0" "$1""#, &format!("-{name}"), &pid])
                .status()
                .unwrap()
                .success()
        );
    }

    /// Waits for its end; the exit code.
    pub fn wait_exit(&mut self, within: Duration) -> Option<i32> {
        let deadline = Instant::now() + within;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            assert!(Instant::now() < deadline, "still running:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Resident memory, in kilobytes.
    pub fn resident_kb(&self) -> u64 {
        self.memory_kb("VmRSS:")
    }

    /// The most resident memory it has had so far, in kilobytes.
    pub fn peak_kb(&self) -> u64 {
        self.memory_kb("VmHWM:")
    }

    fn memory_kb(&self, which: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status.lines().find(|line| line.starts_with(which)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }
}

impl Drop for Sidepool {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            #[allow(clippy::print_stderr, reason = "goes with the test's own output")]
            {
                eprintln!("--- log of sidepool ---\n{}", self.log());
            }
        }
    }
}
