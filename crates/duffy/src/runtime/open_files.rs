//! The limit of open files of this process. Each connection is one.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// The highest limit that is set, even where the system allows more: programs that run playbooks look at every possible
/// file descriptor.
const MAX_LIMIT: u64 = 65_536;

/// Files that are not connections: the database, SSH to nodes, output of playbooks.
const OTHER_FILES: u64 = 512;

/// Raises the soft limit as far as the hard one allows. Warns if that is too low for this number of connections.
pub fn raise_limit(connections: usize) {
    let raised = getrlimit(Resource::RLIMIT_NOFILE).and_then(|(soft, hard)| {
        let wanted = hard.min(MAX_LIMIT);
        if soft < wanted {
            setrlimit(Resource::RLIMIT_NOFILE, wanted, hard)?;
        }
        Ok(soft.max(wanted))
    });
    match raised {
        Ok(limit) if limit < connections as u64 + OTHER_FILES => tracing::warn!(
            limit,
            connections,
            "the limit of open files is too low for this number of connections; raise it (LimitNOFILE under systemd), or lower app.max-connections"
        ),
        Ok(_) => {}
        Err(error) => tracing::warn!(%error, "cannot raise the limit of open files"),
    }
}
