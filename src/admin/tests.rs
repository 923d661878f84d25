//! Tests of the served routes over real sockets on port 0, with requests written by hand.

use std::net::SocketAddr;
use std::sync::mpsc;
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::snapshot::{BackendSnapshot, ClientSnapshot, ClientState, PoolSnapshot, Text};
use super::*;
use crate::metrics::BackendRole;
use crate::reason::PinReason;

#[tokio::test]
async fn every_path_answers_in_its_own_format() {
    let server = Server::start(Scope::Full, None).await;
    server.ctx.metrics.clients.received.inc();
    let mut connection = server.connect().await;

    let metrics = connection.get("/metrics").await;
    assert_eq!(metrics.status, 200);
    assert_eq!(
        metrics.header("content-type"),
        Some("text/plain; version=0.0.4")
    );
    assert!(
        metrics
            .body
            .contains("\nsidepool_client_connections_received_total 1\n")
    );

    assert_eq!(connection.get("/live").await.body, "ok\n");
    assert_eq!(connection.get("/ready?verbose").await.body, "ok\n");

    let index = connection.get("/").await;
    assert_eq!(
        index.header("content-type"),
        Some("text/html; charset=utf-8")
    );
    for path in [
        "/metrics",
        "/live",
        "/ready",
        "/api/v1/clients",
        "/api/v1/pools",
    ] {
        assert!(index.body.contains(&format!("href=\"{path}\"")), "{path}");
    }
    for outside in ["http:", "https:", "//", "<script"] {
        assert!(
            !index.body.contains(outside),
            "the page fetches nothing: {outside}"
        );
    }
}

#[tokio::test]
async fn snapshots_are_shown_as_json() {
    let server = Server::start(Scope::Full, None).await;
    let mut connection = server.connect().await;
    for (path, expected) in [
        (
            "/api/v1/clients",
            json!({"clients": [{
                "id": 2_147_483_648_u32, "user": "app", "database": "shop",
                "program_name": "<script>\u{fffd}", "source": "10.0.0.7", "tls": true,
                "state": "in_transaction", "pin_reason": "lock_tables",
                "pin_advice": PinReason::LockTables.advice(),
                "connected_seconds": 12.5, "idle_seconds": 0.25, "commands": 7,
                "backend_connection_id": 41,
            }]}),
        ),
        (
            "/api/v1/pools",
            json!({"pools": [{
                "backend": "db:3306", "user": "app", "idle": 1, "borrowed": 2, "dialing": 0,
                "waiters": 3, "oldest_waiter_seconds": 0.5, "max_connections": 90,
            }]}),
        ),
        (
            "/api/v1/backends",
            json!({"backends": [{
                "address": "db:3306", "role": "writer", "up": false, "state": "down", "state_seconds": 4.0,
                "replication": "running", "replication_lag_seconds": null,
                "server_version": "10.11.19-MariaDB", "max_connections": 151,
                "wait_timeout_seconds": 28800, "last_error": "refused", "last_error_seconds": 3.0,
            }]}),
        ),
        (
            "/api/v1/settings",
            json!({"settings": {"pool": {"min_idle": 0}}}),
        ),
    ] {
        let reply = connection.get(path).await;
        assert_eq!(reply.status, 200, "{path}");
        assert_eq!(reply.header("content-type"), Some("application/json"));
        assert_eq!(reply.header("cache-control"), Some("no-store"));
        assert_eq!(reply.json(), expected, "{path}");
    }
}

#[tokio::test]
async fn head_tells_the_length_and_sends_no_body() {
    let server = Server::start(Scope::Full, None).await;
    let mut connection = server.connect().await;
    let head = connection
        .send(
            "HEAD /api/v1/pools HTTP/1.1\r\nHost: localhost\r\n\r\n",
            true,
        )
        .await;
    assert_eq!(head.status, 200);
    // A body behind the head would be taken for the next answer's head.
    let get = connection.get("/api/v1/pools").await;
    assert_eq!(get.status, 200);
    assert_eq!(head.header("content-length"), get.header("content-length"));
    assert_eq!(head.header("content-type"), get.header("content-type"));
    assert_eq!(
        connection
            .send("HEAD /nowhere HTTP/1.1\r\nHost: localhost\r\n\r\n", true)
            .await
            .status,
        404
    );
}

#[tokio::test]
async fn what_is_not_served_says_so_in_json() {
    let server = Server::start(Scope::Full, None).await;
    let mut connection = server.connect().await;
    for path in [
        "/nowhere",
        "/metrics/",
        "/api/v1",
        "//metrics",
        "/api/v1/../metrics",
    ] {
        let reply = connection.get(path).await;
        assert_eq!(reply.status, 404, "{path}");
        assert_eq!(reply.json(), json!({"error": "no such path"}));
    }
    let refused = connection
        .send(
            "DELETE /api/v1/clients HTTP/1.1\r\nHost: localhost\r\n\r\n",
            false,
        )
        .await;
    assert_eq!(refused.status, 405);
    assert_eq!(refused.header("allow"), Some("GET, HEAD"));
    assert!(refused.json()["error"].is_string());

    // Settings cannot be changed here.
    let patch = server
        .connect()
        .await
        .send(
            "PATCH /api/v1/settings HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{}",
            false,
        )
        .await;
    assert_eq!(patch.status, 405);
}

#[tokio::test]
async fn a_body_is_refused_and_ends_the_connection() {
    let server = Server::start(Scope::Full, None).await;
    for body in [
        "Content-Length: 1000000000000\r\n\r\n",
        "Content-Length: 2\r\n\r\n{}",
        "Transfer-Encoding: chunked\r\n\r\n",
    ] {
        let mut connection = server.connect().await;
        let request = format!("GET /live HTTP/1.1\r\nHost: localhost\r\n{body}");
        let reply = connection.send(&request, false).await;
        assert_eq!(reply.status, 413, "{body}");
        assert_eq!(reply.header("connection"), Some("close"));
        connection.ends().await;
    }
}

#[tokio::test]
async fn malformed_and_oversized_requests_end_the_connection_and_nothing_else() {
    let server = Server::start(Scope::Full, None).await;
    let huge = format!("GET / HTTP/1.1\r\nX: {}\r\n", "x".repeat(64 * 1024));
    for (request, status) in [
        ("\x16\x03\x01\x02\x00\x01\r\n\r\n", 400),
        (huge.as_str(), 431),
    ] {
        let mut connection = server.connect().await;
        let reply = connection.send(request, false).await;
        assert_eq!(reply.status, status);
    }
    assert_eq!(server.connect().await.get("/live").await.status, 200);
}

#[tokio::test]
async fn the_metrics_listener_serves_three_paths() {
    // On every address and without a token, as kubelets and scrapers need it.
    let server = Server::bind("0.0.0.0:0", Scope::MetricsOnly, None).await;
    let mut connection = server.connect().await;
    for path in ["/metrics", "/live", "/ready"] {
        assert_eq!(connection.get(path).await.status, 200, "{path}");
    }
    for path in [
        "/",
        "/api/v1/clients",
        "/api/v1/pools",
        "/api/v1/backends",
        "/api/v1/settings",
    ] {
        assert_eq!(connection.get(path).await.status, 404, "{path}");
    }
}

#[tokio::test]
async fn lists_of_clients_and_settings_are_guarded() {
    const GUARDED: [&str; 2] = ["/api/v1/clients", "/api/v1/settings"];
    const OPEN: [&str; 6] = [
        "/",
        "/metrics",
        "/live",
        "/ready",
        "/api/v1/pools",
        "/api/v1/backends",
    ];
    for address in ["127.0.0.1:0", "0.0.0.0:0"] {
        let server = Server::bind(address, Scope::Full, Some("s3cret")).await;
        let mut connection = server.connect().await;
        for path in OPEN {
            assert_eq!(connection.get(path).await.status, 200, "{path}");
        }
        for path in GUARDED {
            let missing = connection.get(path).await;
            assert_eq!(missing.status, 401, "{path}");
            assert_eq!(
                missing.header("www-authenticate"),
                Some("Bearer realm=\"sidepool\"")
            );
            assert_eq!(
                connection
                    .get_with(path, "Authorization: Bearer s3cre")
                    .await
                    .status,
                401
            );
            assert_eq!(
                connection
                    .get_with(path, "Authorization: Bearer s3cret")
                    .await
                    .status,
                200
            );
        }
    }

    let open = Server::bind("0.0.0.0:0", Scope::Full, None).await;
    let loopback = Server::start(Scope::Full, None).await;
    for path in GUARDED {
        let refused = open.connect().await.get(path).await;
        assert_eq!(refused.status, 403, "{path}");
        let message = refused.json()["error"].as_str().unwrap().to_owned();
        assert!(message.contains("admin.token_file"), "{message}");

        assert_eq!(loopback.connect().await.get(path).await.status, 200);
        let foreign = format!("GET {path} HTTP/1.1\r\nHost: evil.example\r\n\r\n");
        assert_eq!(
            loopback.connect().await.send(&foreign, false).await.status,
            403
        );
    }
}

#[tokio::test]
async fn ready_follows_the_latches_while_live_stays_green() {
    let server = Server::start(Scope::MetricsOnly, None).await;
    let mut connection = server.connect().await;
    let backend = server.ctx.readiness.latch("backend db:3306");
    let listener = server.ctx.readiness.latch("listener");
    let reply = connection.get("/ready").await;
    assert_eq!(reply.status, 503);
    assert_eq!(reply.body, "not ready: backend db:3306, listener\n");
    listener.open();
    drop(backend);
    assert_eq!(connection.get("/ready").await.status, 200);

    server.ctx.readiness.drain();
    assert_eq!(connection.get("/ready").await.body, "not ready: draining\n");
    assert_eq!(connection.get("/live").await.status, 200);
}

#[tokio::test(start_paused = true)]
async fn a_head_that_trickles_in_is_cut_off() {
    let server = Server::start(Scope::Full, None).await;
    let begun = Instant::now();
    let mut connection = server.connect().await;
    // Every byte comes well within the limit; together they do not.
    for byte in b"GET /live HTTP/1.1\r\nX-Slow: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaa" {
        if connection.0.write_all(&[*byte]).await.is_err() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    connection.ends().await;
    let took = begun.elapsed();
    assert!(took >= serve::HEAD_TIMEOUT, "{took:?}");

    // One that says nothing at all goes as well.
    let begun = Instant::now();
    let mut silent = server.connect().await;
    silent.ends().await;
    let took = begun.elapsed();
    assert!(
        took >= serve::HEAD_TIMEOUT && took < 2 * serve::HEAD_TIMEOUT,
        "{took:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn silent_connections_delay_others_only_until_they_time_out() {
    let server = Server::start(Scope::Full, None).await;
    let mut silent = Vec::new();
    for _ in 0..serve::MAX_CONNECTIONS {
        silent.push(server.connect().await);
    }
    let begun = Instant::now();
    let reply = server.connect().await.get("/live").await;
    assert_eq!(reply.status, 200);
    assert!(
        begun.elapsed() >= Duration::from_secs(5),
        "one more than the limit was served at once"
    );
    drop(silent);
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_never_reads_is_cut_off() {
    let server = Server::start_with(Fixed {
        settings: Some(Value::from("x".repeat(32 << 20))),
        ..Fixed::default()
    })
    .await;
    let mut connection = server.connect().await;
    connection
        .write("GET /api/v1/settings HTTP/1.1\r\nHost: localhost\r\n\r\n")
        .await;
    tokio::time::sleep(2 * serve::MAX_AGE).await;
    let mut received = Vec::new();
    let _ = connection.0.read_to_end(&mut received).await;
    assert!(!received.is_empty() && received.len() < 32 << 20);
}

#[tokio::test]
async fn shutdown_lets_a_request_in_flight_finish() {
    let (release, held) = mpsc::channel();
    let (enter, mut entered) = tokio::sync::mpsc::unbounded_channel();
    let gate = Gate {
        enter,
        held: Mutex::new(held),
    };
    let server = Server::start_with(Fixed {
        gate: Some(gate),
        ..Fixed::default()
    })
    .await;
    let mut idle = server.connect().await;
    assert_eq!(idle.get("/live").await.status, 200);
    let mut busy = server.connect().await;
    busy.write("GET /api/v1/clients HTTP/1.1\r\nHost: localhost\r\n\r\n")
        .await;
    entered.recv().await.unwrap();

    server.shutdown.cancel();
    idle.ends().await;
    assert!(
        TcpStream::connect(server.address).await.is_err(),
        "the listener is closed"
    );
    assert!(!server.task.is_finished());
    release.send(()).unwrap();
    assert_eq!(busy.read(false).await.status, 200);
    timeout(DEADLINE, server.task).await.unwrap().unwrap();
}

/// For what happens at once unless it never does.
const DEADLINE: Duration = Duration::from_secs(60);

/// Sources that never change; `clients` stops at the gate where there is one.
#[derive(Default)]
struct Fixed {
    gate: Option<Gate>,
    settings: Option<Value>,
}

struct Gate {
    enter: tokio::sync::mpsc::UnboundedSender<()>,
    held: Mutex<mpsc::Receiver<()>>,
}

impl Sources for Fixed {
    fn clients(&self) -> Vec<ClientSnapshot> {
        if let Some(gate) = &self.gate {
            gate.enter.send(()).unwrap();
            gate.held.lock().recv().unwrap();
        }
        vec![ClientSnapshot {
            id: 1 << 31,
            user: Text::from("app"),
            database: Some(Text::from("shop")),
            program_name: Some(Text::from(&b"<script>\xff"[..])),
            source: Text::from("10.0.0.7"),
            tls: true,
            state: ClientState::InTransaction,
            pin_reason: Some(PinReason::LockTables),
            connected_seconds: 12.5,
            idle_seconds: 0.25,
            commands: 7,
            backend_connection_id: Some(41),
        }]
    }

    fn pools(&self) -> Vec<PoolSnapshot> {
        vec![PoolSnapshot {
            backend: "db:3306".to_owned(),
            user: Text::from("app"),
            idle: 1,
            borrowed: 2,
            dialing: 0,
            waiters: 3,
            oldest_waiter_seconds: Some(0.5),
            max_connections: 90,
        }]
    }

    fn backends(&self) -> Vec<BackendSnapshot> {
        vec![BackendSnapshot {
            address: "db:3306".to_owned(),
            role: BackendRole::Writer,
            up: false,
            state: Some("down"),
            state_seconds: Some(4.0),
            replication: Some("running"),
            replication_lag_seconds: None,
            server_version: Some(Text::from("10.11.19-MariaDB")),
            max_connections: Some(151),
            wait_timeout_seconds: Some(28_800),
            last_error: Some(Text::from("refused")),
            last_error_seconds: Some(3.0),
        }]
    }

    fn settings(&self) -> Value {
        self.settings
            .clone()
            .unwrap_or_else(|| json!({"pool": {"min_idle": 0}}))
    }
}

/// A served listener.
struct Server {
    address: SocketAddr,
    ctx: Arc<AdminContext>,
    shutdown: CancellationToken,
    task: JoinHandle<()>,
}

impl Server {
    async fn start(scope: Scope, token: Option<&str>) -> Self {
        Self::bind("127.0.0.1:0", scope, token).await
    }

    async fn bind(address: &str, scope: Scope, token: Option<&str>) -> Self {
        Self::run(address, scope, token, Fixed::default()).await
    }

    async fn start_with(sources: Fixed) -> Self {
        Self::run("127.0.0.1:0", Scope::Full, None, sources).await
    }

    async fn run(address: &str, scope: Scope, token: Option<&str>, sources: Fixed) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let ctx = Arc::new(AdminContext {
            metrics: Arc::new(Metrics::new()),
            readiness: Readiness::new(),
            sources: Arc::new(sources),
            token: token.map(|t| Token::parse(t).unwrap()),
        });
        let shutdown = CancellationToken::new();
        let task = tokio::spawn(serve(listener, Arc::clone(&ctx), scope, shutdown.clone()));
        Self {
            address: SocketAddr::from(([127, 0, 0, 1], port)),
            ctx,
            shutdown,
            task,
        }
    }

    async fn connect(&self) -> Connection {
        Connection(TcpStream::connect(self.address).await.unwrap())
    }
}

/// A client's connection; requests go one after another.
struct Connection(TcpStream);

struct Response {
    status: u16,
    head: String,
    body: String,
}

impl Connection {
    async fn get(&mut self, path: &str) -> Response {
        self.send(
            &format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n"),
            false,
        )
        .await
    }

    async fn get_with(&mut self, path: &str, header: &str) -> Response {
        self.send(
            &format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n{header}\r\n\r\n"),
            false,
        )
        .await
    }

    async fn send(&mut self, request: &str, head_only: bool) -> Response {
        self.write(request).await;
        self.read(head_only).await
    }

    async fn write(&mut self, request: &str) {
        self.0.write_all(request.as_bytes()).await.unwrap();
    }

    async fn read(&mut self, head_only: bool) -> Response {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(self.0.read_u8().await.unwrap());
        }
        let head = String::from_utf8(head).unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        let mut response = Response {
            status,
            head,
            body: String::new(),
        };
        if !head_only {
            let length = response.header("content-length").unwrap().parse().unwrap();
            let mut body = vec![0; length];
            self.0.read_exact(&mut body).await.unwrap();
            response.body = String::from_utf8(body).unwrap();
        }
        response
    }

    /// Waits until the server has closed the connection.
    async fn ends(&mut self) {
        let mut rest = Vec::new();
        let _ = timeout(DEADLINE, self.0.read_to_end(&mut rest))
            .await
            .expect("still open");
    }
}

impl Response {
    fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (key, value) = line.split_once(": ")?;
            key.eq_ignore_ascii_case(name).then_some(value)
        })
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }
}
