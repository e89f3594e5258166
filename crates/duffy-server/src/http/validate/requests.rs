//! The members of each request, and what is read from the path and the query.

use std::ops::RangeInclusive;

use duffy_api::{
    ApiKeyUpdate, Loc, NodeCreate, NodesSpec, SessionCreate, TenantCreate, TenantUpdate,
};
use serde_json::{Map, Value};

use super::body::Form;
use super::datetime::datetime;
use super::errors::{NOT_A_DICT, NOT_FINITE, Read, forbidden};
use super::fields::{Object, collect, either, list};
use super::json::Json;
use super::scalars::{
    address, boolean, integer, integer_between, lifetime, literal, offset, quota, row_id, ssh_keys,
    text, uuid,
};
use crate::lifecycle::rules::NewExpiry;
use crate::lifecycle::sessions::SessionChange;

/// Reads the number of a row from the path. `None` is a number that no row can have.
pub fn path_id(text: &str) -> Read<Option<i64>> {
    let number = integer(&Json::Text(text.to_owned()));
    let number = number.map_err(|errors| errors.within("id").within("path"));
    Ok(i64::try_from(number?).ok())
}

/// Reads a parameter of the query that is a number in a range.
pub fn query_number(name: &str, text: &str, range: RangeInclusive<i64>) -> Read<i64> {
    let number = integer_between(&Json::Text(text.to_owned()), range);
    number.map_err(|errors| errors.within(name).within("query"))
}

/// What a `PUT` on a tenant asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TenantChange {
    /// New keys, quota or lifetimes.
    Update(TenantUpdate),
    /// Retire it (`false`), or reactivate it (`true`).
    SetActive(bool),
}

impl Form for SessionCreate {
    fn read(value: &Json) -> Read<Self> {
        let mut object = Object::new(value)?;
        let create = Self {
            tenant_id: object.optional("tenant_id", row_id),
            nodes_specs: object.required("nodes_specs", |specs| list(specs, nodes_spec)),
        };
        object.finish(create)
    }
}

fn nodes_spec(value: &Json) -> Read<NodesSpec> {
    let mut object = Object::new(value)?;
    let spec = NodesSpec {
        quantity: object.required("quantity", |value| integer_between(value, 1..=u32::MAX)),
        pool: object.required("pool", text),
    };
    object.finish(spec)
}

impl Form for SessionChange {
    fn read(value: &Json) -> Read<Self> {
        let mut object = Object::new(value)?;
        let change = Self {
            active: object.optional("active", boolean),
            expires_at: object.optional("expires_at", new_expiry),
        };
        object.finish(change)
    }
}

/// A point of time or an offset.
fn new_expiry(value: &Json) -> Read<NewExpiry> {
    let at = |value: &Json| datetime(value).map(NewExpiry::At);
    let by = |value: &Json| offset(value).map(NewExpiry::By);
    either(value, ("datetime", at), ("function-wrap[validate()]", by))
}

impl Form for TenantCreate {
    fn read(value: &Json) -> Read<Self> {
        let mut object = Object::new(value)?;
        let create = Self {
            name: object.required("name", text),
            is_admin: object.optional("is_admin", boolean).unwrap_or(false),
            ssh_key: object.required("ssh_key", ssh_keys),
            node_quota: object.optional("node_quota", quota),
            session_lifetime: object.optional("session_lifetime", lifetime),
            session_lifetime_max: object.optional("session_lifetime_max", lifetime),
        };
        object.finish(create)
    }
}

const UPDATABLE: [&str; 5] = [
    "ssh_key",
    "api_key",
    "node_quota",
    "session_lifetime",
    "session_lifetime_max",
];

impl Form for TenantChange {
    fn read(value: &Json) -> Read<Self> {
        if suits_retiring_better(value) {
            return set_active(value);
        }
        either(
            value,
            ("TenantUpdateModel", tenant_update),
            ("TenantRetireModel", set_active),
        )
    }
}

/// Whether a body with the members of both forms is not an update. It is the form of which it has
/// more members. With one member of each, it is the form that needs no coercion, otherwise an
/// update.
fn suits_retiring_better(body: &Json) -> bool {
    let present = UPDATABLE.map(|name| Some((name, body.member(name)?)));
    let coerced = match present.iter().flatten().collect::<Vec<_>>()[..] {
        [("node_quota", value)] => !matches!(value, Json::Int(_) | Json::Null),
        [("api_key", Json::Text(key))] => key != "reset",
        _ => false,
    };
    coerced && matches!(body.member("active"), Some(Json::Bool(_)))
}

fn set_active(value: &Json) -> Read<TenantChange> {
    let mut object = Object::new(value)?;
    let active = object.required("active", boolean);
    object.finish(TenantChange::SetActive(active))
}

fn tenant_update(value: &Json) -> Read<TenantChange> {
    // The original looks for the names before it checks that the body is an object.
    let names_one = UPDATABLE.iter().any(|name| match value {
        Json::Object(_) => value.member(name).is_some(),
        Json::Text(text) => text.contains(name),
        Json::List(items) => items
            .iter()
            .any(|item| matches!(item, Json::Text(text) if text == name)),
        _ => true,
    });
    if !names_one {
        let why = format!("one of {} is required", UPDATABLE.join(", "));
        return Err(forbidden(why).of(value));
    }
    let mut object = Object::new(value)?;
    let update = TenantUpdate {
        // An empty text leaves the keys as they are.
        ssh_key: object
            .optional("ssh_key", ssh_keys)
            .filter(|keys| !keys.is_empty()),
        api_key: object.optional("api_key", api_key),
        node_quota: object.nullable("node_quota", quota),
        session_lifetime: object.nullable("session_lifetime", lifetime),
        session_lifetime_max: object.nullable("session_lifetime_max", lifetime),
    };
    object.finish(TenantChange::Update(update))
}

fn api_key(value: &Json) -> Read<ApiKeyUpdate> {
    let set = |value: &Json| uuid(value).map(ApiKeyUpdate::Set);
    let reset = |value: &Json| literal(value, "reset").map(|()| ApiKeyUpdate::Reset);
    either(value, ("uuid", set), ("literal['reset']", reset))
}

impl Form for NodeCreate {
    fn read(value: &Json) -> Read<Self> {
        let mut object = Object::new(value)?;
        let create = Self {
            hostname: object.required("hostname", text),
            ipaddr: object.required("ipaddr", address),
            comment: object.optional("comment", text),
            pool: object.optional("pool", text),
            reusable: object.given("reusable", boolean).unwrap_or(true),
            data: object.given("data", free_members).unwrap_or_default(),
        };
        object.finish(create)
    }
}

/// An object of any members that can be stored.
fn free_members(value: &Json) -> Read<Map<String, Value>> {
    let Value::Object(members) = value.into() else {
        return Err(NOT_A_DICT.of(value));
    };
    storable(value)?;
    Ok(members)
}

/// Refuses what JSON in a database cannot hold: NUL characters, `NaN` and infinities.
fn storable(value: &Json) -> Read<()> {
    match value {
        Json::Text(_) | Json::BrokenText(_) => text(value).map(drop),
        Json::Float(number) if !number.is_finite() => Err(NOT_FINITE.of(value)),
        Json::List(_) => list(value, storable).map(drop),
        Json::Object(members) => {
            let members = members.iter().map(|(name, value)| {
                let member = text(&Json::Text(name.clone())).and_then(|_| storable(value));
                (Loc::Name(name.clone()), member)
            });
            collect(members).map(drop)
        }
        Json::Null | Json::Bool(_) | Json::Int(_) | Json::BigInt(_) | Json::Float(_) => Ok(()),
    }
}
