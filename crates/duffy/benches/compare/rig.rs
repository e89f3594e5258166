//! What a run shares: PostgreSQL with fsync, Redis, and the length of the measurements.

use serde_json::{Value, json};

use crate::installation::{Installation, Kind, Plan, has_settings, start_redis};
use crate::support::{Postgres, Program, Scratch};
use crate::yardsticks::Pgbench;

/// See the module.
pub struct Rig {
    pub postgres: Postgres,
    pub scratch: Scratch,
    /// Leaves out the slow rows and shortens the others.
    pub quick: bool,
    /// Whether our program can hold SSH connections.
    pub can_hold: bool,
    redis_port: u16,
    _redis: Program,
    pgbench: std::sync::OnceLock<Pgbench>,
}

/// The settings of PostgreSQL: those of its defaults that the tests change.
pub const POSTGRES: &[&str] = &[
    "fsync=on",
    "full_page_writes=on",
    "shared_buffers=128MB",
    "max_connections=300",
];

impl Rig {
    /// Starts the servers.
    pub fn start(quick: bool) -> Self {
        let scratch = Scratch::new("bench-rig");
        let (redis, redis_port) = start_redis(&scratch);
        Self {
            can_hold: has_settings(&scratch, &hold(true)),
            postgres: Postgres::start_with(POSTGRES),
            scratch,
            quick,
            redis_port,
            _redis: redis,
            pgbench: std::sync::OnceLock::new(),
        }
    }

    /// The databases for pgbench, which are created at the first use.
    pub fn pgbench(&self) -> &Pgbench {
        let create = || Pgbench::new(&self.postgres, self.scratch.path());
        self.pgbench.get_or_init(create)
    }

    /// One of two values: in quick runs, and in others.
    pub fn pick<T>(&self, quick: T, slow: T) -> T {
        if self.quick { quick } else { slow }
    }

    /// How often each measurement is repeated, the programs in turn.
    pub fn rounds(&self) -> usize {
        self.pick(2, 3)
    }

    /// Creates an installation. See [`Installation::new`].
    pub fn install(&self, kind: Kind, plan: &Plan) -> Installation {
        let kind_name = if kind == Kind::Ours {
            "ours"
        } else {
            "the original"
        };
        eprintln!("bench:   installing {kind_name}");
        Installation::new(kind, &self.postgres, self.redis_port, plan)
    }

    /// Creates an installation of each program with the same plan.
    pub fn install_both(&self, plan: &Plan) -> [Installation; 2] {
        let other = Plan {
            network: plan.network + 1,
            ..plan.clone()
        };
        let original = Plan {
            simulated: 0,
            ..plan.clone()
        };
        [
            self.install(Kind::Original, &original),
            self.install(Kind::Ours, &other),
        ]
    }
}

/// The settings of held SSH connections.
pub fn hold(enabled: bool) -> Value {
    json!({"ssh": {"hold": {"enabled": enabled, "max-connections": 200}}})
}
