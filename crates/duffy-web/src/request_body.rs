//! A request's body. It records whether the server waits for the client to send it.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};

use crate::activity::{Activity, WaitingRequest};

/// A request's body.
#[derive(Debug)]
pub struct RequestBody {
    body: Incoming,
    activity: Arc<Activity>,
    /// From the first part that is late to the end of the body.
    waiting: Option<WaitingRequest>,
    ended: bool,
}

impl RequestBody {
    /// A body of a request on the connection with this activity.
    pub fn new(body: Incoming, activity: &Arc<Activity>) -> Self {
        Self {
            body,
            activity: Arc::clone(activity),
            waiting: None,
            ended: false,
        }
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        match &polled {
            Poll::Pending if self.waiting.is_none() => {
                self.waiting = Some(WaitingRequest::begin(&self.activity));
            }
            Poll::Ready(None | Some(Err(_))) => {
                self.ended = true;
                self.waiting = None;
            }
            _ => {}
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for RequestBody {
    fn drop(&mut self) {
        if !self.ended && !self.body.is_end_stream() {
            self.activity.leave_unread();
        }
    }
}
