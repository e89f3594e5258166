//! A reply's body. It is sent in pieces, so that it shows whether its client reads.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};

use crate::outgoing::Unsent;

/// Most bytes of a piece. Who reads less than this within `Limits::idle` makes no progress.
pub const PIECE: usize = 16 * 1024;

/// A reply's body.
#[derive(Debug)]
pub struct ReplyBody<B> {
    body: B,
    rest: Bytes,
    unsent: Arc<Unsent>,
}

impl<B> ReplyBody<B> {
    pub(crate) fn new(body: B, unsent: Unsent) -> Self {
        Self {
            body,
            rest: Bytes::new(),
            unsent: Arc::new(unsent),
        }
    }

    fn next_piece(&mut self) -> Bytes {
        let length = self.rest.len().min(PIECE);
        Bytes::from_owner(Piece {
            bytes: self.rest.split_to(length),
            unsent: Arc::clone(&self.unsent),
        })
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for ReplyBody<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        while self.rest.is_empty() {
            let Some(frame) = ready!(Pin::new(&mut self.body).poll_frame(cx)?) else {
                return Poll::Ready(None);
            };
            match frame.into_data() {
                Ok(data) => self.rest = data,
                Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
            }
        }
        Poll::Ready(Some(Ok(Frame::data(self.next_piece()))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let rest = self.rest.len() as u64;
        let of_body = self.body.size_hint();
        let mut hint = SizeHint::new();
        hint.set_lower(of_body.lower() + rest);
        if let Some(upper) = of_body.upper() {
            hint.set_upper(upper + rest);
        }
        hint
    }
}

/// Bytes on their way to the kernel. They are dropped when it has taken them.
#[derive(Debug)]
struct Piece {
    bytes: Bytes,
    unsent: Arc<Unsent>,
}

impl AsRef<[u8]> for Piece {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        self.unsent.note_progress();
    }
}
