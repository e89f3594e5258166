//! What a quickstart tells its user, and the `ssh_config` that names its nodes.

use std::fmt::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use duffy_api::Node;
use duffy_server::context::Ctx;
use duffy_server::lifecycle::nodes::provisioned_ssh_port;
use duffy_server::lifecycle::views;

use super::installation::Installation;
use crate::output::{self, shell_word};

/// The pool that the commands ask for.
const POOL: &str = "small";
/// Nodes may change without a word, by another process say.
const POLL: Duration = Duration::from_secs(2);

/// Tells what to type once the pools are filled; then keeps `ssh_config` up to date.
pub(super) async fn guide(ctx: Ctx, address: Option<SocketAddr>, installation: Installation) {
    let mut wake_ups = ctx.db.wake_ups();
    let mut told = false;
    let mut written = String::new();
    loop {
        match views::list_nodes(&ctx).await {
            Ok(nodes) => {
                let text = ssh_config(&nodes, &installation.tenant_key());
                if text != written {
                    match Installation::write(&installation.ssh_config(), &text) {
                        Ok(()) => written = text,
                        Err(failure) => tracing::warn!("{failure}"),
                    }
                }
            }
            Err(error) => tracing::warn!(%error, "cannot look at the nodes"),
        }
        if !told && let Ok(Some(node)) = views::next_ready_node(&ctx, POOL).await {
            tell(&ctx, address, &installation, &node).await;
            told = true;
        }
        wake_ups.wait(if told { POLL } else { POLL / 10 }).await;
    }
}

async fn tell(ctx: &Ctx, address: Option<SocketAddr>, installation: &Installation, node: &Node) {
    let url = address
        .map(|address| format!("http://{address}"))
        .unwrap_or_default();
    let duffy = std::env::current_exe()
        .ok()
        .map_or_else(|| "duffy".to_owned(), |path| shell_word(&shorten(&path)));
    let configured = ctx.config.client.as_ref().map(|client| client.url.clone());
    let api = format!("{url}/api/v1");
    // Another address than the configuration's, for this start only.
    let client = if configured.is_some_and(|configured| configured.trim_end_matches('/') == api) {
        "client".to_owned()
    } else {
        format!("client --url {api}")
    };
    let config = shell_word(&installation.config_file().display().to_string());
    let ssh_config = shell_word(&installation.ssh_config().display().to_string());
    let session = views::next_session_id(ctx).await.unwrap_or(1);
    let hostname = node.hostname.as_deref().unwrap_or_default();
    let directory = installation.directory().display();
    let text = format!(
        "Duffy runs at {url} (its API is described at {url}/docs). Ctrl-C ends it.
All it has is in {directory}.

In another terminal, request a session with one node:
    {duffy} -c {config} {client} request-session pool={POOL},quantity=1
Log in to the node, which the reply names as `hostname`:
    ssh -F {ssh_config} {hostname}
Give it back:
    {duffy} -c {config} {client} retire-session {session}"
    );
    if let Err(failure) = output::data(&text) {
        tracing::warn!("{failure}");
    }
}

/// Nodes by host name, for `ssh -F`.
fn ssh_config(nodes: &[Node], key: &Path) -> String {
    let mut text = String::from("# The nodes of this quickstart; written anew when they change.\n");
    for node in nodes {
        let (Some(hostname), Some(ipaddr)) = (&node.hostname, &node.ipaddr) else {
            continue;
        };
        let port = provisioned_ssh_port(&node.data).unwrap_or(22);
        // Writing to a string cannot fail.
        let _ = write!(
            text,
            "\nHost {hostname}\n    HostName {ipaddr}\n    Port {port}\n"
        );
    }
    let key = key.display();
    let _ = write!(
        text,
        "\nHost *\n    User root\n    IdentityFile \"{key}\"\n    IdentitiesOnly yes\n    \
         StrictHostKeyChecking no\n    UserKnownHostsFile /dev/null\n    LogLevel ERROR\n"
    );
    text
}

/// Relative to the current directory, where that is shorter.
fn shorten(path: &Path) -> String {
    let current = std::env::current_dir().ok();
    let inside = current.and_then(|current| path.strip_prefix(current).ok().map(Path::to_owned));
    inside.map_or_else(
        || path.display().to_string(),
        |inside| format!("./{}", inside.display()),
    )
}
