//! Round trips to the database: of single requests, and of idle processes.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::figures::{Better, Figure, Results, Row, number};
use crate::installation::{Kind, METAL, Plan, SIMULATED};
use crate::load;
use crate::rig::Rig;
use crate::support::{Proxy, eventually};

/// How often each request is sent. The figure is the mean, so that work after a reply counts, too.
const TIMES: usize = 10;

/// Counts the round trips of requests.
pub fn measure_requests(rig: &Rig, results: &mut Results) {
    let plan = Plan {
        simulated: 150,
        ..Plan::default()
    };
    let mut ours = rig.install(Kind::Ours, &plan);
    let worker = ours.work();
    let full = ours.wait_ready(SIMULATED, plan.simulated, Duration::from_mins(2));
    assert!(
        full,
        "the pool is not filled; the worker's log: {}",
        worker.log()
    );
    let proxy = Proxy::start(rig.postgres.port());
    ours.connect_through(proxy.port());
    let (_serve, _) = ours.serve();
    let (access, anonymous) = (ours.access.clone(), ours.access.anonymous());
    let pool = format!("pools/{SIMULATED}");
    let count = |request: &mut dyn FnMut()| {
        request();
        request();
        let before = proxy.round_trips();
        for _ in 0..TIMES {
            request();
        }
        (proxy.round_trips() - before) as f64 / TIMES as f64
    };
    let read = count(&mut || {
        assert_eq!(load::get_once(&anonymous, &pool).unwrap().0, 200);
    });
    let list = count(&mut || {
        assert_eq!(load::get_once(&access, "sessions").unwrap().0, 200);
    });
    // A session's requests are counted one by one: the reply to a request ends its work.
    let life = |quantity| {
        let (mut granting, mut retiring) = (0, 0);
        for _ in 0..TIMES / 2 {
            ours.wait_ready(SIMULATED, plan.simulated, Duration::from_mins(1));
            let start = proxy.round_trips();
            let session = load::request(&access, SIMULATED, quantity);
            let granted = proxy.round_trips();
            load::retire(&access, session);
            retiring += proxy.round_trips() - granted;
            granting += granted - start;
        }
        [granting, retiring].map(|sum| sum as f64 / (TIMES / 2) as f64)
    };
    let _ = life(1);
    let ([one, retire], [twenty, _]) = (life(1), life(20));
    let each = (twenty - one) / 19.0;
    for (what, value, reach, bound) in [
        ("`POST /sessions`, one node", one, "8", 8.0),
        ("`POST /sessions`, each further node", each, "0", 0.05),
        ("retire a session", retire, "6", 6.0),
        ("authenticated `GET /sessions`", list, "2", 2.0),
        ("`GET /pools/{name}`", read, "1", 1.0),
    ] {
        results.rows.push(Row {
            what: format!("round trips to the database: {what}"),
            better: Better::Less,
            original: Figure::none("not counted"),
            ours: Figure::new(value, number(value)),
            yardstick: None,
            reach,
            reached: Some(value <= bound + 0.25),
        });
    }
}

/// Counts the statements of idle processes with a full pool.
pub fn measure_idle(rig: &Rig, results: &mut Results) {
    let plan = Plan {
        metal: 5,
        network: 94,
        ..Plan::default()
    };
    let length = Duration::from_secs(rig.pick(10, 60));
    let [original, ours] = rig.install_both(&plan).map(|mut installation| {
        let proxy = Proxy::start(rig.postgres.port());
        installation.connect_through(proxy.port());
        let interval = json!({"interval": 300});
        let periodic = json!({"fill-pools": interval, "expire-sessions": interval});
        installation.reconfigure(&json!({"tasks": {"periodic": periodic}}));
        let (_serve, _worker) = (installation.serve().0, installation.work());
        installation.wait_ready(METAL, plan.metal, Duration::from_mins(1));
        let before = proxy.round_trips();
        let start = Instant::now();
        eventually(length * 2, "the end of the measurement", || {
            if start.elapsed() < length {
                Err(String::new())
            } else {
                Ok(())
            }
        });
        (proxy.round_trips() - before) as f64 / start.elapsed().as_secs_f64()
    });
    let figure = |value: f64, note| Figure::new(value, format!("{value:.2}/s{note}"));
    results.rows.push(Row {
        what: "statements per second of idle serve + worker, full pool".to_owned(),
        better: Better::Less,
        original: figure(original, "; it waits for Redis"),
        ours: figure(ours, ""),
        yardstick: None,
        reach: "≤ 1/s",
        reached: Some(ours <= 1.0),
    });
}
