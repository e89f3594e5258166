//! `defaults`: what holds for tenants and sessions that say nothing else.

use chrono::TimeDelta;

use super::{accept_retries, decode_count};
use crate::decode::{Cursor, Report};

/// Active sessions of a tenant, unless configured. Sessions without nodes count too.
const SESSION_QUOTA: u32 = 1000;

/// The `defaults` section.
#[derive(Debug, Clone)]
pub struct Defaults {
    /// How long a session lasts when nobody extends it.
    pub session_lifetime: TimeDelta,
    /// How long a session can last at most.
    pub session_lifetime_max: TimeDelta,
    /// How many nodes a tenant can have at one time; at least one.
    pub node_quota: u32,
    /// How many active sessions a tenant can have at one time; at least one.
    pub session_quota: u32,
}

impl Defaults {
    pub(crate) fn decode(cursor: &Cursor<'_>, report: &mut Report) -> Option<Self> {
        let known = &[
            "session-lifetime",
            "session-lifetime-max",
            "node-quota",
            "session-quota",
            "retries",
        ];
        let fields = cursor.fields(report, known)?;
        let lifetime = fields.read_required(report, "session-lifetime", Cursor::delta);
        let longest = fields.require(report, "session-lifetime-max");
        let lifetime_max = longest.as_ref().and_then(|at| at.delta(report));
        let quota = fields.read_required(report, "node-quota", |at, report| {
            decode_count(at, report, 1)
        });
        let session_quota = match fields.get("session-quota") {
            Some(at) => decode_count(&at, report, 1),
            None => Some(SESSION_QUOTA),
        };
        fields.read(report, "retries", accept_retries);
        if let (Some(at), Some(lifetime), Some(max)) = (&longest, lifetime, lifetime_max)
            && max < lifetime
        {
            at.warn(
                report,
                "this is shorter than session-lifetime, so every session is cut to it",
            );
        }
        Some(Self {
            session_lifetime: lifetime?,
            session_lifetime_max: lifetime_max?,
            node_quota: quota?,
            session_quota: session_quota?,
        })
    }
}
