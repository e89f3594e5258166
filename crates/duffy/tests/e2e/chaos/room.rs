//! The machine room: simulated machines in the test's own process, and a service for playbooks that makes them and
//! takes them down. What it was asked for it does, whatever becomes of the playbook that asked, as a cloud would.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Write;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use duffy_sim::{Cloud, CloudSettings, Fault, Faults, Machine};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;

use super::dice::Dice;
use super::mishap::{Mishap, spoil};
use crate::support::Scratch;

/// What a tenant's part of `authorized_keys` begins with.
const SEPARATOR: &str = "### DUFFY tenant credentials";

/// See the module. Shared by all clones.
#[derive(Clone)]
pub struct Room {
    runtime: Arc<Runtime>,
    floor: Arc<Floor>,
    port: u16,
}

/// A machine at one moment.
#[derive(Debug, Clone)]
pub struct Standing {
    pub name: String,
    /// Empty when it died and is gone.
    pub ipaddr: String,
    pub is_dead: bool,
    pub tenant_keys: Vec<String>,
}

/// What the tasks of the room share.
struct Floor {
    cloud: Arc<Cloud>,
    seed: u64,
    start: Instant,
    state: Mutex<State>,
    log: Mutex<File>,
}

#[derive(Default)]
struct State {
    /// How many runs of a hundred go wrong.
    mishaps: usize,
    /// How often this was asked for before.
    asked: BTreeMap<String, usize>,
    counts: BTreeMap<String, u64>,
    /// Machines that stay, whatever is done to their nodes.
    metal: BTreeMap<IpAddr, Machine>,
    /// Machines that died for good, or will at their next command.
    dead: BTreeSet<String>,
    /// A turnstile for each node: what concerns its machine happens in the order in which it was asked for.
    turns: BTreeMap<i64, Arc<tokio::sync::Mutex<()>>>,
}

impl Room {
    /// Opens an empty room, whose machines let this key in.
    pub fn open(scratch: &Scratch, admin_key: &str, seed: u64, start: Instant) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let settings = CloudSettings {
            directory: scratch.join("machines"),
            admin_keys: vec![admin_key.to_owned()],
            faults: Faults::default(),
        };
        let cloud = runtime.block_on(Cloud::open(settings)).unwrap();
        let floor = Arc::new(Floor {
            cloud,
            seed,
            start,
            state: Mutex::default(),
            log: Mutex::new(File::create(scratch.join("room.log")).unwrap()),
        });
        let listener = runtime
            .block_on(TcpListener::bind(("127.0.0.1", 0)))
            .unwrap();
        let port = listener.local_addr().unwrap().port();
        let theirs = Arc::clone(&floor);
        runtime.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let floor = Arc::clone(&theirs);
                tokio::spawn(async move { floor.serve(stream).await });
            }
        });
        Self {
            runtime: Arc::new(runtime),
            floor,
            port,
        }
    }

    /// Where playbooks ask.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Puts up a machine that stays.
    pub fn install_metal(&self, name: &str) -> Machine {
        let machine = self
            .runtime
            .block_on(self.floor.cloud.create_machine(name))
            .unwrap();
        let mut state = self.floor.state.lock().unwrap();
        state.metal.insert(machine.ipaddr, machine.clone());
        machine
    }

    /// From now on so many playbooks of a hundred go wrong.
    pub fn set_mishaps(&self, percent: usize) {
        self.floor.state.lock().unwrap().mishaps = percent;
    }

    /// All machines.
    pub fn machines(&self) -> Vec<Machine> {
        self.floor.cloud.machines()
    }

    /// Makes a machine misbehave, or behave again. That it is gone by now is no matter. Metal does not die: it would
    /// never come back.
    pub fn set_fault(&self, name: &str, fault: Option<Fault>) -> bool {
        if let Some(Fault::Die(_)) = fault {
            if !name.starts_with("node-") {
                return false;
            }
            let mut state = self.floor.state.lock().unwrap();
            state.dead.insert(name.to_owned());
        }
        let done = self.floor.cloud.set_fault(name, fault);
        self.floor
            .note(&format!("machine {name}: fault {fault:?}: {done:?}"));
        done.is_ok()
    }

    /// Destroys a machine that nobody asked to be destroyed. Metal only stumbles: it is there for good.
    pub fn kill(&self, name: &str) -> bool {
        if !name.starts_with("node-") {
            return false;
        }
        self.floor
            .state
            .lock()
            .unwrap()
            .dead
            .insert(name.to_owned());
        let done = self
            .runtime
            .block_on(self.floor.cloud.destroy_machine(name));
        self.floor
            .note(&format!("machine {name} died for good: {done:?}"));
        true
    }

    /// Whether the machine died for good.
    pub fn is_dead(&self, name: &str) -> bool {
        self.floor.state.lock().unwrap().dead.contains(name)
    }

    /// All machines, as they stand.
    pub fn survey(&self) -> Vec<Standing> {
        let machines = self.machines().into_iter();
        let survey = machines.map(|machine| {
            let ipaddr = machine.ipaddr.to_string();
            Standing {
                is_dead: self.is_dead(&machine.name),
                tenant_keys: self.tenant_keys(&ipaddr).unwrap_or_default(),
                name: machine.name,
                ipaddr,
            }
        });
        let mut survey: Vec<Standing> = survey.collect();
        // Those that are gone are known by name only.
        let state = self.floor.state.lock().unwrap();
        let gone: Vec<&String> = state
            .dead
            .iter()
            .filter(|name| survey.iter().all(|machine| machine.name != **name))
            .collect();
        let gone = gone.into_iter().map(|name| Standing {
            name: name.clone(),
            ipaddr: String::new(),
            is_dead: true,
            tenant_keys: Vec::new(),
        });
        let gone: Vec<Standing> = gone.collect();
        survey.extend(gone);
        survey
    }

    /// The tenant's keys on the machine with this address; `None` when there is no such machine, or it died.
    pub fn tenant_keys(&self, ipaddr: &str) -> Option<Vec<String>> {
        let machines = self.machines();
        let machine = machines
            .iter()
            .find(|machine| machine.ipaddr.to_string() == ipaddr)?;
        if self.is_dead(&machine.name) {
            return None;
        }
        let home = self.floor.cloud.home_of(&machine.name)?;
        let text = std::fs::read_to_string(home.join(".ssh/authorized_keys")).ok()?;
        let mut lines = text.lines().skip_while(|line| *line != SEPARATOR);
        // The line itself.
        lines.next();
        let keys = lines.filter(|line| !line.starts_with("# duffy fence "));
        Some(keys.map(str::to_owned).collect())
    }

    /// How often what went wrong.
    pub fn counts(&self) -> BTreeMap<String, u64> {
        self.floor.state.lock().unwrap().counts.clone()
    }
}

impl Floor {
    fn note(&self, text: &str) {
        let at = self.start.elapsed().as_secs_f64();
        writeln!(self.log.lock().unwrap(), "{at:8.3} {text}").unwrap();
    }

    async fn serve(self: Arc<Self>, stream: TcpStream) -> Option<()> {
        let mut stream = BufReader::new(stream);
        let mut line = String::new();
        stream.read_line(&mut line).await.ok()?;
        let question: Value = serde_json::from_str(&line).ok()?;
        let action = question["action"].as_str()?.to_owned();
        let nodes = question["nodes"].as_array()?.clone();
        let ids: Vec<i64> = nodes
            .iter()
            .filter_map(|node| node["id"].as_i64())
            .collect();
        let (run, mishap) = self.foresee(&action, &ids);
        self.note(&format!("{run} asked, {mishap:?}"));

        // In tasks of their own: the room does it even if nobody is there any more to be told.
        let idle = matches!(mishap, Some(Mishap::FailBefore | Mishap::HangBefore));
        let wait = match mishap {
            Some(Mishap::Slow(time) | Mishap::Late(time)) => time,
            _ => Duration::ZERO,
        };
        let deeds = nodes.into_iter().filter(|_| !idle).map(|node| {
            let (floor, action, run) = (Arc::clone(&self), action.clone(), run.clone());
            tokio::spawn(async move { floor.act(&run, &action, node, wait).await })
        });
        let deeds: Vec<_> = deeds.collect();
        let mut results = Vec::new();
        for result in deeds {
            results.push(result.await.ok()?);
        }
        let foreign = {
            let state = self.state.lock().unwrap();
            state.metal.values().next().map(describe)
        };
        let answer = spoil(mishap, results, foreign);
        if let Some(answer) = answer {
            let mut text = answer.to_string();
            text.push('\n');
            let told = stream.write_all(text.as_bytes()).await;
            self.note(&format!("{run} told: {told:?}"));
        } else {
            // Until whoever asked gives up.
            let mut rest = String::new();
            let end = stream.read_line(&mut rest).await;
            self.note(&format!("{run} hung until {end:?}"));
        }
        Some(())
    }

    /// A name for this run, and what is to go wrong in it: the same for the same seed, whenever it comes.
    fn foresee(&self, action: &str, ids: &[i64]) -> (String, Option<Mishap>) {
        let mut state = self.state.lock().unwrap();
        let name = format!("{action} {ids:?}");
        let times = state.asked.entry(name.clone()).or_default();
        *times += 1;
        let run = format!("{name} for the {times}. time");
        *state
            .counts
            .entry(format!("playbook {action}"))
            .or_default() += 1;
        let mut dice = Dice::new(self.seed, &run);
        let mishap = dice
            .happens(state.mishaps)
            .then(|| Mishap::roll(&mut dice, action));
        if let Some(mishap) = mishap {
            let kind = format!("{mishap:?}");
            let kind = kind.split('(').next().unwrap_or_default();
            *state.counts.entry(format!("mishap {kind}")).or_default() += 1;
        }
        (run, mishap)
    }

    async fn act(&self, run: &str, action: &str, node: Value, wait: Duration) -> Value {
        let id = node["id"].as_i64().unwrap_or_default();
        let turn = {
            let mut state = self.state.lock().unwrap();
            Arc::clone(state.turns.entry(id).or_default())
        };
        let _turn = turn.lock().await;
        pause(wait).await;
        let ipaddr = node["ipaddr"].as_str().and_then(|text| text.parse().ok());
        let metal =
            ipaddr.and_then(|ip: IpAddr| self.state.lock().unwrap().metal.get(&ip).cloned());
        let name = format!("node-{id}");
        let result = match (action, metal) {
            ("provision", Some(metal)) => describe(&metal),
            ("provision", None) => match self.cloud.create_machine(&name).await {
                Ok(machine) => describe(&machine),
                Err(error) => json!({ "error": error.to_string() }),
            },
            (_, Some(_)) => echo(&node),
            (_, None) => match self.cloud.destroy_machine(&name).await {
                Ok(()) => echo(&node),
                Err(error) => json!({ "error": error.to_string() }),
            },
        };
        self.note(&format!("{run}: node {id} done: {result}"));
        result
    }
}

/// A wait in the world outside, not of the test.
async fn pause(time: Duration) {
    tokio::time::timeout(time, std::future::pending::<()>())
        .await
        .ok();
}

fn describe(machine: &Machine) -> Value {
    json!({
        "hostname": format!("{}.test", machine.name),
        "ipaddr": machine.ipaddr.to_string(),
        "ssh_port": machine.ssh_port,
        "ssh_host_keys": [machine.host_key],
    })
}

/// What names a node that is deprovisioned: the result of its provisioning, where there is one.
fn echo(node: &Value) -> Value {
    match &node["data"]["provision"] {
        Value::Null => json!({ "id": node["id"] }),
        provision => provision.clone(),
    }
}
