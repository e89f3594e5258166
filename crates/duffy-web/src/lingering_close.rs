//! Closes a connection so that its client receives the reply.
//!
//! The kernel resets a connection that is closed while received bytes are unread, and the client loses the reply. So the
//! server reads and discards what the client still sends, for a limited time.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Longest time to read from a client that goes on sending.
const LONGEST: Duration = Duration::from_secs(5);

/// Longest time to wait for a client that sends nothing.
const SILENCE: Duration = Duration::from_secs(1);

/// Shuts down the sending side, then discards what is received, for a limited time.
pub async fn close(stream: &mut TcpStream) {
    let discard = async {
        stream.shutdown().await?;
        let mut buffer = vec![0; 8 * 1024];
        while tokio::time::timeout(SILENCE, stream.read(&mut buffer)).await?? > 0 {}
        io::Result::Ok(())
    };
    if let Ok(Err(error)) = tokio::time::timeout(LONGEST, discard).await {
        tracing::trace!(%error, "a client did not close its connection");
    }
}
