//! All simulated machines of one process.

use std::collections::{BTreeMap, HashSet};
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crate::machine::{self, MachineState, kill_processes};
use crate::store::{Machine, Store};
use crate::{Fault, Faults, SimError};

/// Settings of a [`Cloud`].
#[derive(Clone, Debug)]
pub struct CloudSettings {
    /// Directory of the machines. Created if it is missing; served by one process at a time.
    pub directory: PathBuf,
    /// Duffy's own public keys, one line each: new machines accept them.
    pub admin_keys: Vec<String>,
    /// Delays and random failures.
    pub faults: Faults,
}

/// All simulated machines of one process.
///
/// The machines outlive it: [`Cloud::open`] on the same directory finds them again, at the same
/// addresses and with the same keys and files.
#[derive(Debug)]
pub struct Cloud {
    /// Locked while machines are made, removed or turned off. `None` after the shutdown.
    store: tokio::sync::Mutex<Option<Arc<Store>>>,
    machines: Mutex<Machines>,
    faults: Faults,
}

/// The machines by name, and their addresses.
#[derive(Debug, Default)]
struct Machines {
    by_name: BTreeMap<String, Arc<MachineState>>,
    addresses: HashSet<IpAddr>,
}

impl Machines {
    fn insert(&mut self, machine: Arc<MachineState>) {
        let own = &machine.record.machine;
        self.addresses.insert(own.ipaddr);
        self.by_name.insert(own.name.clone(), machine);
    }

    fn remove(&mut self, name: &str) {
        if let Some(machine) = self.by_name.remove(name) {
            self.addresses.remove(&machine.record.machine.ipaddr);
        }
    }
}

impl Cloud {
    /// Opens a cloud and turns on its machines.
    ///
    /// # Errors
    /// The directory cannot be used or is in use; a machine is damaged, or its address is taken.
    pub async fn open(settings: CloudSettings) -> Result<Arc<Self>, SimError> {
        let CloudSettings {
            directory,
            admin_keys,
            faults,
        } = settings;
        let (store, records) = blocking(move || {
            let store = Store::open(&directory, admin_keys)?;
            let records = store.load()?;
            Ok((store, records))
        })
        .await?;
        let mut machines = Machines::default();
        for record in records {
            let started = if record.is_dead() {
                Ok(MachineState::new(record, None, faults.clone()))
            } else {
                let socket = record.listen();
                socket.map(|socket| machine::start(record, socket, faults.clone()))
            };
            match started {
                Ok(machine) => machines.insert(machine),
                Err(error) => {
                    for machine in machines.by_name.values() {
                        machine.stop().await;
                    }
                    return Err(error);
                }
            }
        }
        tracing::debug!(
            machines = machines.by_name.len(),
            "simulated machines are on"
        );
        Ok(Arc::new(Self {
            store: tokio::sync::Mutex::new(Some(Arc::new(store))),
            machines: Mutex::new(machines),
            faults,
        }))
    }

    /// Makes a machine and turns it on, or finds the machine that already has this name.
    ///
    /// The machine is made even if the caller is cancelled.
    ///
    /// # Errors
    /// The name is not a machine's name, or the host refuses.
    pub async fn create_machine(self: &Arc<Self>, name: &str) -> Result<Machine, SimError> {
        let cloud = Arc::clone(self);
        let name = name.to_owned();
        complete(async move {
            let started = Instant::now();
            let guard = cloud.store.lock().await;
            let store = Arc::clone(guard.as_ref().ok_or(SimError::Down)?);
            if let Some(existing) = cloud.lock().by_name.get(&name) {
                return Ok(existing.record.machine.clone());
            }
            let others = Arc::clone(&cloud);
            let is_taken = move |address| others.lock().addresses.contains(&address);
            let (record, socket) = blocking(move || store.create(&name, is_taken)).await?;
            let machine = record.machine.clone();
            let state = machine::start(record, socket, cloud.faults.clone());
            cloud.lock().insert(state);
            tracing::debug!(machine = %machine.name, address = %machine.ipaddr, port = machine.ssh_port,
                duration_ms = started.elapsed().as_millis(), "made a simulated machine");
            Ok(machine)
        })
        .await
    }

    /// Turns a machine off and removes it with all its files. A missing machine is not an error.
    ///
    /// The machine is removed even if the caller is cancelled.
    ///
    /// # Errors
    /// Its directory cannot be removed. The caller can retry.
    pub async fn destroy_machine(self: &Arc<Self>, name: &str) -> Result<(), SimError> {
        let cloud = Arc::clone(self);
        let name = name.to_owned();
        complete(async move {
            let guard = cloud.store.lock().await;
            let store = Arc::clone(guard.as_ref().ok_or(SimError::Down)?);
            let Some(machine) = cloud.lock().by_name.get(&name).cloned() else {
                return Ok(());
            };
            machine.stop().await;
            let directory = machine.record.directory.clone();
            let removed = name.clone();
            blocking(move || {
                kill_processes(&[directory]);
                store.remove(&removed)
            })
            .await?;
            // Not before, so that a removal that failed can be retried.
            cloud.lock().remove(&name);
            Ok(())
        })
        .await
    }

    /// Returns the machines that exist, by name, also those that have died.
    pub fn machines(&self) -> Vec<Machine> {
        let machines = self.lock();
        let all = machines.by_name.values();
        all.map(|machine| machine.record.machine.clone()).collect()
    }

    /// Sets or ends a machine's fault. It has taken effect when this returns; open connections
    /// stay open. A machine that has died stays dead.
    ///
    /// # Errors
    /// There is no such machine, or its port was taken while it refused connections.
    pub fn set_fault(&self, name: &str, fault: Option<Fault>) -> Result<(), SimError> {
        let machine = self.lock().by_name.get(name).cloned();
        machine
            .ok_or_else(|| SimError::Unknown(name.to_owned()))?
            .set_fault(fault)
    }

    /// Returns the home directory of a machine's root, for tests and diagnosis.
    pub fn home_of(&self, name: &str) -> Option<PathBuf> {
        self.lock()
            .by_name
            .get(name)
            .map(|machine| machine.record.home())
    }

    /// Turns all machines off: closes connections and kills commands. Their directories stay.
    pub async fn shutdown(&self) {
        let mut store = self.store.lock().await;
        let machines: Vec<_> = self.lock().by_name.values().cloned().collect();
        let mut stopping = tokio::task::JoinSet::new();
        let mut directories = Vec::new();
        for machine in machines {
            directories.push(machine.record.directory.clone());
            stopping.spawn(async move { machine.stop().await });
        }
        stopping.join_all().await;
        let killed = blocking(move || {
            kill_processes(&directories);
            Ok(())
        });
        if let Err(error) = killed.await {
            tracing::warn!(%error, "cannot end the simulated machines' processes");
        }
        *self.lock() = Machines::default();
        // This releases the lock on the directory.
        *store = None;
    }

    fn lock(&self) -> MutexGuard<'_, Machines> {
        self.machines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Runs a change to its end even if the caller is cancelled: a machine is never half made.
async fn complete<T: Send + 'static>(
    change: impl Future<Output = Result<T, SimError>> + Send + 'static,
) -> Result<T, SimError> {
    tokio::spawn(change).await.unwrap_or(Err(SimError::Down))
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, SimError> + Send + 'static,
) -> Result<T, SimError> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or(Err(SimError::Down))
}
