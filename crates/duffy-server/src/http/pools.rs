//! Pools over HTTP.

use axum::Json;
use axum::extract::State;
use duffy_api::{Action, PoolResult, PoolResultCollection};

use super::error::ApiError;
use super::input::LastSegment;
use super::openapi::{InputErrors, NotFoundError, ServerErrors};
use crate::context::Ctx;
use crate::lifecycle::views::{self, PoolView};

/// List the pools that are kept filled.
#[utoipa::path(
    get, path = "/api/v1/pools", tag = "pools",
    operation_id = "get_all_pools_api_v1_pools_get",
    responses((status = 200, description = "The pools", body = PoolResultCollection),
        ServerErrors),
)]
pub async fn list_pools(State(ctx): State<Ctx>) -> Json<PoolResultCollection> {
    Json(PoolResultCollection {
        action: Action::Get,
        pools: views::list_pools(&ctx),
    })
}

/// Show a pool and how many of its nodes are in which state.
#[utoipa::path(
    get, path = "/api/v1/pools/{name}", tag = "pools",
    operation_id = "get_pool_api_v1_pools__name__get",
    params(("name" = String, Path, description = "Name of the pool")),
    responses((status = 200, description = "The pool and its levels", body = PoolResult),
        NotFoundError, InputErrors, ServerErrors),
)]
pub async fn show_pool(
    State(ctx): State<Ctx>,
    LastSegment(name): LastSegment,
) -> Result<Json<PoolResult>, ApiError> {
    match views::find_pool(&ctx, &name).await? {
        PoolView::Unknown => Err(ApiError::NotFound),
        // Other pools extend it; it has no nodes of its own.
        PoolView::Unfilled => Err(ApiError::Unprocessable("Unprocessable Entity".into())),
        PoolView::Pool(pool) => Ok(Json(PoolResult {
            action: Action::Get,
            pool,
        })),
    }
}
