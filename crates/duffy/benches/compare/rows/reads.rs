//! Reads of the web API: with credentials, without, and over the number of clients.

use std::time::Duration;

use serde_json::Value;

use crate::figures::{Better, Figure, LineChart, Results, Row, median, milliseconds, per_second};
use crate::installation::{Installation, METAL, Plan};
use crate::load::{self, Load, complaints};
use crate::rig::{Rig, hold};

const CLIENTS: usize = 8;
/// The numbers of clients of the chart.
const LOADS: [usize; 6] = [1, 2, 4, 8, 16, 32];

/// Sixty ready nodes, and five sessions of the tenant.
const CONTENT: &str = "\
INSERT INTO nodes (hostname, ipaddr, state, pool, reusable, data)
SELECT 'node' || g, '127.99.0.' || g, 'ready', 'metal', false, '{}' FROM generate_series(1, 60) g;
INSERT INTO nodes (hostname, ipaddr, state, pool, reusable, data)
SELECT 'lent' || g, '127.99.1.' || g, 'deployed', 'metal', false, '{}' FROM generate_series(1, 5) g;
INSERT INTO sessions (tenant_id, expires_at, data)
SELECT 1, now() + interval '1 day', '{\"nodes_specs\": [{\"pool\": \"metal\", \"quantity\": 1}]}' FROM generate_series(1, 5);
INSERT INTO sessions_nodes (session_id, node_id, pool, data)
SELECT s.id, n.id, 'metal', '{}' FROM sessions s JOIN nodes n ON n.hostname = 'lent' || s.id;
ANALYZE";

/// Returns the medians of several rounds: replies per second and p99 in milliseconds, and the figure that shows them.
fn figure(loads: &[Load]) -> (Figure, f64) {
    let of = |value: fn(&Load) -> f64| median(&loads.iter().map(value).collect::<Vec<_>>());
    let rate = of(Load::rate);
    let tail = of(|load| load.latencies.percentile(0.99));
    let half = milliseconds(of(|load| load.latencies.percentile(0.5)));
    let mut text = format!(
        "{}, p50 {half}, p99 {}",
        per_second(rate),
        milliseconds(tail)
    );
    let complaint = complaints(loads);
    if rate <= 0.0 {
        return (Figure::none(complaint.trim_start_matches("; ")), tail);
    }
    text += &complaint;
    (Figure::new(rate, text), tail)
}

/// Measures the rows.
pub fn measure(rig: &Rig, results: &mut Results) {
    // The nodes do not exist: nothing must log in to them.
    let plan = Plan {
        settings: if rig.can_hold {
            hold(false)
        } else {
            Value::Null
        },
        ..Plan::default()
    };
    let installations = rig.install_both(&plan);
    let servers: Vec<_> = installations
        .iter()
        .map(|installation| {
            installation.sql(CONTENT);
            installation.serve().0
        })
        .collect();
    let seconds = rig.pick(2, 5);
    let duration = Duration::from_secs(seconds);
    let pool = format!("pools/{METAL}");
    // The first requests fill caches: the digest of the key, prepared statements.
    for installation in &installations {
        for path in ["sessions", &pool] {
            load::get(&installation.access, 2, Duration::from_millis(500), path);
        }
    }
    let mut lists = [Vec::new(), Vec::new()];
    let mut pools = [Vec::new(), Vec::new()];
    let mut selects = Vec::new();
    for _ in 0..rig.rounds() {
        for (side, installation) in installations.iter().enumerate() {
            let access = &installation.access;
            lists[side].push(load::get(access, CLIENTS, duration, "sessions"));
            pools[side].push(load::get(&access.anonymous(), CLIENTS, duration, &pool));
        }
        selects.push(rig.pgbench().select(seconds));
    }
    let [(original, _), (ours, _)] = lists.each_ref().map(|loads| figure(loads));
    let ratio = original
        .value
        .zip(ours.value)
        .map(|(original, ours)| ours / original);
    results.rows.push(Row {
        what: "authenticated `GET /sessions`, 8 connections".to_owned(),
        better: Better::Greater,
        original,
        ours,
        yardstick: None,
        reach: "2,000 × the original",
        reached: ratio.map(|ratio| ratio >= 2000.0),
    });
    let [(original, _), (ours, tail)] = pools.each_ref().map(|loads| figure(loads));
    let select = median(&selects);
    let wanted = original
        .value
        .map(|original| (original * 20.0).min(select / 2.0));
    let reached = wanted
        .zip(ours.value)
        .map(|(wanted, ours)| ours >= wanted && tail <= 3.0);
    results.rows.push(Row {
        what: "`GET /pools/{name}`, 8 connections".to_owned(),
        better: Better::Greater,
        original,
        ours,
        yardstick: Some(Figure::new(
            select,
            format!("`pgbench -S` {}", per_second(select)),
        )),
        reach: "20 × the original, or half of `pgbench -S`; p99 ≤ 3 ms",
        reached,
    });
    results
        .charts
        .push(latency_over_load(rig, &installations, &pool));
    drop(servers);
}

fn latency_over_load(rig: &Rig, installations: &[Installation], path: &str) -> LineChart {
    let mut lines: Vec<(String, Vec<(f64, f64)>)> = Vec::new();
    for name in ["original", "ours"] {
        for part in ["p50", "p99"] {
            lines.push((format!("{name}, {part}"), Vec::new()));
        }
    }
    for clients in LOADS {
        for (side, installation) in installations.iter().enumerate() {
            let duration = Duration::from_secs(rig.pick(1, 4));
            let load = load::get(&installation.access.anonymous(), clients, duration, path);
            let line = |part| (clients as f64, load.latencies.percentile(part));
            lines[2 * side].1.push(line(0.5));
            lines[2 * side + 1].1.push(line(0.99));
        }
    }
    LineChart {
        file: "latency-over-load",
        title: "GET /pools/{name}: latency over load",
        x: "clients",
        y: "ms",
        lines,
    }
}
