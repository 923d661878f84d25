//! What it costs to relay one answer, in both framings, over streams in memory (no system calls).

#![allow(missing_docs, reason = "criterion's macros")]
#![allow(clippy::expect_used, reason = "a bench that cannot run shall say so")]

use std::hint::black_box;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use sidepool::protocol::command::ResponseShape;
use sidepool::protocol::packet::put_packet;
use sidepool::protocol::reply::{StatusFlags, TextColumn, TextResultSet, put_eof};
use sidepool::protocol::response::Framing;
use sidepool::relay::{Conn, Request, TrackerFilter, relay};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A backend whose answer is there, or a client that takes everything.
#[derive(Default)]
struct Memory {
    bytes: Vec<u8>,
    at: usize,
    taken: usize,
}

impl AsyncRead for Memory {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let rest = &self.bytes[self.at..];
        if rest.is_empty() {
            return Poll::Pending;
        }
        let len = rest.len().min(buf.remaining());
        buf.put_slice(&rest[..len]);
        self.at += len;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Memory {
    fn poll_write(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.taken += black_box(buf).len();
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// A result set as a backend sends it.
fn result_set(columns: usize, rows: usize, value: &[u8]) -> Vec<u8> {
    let mut out = BytesMut::new();
    let column = TextColumn::text("name");
    let columns = vec![column; columns];
    let mut set = TextResultSet::begin(&mut out, 1, true, StatusFlags(2), &columns);
    for _ in 0..rows {
        set.row(&mut out, columns.iter().map(|_| Some(value)));
    }
    set.end(&mut out, 0);
    out.to_vec()
}

fn time(iterations: u64, answer: &[u8], client: Framing, own: u16) -> Duration {
    let filter = TrackerFilter::default();
    let request = Request {
        shape: ResponseShape::Query,
        own,
        client,
        backend: Framing::MODERN,
        filter: &filter,
        first_seq: 1,
        status: StatusFlags(2),
        statement: None,
        ahead: 0,
    };
    let mut application = Conn::new(Memory::default());
    let mut backend = Conn::new(Memory {
        bytes: answer.to_vec(),
        ..Memory::default()
    });
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("a runtime without drivers");
    runtime.block_on(async {
        let begin = Instant::now();
        for _ in 0..iterations {
            backend.stream.at = 0;
            let answer = relay(&mut application, &mut backend, request).await;
            black_box(answer.expect("a well-formed answer"));
        }
        begin.elapsed()
    })
}

fn bench(criterion: &mut Criterion) {
    let mut ok = BytesMut::new();
    put_packet(&mut ok, 1, b"\0\x01\0\x02\0\0\0");
    let mut tracked = BytesMut::new();
    put_packet(
        &mut tracked,
        1,
        b"\0\x01\0\x03\x40\0\0\0\x0b\x05\x09\x08T_R_W_S_",
    );
    let mut replayed = ok.to_vec();
    replayed.extend_from_slice(&result_set(1, 1, b"12"));
    let mut set_option = BytesMut::new();
    put_eof(&mut set_option, 1, true, StatusFlags(2), 0);
    let answers = [
        ("ok", ok.to_vec(), 0),
        ("ok tracked", tracked.to_vec(), 0),
        ("1 column 1 row", result_set(1, 1, b"12"), 0),
        ("1 column 1 row, 1 own", replayed, 1),
        ("4 columns 100 rows", result_set(4, 100, b"some text"), 0),
        ("64 KB of short rows", result_set(1, 5_500, b"a word"), 0),
        (
            "16 MB of long rows",
            result_set(1, 16_000, &[b'x'; 1000]),
            0,
        ),
    ];
    let mut group = criterion.benchmark_group("relay");
    for (name, answer, own) in &answers {
        group.throughput(Throughput::Bytes(answer.len() as u64));
        for (framing, client) in [("modern", Framing::MODERN), ("classic", Framing::CLASSIC)] {
            group.bench_function(BenchmarkId::new(*name, framing), |bencher| {
                bencher.iter_custom(|iterations| time(iterations, answer, client, *own));
            });
        }
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1));
    targets = bench
}
criterion_main!(benches);
