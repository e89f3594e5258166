//! What the processes need: memory, the time to start, and the command line client.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::children::{memory_of, run_measured};
use crate::figures::{Better, Figure, Results, Row, median, milliseconds, number};
use crate::installation::{Installation, Kind, METAL, Plan};
use crate::load;
use crate::rig::Rig;
use crate::support::Program;

const NODES: usize = 20;

/// Measures the memory of serve, worker and serve-legacy, idle and under load.
pub fn measure_memory(rig: &Rig, results: &mut Results) {
    let plan = Plan {
        metal: NODES,
        network: 90,
        ..Plan::default()
    };
    let length = Duration::from_secs(rig.pick(20, 600));
    let [original, ours] = rig.install_both(&plan).map(|installation| {
        let programs = [
            installation.serve().0,
            installation.work(),
            installation.serve_legacy(),
        ];
        installation.wait_ready(METAL, NODES, Duration::from_mins(1));
        let idle = memory_of(&programs);
        // A minute shows enough of the original, whose memory has no bound to keep.
        let length = match installation.kind {
            Kind::Original => length.min(Duration::from_mins(1)),
            Kind::Ours => length,
        };
        let half = under_load(&installation, &programs, length / 2);
        let whole = under_load(&installation, &programs, length / 2);
        (idle, half, whole)
    });
    let megabytes = |value: f64| format!("{} MB", number(value));
    results.rows.push(Row {
        what: "memory of serve + worker + serve-legacy, idle".to_owned(),
        better: Better::Less,
        original: Figure::new(original.0, megabytes(original.0)),
        ours: Figure::new(ours.0, megabytes(ours.0)),
        yardstick: None,
        reach: "60 MB",
        reached: Some(ours.0 <= 60.0),
    });
    let loaded = |(_, half, whole): (f64, f64, f64)| {
        Figure::new(
            whole,
            format!("{} ({} at half time)", megabytes(whole), megabytes(half)),
        )
    };
    results.rows.push(Row {
        what: format!(
            "memory of the three, after {} s of full load (the original: at most 60 s)",
            length.as_secs()
        ),
        better: Better::Less,
        original: loaded(original),
        ours: loaded(ours),
        yardstick: None,
        reach: "100 MB, flat",
        // A tenth more is noise of the allocator.
        reached: Some(ours.2 <= 100.0 && ours.2 <= ours.1 * 1.1),
    });
}

/// Loads all endpoints for this long. Returns the memory afterwards.
fn under_load(installation: &Installation, programs: &[Program], length: Duration) -> f64 {
    let start = Instant::now();
    let access = &installation.access;
    std::thread::scope(|scope| {
        scope.spawn(|| load::get(access, 4, length, "sessions"));
        scope.spawn(|| load::get(access, 4, length, "pools/metal"));
        scope.spawn(|| {
            while start.elapsed() < length {
                load::sessions(access, 2, 2, METAL, 1);
            }
        });
    });
    memory_of(programs)
}

/// Measures the time from the start of `serve` to its first reply.
pub fn measure_start(rig: &Rig, results: &mut Results) {
    let installations = rig.install_both(&Plan::default());
    let mut times = [Vec::new(), Vec::new()];
    for _ in 0..rig.rounds() {
        for (times, installation) in times.iter_mut().zip(&installations) {
            times.push(installation.serve().1.as_secs_f64() * 1000.0);
        }
    }
    let figure = |times: &[f64]| Figure::new(median(times), milliseconds(median(times)));
    results.rows.push(Row {
        what: "start of serve to its first reply".to_owned(),
        better: Better::Less,
        original: figure(&times[0]),
        ours: figure(&times[1]),
        yardstick: None,
        reach: "",
        reached: None,
    });
}

/// Measures time and memory of `duffy client list-pools`.
pub fn measure_client(rig: &Rig, results: &mut Results) {
    let mut installations = rig.install_both(&Plan::default());
    let url = format!("http://127.0.0.1:{}/api/v1", installations[1].access.port);
    let credentials = installations[1].access.credentials.clone();
    let (_, key) = credentials.split_once(':').unwrap();
    // Both ask our server, so that its time does not count.
    installations[0].reconfigure(&json!({"client": {"url": url, "auth": {"key": key}}}));
    let _serve = installations[1].serve().0;
    let (mut times, mut sizes) = ([Vec::new(), Vec::new()], [Vec::new(), Vec::new()]);
    for _ in 0..rig.pick(5, 20) {
        for (side, installation) in installations.iter().enumerate() {
            let run = run_measured(&installation.command(&["client", "list-pools"]));
            times[side].push(run.seconds * 1000.0);
            sizes[side].push(run.max_rss_mb);
        }
    }
    let figure = |side: usize| {
        let (time, size) = (median(&times[side]), median(&sizes[side]));
        Figure::new(time, format!("{}, {} MB", milliseconds(time), number(size)))
    };
    let (original, ours) = (figure(0), figure(1));
    let reached = median(&times[1]) <= 5.0 && median(&sizes[1]) <= 8.0;
    results.rows.push(Row {
        what: "`duffy client list-pools`".to_owned(),
        better: Better::Less,
        original,
        ours,
        yardstick: None,
        reach: "5 ms, 8 MB",
        reached: Some(reached),
    });
}
