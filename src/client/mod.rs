//! The application side: listeners, TLS, the connection phase, credentials.
//!
//! In the order a connection meets them: [`listener`] accepts it, [`proxy_protocol`] says who it
//! really is, [`connection`] greets it, [`tls`] wraps it, [`authenticate`] hears its password, [`accounts`]
//! decides whether it may come in (slowed by [`throttle`]), and [`change_user`] hears it again when it
//! asks to be someone else.

mod account;
pub mod accounts;
pub mod authenticate;
pub mod change_user;
pub mod connection;
pub mod listener;
pub mod proxy_protocol;
pub mod throttle;
pub mod tls;
mod wire;

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Bytes read and thrown away at most before a refused client's socket is closed.
const DRAIN_MAX: usize = 64 * 1024;

/// Ends the sending side and reads until the client has ended its own. Closing a socket with unread
/// input makes the kernel send a reset, which can overtake the error packet just written.
/// The caller bounds it in time; cancelling it just closes sooner.
async fn drain_to_end(stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) -> io::Result<()> {
    stream.shutdown().await?;
    let mut buf = [0; 1024];
    let mut total = 0;
    while total < DRAIN_MAX {
        match stream.read(&mut buf).await? {
            0 => break,
            n => total += n,
        }
    }
    Ok(())
}
