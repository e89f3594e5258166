//! What replies consist of, as far as the budget of bytes needs to know.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use tokio::sync::{OnceCell, OwnedSemaphorePermit};

use crate::outgoing::SMALL;

/// An extension of a reply whose bytes are part of the program or shared by all replies: they take no memory of its own.
#[derive(Debug, Clone, Copy)]
pub struct Fixed;

/// Bytes that several replies can share; an extension of each of them. They count once.
#[derive(Debug, Clone)]
pub struct Content(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    bytes: Bytes,
    size: usize,
    /// Held until the bytes have room.
    making: Mutex<Option<OwnedSemaphorePermit>>,
    room: OnceCell<Option<OwnedSemaphorePermit>>,
}

impl Content {
    /// Bytes that were made under this permit. Small ones give it back at once, others when they have room or are dropped.
    pub(crate) fn new(bytes: Bytes, making: OwnedSemaphorePermit) -> Self {
        Self(Arc::new(Inner {
            size: bytes.len(),
            making: Mutex::new((bytes.len() > SMALL).then_some(making)),
            bytes,
            room: OnceCell::new(),
        }))
    }

    /// So many bytes, which the reply has in its body.
    pub(crate) fn of_size(size: usize) -> Self {
        Self(Arc::new(Inner {
            bytes: Bytes::new(),
            size,
            making: Mutex::default(),
            room: OnceCell::new(),
        }))
    }

    /// The bytes.
    pub fn bytes(&self) -> Bytes {
        self.0.bytes.clone()
    }

    pub(crate) fn size(&self) -> usize {
        self.0.size
    }

    /// How many bytes are free when one of its replies is gone, on an average.
    pub(crate) fn share(&self) -> usize {
        self.0.size.div_ceil(Arc::strong_count(&self.0))
    }

    /// Takes the room that comes, unless it has room.
    pub(crate) async fn keep_room(&self, room: impl Future<Output = Option<OwnedSemaphorePermit>>) {
        self.0.room.get_or_init(async || room.await).await;
        let making = &self.0.making;
        making.lock().unwrap_or_else(PoisonError::into_inner).take();
    }
}
