//! Wire types of Duffy's API: requests, replies, errors.
//!
//! The server, the client and the legacy proxy share these types, so that each reads what the
//! others write. Fields are in the order of the wire format. Nothing here does IO.

mod datetime;
pub mod duration;
mod error;
mod event;
mod node;
mod pool;
mod session;
mod tenant;

pub use error::{Detail, ErrorReply, FieldError, Loc};
pub use event::{Event, EventResultCollection};
pub use node::{
    Node, NodeCreate, NodeResult, NodeResultCollection, NodeState, SessionNode, UnknownNodeState,
};
pub use pool::{
    Pool, PoolConcise, PoolDrained, PoolFailing, PoolLevels, PoolResult, PoolResultCollection,
};
pub use session::{
    NodesSpec, Session, SessionCreate, SessionResult, SessionResultCollection, SessionUpdate,
};
pub use tenant::{
    ApiKeyUpdate, HIDDEN, Tenant, TenantCreate, TenantCreateResult, TenantCreated, TenantResult,
    TenantResultCollection, TenantUpdate, TenantUpdateResult, TenantUpdated,
};

use serde::{Deserialize, Serialize};

/// What a request did, as in each reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(as = APIResultAction))]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// Something was read.
    Get,
    /// Something was created.
    Post,
    /// Something was changed.
    Put,
}
