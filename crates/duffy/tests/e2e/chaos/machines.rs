//! Simulated machines in the process of the test, and a service that creates and destroys them for playbooks. Like a cloud, the
//! service completes a request even if the playbook that sent it dies.

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

use super::playbook_faults::{PlaybookFault, make_response};
use super::rng::Rng;
use crate::support::Scratch;

/// The line before the tenant's keys in `authorized_keys`.
const SEPARATOR: &str = "### DUFFY tenant credentials";

/// See the module. All clones share the machines.
#[derive(Clone)]
pub struct Machines {
    runtime: Arc<Runtime>,
    shared: Arc<Shared>,
    port: u16,
}

/// The state of a machine.
#[derive(Debug, Clone)]
pub struct MachineState {
    pub name: String,
    /// Empty if the machine died and is destroyed.
    pub ipaddr: String,
    pub is_dead: bool,
    /// How long ago it was destroyed without a request.
    pub destroyed: Option<Duration>,
    pub tenant_keys: Vec<String>,
}

/// Data that the tasks of the service share.
struct Shared {
    cloud: Arc<Cloud>,
    seed: u64,
    start: Instant,
    state: Mutex<State>,
    log: Mutex<File>,
}

#[derive(Default)]
struct State {
    /// The percentage of playbook runs with a fault.
    fault_percent: usize,
    /// The number of earlier requests by action and nodes.
    requests: BTreeMap<String, usize>,
    counts: BTreeMap<String, u64>,
    /// The registered machines, which are never destroyed.
    registered: BTreeMap<IpAddr, Machine>,
    /// Machines that died, or will die at their next command.
    dead: BTreeSet<String>,
    /// When machines were destroyed without a request.
    destroyed: BTreeMap<String, Instant>,
    /// A lock per node: actions on its machine happen in the order of the requests.
    locks: BTreeMap<i64, Arc<tokio::sync::Mutex<()>>>,
}

impl Machines {
    /// Starts the service, without machines. New machines accept this key.
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
        let shared = Arc::new(Shared {
            cloud,
            seed,
            start,
            state: Mutex::default(),
            log: Mutex::new(File::create(scratch.join("machines.log")).unwrap()),
        });
        let listener = runtime
            .block_on(TcpListener::bind(("127.0.0.1", 0)))
            .unwrap();
        let port = listener.local_addr().unwrap().port();
        let theirs = Arc::clone(&shared);
        runtime.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let shared = Arc::clone(&theirs);
                tokio::spawn(async move { shared.serve(stream).await });
            }
        });
        Self {
            runtime: Arc::new(runtime),
            shared,
            port,
        }
    }

    /// The port of the service for playbooks.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Creates a registered machine.
    pub fn add_registered(&self, name: &str) -> Machine {
        let machine = self
            .runtime
            .block_on(self.shared.cloud.create_machine(name))
            .unwrap();
        let mut state = self.shared.state.lock().unwrap();
        state.registered.insert(machine.ipaddr, machine.clone());
        machine
    }

    /// Sets the percentage of playbook runs with a fault.
    pub fn set_playbook_fault_rate(&self, percent: usize) {
        self.shared.state.lock().unwrap().fault_percent = percent;
    }

    /// Returns all machines.
    pub fn list(&self) -> Vec<Machine> {
        self.shared.cloud.machines()
    }

    /// Sets or clears the SSH fault of a machine. Returns false if it does not exist. Registered machines do not die, because
    /// nothing creates them again.
    pub fn set_fault(&self, name: &str, fault: Option<Fault>) -> bool {
        if let Some(Fault::Die(_)) = fault {
            if !name.starts_with("node-") {
                return false;
            }
            let mut state = self.shared.state.lock().unwrap();
            state.dead.insert(name.to_owned());
        }
        let done = self.shared.cloud.set_fault(name, fault);
        self.shared
            .write_log(&format!("machine {name}: fault {fault:?}: {done:?}"));
        done.is_ok()
    }

    /// Destroys a machine without a request. Returns false for registered machines, which are never destroyed.
    pub fn kill(&self, name: &str) -> bool {
        if !name.starts_with("node-") {
            return false;
        }
        {
            let mut state = self.shared.state.lock().unwrap();
            state.dead.insert(name.to_owned());
            if self.list().iter().any(|machine| machine.name == name) {
                state.destroyed.insert(name.to_owned(), Instant::now());
            }
        }
        let done = self
            .runtime
            .block_on(self.shared.cloud.destroy_machine(name));
        self.shared
            .write_log(&format!("machine {name} destroyed: {done:?}"));
        true
    }

    /// Whether the machine died.
    pub fn is_dead(&self, name: &str) -> bool {
        self.shared.state.lock().unwrap().dead.contains(name)
    }

    /// Returns the states of all machines.
    pub fn states(&self) -> Vec<MachineState> {
        let machines = self.list().into_iter();
        let states = machines.map(|machine| {
            let ipaddr = machine.ipaddr.to_string();
            MachineState {
                is_dead: self.is_dead(&machine.name),
                destroyed: None,
                tenant_keys: self.tenant_keys(&ipaddr).unwrap_or_default(),
                name: machine.name,
                ipaddr,
            }
        });
        let mut states: Vec<MachineState> = states.collect();
        // Destroyed machines have only a name.
        let state = self.shared.state.lock().unwrap();
        let gone: Vec<&String> = state
            .dead
            .iter()
            .filter(|name| states.iter().all(|machine| machine.name != **name))
            .collect();
        let gone = gone.into_iter().map(|name| MachineState {
            name: name.clone(),
            ipaddr: String::new(),
            is_dead: true,
            destroyed: state.destroyed.get(name).map(Instant::elapsed),
            tenant_keys: Vec::new(),
        });
        let gone: Vec<MachineState> = gone.collect();
        states.extend(gone);
        states
    }

    /// Returns the tenant's keys on the machine with this address, or `None` if it does not exist or died.
    pub fn tenant_keys(&self, ipaddr: &str) -> Option<Vec<String>> {
        let machines = self.list();
        let machine = machines
            .iter()
            .find(|machine| machine.ipaddr.to_string() == ipaddr)?;
        if self.is_dead(&machine.name) {
            return None;
        }
        let home = self.shared.cloud.home_of(&machine.name)?;
        let text = std::fs::read_to_string(home.join(".ssh/authorized_keys")).ok()?;
        let mut lines = text.lines().skip_while(|line| *line != SEPARATOR);
        // Skip the separator.
        lines.next();
        let keys = lines.filter(|line| !line.starts_with("# duffy fence "));
        Some(keys.map(str::to_owned).collect())
    }

    /// Returns the number of playbook runs and of their faults.
    pub fn counts(&self) -> BTreeMap<String, u64> {
        self.shared.state.lock().unwrap().counts.clone()
    }
}

impl Shared {
    fn write_log(&self, text: &str) {
        let at = self.start.elapsed().as_secs_f64();
        writeln!(self.log.lock().unwrap(), "{at:8.3} {text}").unwrap();
    }

    async fn serve(self: Arc<Self>, stream: TcpStream) -> Option<()> {
        let mut stream = BufReader::new(stream);
        let mut line = String::new();
        stream.read_line(&mut line).await.ok()?;
        let request: Value = serde_json::from_str(&line).ok()?;
        let action = request["action"].as_str()?.to_owned();
        let nodes = request["nodes"].as_array()?.clone();
        let ids: Vec<i64> = nodes
            .iter()
            .filter_map(|node| node["id"].as_i64())
            .collect();
        let (run, fault) = self.choose_fault(&action, &ids);
        self.write_log(&format!("{run} requested, {fault:?}"));

        // Separate tasks complete the actions even if the playbook has hung up.
        let idle = matches!(
            fault,
            Some(PlaybookFault::FailBefore | PlaybookFault::HangBefore)
        );
        let wait = match fault {
            Some(PlaybookFault::Slow(time) | PlaybookFault::Late(time)) => time,
            _ => Duration::ZERO,
        };
        let actions = nodes.into_iter().filter(|_| !idle).map(|node| {
            let (shared, action, run) = (Arc::clone(&self), action.clone(), run.clone());
            tokio::spawn(async move { shared.run_action(&run, &action, node, wait).await })
        });
        let actions: Vec<_> = actions.collect();
        let mut results = Vec::new();
        for result in actions {
            results.push(result.await.ok()?);
        }
        let foreign = {
            let state = self.state.lock().unwrap();
            state.registered.values().next().map(describe)
        };
        let response = make_response(fault, results, foreign);
        if let Some(response) = response {
            let mut text = response.to_string();
            text.push('\n');
            let sent = stream.write_all(text.as_bytes()).await;
            self.write_log(&format!("{run} sent: {sent:?}"));
        } else {
            // Wait until the playbook hangs up.
            let mut rest = String::new();
            let end = stream.read_line(&mut rest).await;
            self.write_log(&format!("{run} hung until {end:?}"));
        }
        Some(())
    }

    /// Returns a name for this run, and its fault, which depends on the seed and the name only.
    fn choose_fault(&self, action: &str, ids: &[i64]) -> (String, Option<PlaybookFault>) {
        let mut state = self.state.lock().unwrap();
        let name = format!("{action} {ids:?}");
        let times = state.requests.entry(name.clone()).or_default();
        *times += 1;
        let run = format!("{name} #{times}");
        *state
            .counts
            .entry(format!("playbook {action}"))
            .or_default() += 1;
        let mut rng = Rng::new(self.seed, &run);
        let fault = rng
            .chance(state.fault_percent)
            .then(|| PlaybookFault::random(&mut rng, action));
        if let Some(fault) = fault {
            let kind = format!("{fault:?}");
            let kind = kind.split('(').next().unwrap_or_default();
            *state
                .counts
                .entry(format!("playbook fault {kind}"))
                .or_default() += 1;
        }
        (run, fault)
    }

    async fn run_action(&self, run: &str, action: &str, node: Value, wait: Duration) -> Value {
        let id = node["id"].as_i64().unwrap_or_default();
        let lock = {
            let mut state = self.state.lock().unwrap();
            Arc::clone(state.locks.entry(id).or_default())
        };
        let _guard = lock.lock().await;
        pause(wait).await;
        let ipaddr = node["ipaddr"].as_str().and_then(|text| text.parse().ok());
        let registered =
            ipaddr.and_then(|ip: IpAddr| self.state.lock().unwrap().registered.get(&ip).cloned());
        let name = format!("node-{id}");
        let result = match (action, registered) {
            ("provision", Some(registered)) => describe(&registered),
            ("provision", None) => match self.cloud.create_machine(&name).await {
                Ok(machine) => describe(&machine),
                Err(error) => json!({ "error": error.to_string() }),
            },
            (_, Some(_)) => identify(&node),
            (_, None) => match self.cloud.destroy_machine(&name).await {
                Ok(()) => identify(&node),
                Err(error) => json!({ "error": error.to_string() }),
            },
        };
        self.write_log(&format!("{run}: node {id} done: {result}"));
        result
    }
}

/// A delay of the simulated service, not of the test.
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

/// Returns the result for a deprovisioned node: the result of its provisioning, if there is one.
fn identify(node: &Value) -> Value {
    match &node["data"]["provision"] {
        Value::Null => json!({ "id": node["id"] }),
        provision => provision.clone(),
    }
}
