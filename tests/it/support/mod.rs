//! What integration tests share: private servers, a packet-level client, Sidepool in process.

pub mod answers;
pub mod clients;
pub mod servers;
pub mod sidepool;
mod tls;
pub mod wire;

use std::time::{Duration, Instant};

/// Waits until `condition` holds; fails the test after ten seconds.
pub async fn eventually<F: AsyncFnMut() -> bool>(what: &str, mut condition: F) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !condition().await {
        assert!(Instant::now() < deadline, "never came true: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
