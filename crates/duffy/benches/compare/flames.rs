//! Flame graphs of serve and worker under load, from samples of perf.

use std::fs;
use std::io::BufReader;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use inferno::collapse::Collapse;
use inferno::collapse::perf::{Folder, Options as FolderOptions};
use inferno::flamegraph;
use nix::sys::signal::Signal;

use crate::installation::{Installation, Kind, METAL, Plan};
use crate::load;
use crate::programs::look_up;
use crate::report::chart_directory;
use crate::rig::Rig;
use crate::support::Program;

const NODES: usize = 60;
/// Samples per second and thread: of a program that uses both cores, and of programs that mostly wait. A sample has 64 kB of stack.
const BUSY: &str = "99";
const WAITING: &str = "999";
/// The maximum size of a graph in bytes: the narrowest frames are left out.
const MAX_SIZE: usize = 250_000;
/// The names of the program's threads. perf also samples the programs that it starts.
const THREADS: &str = "--comms=duffy,tokio-rt-worker";

/// Records the graphs.
pub fn measure(rig: &Rig) {
    let Some(perf) = look_up("perf") else {
        eprintln!("bench: no flame graphs: perf is missing (linux-perf on Debian, perf on Fedora)");
        return;
    };
    let plan = Plan {
        metal: NODES,
        network: 96,
        ..Plan::default()
    };
    let ours = rig.install(Kind::Ours, &plan);
    let (serve, _) = ours.serve();
    let worker = ours.work();
    let full = ours.wait_ready(METAL, NODES, Duration::from_mins(1));
    assert!(
        full,
        "the pool is not filled; the worker's log: {}",
        worker.log()
    );
    let length = Duration::from_secs(rig.pick(5, 10));
    let sessions_length = length * 2;

    record(
        &perf,
        &ours,
        &[(&serve, "pools-serve", "serve under GET /pools/{name}")],
        BUSY,
        length,
        || {
            load::get(&ours.access.anonymous(), 8, length, "pools/metal");
        },
    );
    let both = [
        (
            &serve,
            "sessions-serve",
            "serve under sessions of real nodes",
        ),
        (
            &worker,
            "sessions-worker",
            "worker under sessions of real nodes",
        ),
    ];
    record(&perf, &ours, &both, WAITING, sessions_length, || {
        let start = Instant::now();
        while start.elapsed() < sessions_length {
            ours.wait_ready(METAL, NODES / 2, Duration::from_secs(20));
            load::sessions(&ours.access, 8, NODES / 2, METAL, 1);
        }
    });
}

/// Samples programs during a load, and draws a graph for each.
fn record(
    perf: &Path,
    installation: &Installation,
    programs: &[(&Program, &str, &str)],
    frequency: &str,
    length: Duration,
    load: impl FnOnce(),
) {
    let recorders: Vec<Program> = programs
        .iter()
        .map(|(program, name, _)| {
            let mut recorder = Command::new(perf);
            recorder.args([
                "record",
                "-F",
                frequency,
                "--call-graph",
                "dwarf,65528",
                "-o",
            ]);
            recorder.arg(installation.scratch.join(name));
            recorder.args(["-p", &program.pid().to_string()]);
            Program::start(&installation.scratch, &format!("perf-{name}"), recorder)
        })
        .collect();
    load();
    for ((_, name, title), recorder) in programs.iter().zip(recorders) {
        recorder.signal(Signal::SIGINT);
        recorder.wait_exit(length * 6);
        let samples = installation.scratch.join(name);
        let is_empty = samples.metadata().is_ok_and(|file| file.len() == 0);
        if is_empty || !samples.exists() {
            eprintln!(
                "bench: no flame graph {name}: perf cannot sample here. Try as root, or with a lower kernel.perf_event_paranoid. It says:\n{}",
                recorder.log()
            );
            continue;
        }
        draw(perf, &samples, name, title);
    }
}

fn draw(perf: &Path, samples: &Path, name: &str, title: &str) {
    let mut script = Command::new(perf)
        .args(["script", "--no-inline", THREADS, "-i"])
        .arg(samples)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut stacks = Vec::new();
    let mut folder = Folder::from(FolderOptions::default());
    let output = BufReader::new(script.stdout.take().unwrap());
    folder.collapse(output, &mut stacks).unwrap();
    script.wait().unwrap();
    let mut options = flamegraph::Options::default();
    options.title = format!("duffy {title}");
    options.hash = true;
    // In percent of the whole width.
    options.min_width = 0.1;
    let mut graph = Vec::new();
    loop {
        graph.clear();
        if let Err(error) = flamegraph::from_reader(&mut options, &stacks[..], &mut graph) {
            eprintln!("bench: no flame graph {name}: {error}");
            return;
        }
        if graph.len() <= MAX_SIZE {
            break;
        }
        options.min_width *= 1.5;
    }
    let file = chart_directory().join(format!("flame-{name}.svg"));
    fs::write(&file, graph).unwrap();
    eprintln!("bench: wrote {}", file.display());
}
