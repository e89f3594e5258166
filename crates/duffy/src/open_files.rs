//! How many files this process may have open: each connection is one.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// As many as are asked for, where the system allows more still: programs that run playbooks look
/// at each file that they may have.
const ENOUGH: u64 = 65_536;

/// Files besides connections: the database, SSH to nodes, playbooks' output.
const OTHERS: u64 = 512;

/// Raises the soft limit as far as the hard one allows, and says so where it is too low for so many
/// connections.
pub fn raise_limit(connections: usize) {
    let raised = getrlimit(Resource::RLIMIT_NOFILE).and_then(|(soft, hard)| {
        let wanted = hard.min(ENOUGH);
        if soft < wanted {
            setrlimit(Resource::RLIMIT_NOFILE, wanted, hard)?;
        }
        Ok(soft.max(wanted))
    });
    match raised {
        Ok(limit) if limit < connections as u64 + OTHERS => tracing::warn!(
            limit,
            connections,
            "too few files may be open for so many connections; raise it (LimitNOFILE under systemd), or lower app.max-connections"
        ),
        Ok(_) => {}
        Err(error) => tracing::warn!(%error, "cannot raise the number of files that may be open"),
    }
}
