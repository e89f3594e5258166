//! The reply that grants a session. If no client receives it, the session is given back.

use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::Response;
use duffy_api::SessionCreate;
use duffy_web::grant::Grant;
use tracing::{Instrument, Span};

use super::error::ApiError;
use crate::actor;
use crate::context::Ctx;
use crate::db::tenants::TenantRow;
use crate::lifecycle::request;
use crate::lifecycle::request::idempotency::Promise;

/// In a reply to a request that was answered before.
const REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");

/// Requests a session. If no client receives the reply, the session is retired: at once, or after a while if the request has a
/// `key`, with which the client can ask again.
pub async fn request_session(
    ctx: Ctx,
    tenant: TenantRow,
    create: SessionCreate,
    key: Option<String>,
) -> Result<Response, ApiError> {
    let session = request::request_session(&ctx, &tenant, create, key).await?;
    let keep = keep(ctx.clone(), session.promise.clone());
    let confirmation = actor::carry(keep.instrument(Span::current()));
    let tasks = ctx.tasks.clone();
    let give_back = actor::carry(give_back(ctx, session.id, session.promise));
    let grant = Grant::new(session.id, &tasks, give_back);
    let mut reply = grant.reply(StatusCode::CREATED, session.reply, confirmation);
    if session.replayed {
        let yes = HeaderValue::from_static("true");
        reply.headers_mut().insert(REPLAYED, yes);
    }
    Ok(reply)
}

async fn give_back(ctx: Ctx, id: i64, promise: Option<Promise>) {
    let result = match promise {
        None => request::give_back(&ctx, id).await,
        Some(promise) => promise.wait_and_break(&ctx).await,
    };
    if let Err(error) = result {
        // It ends when it expires.
        tracing::error!(
            session.id = id,
            error = &error as &dyn std::error::Error,
            "cannot retire a session that nobody took"
        );
    }
}

/// Records that the reply is sent. If that fails, the connection breaks off: the session will be given back, and no client may
/// hold it then.
async fn keep(ctx: Ctx, promise: Option<Promise>) -> Result<(), axum::Error> {
    let Some(promise) = promise else {
        return Ok(());
    };
    match promise.keep(&ctx).await {
        Ok(true) => Ok(()),
        Ok(false) => Err(axum::Error::new("the session was given back")),
        Err(error) => {
            tracing::warn!(session.id = promise.session_id, %error, "cannot hand a session over");
            Err(axum::Error::new(error))
        }
    }
}
