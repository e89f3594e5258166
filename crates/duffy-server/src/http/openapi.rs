//! The API's description for programs and for people. Each endpoint is described beside its
//! handler, everything else here.

#![expect(dead_code, reason = "types that describe requests and replies")]

use duffy_api::{Detail, ErrorReply};
use utoipa::openapi::schema::AnyOfBuilder;
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityScheme};
use utoipa::openapi::{Ref, RefOr, Schema};
use utoipa::{IntoResponses, OpenApi, PartialSchema, ToSchema};

/// The parts of the description that belong to no endpoint.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "Duffy",
        description = "Duffy lends machines to CI jobs: a tenant requests a session with nodes \
                       of some pools, logs in with its SSH key, and retires the session when it \
                       is done.",
    ),
    tags(
        (name = "sessions", description = "Machines lent for a time"),
        (name = "pools", description = "Machines of one kind, kept ready to be lent"),
        (name = "nodes", description = "The machines themselves"),
        (name = "tenants", description = "Who may borrow machines"),
    ),
    components(schemas(ErrorReply, ValidationReply)),
)]
struct Frame;

/// The description without its endpoints.
pub fn frame() -> utoipa::openapi::OpenApi {
    let mut document = Frame::openapi();
    env!("CARGO_PKG_VERSION").clone_into(&mut document.info.version);
    document.info.license = None;
    document.info.contact = None;
    let components = document.components.get_or_insert_default();
    components.add_security_scheme(
        "HTTPBasic",
        SecurityScheme::Http(
            Http::builder()
                .scheme(HttpAuthScheme::Basic)
                .description(Some("The tenant's name, and its API key as the password"))
                .build(),
        ),
    );
    document
}

/// Replies to a request that is not permitted.
#[derive(IntoResponses)]
pub enum AuthErrors {
    /// The credentials are missing or wrong
    #[response(status = 401, example = json!({"detail": "Not authenticated"}))]
    Unauthorized(ErrorReply),
    /// The tenant is retired, lacks the permission, or exceeds its quota
    #[response(status = 403, example = json!({"detail": "Forbidden"}))]
    Forbidden(ErrorReply),
    /// Too many wrong keys: wait as long as `Retry-After` says
    #[response(status = 429)]
    TooManyFailures(ErrorReply),
}

/// Replies to invalid input.
#[derive(IntoResponses)]
pub enum InputErrors {
    /// The body cannot be decoded
    #[response(status = 400)]
    Unreadable(ErrorReply),
    /// The body was not received in time
    #[response(status = 408)]
    TooSlow(ErrorReply),
    /// The body is larger than 1 MiB
    #[response(status = 413)]
    TooLarge(ErrorReply),
    /// A text that says why the request cannot be fulfilled, or a list of the invalid fields
    #[response(status = 422, example = json!({"detail": [{
        "type": "missing", "loc": ["body", "nodes_specs"], "msg": "Field required", "input": {}
    }]}))]
    Unprocessable(ValidationReply),
}

/// The reply to invalid input.
#[derive(ToSchema)]
#[schema(as = HTTPValidationError)]
pub struct ValidationReply {
    /// What is wrong.
    detail: Detail,
}

/// The reply when there is no such thing.
#[derive(IntoResponses)]
#[response(status = 404, description = "There is no such thing",
    example = json!({"detail": "Not Found"}))]
pub struct NotFoundError(ErrorReply);

/// The reply when a name or address is taken.
#[derive(IntoResponses)]
#[response(status = 409, description = "The name or address is taken")]
pub struct ConflictError(ErrorReply);

/// Replies to faults of the server.
#[derive(IntoResponses)]
pub enum ServerErrors {
    /// A fault of the server; the log has details under the reply's `X-Request-Id`
    #[response(status = 500, example = json!({"detail": "Internal Server Error"}))]
    Internal(ErrorReply),
    /// Temporarily unavailable: retry after the seconds in `Retry-After`
    #[response(status = 503)]
    Unavailable(ErrorReply),
}

/// A length of time: `1h30m` (of weeks, days, hours, minutes, seconds, milliseconds: `w`, `d`,
/// `h`, `m`, `s`, `ms`), or seconds.
#[derive(ToSchema)]
#[schema(examples("6h", "1d12h", 3600))]
#[serde(untagged)]
enum Lifetime {
    /// With units.
    Text(String),
    /// In seconds.
    Seconds(f64),
}

/// A tenant to create.
#[derive(ToSchema)]
#[schema(as = TenantCreateModel)]
pub struct TenantCreateBody {
    /// Unique name.
    name: String,
    /// Whether it may manage tenants and nodes, and act for others.
    #[schema(required = false)]
    is_admin: Option<bool>,
    /// SSH public keys, a line each.
    ssh_key: String,
    /// How many nodes it may hold at once; without it the default.
    #[schema(required = false, minimum = 1)]
    node_quota: Option<i32>,
    /// How long a session lasts at first; without it the default.
    #[schema(required = false, inline)]
    session_lifetime: Option<Lifetime>,
    /// How long a session can last; without it the default.
    #[schema(required = false, inline)]
    session_lifetime_max: Option<Lifetime>,
}

/// What to change about a tenant; at least one member.
#[derive(ToSchema)]
#[schema(as = TenantUpdateModel)]
pub struct TenantUpdateBody {
    /// New SSH public keys, a line each.
    #[schema(required = false)]
    ssh_key: Option<String>,
    /// The new API key, a UUID, or `reset` for a random one.
    #[schema(required = false)]
    api_key: Option<String>,
    /// How many nodes it may hold at once; `null` for the default.
    #[schema(required = false, minimum = 1)]
    node_quota: Option<i32>,
    /// How long a session lasts at first; `null` for the default.
    #[schema(required = false, inline)]
    session_lifetime: Option<Lifetime>,
    /// How long a session can last; `null` for the default.
    #[schema(required = false, inline)]
    session_lifetime_max: Option<Lifetime>,
}

/// Retires or reactivates a tenant.
#[derive(ToSchema)]
#[schema(as = TenantRetireModel)]
pub struct TenantRetireBody {
    /// `false` retires it, `true` reactivates it.
    active: bool,
}

/// What to change about a tenant: its keys, quota or lifetimes, or whether it is active.
pub struct TenantChangeBody;

// By hand: the derived form says "exactly one of", but a body can match both.
impl PartialSchema for TenantChangeBody {
    fn schema() -> RefOr<Schema> {
        AnyOfBuilder::new()
            .item(Ref::from_schema_name(TenantUpdateBody::name()))
            .item(Ref::from_schema_name(TenantRetireBody::name()))
            .description(Some("What to change about a tenant."))
            .into()
    }
}

impl ToSchema for TenantChangeBody {
    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        schemas.push((TenantUpdateBody::name().into(), TenantUpdateBody::schema()));
        schemas.push((TenantRetireBody::name().into(), TenantRetireBody::schema()));
    }
}
