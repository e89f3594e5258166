//! Which members each request has.

use chrono::TimeDelta;
use duffy_api::{ApiKeyUpdate, NodeCreate, NodesSpec, SessionCreate, TenantCreate, TenantUpdate};
use serde_json::{Map, Value};

use super::body::Body;
use super::datetime::datetime;
use super::fields::{Errors, Field, Object, Place, Read};
use super::json::Json;
use super::problem::Problem;
use super::scalars;
use crate::lifecycle::rules::NewExpiry;
use crate::lifecycle::sessions::SessionChange;

/// What a `PUT` on a tenant asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TenantChange {
    /// New keys, quota or lifetimes.
    Update(TenantUpdate),
    /// Retire it (`false`), or take it back (`true`).
    SetActive(bool),
}

/// What a body is read as.
pub trait Form: Sized {
    /// Reads the members of a body.
    fn read(body: &Body, errors: &mut Errors) -> Read<Self>;
}

macro_rules! forms {
    ($($form:ty: $read:ident),+) => {
        $(impl Form for $form {
            fn read(body: &Body, errors: &mut Errors) -> Read<Self> {
                $read(body, errors)
            }
        })+
    };
}

forms! {
    SessionCreate: session_create,
    SessionChange: session_change,
    TenantCreate: tenant_create,
    TenantChange: tenant_change,
    NodeCreate: node_create
}

/// A request for a session.
pub fn session_create(body: &Body, errors: &mut Errors) -> Read<SessionCreate> {
    let object = body.field(errors)?.object(errors)?;
    let tenant_id = object.optional("tenant_id", errors, |f, e| f.scalar(e, scalars::row_id));
    let specs = object.required("nodes_specs", errors, |f, e| f.list(e, nodes_spec));
    Ok(SessionCreate {
        tenant_id: tenant_id?,
        nodes_specs: specs?,
    })
}

fn nodes_spec(field: &Field<'_>, errors: &mut Errors) -> Read<NodesSpec> {
    let object = field.object(errors)?;
    let quantity = object.required("quantity", errors, |f, e| f.scalar(e, quantity));
    let pool = object.required("pool", errors, text);
    Ok(NodesSpec {
        quantity: quantity?,
        pool: pool?,
    })
}

fn quantity(value: &Json) -> Result<u32, Problem> {
    let number = scalars::integer_between(value, 1, i64::from(u32::MAX))?;
    u32::try_from(number).map_err(|_| Problem::Above(i64::from(u32::MAX)))
}

fn text(field: &Field<'_>, errors: &mut Errors) -> Read<String> {
    field.scalar(errors, scalars::text)
}

/// A request to change a session.
pub fn session_change(body: &Body, errors: &mut Errors) -> Read<SessionChange> {
    let object = body.field(errors)?.object(errors)?;
    let active = object.optional("active", errors, |f, e| f.scalar(e, scalars::boolean));
    let expires_at = object.optional("expires_at", errors, new_expiry);
    Ok(SessionChange {
        active: active?,
        expires_at: expires_at?,
    })
}

/// A point of time or an offset; when it is neither, both say why.
fn new_expiry(field: &Field<'_>, errors: &mut Errors) -> Read<NewExpiry> {
    let no_time = match datetime(field.value) {
        Ok(time) => return Ok(NewExpiry::At(time)),
        Err(problem) => problem,
    };
    let no_offset = match scalars::offset(field.value) {
        Ok(offset) => return Ok(NewExpiry::By(offset)),
        Err(problem) => problem,
    };
    let input = field.value.to_value();
    errors.add(&field.place.then("datetime"), &no_time, input.clone());
    let place = field.place.then("function-wrap[validate()]");
    Err(errors.add(&place, &no_offset, input))
}

fn lifetime(field: &Field<'_>, errors: &mut Errors) -> Read<TimeDelta> {
    field.scalar(errors, scalars::lifetime)
}

fn quota(field: &Field<'_>, errors: &mut Errors) -> Read<i64> {
    field.scalar(errors, scalars::quota)
}

fn ssh_keys(field: &Field<'_>, errors: &mut Errors) -> Read<String> {
    field.scalar(errors, scalars::ssh_keys)
}

/// A request to create a tenant.
pub fn tenant_create(body: &Body, errors: &mut Errors) -> Read<TenantCreate> {
    let object = body.field(errors)?.object(errors)?;
    let name = object.required("name", errors, text);
    let is_admin = object.optional("is_admin", errors, |f, e| f.scalar(e, scalars::boolean));
    let ssh_key = object.required("ssh_key", errors, ssh_keys);
    let node_quota = object.optional("node_quota", errors, quota);
    let session_lifetime = object.optional("session_lifetime", errors, lifetime);
    let session_lifetime_max = object.optional("session_lifetime_max", errors, lifetime);
    Ok(TenantCreate {
        name: name?,
        is_admin: is_admin?.unwrap_or(false),
        ssh_key: ssh_key?,
        node_quota: node_quota?,
        session_lifetime: session_lifetime?,
        session_lifetime_max: session_lifetime_max?,
    })
}

const UPDATABLE: [&str; 5] = [
    "ssh_key",
    "api_key",
    "node_quota",
    "session_lifetime",
    "session_lifetime_max",
];

/// A request to change a tenant: one of two forms. When it is neither, both say why.
pub fn tenant_change(body: &Body, errors: &mut Errors) -> Read<TenantChange> {
    let field = body.field(errors)?;
    let form = |name: &str| Field {
        value: field.value,
        place: field.place.then(name),
    };
    let mut found = Errors::new();
    let update = tenant_update(&form("TenantUpdateModel"), &mut found);
    let active = form("TenantRetireModel")
        .object(&mut found)
        .and_then(|object| {
            object.required("active", &mut found, |f, e| f.scalar(e, scalars::boolean))
        });
    match (update, active) {
        (Ok(_), Ok(active)) if suits_retiring_better(field.value) => {
            Ok(TenantChange::SetActive(active))
        }
        (Ok(update), _) => Ok(TenantChange::Update(update)),
        (Err(_), Ok(active)) => Ok(TenantChange::SetActive(active)),
        (Err(reported), Err(_)) => {
            errors.append(found);
            Err(reported)
        }
    }
}

/// A body that is both forms is the one of which it has more members; with one of each the one
/// that needed no coercion; otherwise an update.
fn suits_retiring_better(body: &Json) -> bool {
    let present: Vec<&str> = UPDATABLE
        .into_iter()
        .filter(|name| body.member(name).is_some())
        .collect();
    let [only] = present.as_slice() else {
        return false;
    };
    let coerced = match (*only, body.member(only)) {
        ("node_quota", Some(value)) => !matches!(value, Json::Int(_) | Json::Null),
        ("api_key", Some(Json::Text(key))) => key != "reset",
        _ => false,
    };
    coerced && matches!(body.member("active"), Some(Json::Bool(_)))
}

fn tenant_update(field: &Field<'_>, errors: &mut Errors) -> Read<TenantUpdate> {
    // The original looks for the names before it looks whether there are members at all.
    let names_one = |value: &Json| match value {
        Json::Object(_) => UPDATABLE.iter().any(|name| value.member(name).is_some()),
        Json::Text(text) => UPDATABLE.iter().any(|name| text.contains(name)),
        Json::List(items) => items
            .iter()
            .any(|item| matches!(item, Json::Text(text) if UPDATABLE.contains(&text.as_str()))),
        _ => true,
    };
    if !names_one(field.value) {
        let why = format!("one of {} is required", UPDATABLE.join(", "));
        return Err(field.refuse(&Problem::Value(why), errors));
    }
    let object: Object<'_> = field.object(errors)?;
    let ssh_key = object.optional("ssh_key", errors, |field, errors| {
        // An empty text leaves the keys as they are.
        Ok(Some(ssh_keys(field, errors)?).filter(|keys| !keys.is_empty()))
    });
    let api_key = object.optional("api_key", errors, api_key);
    let node_quota = object.nullable("node_quota", errors, quota);
    let session_lifetime = object.nullable("session_lifetime", errors, lifetime);
    let session_lifetime_max = object.nullable("session_lifetime_max", errors, lifetime);
    Ok(TenantUpdate {
        ssh_key: ssh_key?.flatten(),
        api_key: api_key?,
        node_quota: node_quota?,
        session_lifetime: session_lifetime?,
        session_lifetime_max: session_lifetime_max?,
    })
}

fn api_key(field: &Field<'_>, errors: &mut Errors) -> Read<ApiKeyUpdate> {
    let no_uuid = match scalars::uuid(field.value) {
        Ok(key) => return Ok(ApiKeyUpdate::Set(key)),
        Err(problem) => problem,
    };
    let no_reset = match scalars::literal(field.value, "reset") {
        Ok(()) => return Ok(ApiKeyUpdate::Reset),
        Err(problem) => problem,
    };
    let input = field.value.to_value();
    errors.add(&field.place.then("uuid"), &no_uuid, input.clone());
    let place = field.place.then("literal['reset']");
    Err(errors.add(&place, &no_reset, input))
}

/// A request to register a node.
pub fn node_create(body: &Body, errors: &mut Errors) -> Read<NodeCreate> {
    let object = body.field(errors)?.object(errors)?;
    let hostname = object.required("hostname", errors, text);
    let ipaddr = object.required("ipaddr", errors, |f, e| f.scalar(e, scalars::address));
    let comment = object.optional("comment", errors, text);
    let pool = object.optional("pool", errors, text);
    let reusable = object.defaulted("reusable", errors, true, |f, e| {
        f.scalar(e, scalars::boolean)
    });
    let data = object.defaulted("data", errors, Map::new(), free_members);
    Ok(NodeCreate {
        hostname: hostname?,
        ipaddr: ipaddr?,
        comment: comment?,
        pool: pool?,
        reusable: reusable?,
        data: data?,
    })
}

/// An object of any members that can be stored.
fn free_members(field: &Field<'_>, errors: &mut Errors) -> Read<Map<String, Value>> {
    if !matches!(field.value, Json::Object(_)) {
        return Err(field.refuse(&Problem::NotADict, errors));
    }
    storable(field.value, &field.place, errors)?;
    match field.value.to_value() {
        Value::Object(members) => Ok(members),
        _ => Err(field.refuse(&Problem::NotADict, errors)),
    }
}

/// Refuses what JSON in a database cannot hold: NUL characters, and numbers that are none.
fn storable(value: &Json, place: &Place, errors: &mut Errors) -> Read<()> {
    let field = Field {
        value,
        place: place.clone(),
    };
    match value {
        Json::Text(_) | Json::BrokenText(_) => field.scalar(errors, scalars::text).map(drop),
        Json::Float(number) if !number.is_finite() => {
            Err(field.refuse(&Problem::NotFinite, errors))
        }
        Json::List(_) => field
            .list(errors, |item, errors| {
                storable(item.value, &item.place, errors)
            })
            .map(drop),
        Json::Object(members) => {
            let mut result = Ok(());
            for (name, value) in members {
                if errors.is_full() {
                    break;
                }
                let name_field = Json::Text(name.clone());
                let place = place.then(name);
                let member = Field {
                    value: &name_field,
                    place: place.clone(),
                }
                .scalar(errors, scalars::text)
                .and_then(|_| storable(value, &place, errors));
                result = result.and(member);
            }
            result
        }
        Json::Null | Json::Bool(_) | Json::Int(_) | Json::BigInt(_) | Json::Float(_) => Ok(()),
    }
}
