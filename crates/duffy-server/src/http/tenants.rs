//! Tenants over HTTP.

use axum::Json;
use axum::extract::{Extension, State};
use axum::http::StatusCode;
use duffy_api::{
    Action, TenantCreate, TenantCreateResult, TenantResult, TenantResultCollection,
    TenantUpdateResult,
};
use duffy_web::SharedBytes;

use super::auth::Authenticated;
use super::error::ApiError;
use super::input::{LastSegment, Submission};
use super::lists::{List, Lists, written};
use super::openapi::{
    AuthErrors, ConflictError, InputErrors, NotFoundError, ServerErrors, TenantChangeBody,
    TenantCreateBody,
};
use super::validate::TenantChange;
use crate::context::Ctx;
use crate::credentials::lines_without_key;
use crate::lifecycle::tenants::{self, TenantError};
use crate::lifecycle::views;

/// List tenants.
///
/// An administrator sees all tenants, retired ones too; a tenant sees itself.
#[utoipa::path(
    get, path = "/api/v1/tenants", tag = "tenants",
    operation_id = "get_all_tenants_api_v1_tenants_get",
    responses((status = 200, description = "The tenants", body = TenantResultCollection),
        AuthErrors, ServerErrors),
    security(("HTTPBasic" = [])),
)]
pub async fn list_tenants(
    State(ctx): State<Ctx>,
    Extension(lists): Extension<Lists>,
    Authenticated(tenant): Authenticated,
) -> Result<SharedBytes, ApiError> {
    let only = (!tenant.is_admin).then_some(tenant.id);
    let read = async {
        Ok(TenantResultCollection {
            action: Action::Get,
            tenants: views::list_tenants(&ctx, only).await?,
        })
    };
    Ok(lists.share(List::Tenants(only), written(read)).await?)
}

/// Show a tenant.
#[utoipa::path(
    get, path = "/api/v1/tenants/{id}", tag = "tenants",
    operation_id = "get_tenant_api_v1_tenants__id__get",
    params(("id" = i64, Path, description = "Number of the tenant")),
    responses((status = 200, description = "The tenant", body = TenantResult),
        AuthErrors, NotFoundError, InputErrors, ServerErrors),
    security(("HTTPBasic" = [])),
)]
pub async fn show_tenant(
    State(ctx): State<Ctx>,
    Authenticated(tenant): Authenticated,
    id: LastSegment,
) -> Result<Json<TenantResult>, ApiError> {
    let found = views::find_tenant(&ctx, id.id()?)
        .await?
        .ok_or(ApiError::NotFound)?;
    if !tenant.is_admin && found.id != tenant.id {
        return Err(ApiError::Forbidden);
    }
    Ok(Json(TenantResult {
        action: Action::Get,
        tenant: found,
    }))
}

/// Create a tenant; its API key is shown this once.
///
/// For administrators. No other reply shows the API key.
#[utoipa::path(
    post, path = "/api/v1/tenants", tag = "tenants",
    operation_id = "create_tenant_api_v1_tenants_post",
    request_body(content = TenantCreateBody, example = json!({
        "name": "my-project", "ssh_key": "ssh-ed25519 AAAA… me@example.org"
    })),
    responses((status = 201, description = "The tenant and its keys", body = TenantCreateResult),
        AuthErrors, ConflictError, InputErrors, ServerErrors),
    security(("HTTPBasic" = [])),
)]
pub async fn create_tenant(
    State(ctx): State<Ctx>,
    submission: Submission<TenantCreate>,
) -> Result<(StatusCode, Json<TenantCreateResult>), ApiError> {
    let (tenant, create) = submission.read()?;
    if !tenant.is_admin {
        return Err(ApiError::Forbidden);
    }
    let reply = TenantCreateResult {
        action: Action::Post,
        tenant: tenants::create_tenant(&ctx, create).await?,
    };
    warn_of_useless_keys(&reply.tenant.name, &reply.tenant.ssh_key);
    Ok((StatusCode::CREATED, Json(reply)))
}

/// Change, retire or reactivate a tenant.
///
/// For administrators. Either changes keys, quota or lifetimes; or, with `active` alone, retires
/// the tenant and ends its sessions, or reactivates it.
#[utoipa::path(
    put, path = "/api/v1/tenants/{id}", tag = "tenants",
    operation_id = "update_tenant_api_v1_tenants__id__put",
    params(("id" = i64, Path, description = "Number of the tenant")),
    request_body(content = TenantChangeBody, examples(
        ("quota" = (summary = "Another quota", value = json!({"node_quota": 10}))),
        ("reset" = (summary = "A new API key", value = json!({"api_key": "reset"}))),
        ("retire" = (summary = "Retire it", value = json!({"active": false}))),
    )),
    responses((status = 200, description = "The changed tenant", body = TenantUpdateResult),
        AuthErrors, NotFoundError, InputErrors, ServerErrors),
    security(("HTTPBasic" = [])),
)]
pub async fn update_tenant(
    State(ctx): State<Ctx>,
    id: LastSegment,
    submission: Submission<TenantChange>,
) -> Result<Json<TenantUpdateResult>, ApiError> {
    let (tenant, id, change) = submission.read_for(&id)?;
    if !tenant.is_admin {
        // As in the original, a tenant that does not exist or is retired is reported first.
        let found = views::find_tenant(&ctx, id)
            .await?
            .ok_or(ApiError::NotFound)?;
        if !found.active && change != TenantChange::SetActive(true) {
            let name = found.name;
            return Err(TenantError::Retired { name, id }.into());
        }
        return Err(ApiError::Forbidden);
    }
    let tenant = match change {
        TenantChange::Update(update) => {
            let keys = update.ssh_key.clone();
            let updated = tenants::update_tenant(&ctx, id, update).await?;
            if let Some(keys) = keys {
                warn_of_useless_keys(&updated.name, &keys);
            }
            updated
        }
        TenantChange::SetActive(active) => tenants::set_tenant_active(&ctx, id, active).await?,
    };
    Ok(Json(TenantUpdateResult {
        action: Action::Put,
        tenant,
    }))
}

/// Warns of lines with which nobody can log in to nodes. As in the original, any text is accepted
/// as a key.
fn warn_of_useless_keys(name: &str, keys: &str) {
    let lines = lines_without_key(keys);
    if !lines.is_empty() {
        tracing::warn!(
            tenant.name = name,
            ?lines,
            "these lines of the tenant's SSH key are not OpenSSH public keys"
        );
    }
}
