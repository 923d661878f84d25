//! Servers that speak MySQL's protocol and are none: what they do not understand must never end in an answer
//! that Sidepool made up.

use std::io;

use opensrv_mysql::{
    AsyncMysqlIntermediary, AsyncMysqlShim, ErrorKind, OkResponse, ParamParser, QueryResultWriter,
    StatementMetaWriter,
};
use tokio::io::AsyncWrite;
use tokio::net::TcpListener;

use crate::support::sidepool::Sidepool;
use crate::support::wire::{Login, Wire};

/// What a scripted server says to every statement.
#[derive(Debug, Clone, Copy)]
enum Answers {
    /// OK without rows, as servers do that know only the protocol.
    Ok,
    /// A syntax error.
    Error,
}

struct Scripted(Answers);

#[async_trait::async_trait]
impl<W: AsyncWrite + Send + Unpin> AsyncMysqlShim<W> for Scripted {
    type Error = io::Error;

    async fn on_prepare<'a>(
        &'a mut self,
        _: &'a str,
        info: StatementMetaWriter<'a, W>,
    ) -> io::Result<()> {
        info.reply(1, &[], &[]).await
    }

    async fn on_execute<'a>(
        &'a mut self,
        _: u32,
        _: ParamParser<'a>,
        results: QueryResultWriter<'a, W>,
    ) -> io::Result<()> {
        results.completed(OkResponse::default()).await
    }

    async fn on_close(&mut self, _: u32) {}

    async fn on_query<'a>(
        &'a mut self,
        _: &'a str,
        results: QueryResultWriter<'a, W>,
    ) -> io::Result<()> {
        match self.0 {
            Answers::Ok => results.completed(OkResponse::default()).await,
            Answers::Error => results.error(ErrorKind::ER_PARSE_ERROR, b"scripted").await,
        }
    }
}

/// `host:port` of a scripted server, which runs until the test ends.
async fn serve(answers: Answers) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (reader, writer) = stream.into_split();
            tokio::spawn(AsyncMysqlIntermediary::run_on(
                Scripted(answers),
                reader,
                writer,
            ));
        }
    });
    address
}

/// Sidepool in front of it, and what a client's login gets.
async fn login_through(answers: Answers) -> (Sidepool, u16, String) {
    let server = serve(answers).await;
    let settings = [
        ("SIDEPOOL_POOL__BORROW_TIMEOUT", "2s"),
        ("SIDEPOOL_BACKEND__ALLOW_PUBLIC_KEY_RETRIEVAL", "true"),
    ];
    let sidepool = tokio::task::spawn_blocking(move || {
        let sidepool = Sidepool::launch(&server, &settings);
        sidepool.wait_ready();
        sidepool
    })
    .await
    .unwrap();
    let address = sidepool.address();
    let refused = Wire::connect(&Login::to(&address)).await.err().unwrap();
    assert!(!sidepool.log().contains("panicked"), "{}", sidepool.log());
    (sidepool, refused.code, refused.message.clone())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_says_ok_to_everything_is_not_believed() {
    let (_sidepool, code, message) = login_through(Answers::Ok).await;
    assert_eq!(code, 1105);
    assert!(message.contains("returned no row"), "{message}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_knows_no_variables_is_refused_with_its_own_error() {
    let (_sidepool, code, message) = login_through(Answers::Error).await;
    assert_eq!(code, 1105);
    assert!(message.ends_with("1064 (42000): scripted"), "{message}");
}
