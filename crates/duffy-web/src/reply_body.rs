//! A reply's body. It is sent in chunks, so that the server notices whether the client reads.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};

use crate::unsent_replies::SendPermit;

/// Most bytes of a chunk. A client that reads less than this within `Limits::idle` makes no progress.
pub const CHUNK: usize = 16 * 1024;

/// A reply's body.
#[derive(Debug)]
pub struct ReplyBody {
    body: axum::body::Body,
    rest: Bytes,
    permit: Arc<SendPermit>,
}

impl ReplyBody {
    /// A body that holds its permit until all chunks are sent.
    pub fn new(body: axum::body::Body, permit: SendPermit) -> Self {
        Self {
            body,
            rest: Bytes::new(),
            permit: Arc::new(permit),
        }
    }

    fn next_chunk(&mut self) -> Bytes {
        let length = self.rest.len().min(CHUNK);
        Bytes::from_owner(Chunk {
            bytes: self.rest.split_to(length),
            permit: Arc::clone(&self.permit),
        })
    }
}

impl Body for ReplyBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        while self.rest.is_empty() {
            let Some(frame) = ready!(Pin::new(&mut self.body).poll_frame(cx)?) else {
                return Poll::Ready(None);
            };
            match frame.into_data() {
                Ok(data) => self.rest = data,
                Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
            }
        }
        Poll::Ready(Some(Ok(Frame::data(self.next_chunk()))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let rest = self.rest.len() as u64;
        let mut hint = self.body.size_hint();
        if let Some(upper) = hint.upper() {
            hint.set_upper(upper + rest);
        }
        hint.set_lower(hint.lower() + rest);
        hint
    }
}

/// Bytes that the kernel has not accepted yet. hyper drops them when it has.
#[derive(Debug)]
struct Chunk {
    bytes: Bytes,
    permit: Arc<SendPermit>,
}

impl AsRef<[u8]> for Chunk {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Chunk {
    fn drop(&mut self) {
        self.permit.note_progress();
    }
}
