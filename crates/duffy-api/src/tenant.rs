//! Tenants: who can request sessions.

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};

use crate::Action;

/// Replaces a secret in a reply.
pub const HIDDEN: &str = "**********";

/// Declares a tenant as replies show it, with the additional fields of one kind of reply. (Not
/// with `flatten`: errors of a flattened struct do not have a position.)
macro_rules! tenant {
    ($(#[$doc:meta])* $name:ident as $schema:ident { $($(#[$field_doc:meta])* $field:ident: $type:ty,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
        #[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(as = $schema))]
        pub struct $name {
            /// When it was retired; `null` while it is active.
            #[serde(with = "crate::datetime::optional")]
            pub retired_at: Option<DateTime<Utc>>,
            /// Whether it is not retired.
            pub active: bool,
            /// When it was created.
            #[serde(with = "crate::datetime::required")]
            pub created_at: DateTime<Utc>,
            /// Unique name.
            pub name: String,
            /// Whether it may manage tenants and nodes, and act for others.
            pub is_admin: bool,
            /// SSH public keys that are put on its nodes; hidden, except in the reply to its
            /// creation.
            pub ssh_key: String,
            /// Limit of its nodes at a time; `null` for the default.
            pub node_quota: Option<i64>,
            /// Initial lifetime of a session, in seconds; `null` for the default.
            #[serde(with = "crate::duration::optional")]
            #[cfg_attr(feature = "openapi", schema(value_type = Option<f64>))]
            pub session_lifetime: Option<TimeDelta>,
            /// Maximum lifetime of a session, in seconds; `null` for the default.
            #[serde(with = "crate::duration::optional")]
            #[cfg_attr(feature = "openapi", schema(value_type = Option<f64>))]
            pub session_lifetime_max: Option<TimeDelta>,
            /// Number of the tenant.
            pub id: i64,
            /// Limit of its nodes at a time, with the default applied.
            pub effective_node_quota: i64,
            /// Initial lifetime of a session, in seconds, with the default applied.
            #[serde(with = "crate::duration::float")]
            #[cfg_attr(feature = "openapi", schema(value_type = f64))]
            pub effective_session_lifetime: TimeDelta,
            /// Maximum lifetime of a session, in seconds, with the default applied.
            #[serde(with = "crate::duration::float")]
            #[cfg_attr(feature = "openapi", schema(value_type = f64))]
            pub effective_session_lifetime_max: TimeDelta,
            $($(#[$field_doc])* pub $field: $type,)*
        }

        impl $name {
            /// Adds this reply's fields to a tenant.
            pub fn new(tenant: Tenant $(, $field: $type)*) -> Self {
                Self {
                    retired_at: tenant.retired_at,
                    active: tenant.active,
                    created_at: tenant.created_at,
                    name: tenant.name,
                    is_admin: tenant.is_admin,
                    ssh_key: tenant.ssh_key,
                    node_quota: tenant.node_quota,
                    session_lifetime: tenant.session_lifetime,
                    session_lifetime_max: tenant.session_lifetime_max,
                    id: tenant.id,
                    effective_node_quota: tenant.effective_node_quota,
                    effective_session_lifetime: tenant.effective_session_lifetime,
                    effective_session_lifetime_max: tenant.effective_session_lifetime_max,
                    $($field,)*
                }
            }
        }
    };
}

tenant! {
    /// A tenant.
    Tenant as TenantModel {}
}

tenant! {
    /// A tenant that was just created: its keys are shown only this time.
    TenantCreated as TenantCreateResultModel {
        /// The key to authenticate with; it is stored as a hash and never shown again.
        api_key: String,
    }
}

tenant! {
    /// A tenant that was just changed.
    TenantUpdated as TenantUpdateResultModel {
        /// The new key if it was reset, otherwise hidden; `null` if the tenant was retired or
        /// activated.
        api_key: Option<String>,
    }
}

/// The reply to a tenant's creation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TenantCreateResult {
    /// What was done.
    pub action: Action,
    /// The tenant.
    pub tenant: TenantCreated,
}

/// The reply to a tenant's change.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TenantUpdateResult {
    /// What was done.
    pub action: Action,
    /// The tenant.
    pub tenant: TenantUpdated,
}

/// Requests a new tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TenantCreate {
    /// Unique name.
    pub name: String,
    /// Whether it may manage tenants and nodes, and act for others.
    pub is_admin: bool,
    /// SSH public keys, a line each.
    pub ssh_key: String,
    /// Limit of its nodes at a time, at least 1; `None` for the default.
    pub node_quota: Option<i64>,
    /// Initial lifetime of a session; `None` for the default.
    pub session_lifetime: Option<TimeDelta>,
    /// Maximum lifetime of a session; `None` for the default.
    pub session_lifetime_max: Option<TimeDelta>,
}

/// Requests a change of a tenant. The outer `None` leaves a field unchanged.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TenantUpdate {
    /// New SSH public keys.
    pub ssh_key: Option<String>,
    /// New API key.
    pub api_key: Option<ApiKeyUpdate>,
    /// New quota; `Some(None)` for the default.
    pub node_quota: Option<Option<i64>>,
    /// New lifetime; `Some(None)` for the default.
    pub session_lifetime: Option<Option<TimeDelta>>,
    /// New maximum; `Some(None)` for the default.
    pub session_lifetime_max: Option<Option<TimeDelta>>,
}

/// A change of an API key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ApiKeyUpdate {
    /// A new key is made and shown once.
    Reset,
    /// This key is set: a UUID in its canonical form.
    Set(String),
}

/// One tenant.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TenantResult {
    /// What was done.
    pub action: Action,
    /// The tenant.
    pub tenant: Tenant,
}

/// Several tenants.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TenantResultCollection {
    /// What was done.
    pub action: Action,
    /// The tenants.
    pub tenants: Vec<Tenant>,
}
