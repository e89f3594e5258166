//! How much memory the bytes of a reply cost: extensions of replies that `UnsentReplies` reads.

use std::sync::{Arc, Mutex};

use axum::Extension;
use axum::http::HeaderValue;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use tokio::sync::{OnceCell, OwnedSemaphorePermit};

use crate::mutex::lock;

/// Most bytes of a reply that counts as small.
pub const SMALL: usize = 16 * 1024;

/// An extension of a reply whose bytes cost no memory of their own: they are a part of the program, or exist once for all replies.
#[derive(Debug, Clone, Copy)]
pub struct StaticBytes;

/// Bytes that several replies can share. As an extension of each of them, it makes the bytes count once.
#[derive(Debug, Clone)]
pub struct SharedBytes(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    bytes: Bytes,
    size: usize,
    /// Permit under which the bytes were made. Held until the bytes are counted.
    making: Mutex<Option<OwnedSemaphorePermit>>,
    /// Counts the bytes.
    counted: OnceCell<Option<OwnedSemaphorePermit>>,
}

impl SharedBytes {
    /// Bytes that were made under this permit. Small ones release it at once, others when they are counted or dropped.
    pub(crate) fn new(bytes: Bytes, making: OwnedSemaphorePermit) -> Self {
        Self(Arc::new(Inner {
            size: bytes.len(),
            making: Mutex::new((bytes.len() > SMALL).then_some(making)),
            bytes,
            counted: OnceCell::new(),
        }))
    }

    /// The bytes of a body that belongs to one reply.
    pub(crate) fn of_size(size: usize) -> Self {
        Self(Arc::new(Inner {
            bytes: Bytes::new(),
            size,
            making: Mutex::default(),
            counted: OnceCell::new(),
        }))
    }

    /// The bytes.
    pub fn bytes(&self) -> Bytes {
        self.0.bytes.clone()
    }

    pub(crate) fn size(&self) -> usize {
        self.0.size
    }

    /// The size divided by the number of replies that share the bytes.
    pub(crate) fn size_per_reply(&self) -> usize {
        self.0.size.div_ceil(Arc::strong_count(&self.0))
    }

    /// Counts the bytes with the permit that `acquire` gives, unless they are counted.
    pub(crate) async fn count(&self, acquire: impl Future<Output = Option<OwnedSemaphorePermit>>) {
        self.0.counted.get_or_init(async || acquire.await).await;
        lock(&self.0.making).take();
    }
}

impl IntoResponse for SharedBytes {
    /// A reply with these bytes, which are JSON.
    fn into_response(self) -> Response {
        let json = [(CONTENT_TYPE, HeaderValue::from_static("application/json"))];
        let bytes = self.bytes();
        (json, Extension(self), bytes).into_response()
    }
}
