//! Chaos: runs two processes of each kind and clients, and injects faults with a seeded schedule. Then it removes all faults,
//! waits until Duffy is idle, and checks the guarantees.
//!
//! The tests contain a short run on each engine. `make chaos` runs the same for `MINUTES`, with `SEED`. The seed determines the
//! schedule, the operations of clients and the faults of playbooks, but not the interleaving of threads.

mod checks;
mod clients;
mod database;
mod environment;
mod faults;
mod load;
mod log;
mod machines;
mod operator;
mod playbook_faults;
mod processes;
mod report;
mod rng;
mod self_check;

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::time::{Duration, Instant};

use checks::{Snapshot, Tables};
use clients::Client;
use database::Database;
use environment::{Environment, Tenant};
use faults::{FaultInjector, Schedule};
use load::Load;
use log::{Finding, Log};
use machines::Machines;
use operator::Operator;
use report::Report;

use crate::support::{Api, eventually};

/// The length of the short run.
const SHORT_RUN: Duration = Duration::from_secs(25);
/// The time limit until Duffy is idle after the faults.
const IDLE_TIMEOUT: Duration = Duration::from_secs(90);
/// The time limit until the pools are filled at the start.
const SETUP_TIMEOUT: Duration = Duration::from_secs(90);
/// The interval of `duffy admin check` during the run.
const SELF_CHECK_INTERVAL: Duration = Duration::from_secs(10);
/// The longest time without a granted session.
const GRANT_TIMEOUT: Duration = Duration::from_mins(1);
/// The minimum number of sessions per ten seconds.
const MIN_SESSIONS: u32 = 2;

#[test]
fn on_postgres() {
    run(true);
}

#[test]
fn on_sqlite() {
    run(false);
}

/// Returns a number from an environment variable that `make chaos` sets.
fn parse_variable<T: std::str::FromStr>(variable: &str) -> Option<T> {
    let text = std::env::var(variable)
        .ok()
        .filter(|text| !text.is_empty())?;
    let Ok(number) = text.parse() else {
        panic!("{variable} is {text:?}, not a number")
    };
    Some(number)
}

fn run(on_postgres: bool) {
    let seed =
        parse_variable("DUFFY_CHAOS_SEED").unwrap_or_else(|| RandomState::new().hash_one(0) >> 32);
    let minutes = parse_variable::<f64>("DUFFY_CHAOS_MINUTES");
    let length = minutes.map_or(SHORT_RUN, |minutes| Duration::from_secs_f64(minutes * 60.0));
    let engine = if on_postgres { "postgres" } else { "sqlite" };
    eprintln!("chaos on {engine}: SEED={seed}, {} s", length.as_secs());

    let start = Instant::now();
    let mut environment = Environment::build(on_postgres, seed, start);
    let log = Log::new(&environment.scratch, start);
    let admin_key = environment.set_up_database();
    let mut processes = environment.processes();
    processes.wait_for_all(&log);
    let admin = Api::new(environment.ports[0], "admin", &admin_key);
    eventually(SETUP_TIMEOUT, "the web API", || {
        admin.call("GET", "pools", None).map(drop)
    });
    let tenants = environment.populate(&admin);
    let database = environment.database.clone();
    eventually(SETUP_TIMEOUT, "filled pools", || {
        check_idle(&database, &environment.machines)
    });

    let schedule = Schedule::generate(seed, length, on_postgres);
    let ports = environment.ports;
    log.start_grant_timer();
    let duffy = environment.site.duffy();
    let machines = environment.machines.clone();
    let mut clients: Vec<Client> = tenants
        .iter()
        .map(|tenant| Client::new(tenant, ports, seed, &log, &machines))
        .collect();
    let mut operator = Operator::new(duffy.clone(), database.clone(), seed, &log);
    let mut load = Load::new(ports, seed, &log);
    let mut injector = FaultInjector::new(&mut environment, &mut processes, &log);
    std::thread::scope(|scope| {
        for client in &mut clients {
            scope.spawn(|| client.run());
        }
        scope.spawn(|| operator.run());
        scope.spawn(|| load.run());
        scope.spawn(|| monitor(&database, &machines, &log, &tenants));
        scope.spawn(|| {
            while !log.wait(SELF_CHECK_INTERVAL) {
                self_check::run(&duffy, false, &log);
            }
        });
        injector.run(&schedule, length);
        log.stop();
        // Clients may wait for a process that is suspended.
        log.write("UNDO ALL FAULTS");
        injector.undo_all();
    });
    std::thread::scope(|scope| {
        for client in &mut clients {
            scope.spawn(|| client.finish());
        }
        scope.spawn(|| operator.finish());
    });
    log.write("WAIT UNTIL IDLE");
    let undone = Instant::now();
    let idle = wait_until_idle(&database, &machines, || processes.tick(&log));
    if let Err(pending_work) = idle {
        log.report(Finding::new(format!(
            "not idle after {IDLE_TIMEOUT:?}: {pending_work}"
        )));
    }
    eprintln!("idle after {} s", undone.elapsed().as_secs());
    log.write("CHECK");
    match Tables::read(&database) {
        Ok(tables) => {
            let snapshot = Snapshot {
                tables,
                machines: machines.states(),
                tenants: &tenants,
                known_sessions: log.sessions(),
            };
            run_checks(&checks::WHEN_IDLE, &snapshot, &log);
        }
        Err(error) => log.report(Finding::new(format!("the database: {error}"))),
    }
    self_check::run(&duffy, true, &log);
    let granted = log.sessions().len();
    let minimum = MIN_SESSIONS * (length.as_secs() / 10) as u32;
    if granted < minimum as usize {
        let what = format!("only {granted} sessions were granted, less than {minimum}");
        log.report(Finding::new(what));
    }
    processes.kill_all();
    let report = Report {
        engine,
        seed,
        schedule: &schedule,
        log: &log,
        environment: &environment,
    };
    report.print();
}

/// Runs checks and reports their findings.
fn run_checks(checks: &[(&str, checks::Check)], snapshot: &Snapshot<'_>, log: &Log) {
    for (name, check) in checks {
        for mut finding in check(snapshot) {
            finding.what = format!("{name}: {}", finding.what);
            log.report(finding);
        }
    }
}

/// Runs the checks that must always pass every second, and reports when no session is granted for too long.
fn monitor(database: &Database, machines: &Machines, log: &Log, tenants: &[Tenant]) {
    while !log.wait(Duration::from_secs(1)) {
        // If the database is unavailable, the next round checks.
        if let Ok(tables) = Tables::read(database) {
            let snapshot = Snapshot {
                tables,
                machines: machines.states(),
                tenants,
                known_sessions: log.sessions(),
            };
            run_checks(&checks::ALWAYS, &snapshot, log);
        }
        if log.time_since_grant() > GRANT_TIMEOUT {
            let what = format!("no session was granted for {GRANT_TIMEOUT:?}");
            log.report(Finding::new(what));
            return;
        }
    }
}

fn check_idle(database: &Database, machines: &Machines) -> Result<(), String> {
    let pending_work = Tables::read(database)?.pending_work(&machines.states());
    if pending_work.is_empty() {
        Ok(())
    } else {
        Err(pending_work.join(", "))
    }
}

/// Waits until there is nothing to do for a while.
fn wait_until_idle(
    database: &Database,
    machines: &Machines,
    mut tick: impl FnMut(),
) -> Result<(), String> {
    let (start, mut since) = (Instant::now(), None);
    let mut last = String::new();
    // Nothing is sent, so `recv_timeout` is a wait.
    let (_sender, pause) = std::sync::mpsc::channel::<()>();
    while start.elapsed() < IDLE_TIMEOUT {
        tick();
        match check_idle(database, machines) {
            Ok(()) if since.get_or_insert_with(Instant::now).elapsed() > IDLE_TIME => return Ok(()),
            Ok(()) => {}
            Err(pending_work) => (since, last) = (None, pending_work),
        }
        pause.recv_timeout(Duration::from_millis(300)).ok();
    }
    Err(last)
}

/// How long Duffy must be idle.
const IDLE_TIME: Duration = Duration::from_millis(2500);
