//! Closing a connection so that its client sees the reply.
//!
//! A socket that is closed with bytes unread is reset, and a reset takes replies away that the
//! client has not fetched. So the rest is read, for a while.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;

/// How long a client that goes on sending is listened to.
const LONGEST: Duration = Duration::from_secs(5);

/// How long one that is silent is waited for.
const SILENCE: Duration = Duration::from_secs(1);

/// Where a stream goes when it is no longer used.
pub type Returned = Arc<Mutex<Option<TcpStream>>>;

/// A stream that is returned to its owner when it is dropped.
#[derive(Debug)]
pub struct Lent {
    stream: Option<TcpStream>,
    owner: Returned,
}

impl Lent {
    /// The stream, and where it comes back to.
    pub fn new(stream: TcpStream) -> (Self, Returned) {
        let owner = Returned::default();
        let lent = Self {
            stream: Some(stream),
            owner: Arc::clone(&owner),
        };
        (lent, owner)
    }

    fn stream(&mut self) -> io::Result<Pin<&mut TcpStream>> {
        let stream = self.stream.as_mut().map(Pin::new);
        stream.ok_or_else(|| io::ErrorKind::NotConnected.into())
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        let mut owner = self.owner.lock().unwrap_or_else(PoisonError::into_inner);
        *owner = self.stream.take();
    }
}

/// Closes a stream that came back: sends what is written, and reads what still comes, for a while.
pub async fn close(returned: &Returned) {
    let stream = returned
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .take();
    let Some(mut stream) = stream else { return };
    let drain = async {
        stream.shutdown().await?;
        let mut waste = vec![0; 8 * 1024];
        while tokio::time::timeout(SILENCE, stream.read(&mut waste)).await?? > 0 {}
        io::Result::Ok(())
    };
    if let Ok(Err(error)) = tokio::time::timeout(LONGEST, drain).await {
        tracing::trace!(%error, "a client did not close its connection");
    }
}

impl AsyncRead for Lent {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.stream()?.poll_read(cx, buf)
    }
}

impl AsyncWrite for Lent {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.stream()?.poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.stream()?.poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream
            .as_ref()
            .is_some_and(AsyncWrite::is_write_vectored)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream()?.poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream()?.poll_shutdown(cx)
    }
}
