//! What held SSH connections cost: memory of the server, and CPU time for keepalives.

use std::fs;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::children::memory_of;
use crate::figures::{Better, Figure, Results, Row, number};
use crate::installation::{Kind, Plan};
use crate::rig::Rig;
use crate::support::{Program, eventually};

/// Makes all nodes ready, as after provisioning.
const READY: &str = "UPDATE nodes SET state = 'ready', pool = 'metal', \
    state_since = now() AT TIME ZONE 'utc' WHERE state <> 'ready'";
/// How long to measure the CPU time: two keepalives of each connection.
const WINDOW: Duration = Duration::from_mins(1);

/// Measures servers with more and more connections.
pub fn measure(rig: &Rig, results: &mut Results) {
    for connections in [20, 200, 1000] {
        if rig.quick && connections > 200 {
            continue;
        }
        let plan = Plan {
            metal: connections,
            network: 96,
            settings: json!({"ssh": {"hold": {
                "max-connections": connections, "logins-per-second": 100, "keepalive": "30s",
            }}}),
            ..Plan::default()
        };
        let installation = rig.install(Kind::Ours, &plan);
        let serve = [installation.serve().0];
        let before = memory_of(&serve);
        installation.sql(READY);
        installation.wait_held(connections);
        let memory = memory_of(&serve) - before;
        let (start, cpu) = (Instant::now(), cpu_of(&serve[0]));
        eventually(WINDOW * 2, "the end of the window", || {
            let left = WINDOW.checked_sub(start.elapsed());
            left.map_or(Ok(()), |left| Err(format!("{left:?} left")))
        });
        let cpu = cpu_of(&serve[0]) - cpu;
        let each = memory * 1024.0 / connections as f64;
        let text = format!(
            "{} MB, {} kB each; {} ms of CPU per minute",
            number(memory),
            number(each),
            number(cpu * 1000.0)
        );
        results.rows.push(Row {
            what: format!("{connections} held connections, memory and CPU time of serve"),
            better: Better::Less,
            original: Figure::none("it holds none"),
            ours: Figure::new(memory, text),
            yardstick: None,
            reach: "",
            reached: None,
        });
    }
}

/// The CPU time of a process so far, in seconds.
fn cpu_of(program: &Program) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{}/stat", program.pid())).unwrap();
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap().split(' ').collect();
    // User and system time, in hundredths of a second.
    let ticks: f64 = fields[11..13]
        .iter()
        .map(|ticks| ticks.parse::<f64>().unwrap())
        .sum();
    ticks / 100.0
}
