//! Tenants: who may borrow nodes.

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};

use crate::Action;

/// What stands in a reply in place of a secret.
pub const HIDDEN: &str = "**********";

/// Declares a tenant as replies show it, with what one kind of reply has besides. (Not by
/// `flatten`: a flattened struct loses the place of an error.)
macro_rules! tenant {
    ($(#[$doc:meta])* $name:ident as $schema:ident { $($(#[$field_doc:meta])* $field:ident: $type:ty,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
        #[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(as = $schema))]
        pub struct $name {
            /// When it was retired; `null` while it may borrow.
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
            /// SSH public keys that are put on its nodes; hidden, save in the reply to its
            /// creation.
            pub ssh_key: String,
            /// How many nodes it may hold at once; `null` for the default.
            pub node_quota: Option<i64>,
            /// How long a session lasts at first, in seconds; `null` for the default.
            #[serde(
                serialize_with = "crate::duration::serialize_optional",
                deserialize_with = "crate::duration::deserialize_optional"
            )]
            #[cfg_attr(feature = "openapi", schema(value_type = Option<f64>))]
            pub session_lifetime: Option<TimeDelta>,
            /// How long a session can last, in seconds; `null` for the default.
            #[serde(
                serialize_with = "crate::duration::serialize_optional",
                deserialize_with = "crate::duration::deserialize_optional"
            )]
            #[cfg_attr(feature = "openapi", schema(value_type = Option<f64>))]
            pub session_lifetime_max: Option<TimeDelta>,
            /// Number of the tenant.
            pub id: i64,
            /// How many nodes it may hold at once, the default applied.
            pub effective_node_quota: i64,
            /// How long a session lasts at first, in seconds, the default applied.
            #[serde(
                serialize_with = "crate::duration::serialize_float",
                deserialize_with = "crate::duration::deserialize_float"
            )]
            #[cfg_attr(feature = "openapi", schema(value_type = f64))]
            pub effective_session_lifetime: TimeDelta,
            /// How long a session can last, in seconds, the default applied.
            #[serde(
                serialize_with = "crate::duration::serialize_float",
                deserialize_with = "crate::duration::deserialize_float"
            )]
            #[cfg_attr(feature = "openapi", schema(value_type = f64))]
            pub effective_session_lifetime_max: TimeDelta,
            $($(#[$field_doc])* pub $field: $type,)*
        }

        impl $name {
            /// Adds to a tenant what this reply has besides.
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
    /// A tenant that was just created: its keys are shown this once.
    TenantCreated as TenantCreateResultModel {
        /// The key to authenticate with; it is stored as a hash and never shown again.
        api_key: String,
    }
}

tenant! {
    /// A tenant that was just changed.
    TenantUpdated as TenantUpdateResultModel {
        /// The new key when it was reset; hidden otherwise; `null` when the tenant was
        /// (un)retired.
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

/// Asks for a tenant to be created.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TenantCreate {
    /// Unique name.
    pub name: String,
    /// Whether it may manage tenants and nodes, and act for others.
    pub is_admin: bool,
    /// SSH public keys, a line each.
    pub ssh_key: String,
    /// How many nodes it may hold at once, at least 1; `None` for the default.
    pub node_quota: Option<i64>,
    /// How long a session lasts at first; `None` for the default.
    pub session_lifetime: Option<TimeDelta>,
    /// How long a session can last; `None` for the default.
    pub session_lifetime_max: Option<TimeDelta>,
}

/// Asks for a tenant to be changed. The outer `None` leaves a member as it is.
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

/// What becomes of an API key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ApiKeyUpdate {
    /// A new one is made and shown once.
    Reset,
    /// This one is set: a UUID in its canonical form.
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
