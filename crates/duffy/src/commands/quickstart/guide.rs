//! The instructions that a quickstart prints, and the `ssh_config` with its nodes.

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

/// The pool in the printed commands.
const POOL: &str = "small";
/// Nodes can change without a wake-up, for example by another process.
const POLL: Duration = Duration::from_secs(2);

/// Prints the instructions once a node is ready, and keeps `ssh_config` up to date.
pub(super) async fn guide(ctx: Ctx, address: Option<SocketAddr>, installation: Installation) {
    let mut wake_ups = ctx.db.wake_ups();
    let mut printed = false;
    let mut written = String::new();
    loop {
        match views::list_nodes(&ctx).await {
            Ok(nodes) => {
                let text = ssh_config(&nodes, &installation.tenant_key);
                if text != written {
                    match Installation::write(&installation.ssh_config, &text) {
                        Ok(()) => written = text,
                        Err(failure) => tracing::warn!("{failure}"),
                    }
                }
            }
            Err(error) => tracing::warn!(%error, "cannot list the nodes"),
        }
        if !printed && let Ok(Some(node)) = views::next_ready_node(&ctx, POOL).await {
            print(&ctx, address, &installation, &node).await;
            printed = true;
        }
        wake_ups.wait(if printed { POLL } else { POLL / 10 }).await;
    }
}

async fn print(ctx: &Ctx, address: Option<SocketAddr>, installation: &Installation, node: &Node) {
    let url = address
        .map(|address| format!("http://{address}"))
        .unwrap_or_default();
    let duffy = std::env::current_exe()
        .ok()
        .map_or_else(|| "duffy".to_owned(), |path| shell_word(&shorten(&path)));
    let configured = ctx.config.client.as_ref().map(|client| client.url.clone());
    let api = format!("{url}/api/v1");
    // This start may use another address than the configuration.
    let client = if configured.is_some_and(|configured| configured.trim_end_matches('/') == api) {
        "client".to_owned()
    } else {
        format!("client --url {api}")
    };
    let config = shell_word(&installation.config_file.display().to_string());
    let ssh_config = shell_word(&installation.ssh_config.display().to_string());
    let session = views::next_session_id(ctx).await.unwrap_or(1);
    let hostname = node.hostname.as_deref().unwrap_or_default();
    let directory = installation.directory.display();
    let text = format!(
        "Duffy runs at {url} (API documentation: {url}/docs). Ctrl-C stops it.
All its files are in {directory}.

In another terminal, request a session with one node:
    {duffy} -c {config} {client} request-session pool={POOL},quantity=1
Log in to the node, whose name is `hostname` in the reply:
    ssh -F {ssh_config} {hostname}
Return the node:
    {duffy} -c {config} {client} retire-session {session}"
    );
    if let Err(failure) = output::data(&text) {
        tracing::warn!("{failure}");
    }
}

/// Formats a file for `ssh -F` with the nodes by host name.
fn ssh_config(nodes: &[Node], key: &Path) -> String {
    let mut text =
        String::from("# The nodes of this quickstart. The file is rewritten when they change.\n");
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

/// Formats a path, relative to the current directory if it is in there.
fn shorten(path: &Path) -> String {
    let current = std::env::current_dir().ok();
    let inside = current.and_then(|current| path.strip_prefix(current).ok().map(Path::to_owned));
    match inside {
        Some(inside) => format!("./{}", inside.display()),
        None => path.display().to_string(),
    }
}
