//! Sessions of real sshd nodes: requested and retired by one client, by eight, and with fifty nodes; with held SSH connections and
//! without.

use std::time::Duration;

use nix::sys::signal::Signal;
use nix::unistd::Uid;
use serde_json::Value;

use crate::figures::{Better, Figure, Results, Row, median, milliseconds, per_second};
use crate::installation::{Installation, Kind, METAL, Plan, signal_all};
use crate::load::{self, Load, complaints};
use crate::rig::{Rig, hold};
use crate::support::Program;
use crate::yardsticks::bare_login;

/// The number of nodes, and the fill level of the pool.
const NODES: usize = 60;
/// The nodes of a large session.
const LARGE: u32 = 50;
/// How long a pool may take to be full again: the original and ours.
const REFILL: [Duration; 2] = [Duration::from_secs(5), Duration::from_secs(40)];
/// The original leaves nodes behind in states that it never ends. Makes them ready again.
const RESET: &str = "\
UPDATE sessions SET retired_at = now() WHERE retired_at IS NULL;
UPDATE nodes SET state = 'ready', pool = 'metal' WHERE state <> 'ready'";

/// The loads of a round: name, clients, sessions of ours, sessions of the original, nodes, whether the worker refills meanwhile.
struct Step {
    what: &'static str,
    clients: usize,
    sessions: [usize; 2],
    nodes: u32,
    refilling: bool,
}

const STEPS: [Step; 4] = [
    Step {
        what: "1 client",
        clients: 1,
        sessions: [6, 30],
        nodes: 1,
        refilling: false,
    },
    Step {
        what: "1 client, worker refilling",
        clients: 1,
        sessions: [6, 30],
        nodes: 1,
        refilling: true,
    },
    Step {
        what: "8 clients",
        clients: 8,
        sessions: [16, 56],
        nodes: 1,
        refilling: false,
    },
    Step {
        what: "50 nodes",
        clients: 1,
        sessions: [1, 1],
        nodes: LARGE,
        refilling: false,
    },
];

/// An installation with its servers, and what its rounds gave, by step.
struct Side {
    label: &'static str,
    installation: Installation,
    worker: Program,
    _serve: Program,
    rounds: Vec<Vec<Load>>,
}

impl Side {
    fn start(rig: &Rig, kind: Kind, network: u8, label: &'static str, settings: Value) -> Self {
        let plan = Plan {
            metal: NODES,
            network,
            settings,
            ..Plan::default()
        };
        let installation = rig.install(kind, &plan);
        let (serve, _) = installation.serve();
        let worker = installation.work();
        let full = installation.wait_ready(METAL, NODES, Duration::from_mins(2));
        assert!(
            full,
            "the pool is not filled; the worker's log: {}",
            worker.log()
        );
        installation.wait_quiet();
        if label == "held" {
            installation.wait_held(NODES);
        }
        signal_all(&worker, Signal::SIGSTOP);
        Self {
            label,
            installation,
            worker,
            _serve: serve,
            rounds: STEPS.iter().map(|_| Vec::new()).collect(),
        }
    }

    /// Runs a step. Before and after it, the worker is stopped, so that it does not disturb the others.
    fn run(&mut self, index: usize) {
        let step = &STEPS[index];
        let installation = &self.installation;
        let side = usize::from(installation.kind == Kind::Ours);
        if step.refilling {
            signal_all(&self.worker, Signal::SIGCONT);
        }
        let load = load::sessions(
            &installation.access,
            step.clients,
            step.sessions[side],
            METAL,
            step.nodes,
        );
        signal_all(&self.worker, Signal::SIGCONT);
        if !installation.wait_ready(METAL, NODES, REFILL[side]) {
            assert_eq!(side, 0, "the pool is not filled: {}", self.worker.log());
            installation.sql(RESET);
        }
        installation.wait_quiet();
        if self.label == "held" {
            installation.wait_held(NODES);
        }
        signal_all(&self.worker, Signal::SIGSTOP);
        eprintln!(
            "bench:   {} {}: {:.1}/s, p50 {:.0} ms{}",
            self.label,
            step.what,
            load.rate(),
            load.latencies.percentile(0.5),
            complaints([&load])
        );
        self.rounds[index].push(load);
    }

    /// The medians of a step: sessions per second, p50, p99, and the figure that shows them.
    fn figure(&self, index: usize, by_rate: bool) -> Figure {
        let loads = &self.rounds[index];
        let of = |value: fn(&Load) -> f64| median(&loads.iter().map(value).collect::<Vec<_>>());
        let rate = of(Load::rate);
        let half = of(|load| load.latencies.percentile(0.5));
        let tail = of(|load| load.latencies.percentile(0.99));
        let mut text = if STEPS[index].nodes > 1 {
            milliseconds(half)
        } else {
            let (half, tail) = (milliseconds(half), milliseconds(tail));
            format!("{}, p50 {half}, p99 {tail}", per_second(rate))
        };
        let complaint = complaints(loads);
        if loads.iter().all(|load| load.latencies.count() == 0) {
            return Figure::none(complaint.trim_start_matches("; "));
        }
        text += &complaint;
        Figure::new(if by_rate { rate } else { half }, text)
    }
}

/// Measures the rows.
pub fn measure(rig: &Rig, results: &mut Results) {
    let mut sides = Vec::new();
    let root = Uid::effective().is_root();
    if root {
        sides.push(Side::start(
            rig,
            Kind::Original,
            80,
            "original",
            Value::Null,
        ));
    }
    if rig.can_hold {
        sides.push(Side::start(rig, Kind::Ours, 82, "held", hold(true)));
        sides.push(Side::start(rig, Kind::Ours, 84, "login", hold(false)));
    } else {
        sides.push(Side::start(rig, Kind::Ours, 84, "login", Value::Null));
    }
    let mut logins = Vec::new();
    for _ in 0..rig.rounds() {
        for step in 0..STEPS.len() {
            for side in &mut sides {
                side.run(step);
            }
        }
        let login = sides.last().expect("one of ours");
        logins.push(bare_login(&login.installation, rig.pick(20, 60)));
    }
    let login = median(&logins);
    for (index, step) in STEPS.iter().enumerate() {
        let by_rate = step.clients > 1;
        let original = if root {
            sides[0].figure(index, by_rate)
        } else {
            Figure::none("it logs in as root; run this as root")
        };
        let first = login_of_one(&sides);
        for side in sides.iter().skip(usize::from(root)) {
            let ours = side.figure(index, by_rate);
            let yardstick = match (side.label, step.nodes) {
                ("login", 1) => Some(Figure::new(
                    login,
                    format!("russh login {}", milliseconds(login)),
                )),
                ("login", _) => Some(Figure::new(
                    first,
                    format!("session of one {}", milliseconds(first)),
                )),
                _ => None,
            };
            let (reach, reached) = bound(side.label, step, &ours, login, first);
            results.rows.push(Row {
                what: describe(step, side.label, rig.can_hold),
                better: if by_rate {
                    Better::Greater
                } else {
                    Better::Less
                },
                original: original.clone(),
                ours,
                yardstick: yardstick.filter(|_| !by_rate),
                reach,
                reached,
            });
        }
    }
}

/// The median of a session of one node without held connections, in milliseconds.
fn login_of_one(sides: &[Side]) -> f64 {
    let login = sides.last().expect("one of ours");
    login.figure(0, false).value.unwrap_or_default()
}

fn describe(step: &Step, label: &str, can_hold: bool) -> String {
    let hold = match label {
        _ if !can_hold => "",
        "held" => ", held connections",
        _ => ", `ssh.hold` off",
    };
    let nodes = if step.nodes == 1 {
        "one node"
    } else {
        step.what
    };
    let who = if step.nodes == 1 {
        format!(", {}", step.what)
    } else {
        String::new()
    };
    format!("session of {nodes} (real sshd){who}{hold}")
}

fn bound(
    label: &str,
    step: &Step,
    ours: &Figure,
    login: f64,
    first: f64,
) -> (&'static str, Option<bool>) {
    let Some(value) = ours.value else {
        return ("", None);
    };
    match (label, step.nodes, step.clients, step.refilling) {
        ("held", 1, 1, false) => ("p50 ≤ 15 ms", Some(value <= 15.0)),
        ("held", 1, 8, _) => ("≥ 300/s while the pool lasts", Some(value >= 300.0)),
        ("held", LARGE, ..) => ("≤ 60 ms", Some(value <= 60.0)),
        ("login", 1, 1, false) => ("≤ 1.2 × a bare russh login", Some(value <= 1.2 * login)),
        ("login", LARGE, ..) => ("≤ 3 × a session of one", Some(value <= 3.0 * first)),
        _ => ("", None),
    }
}
