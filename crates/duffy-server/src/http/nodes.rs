//! Nodes over HTTP.

use axum::Json;
use axum::extract::{Extension, State};
use axum::http::StatusCode;
use bytes::Bytes;
use duffy_api::{Action, EventResultCollection, NodeCreate, NodeResult, NodeResultCollection};
use duffy_web::SharedBytes;

use super::auth::Authenticated;
use super::error::ApiError;
use super::input::{HistoryOf, LastSegment, Submission};
use super::lists::{List, Lists, written};
use super::openapi::{AuthErrors, ConflictError, InputErrors, NotFoundError, ServerErrors};
use crate::context::Ctx;
use crate::lifecycle::{history, nodes, views};

/// List the nodes in use.
///
/// Retired nodes are left out.
#[utoipa::path(
    get, path = "/api/v1/nodes", tag = "nodes",
    operation_id = "get_all_nodes_api_v1_nodes_get",
    responses((status = 200, description = "The nodes", body = NodeResultCollection),
        ServerErrors),
)]
pub async fn list_nodes(
    State(ctx): State<Ctx>,
    Extension(lists): Extension<Lists>,
) -> Result<SharedBytes, ApiError> {
    Ok(lists.share(List::Nodes, write_nodes(&ctx)).await?)
}

/// Writes a [`NodeResultCollection`] while the nodes are read.
async fn write_nodes(ctx: &Ctx) -> Result<Bytes, ApiError> {
    let mut json = br#"{"action":"get","nodes":["#.to_vec();
    let mut written = Ok(());
    views::visit_nodes(ctx, |node| {
        if json.last() == Some(&b'}') {
            json.push(b',');
        }
        if written.is_ok() {
            written = serde_json::to_writer(&mut json, &node);
        }
    })
    .await?;
    written.map_err(|error| ApiError::internal(&error))?;
    json.extend_from_slice(b"]}");
    Ok(json.into_boxed_slice().into())
}

/// Show a node, retired ones too.
#[utoipa::path(
    get, path = "/api/v1/nodes/{id}", tag = "nodes",
    operation_id = "get_node_api_v1_nodes__id__get",
    params(("id" = i64, Path, description = "Number of the node")),
    responses((status = 200, description = "The node", body = NodeResult),
        AuthErrors, NotFoundError, InputErrors, ServerErrors),
    security(("HTTPBasic" = [])),
)]
pub async fn show_node(
    State(ctx): State<Ctx>,
    Authenticated(tenant): Authenticated,
    id: LastSegment,
) -> Result<Json<NodeResult>, ApiError> {
    let node = views::find_node(&ctx, id.id()?, tenant.is_admin).await?;
    Ok(Json(NodeResult {
        action: Action::Get,
        node: node.ok_or(ApiError::NotFound)?,
    }))
}

/// List what happened to a node.
///
/// Oldest events first. A tenant sees the events of its own sessions, without `actor` and
/// `detail`.
#[utoipa::path(
    get, path = "/api/v1/nodes/{id}/events", tag = "nodes",
    operation_id = "get_node_events_api_v1_nodes__id__events_get",
    params(
        ("id" = i64, Path, description = "Number of the node"),
        ("limit" = Option<u32>, Query, description = "Maximum number of events",
            minimum = 1, maximum = 10000, example = 1000),
        ("after" = Option<i64>, Query, minimum = 0,
            description = "Only events after the one with this number: for the next page, the last one seen"),
    ),
    responses((status = 200, description = "The events", body = EventResultCollection),
        AuthErrors, NotFoundError, InputErrors, ServerErrors),
    security(("HTTPBasic" = [])),
)]
pub async fn list_node_events(
    State(ctx): State<Ctx>,
    Extension(lists): Extension<Lists>,
    Authenticated(tenant): Authenticated,
    HistoryOf { id, page }: HistoryOf,
) -> Result<SharedBytes, ApiError> {
    let only = (!tenant.is_admin).then_some(tenant.id);
    let read = async {
        let events = history::list_node_events(&ctx, id, only, page).await?;
        Ok(EventResultCollection {
            action: Action::Get,
            events: events.ok_or(ApiError::NotFound)?,
        })
    };
    Ok(lists.make(written(read)).await?)
}

/// Register a node.
///
/// For administrators. Pools with `reuse-nodes` can pick the node.
#[utoipa::path(
    post, path = "/api/v1/nodes", tag = "nodes",
    operation_id = "create_node_api_v1_nodes_post",
    request_body(content = NodeCreate, example = json!({
        "hostname": "metal1.example.org", "ipaddr": "192.0.2.1", "data": {"architecture": "x86_64"}
    })),
    responses((status = 201, description = "The node", body = NodeResult),
        AuthErrors, ConflictError, InputErrors, ServerErrors),
    security(("HTTPBasic" = [])),
)]
pub async fn create_node(
    State(ctx): State<Ctx>,
    submission: Submission<NodeCreate>,
) -> Result<(StatusCode, Json<NodeResult>), ApiError> {
    let (tenant, create) = submission.read()?;
    if !tenant.is_admin {
        return Err(ApiError::Forbidden);
    }
    let reply = NodeResult {
        action: Action::Post,
        node: nodes::create_node(&ctx, create).await?,
    };
    Ok((StatusCode::CREATED, Json(reply)))
}
