//! All simulated machines of one process.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio_util::task::TaskTracker;

use crate::fault::happens;
use crate::machine::{Server, kill_processes};
use crate::store::{Machine, Store};
use crate::{Fault, Faults, SimError};

/// How a [`Cloud`] is set up.
#[derive(Clone, Debug)]
pub struct CloudSettings {
    /// Where the machines are kept. Made if it is missing; served by one process at a time.
    pub directory: PathBuf,
    /// Duffy's own public keys, one line each: they are let in to each machine made from now on.
    pub admin_keys: Vec<String>,
    /// What goes wrong at random.
    pub faults: Faults,
}

/// All simulated machines of one process.
///
/// The machines outlive it: [`Cloud::open`] on the same directory finds them again, at the same
/// addresses and with the same keys and files.
#[derive(Debug)]
pub struct Cloud {
    /// Taken while machines are made, removed or turned off. `None` when the cloud is shut down.
    store: Arc<tokio::sync::Mutex<Option<Arc<Store>>>>,
    machines: Arc<Mutex<BTreeMap<String, Arc<Server>>>>,
    /// Changes under way, which go on when the caller that asked for them does not.
    changes: TaskTracker,
    faults: Faults,
}

impl Cloud {
    /// Opens a cloud and turns on the machines that it has.
    ///
    /// # Errors
    /// When the directory cannot be used, is in use, or when a machine is damaged or its address taken.
    pub async fn open(settings: CloudSettings) -> Result<Arc<Self>, SimError> {
        let CloudSettings {
            directory,
            admin_keys,
            faults,
        } = settings;
        faults.check()?;
        let (store, records) = blocking(move || {
            let store = Store::open(&directory, admin_keys)?;
            let records = store.load()?;
            Ok((store, records))
        })
        .await?;
        let mut machines = BTreeMap::new();
        for record in records {
            let name = record.machine.name.clone();
            let started = if record.is_dead() {
                Ok(Server::dead(record, faults.clone()))
            } else {
                record
                    .listen()
                    .and_then(|listener| Server::start(record, listener, faults.clone()))
            };
            match started {
                Ok(server) => machines.insert(name, Arc::new(server)),
                Err(error) => {
                    for server in machines.values() {
                        server.stop().await;
                    }
                    return Err(error);
                }
            };
        }
        tracing::debug!(machines = machines.len(), "simulated machines are on");
        Ok(Arc::new(Self {
            store: Arc::new(tokio::sync::Mutex::new(Some(Arc::new(store)))),
            machines: Arc::new(Mutex::new(machines)),
            changes: TaskTracker::new(),
            faults,
        }))
    }

    /// Makes a machine and turns it on, or finds the one that already has this name.
    ///
    /// When the caller gives up waiting, the machine is made all the same.
    ///
    /// # Errors
    /// When the name is no machine's name, the host refuses, or [`Faults`] say so.
    pub async fn create_machine(&self, name: &str) -> Result<Machine, SimError> {
        tokio::time::sleep(self.faults.create_delay).await;
        if happens(self.faults.create_failure_rate) {
            return Err(SimError::Simulated {
                name: name.to_owned(),
                what: "creation",
            });
        }
        let store = Arc::clone(&self.store);
        let machines = Arc::clone(&self.machines);
        let faults = self.faults.clone();
        let name = name.to_owned();
        self.carry_out(async move {
            let started = Instant::now();
            let guard = store.lock().await;
            let store = Arc::clone(guard.as_ref().ok_or(SimError::Down)?);
            let taken = {
                let machines = lock(&machines);
                if let Some(server) = machines.get(&name) {
                    return Ok(server.record().machine.clone());
                }
                machines
                    .values()
                    .map(|server| server.record().machine.ipaddr)
                    .collect()
            };
            let (record, listener) = {
                let name = name.clone();
                blocking(move || store.create(&name, &taken)).await?
            };
            let machine = record.machine.clone();
            let server = Arc::new(Server::start(record, listener, faults)?);
            lock(&machines).insert(name, server);
            tracing::debug!(machine = %machine.name, address = %machine.ipaddr, port = machine.ssh_port,
                duration_ms = started.elapsed().as_millis(), "made a simulated machine");
            Ok(machine)
        })
        .await
    }

    /// Turns a machine off and removes it with all its files. That there is none is no error.
    ///
    /// # Errors
    /// When its directory cannot be removed, or [`Faults`] say so. It may then be tried again.
    pub async fn destroy_machine(&self, name: &str) -> Result<(), SimError> {
        tokio::time::sleep(self.faults.destroy_delay).await;
        if happens(self.faults.destroy_failure_rate) {
            return Err(SimError::Simulated {
                name: name.to_owned(),
                what: "destruction",
            });
        }
        let store = Arc::clone(&self.store);
        let machines = Arc::clone(&self.machines);
        let name = name.to_owned();
        self.carry_out(async move {
            let guard = store.lock().await;
            let store = Arc::clone(guard.as_ref().ok_or(SimError::Down)?);
            let server = lock(&machines).get(&name).cloned();
            if let Some(server) = server {
                server.stop().await;
                let directory = server.record().directory.clone();
                let name = name.clone();
                blocking(move || {
                    kill_processes(&[directory]);
                    store.remove(&name)
                })
                .await?;
            }
            // Only now, so that a removal that failed is tried again when asked for again.
            lock(&machines).remove(&name);
            Ok(())
        })
        .await
    }

    /// The machines that exist, by name, also those that have died.
    pub fn machines(&self) -> Vec<Machine> {
        lock(&self.machines)
            .values()
            .map(|server| server.record().machine.clone())
            .collect()
    }

    /// Makes a machine misbehave, or behave again. It does when this returns; what is already
    /// connected stays so. A machine that has died stays dead.
    ///
    /// # Errors
    /// When there is no such machine, or its port was taken while it refused connections.
    pub fn set_fault(&self, name: &str, fault: Option<Fault>) -> Result<(), SimError> {
        let server = lock(&self.machines)
            .get(name)
            .cloned()
            .ok_or_else(|| SimError::Unknown(name.to_owned()))?;
        server.set_fault(fault)
    }

    /// The directory that is the home of a machine's root, for tests and diagnosis.
    pub fn home_of(&self, name: &str) -> Option<PathBuf> {
        lock(&self.machines)
            .get(name)
            .map(|server| server.record().home())
    }

    /// Turns all machines off: connections are cut, commands killed. Their directories stay.
    pub async fn shutdown(&self) {
        let mut store = self.store.lock().await;
        let servers: Vec<_> = lock(&self.machines).values().cloned().collect();
        let mut stopping = tokio::task::JoinSet::new();
        let mut directories = Vec::new();
        for server in servers {
            directories.push(server.record().directory.clone());
            stopping.spawn(async move { server.stop().await });
        }
        stopping.join_all().await;
        let killed = blocking(move || {
            kill_processes(&directories);
            Ok(())
        });
        if let Err(error) = killed.await {
            tracing::warn!(%error, "cannot end the simulated machines' processes");
        }
        lock(&self.machines).clear();
        // The lock on the directory goes with the store.
        *store = None;
    }

    /// Runs a change to its end, whatever becomes of the caller: a machine is never half made.
    async fn carry_out<T: Send + 'static>(
        &self,
        change: impl Future<Output = Result<T, SimError>> + Send + 'static,
    ) -> Result<T, SimError> {
        self.changes
            .spawn(change)
            .await
            .unwrap_or(Err(SimError::Down))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, SimError> + Send + 'static,
) -> Result<T, SimError> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or(Err(SimError::Down))
}
