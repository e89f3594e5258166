//! Chaos: two of each process, clients, and a seeded schedule of everything that can go wrong. Then all is healed, comes
//! to rest, and is checked.
//!
//! A short run of each engine is part of the tests. `make chaos` runs the same for `MINUTES`, with `SEED`; the seed
//! makes the schedule, the clients' wishes and the playbooks' mishaps, not the moments at which threads run.

mod base;
mod checks;
mod clients;
mod crew;
mod crowd;
mod dice;
mod faults;
mod mishap;
mod operator;
mod record;
mod report;
mod room;
mod stage;
mod verdict;

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::time::{Duration, Instant};

use checks::{Scene, Tables};
use clients::Client;
use crowd::Crowd;
use faults::{Director, Schedule};
use operator::Operator;
use record::{Finding, Record};
use report::Report;
use stage::{Stage, Tenant};

use crate::support::{Api, eventually};

/// How long faults last in the short run.
const SHORT: Duration = Duration::from_secs(25);
/// How long it may take until nothing is left to be done.
const REST: Duration = Duration::from_secs(90);
/// How long it may take until pools are filled at first.
const SET_UP: Duration = Duration::from_secs(90);
/// How often Duffy's own checker is asked while all this happens.
const VERDICTS: Duration = Duration::from_secs(10);
/// The longest time without a session that is granted.
const DROUGHT: Duration = Duration::from_mins(1);
/// The fewest sessions for each ten seconds.
const FEWEST: u32 = 2;

#[test]
fn on_postgres() {
    run(true);
}

#[test]
fn on_sqlite() {
    run(false);
}

/// A number from the environment, as `make chaos` gives it.
fn given<T: std::str::FromStr>(variable: &str) -> Option<T> {
    let text = std::env::var(variable)
        .ok()
        .filter(|text| !text.is_empty())?;
    let Ok(number) = text.parse() else {
        panic!("{variable} is {text:?}, not a number")
    };
    Some(number)
}

fn run(on_postgres: bool) {
    let seed = given("DUFFY_CHAOS_SEED").unwrap_or_else(|| RandomState::new().hash_one(0) >> 32);
    let minutes = given::<f64>("DUFFY_CHAOS_MINUTES");
    let length = minutes.map_or(SHORT, |minutes| Duration::from_secs_f64(minutes * 60.0));
    let engine = if on_postgres { "postgres" } else { "sqlite" };
    eprintln!("chaos on {engine}: SEED={seed}, {} s", length.as_secs());

    let start = Instant::now();
    let mut stage = Stage::build(on_postgres, seed, start);
    let record = Record::new(&stage.room_scratch, start);
    let admin_key = stage.set_up_database();
    let mut crew = stage.crew();
    crew.muster(&record);
    let admin = Api::new(stage.ports[0], "admin", &admin_key);
    eventually(SET_UP, "the web API", || {
        admin.call("GET", "pools", None).map(|_| ())
    });
    let tenants = stage.populate(&admin);
    let base = stage.base.clone();
    eventually(SET_UP, "filled pools", || rest(&base));

    let schedule = Schedule::roll(seed, length, on_postgres);
    let ports = stage.ports;
    record.begin();
    let duffy = stage.site.duffy();
    let room = stage.room.clone();
    let mut clients: Vec<Client> = tenants
        .iter()
        .map(|tenant| Client::new(tenant, ports, seed, &record, &room))
        .collect();
    let mut operator = Operator::new(duffy.clone(), base.clone(), seed, &record);
    let mut crowd = Crowd::new(ports, seed, &record);
    let mut director = Director::new(&mut stage, &mut crew, &record);
    std::thread::scope(|scope| {
        for client in &mut clients {
            scope.spawn(|| client.run());
        }
        scope.spawn(|| operator.run());
        scope.spawn(|| crowd.run());
        scope.spawn(|| watch(&base, &record, &tenants));
        scope.spawn(|| {
            while !record.wait(VERDICTS) {
                verdict::ask(&duffy, false, &record);
            }
        });
        director.play(&schedule, length);
        record.stop();
        // Clients may wait for a process that is frozen.
        record.note("HEAL");
        director.heal();
    });
    std::thread::scope(|scope| {
        for client in &mut clients {
            scope.spawn(|| client.settle());
        }
        scope.spawn(|| operator.settle());
    });
    record.note("REST");
    let healed = Instant::now();
    let rested = await_rest(&base, || crew.tick(&record));
    if let Err(unrest) = rested {
        record.find(Finding::new(format!("no rest after {REST:?}: {unrest}")));
    }
    eprintln!("rest after {} s", healed.elapsed().as_secs());
    record.note("CHECK");
    match Tables::read(&base) {
        Ok(tables) => {
            let scene = Scene {
                tables,
                machines: room.survey(),
                tenants: &tenants,
                seen: record.sessions(),
            };
            look(&checks::AFTER_REST, &scene, &record);
        }
        Err(error) => record.find(Finding::new(format!("the database: {error}"))),
    }
    verdict::ask(&duffy, true, &record);
    let granted = record.sessions().len();
    let fewest = FEWEST * (length.as_secs() / 10) as u32;
    if granted < fewest as usize {
        let what = format!("only {granted} sessions were granted, less than {fewest}");
        record.find(Finding::new(what));
    }
    crew.dismiss();
    let report = Report {
        engine,
        seed,
        schedule: &schedule,
        record: &record,
        stage: &stage,
    };
    report.print();
}

/// Runs checks and takes down what they find.
fn look(checks: &[(&str, checks::Check)], scene: &Scene<'_>, record: &Record) {
    for (name, check) in checks {
        for mut finding in check(scene) {
            finding.what = format!("{name}: {}", finding.what);
            record.find(finding);
        }
    }
}

/// Looks every second at what holds at any moment, and notices when nothing happens any more.
fn watch(base: &base::Base, record: &Record, tenants: &[Tenant]) {
    while !record.wait(Duration::from_secs(1)) {
        // The database may be away: next time.
        if let Ok(tables) = Tables::read(base) {
            let scene = Scene {
                tables,
                machines: Vec::new(),
                tenants,
                seen: record.sessions(),
            };
            look(&checks::ALWAYS, &scene, record);
        }
        if record.since_grant() > DROUGHT {
            let what = format!("no session was granted for {DROUGHT:?}");
            record.find(Finding::new(what));
            return;
        }
    }
}

fn rest(base: &base::Base) -> Result<(), String> {
    let unrest = Tables::read(base)?.unrest();
    if unrest.is_empty() {
        Ok(())
    } else {
        Err(unrest.join(", "))
    }
}

/// Waits until there was nothing to do for a while.
fn await_rest(base: &base::Base, mut tick: impl FnMut()) -> Result<(), String> {
    let (start, mut since) = (Instant::now(), None);
    let mut last = String::new();
    // Nobody sends: receiving is a wait that ends by its timeout.
    let (_sender, pause) = std::sync::mpsc::channel::<()>();
    while start.elapsed() < REST {
        tick();
        match rest(base) {
            Ok(()) if since.get_or_insert_with(Instant::now).elapsed() > QUIET => return Ok(()),
            Ok(()) => {}
            Err(unrest) => (since, last) = (None, unrest),
        }
        pause.recv_timeout(Duration::from_millis(300)).ok();
    }
    Err(last)
}

/// So long nothing must be to do.
const QUIET: Duration = Duration::from_millis(2500);
