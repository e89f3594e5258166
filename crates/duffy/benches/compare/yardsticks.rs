//! What the same work costs without Duffy: PostgreSQL with pgbench, and one SSH login with russh.

use std::net::IpAddr;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use russh::ChannelMsg;
use russh::client::{Config, Handler};
use russh::keys::{PrivateKeyWithHashAlg, PublicKeyOrCertificate, load_secret_key};

use crate::figures::median;
use crate::installation::Installation;
use crate::programs::{of_postgres, output_of, user_name};
use crate::support::Postgres;

const FLOOR: &str = include_str!("floor.sql");
const CLIENTS: &str = "8";

/// Databases for pgbench in the cluster of a run.
pub struct Pgbench {
    select: String,
    floor: String,
    script: std::path::PathBuf,
}

impl Pgbench {
    /// Creates the tables of `pgbench -i`, and a database of the original with 500 ready nodes for `floor.sql`.
    pub fn new(postgres: &Postgres, directory: &Path) -> Self {
        let select = postgres.create_database("pgbench");
        output_of(Command::new(of_postgres("pgbench")).args(["-i", "-q", "-s", "10", &select]));
        let floor = postgres.create_database("floor");
        let dump =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/duffy-3.4.0-postgresql.sql");
        let psql = || {
            let mut psql = Command::new(of_postgres("psql"));
            psql.args(["-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", &floor]);
            psql
        };
        output_of(psql().arg("-f").arg(dump));
        output_of(psql().args([
            "-c",
            "INSERT INTO nodes (hostname, ipaddr, state, pool, reusable, data) \
             SELECT 'floor' || g, '127.0.' || g / 250 || '.' || g % 250, 'ready', 'p', false, '{}' FROM generate_series(1, 500) g; \
             CREATE INDEX ON sessions (tenant_id) WHERE retired_at IS NULL; ANALYZE",
        ]));
        let script = directory.join("floor.sql");
        std::fs::write(&script, FLOOR).unwrap();
        Self {
            select,
            floor,
            script,
        }
    }

    /// Runs `pgbench -S` with eight clients. Returns transactions per second.
    pub fn select(&self, seconds: u64) -> f64 {
        let mut command = Self::command(seconds);
        transactions(command.args(["-S", &self.select]))
    }

    /// Runs `floor.sql`, one session's life in SQL, with eight clients. Returns lives per second.
    pub fn floor(&self, seconds: u64) -> f64 {
        let mut command = Self::command(seconds);
        transactions(command.arg("-f").arg(&self.script).arg(&self.floor))
    }

    fn command(seconds: u64) -> Command {
        let mut command = Command::new(of_postgres("pgbench"));
        let seconds = seconds.to_string();
        command.args(["-n", "-c", CLIENTS, "-j", "2", "-T", &seconds]);
        command
    }
}

fn transactions(command: &mut Command) -> f64 {
    let output = output_of(command);
    let tps = output
        .lines()
        .find_map(|line| line.strip_prefix("tps = ")?.split(' ').next()?.parse().ok());
    tps.unwrap_or_else(|| panic!("pgbench printed no tps: {output}"))
}

/// Logs in to nodes of an installation with russh and runs `true`, one after the other. Returns the median in milliseconds.
pub fn bare_login(installation: &Installation, times: usize) -> f64 {
    let machines = installation.machines.as_ref().expect("real nodes");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let key = Arc::new(load_secret_key(installation.service_key.path(), None).unwrap());
    let took: Vec<f64> = machines
        .addresses
        .iter()
        .cycle()
        .take(times)
        .map(|address| {
            let key = PrivateKeyWithHashAlg::new(Arc::clone(&key), None);
            let start = Instant::now();
            runtime.block_on(log_in(address.parse().unwrap(), machines.port, key));
            start.elapsed().as_secs_f64() * 1000.0
        })
        .collect();
    median(&took)
}

struct AnyHost;

impl Handler for AnyHost {
    type Error = russh::Error;

    async fn check_server_key(&mut self, _: &PublicKeyOrCertificate) -> Result<bool, Self::Error> {
        Ok(true)
    }
}

async fn log_in(address: IpAddr, port: u16, key: PrivateKeyWithHashAlg) {
    let config = Config {
        nodelay: true,
        inactivity_timeout: Some(Duration::from_secs(10)),
        ..Config::default()
    };
    let connecting = russh::client::connect(Arc::new(config), (address, port), AnyHost);
    let mut handle = connecting.await.unwrap();
    let login = handle
        .authenticate_publickey(user_name(), key)
        .await
        .unwrap();
    assert!(login.success(), "the node does not accept the key");
    let mut channel = handle.channel_open_session().await.unwrap();
    channel.exec(true, "true").await.unwrap();
    while let Some(message) = channel.wait().await {
        if let ChannelMsg::ExitStatus { exit_status } = message {
            assert_eq!(exit_status, 0);
        }
    }
}
