//! Closes a connection so that its client receives the reply.
//!
//! The kernel resets a connection that is closed while received bytes are unread, and the client loses the reply. So the
//! server reads and discards what the client still sends, for a limited time.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;

/// Longest time to read from a client that goes on sending.
const LONGEST: Duration = Duration::from_secs(5);

/// Longest time to wait for a client that sends nothing.
const SILENCE: Duration = Duration::from_secs(1);

/// Where a dropped [`ReturnOnDrop`] puts its stream.
pub type ReturnSlot = Arc<Mutex<Option<TcpStream>>>;

/// A stream that survives its drop: hyper takes ownership of it, and closing needs it afterwards.
#[derive(Debug)]
pub struct ReturnOnDrop {
    stream: Option<TcpStream>,
    slot: ReturnSlot,
}

impl ReturnOnDrop {
    /// The stream, and the slot that it is put into.
    pub fn new(stream: TcpStream) -> (Self, ReturnSlot) {
        let slot = ReturnSlot::default();
        let this = Self {
            stream: Some(stream),
            slot: Arc::clone(&slot),
        };
        (this, slot)
    }

    fn stream(&mut self) -> io::Result<Pin<&mut TcpStream>> {
        let stream = self.stream.as_mut().map(Pin::new);
        stream.ok_or_else(|| io::ErrorKind::NotConnected.into())
    }
}

impl Drop for ReturnOnDrop {
    fn drop(&mut self) {
        let mut slot = self.slot.lock().unwrap_or_else(PoisonError::into_inner);
        *slot = self.stream.take();
    }
}

/// Closes the stream in the slot: shuts down the sending side, then discards what is received, for a limited time.
pub async fn close(slot: &ReturnSlot) {
    let stream = slot.lock().unwrap_or_else(PoisonError::into_inner).take();
    let Some(mut stream) = stream else { return };
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

impl AsyncRead for ReturnOnDrop {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.stream()?.poll_read(cx, buf)
    }
}

impl AsyncWrite for ReturnOnDrop {
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
