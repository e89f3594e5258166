//! Sessions of simulated nodes beside their floor in SQL, and the time to fill a pool.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::figures::{Better, Figure, Results, Row, median, milliseconds, number, per_second};
use crate::installation::{Kind, Plan, SIMULATED};
use crate::load::{self, Load, complaints};
use crate::rig::Rig;

/// Why the original has no figure.
const NO_SIMULATION: &str = "it has no simulated nodes";

/// Measures sessions with eight clients, and `floor.sql` in the same run.
pub fn measure_sessions(rig: &Rig, results: &mut Results) {
    let plan = Plan {
        simulated: 200,
        ..Plan::default()
    };
    let ours = rig.install(Kind::Ours, &plan);
    let (_serve, _) = ours.serve();
    let worker = ours.work();
    let count = rig.pick(200, 600);
    let (mut loads, mut floors) = (Vec::new(), Vec::new());
    for _ in 0..rig.rounds() {
        let full = ours.wait_ready(SIMULATED, plan.simulated, Duration::from_mins(2));
        assert!(
            full,
            "the pool is not filled; the worker's log: {}",
            worker.log()
        );
        loads.push(load::sessions(&ours.access, 8, count, SIMULATED, 1));
        floors.push(rig.pgbench().floor(rig.pick(3, 8)));
    }
    let of = |value: fn(&Load) -> f64| median(&loads.iter().map(value).collect::<Vec<_>>());
    let (rate, floor) = (of(Load::rate), median(&floors));
    let complaint = complaints(&loads);
    let mut text = format!(
        "{}, p50 {}, p99 {}",
        per_second(rate),
        milliseconds(of(|load| load.latencies.percentile(0.5))),
        milliseconds(of(|load| load.latencies.percentile(0.99))),
    );
    text += &complaint;
    results.rows.push(Row {
        what: "session of one simulated node, 8 clients, worker refilling".to_owned(),
        better: Better::Greater,
        original: Figure::none(NO_SIMULATION),
        ours: Figure::new(rate, text),
        yardstick: Some(Figure::new(
            floor,
            format!("`floor.sql` {}", per_second(floor)),
        )),
        reach: "half of `floor.sql`",
        reached: Some(rate >= floor / 2.0),
    });
}

/// Measures the time from the start of a worker until a pool is full.
pub fn measure_filling(rig: &Rig, results: &mut Results) {
    let sizes: &[usize] = rig.pick(&[600], &[600, 10_000]);
    for size in sizes {
        let plan = Plan {
            simulated: *size,
            settings: Value::Null,
            ..Plan::default()
        };
        let rounds = if *size > 600 { 1 } else { rig.rounds() };
        let times: Vec<f64> = (0..rounds)
            .map(|_| {
                let ours = rig.install(Kind::Ours, &plan);
                let start = Instant::now();
                let worker = ours.work();
                let full = ours.wait_ready(SIMULATED, *size, Duration::from_mins(5));
                assert!(
                    full,
                    "the pool is not filled; the worker's log: {}",
                    worker.log()
                );
                start.elapsed().as_secs_f64()
            })
            .collect();
        let time = median(&times);
        results.rows.push(Row {
            what: format!("filling {} simulated nodes", number(*size as f64)),
            better: Better::Less,
            original: Figure::none(NO_SIMULATION),
            ours: Figure::new(time, format!("{} s", number(time))),
            yardstick: None,
            reach: if *size > 600 { "30 s" } else { "" },
            reached: (*size > 600).then_some(time <= 30.0),
        });
    }
}
