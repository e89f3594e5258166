//! Latencies over the number of retired nodes and sessions, also with 10,000 ready nodes.

use std::process::Command;
use std::time::Duration;

use crate::figures::{Better, Figure, LineChart, Results, Row, median, number};
use crate::installation::{Installation, Kind, Plan, SIMULATED};
use crate::load;
use crate::programs::{of_postgres, output_of};
use crate::rig::Rig;

const SIZES: [usize; 4] = [1, 10_000, 100_000, 1_000_000];
const FILL: &str = include_str!("../million.sql");
const PATHS: [&str; 3] = ["GET /sessions", "GET /pools/{name}", "POST /sessions"];

/// Measures the row and the chart.
pub fn measure(rig: &Rig, results: &mut Results) {
    let mut lines: Vec<(String, Vec<(f64, f64)>)> = Vec::new();
    let mut worst = [0.0_f64; 2];
    for (side, kind) in [Kind::Original, Kind::Ours].into_iter().enumerate() {
        let label = ["original", "ours"][side];
        let found = SIZES.map(|size| latencies(rig, kind, size, 50));
        for (index, path) in PATHS.iter().enumerate() {
            let points: Vec<(f64, f64)> = SIZES
                .iter()
                .zip(&found)
                .filter_map(|(size, found)| Some((*size as f64, *found.get(index)?)))
                .collect();
            if let (Some(first), Some(last)) = (points.first(), points.last()) {
                worst[side] = worst[side].max(last.1 / first.1);
                lines.push((format!("{label}, {path}"), points));
            }
        }
    }
    let times = |value: f64| Figure::new(value, format!("{value:.2} ×"));
    results.rows.push(Row {
        what: "p50 with 1,000,000 retired nodes and sessions, 4,000,000 events, against none"
            .to_owned(),
        better: Better::Less,
        original: times(worst[0]),
        ours: times(worst[1]),
        yardstick: None,
        reach: "≤ 1.1 ×",
        reached: Some(worst[1] <= 1.1),
    });
    results.charts.push(LineChart {
        file: "latency-over-history",
        title: "Latency (p50, 1 client) over retired nodes and sessions",
        x: "retired nodes and sessions",
        y: "ms",
        lines,
    });
    let [small, large] = [SIZES[0], SIZES[3]].map(|size| latencies(rig, Kind::Ours, size, 10_000));
    let ratios = large.iter().zip(&small).map(|(large, small)| large / small);
    let ratio = ratios.fold(0.0, f64::max);
    results.rows.push(Row {
        what: format!("the same, with {} ready nodes in both", number(10_000.0)),
        better: Better::Less,
        original: Figure::none("it has no simulated nodes"),
        ours: times(ratio),
        yardstick: None,
        reach: "≤ 1.1 ×",
        reached: Some(ratio <= 1.1),
    });
}

/// Returns the medians of [`PATHS`] in milliseconds, without sessions for the original.
fn latencies(rig: &Rig, kind: Kind, size: usize, ready: usize) -> Vec<f64> {
    let plan = Plan {
        simulated: if kind == Kind::Ours { ready } else { 0 },
        ..Plan::default()
    };
    let installation = rig.install(kind, &plan);
    let worker = (kind == Kind::Ours).then(|| installation.work());
    if let Some(worker) = &worker {
        let full = installation.wait_ready(SIMULATED, ready, Duration::from_mins(5));
        assert!(
            full,
            "the pool is not filled; the worker's log: {}",
            worker.log()
        );
    }
    fill(&installation, size);
    let (_serve, _) = installation.serve();
    let pool = if kind == Kind::Ours {
        SIMULATED
    } else {
        "metal"
    };
    let (access, duration) = (&installation.access, Duration::from_secs(3));
    let mut rounds = vec![Vec::new(); PATHS.len()];
    for _ in 0..rig.rounds() {
        let list = load::get(access, 1, duration, "sessions");
        rounds[0].push(list.latencies.percentile(0.5));
        let path = format!("pools/{pool}");
        let read = load::get(&access.anonymous(), 1, duration, &path);
        rounds[1].push(read.latencies.percentile(0.5));
        if kind == Kind::Ours {
            installation.wait_ready(pool, ready, Duration::from_mins(1));
            let sessions = load::sessions(access, 1, 40, pool, 1);
            rounds[2].push(sessions.latencies.percentile(0.5));
        }
    }
    rounds.retain(|round| !round.is_empty());
    rounds.iter().map(|round| median(round)).collect()
}

fn fill(installation: &Installation, size: usize) {
    let file = installation.scratch.join("million.sql");
    std::fs::write(&file, FILL).unwrap();
    let mut psql = Command::new(of_postgres("psql"));
    psql.args([
        "-X",
        "-q",
        "-v",
        "ON_ERROR_STOP=1",
        "-v",
        &format!("count={size}"),
    ]);
    let events = if installation.kind == Kind::Ours {
        "1"
    } else {
        "0"
    };
    psql.args([
        "-v",
        &format!("events={events}"),
        "-d",
        &installation.database,
        "-f",
    ]);
    output_of(psql.arg(file));
}
