//! `defaults`: what applies to tenants and sessions without settings of their own.

use chrono::TimeDelta;

use super::accept_retries;
use crate::decode::Cursor;

/// Default limit of a tenant's active sessions. Sessions without nodes count too.
const SESSION_QUOTA: u32 = 1000;

/// The `defaults` section.
#[derive(Debug, Clone)]
pub struct Defaults {
    /// How long a session lasts if it is not extended.
    pub session_lifetime: TimeDelta,
    /// How long a session can last at most.
    pub session_lifetime_max: TimeDelta,
    /// How many nodes a tenant can have at one time; at least one.
    pub node_quota: u32,
    /// How many active sessions a tenant can have at one time; at least one. An addition to the original.
    pub session_quota: u32,
}

impl Defaults {
    pub(crate) fn decode(cursor: &Cursor<'_>) -> Option<Self> {
        cursor.section(|fields| {
            let lifetime = fields.read_required("session-lifetime", Cursor::delta);
            let longest = fields.require("session-lifetime-max");
            let lifetime_max = longest.as_ref().and_then(Cursor::delta);
            let quota = fields.read_required("node-quota", |at| at.count(1));
            let session_quota = fields.read_or("session-quota", SESSION_QUOTA, |at| at.count(1));
            fields.read("retries", accept_retries);
            if let (Some(at), Some(lifetime), Some(max)) = (&longest, lifetime, lifetime_max)
                && max < lifetime
            {
                at.warn("this is shorter than session-lifetime and limits every session");
            }
            Some(Self {
                session_lifetime: lifetime?,
                session_lifetime_max: lifetime_max?,
                node_quota: quota?,
                session_quota,
            })
        })
    }
}
