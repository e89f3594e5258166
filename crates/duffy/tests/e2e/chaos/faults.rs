//! The schedule of faults, which depends only on the seed, and their injection.

use std::fmt;
use std::time::{Duration, Instant};

use duffy_sim::{Fault as SshFault, Moment};

use super::environment::Environment;
use super::log::Log;
use super::playbook_faults::HOSTILE;
use super::processes::Processes;
use super::rng::Rng;

macro_rules! terminate {
    ($quantity:literal) => {
        concat!(
            "SELECT CAST(pg_terminate_backend(pid) AS TEXT) FROM pg_stat_activity \
             WHERE backend_type = 'client backend' AND pid <> pg_backend_pid() \
             ORDER BY random() LIMIT ",
            $quantity
        )
    };
}

/// The percentage of playbooks that fail: normally, and during `Fault::PlaybookFailures`.
const PLAYBOOK_FAULT_PERCENT: (usize, usize) = (12, 70);

/// A fault to inject. Processes and machines are given by number.
#[derive(Debug, Clone, Copy)]
enum Fault {
    /// Kills a process, and restarts it after a while.
    Kill(usize, Duration),
    /// Suspends a process for longer than its leases.
    Suspend(usize, Duration),
    /// Terminates a process, and restarts it after a while.
    Restart(usize, Duration),
    /// Lets PostgreSQL terminate this number of connections.
    TerminateConnections(usize),
    /// Crashes PostgreSQL, and restarts it after a while.
    CrashDatabase(Duration),
    /// Cuts the database connections of one process or of all.
    CutConnections(Option<usize>),
    /// Delays the data between a process and the database.
    DelayConnections(usize, Duration, Duration),
    /// Delays the data between all processes and the database.
    SlowDatabase(Duration, Duration),
    /// Stops the data between a process and the database for a while.
    StallConnections(usize, Duration),
    /// Injects a fault into the SSH server of a machine for a while.
    Ssh(usize, SshFault, Duration),
    /// Injects a fault into the SSH servers of every third machine.
    SshManyMachines(SshFault, Duration),
    /// Slows down all SSH servers, and kills or suspends a process while its requests use them.
    SlowSshThenStop(usize, Option<Duration>),
    /// Destroys a machine.
    DestroyMachine(usize),
    /// Lets most playbooks fail for a while.
    PlaybookFailures(Duration),
}

/// A fault and its time since the start.
#[derive(Debug, Clone, Copy)]
struct ScheduledFault {
    at: Duration,
    fault: Fault,
}

impl fmt::Display for ScheduledFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:8.3} {:?}", self.at.as_secs_f64(), self.fault)
    }
}

/// See the module.
pub struct Schedule {
    entries: Vec<ScheduledFault>,
}

impl Schedule {
    /// Generates a schedule of this length.
    pub fn generate(seed: u64, length: Duration, on_postgres: bool) -> Self {
        let mut rng = Rng::new(seed, "schedule");
        let mut entries = Vec::new();
        let mut at = rng.millis(200, 1500);
        while at < length {
            let fault = random_fault(&mut rng, on_postgres);
            entries.push(ScheduledFault { at, fault });
            at += rng.millis(150, 1800);
        }
        Self { entries }
    }

    pub fn lines(&self) -> Vec<String> {
        self.entries.iter().map(ToString::to_string).collect()
    }
}

/// Chooses a fault. Add new faults here.
fn random_fault(rng: &mut Rng, on_postgres: bool) -> Fault {
    let process = rng.below(4);
    let long = rng.millis(6000, 9000);
    let down = rng.millis(0, 3000);
    let some = rng.millis(1000, 6000);
    let machine = rng.below(1000);
    let ssh_fault = rng.choose_weighted(&[
        (3, SshFault::Refuse),
        (3, SshFault::Stall),
        (4, SshFault::DropDuringCommand),
        (2, SshFault::FailCommand(1)),
        (1, SshFault::FailCommand(255)),
        (2, SshFault::FailCommandSaying(HOSTILE)),
        (1, SshFault::FloodDuringCommand(HOSTILE)),
        (2, SshFault::Delay(Duration::from_millis(1500))),
        (1, SshFault::Delay(Duration::from_millis(3800))),
        (2, SshFault::Reset),
        (3, SshFault::StallDuringCommand),
        (1, SshFault::Die(Moment::BeforeCommand)),
        (2, SshFault::Die(Moment::DuringCommand)),
        (1, SshFault::Die(Moment::AfterCommand)),
    ]);
    let mut faults = vec![
        (5, Fault::Kill(process, down)),
        (3, Fault::Restart(process, down)),
        (10, Fault::Ssh(machine, ssh_fault, some)),
        (1, Fault::SshManyMachines(ssh_fault, some)),
        (3, Fault::Suspend(process, long)),
        (2, Fault::SlowSshThenStop(process, None)),
        (2, Fault::SlowSshThenStop(process, Some(long))),
        (1, Fault::DestroyMachine(machine)),
        (2, Fault::PlaybookFailures(some)),
    ];
    if on_postgres {
        let lag = rng.millis(20, 400);
        let all = rng.chance(40);
        faults.extend([
            (3, Fault::TerminateConnections(1 + machine % 5)),
            (1, Fault::CrashDatabase(down / 2)),
            (2, Fault::CutConnections((!all).then_some(process))),
            (2, Fault::DelayConnections(process, lag, some)),
            (2, Fault::SlowDatabase(lag, some)),
            (2, Fault::StallConnections(process, some)),
        ]);
    }
    rng.choose_weighted(&faults)
}

/// How to undo a fault.
enum Undo {
    Ssh(String),
    Delay(usize),
    Stall(usize),
    PlaybookFailures,
    StartDatabase,
    /// Injects the second part of a fault.
    Inject(Fault),
}

/// Injects the faults of a schedule, and undoes them.
pub struct FaultInjector<'a> {
    environment: &'a mut Environment,
    processes: &'a mut Processes,
    log: &'a Log,
    undo: Vec<(Instant, Undo)>,
    crashed: bool,
}

impl<'a> FaultInjector<'a> {
    pub fn new(
        environment: &'a mut Environment,
        processes: &'a mut Processes,
        log: &'a Log,
    ) -> Self {
        Self {
            environment,
            processes,
            log,
            undo: Vec::new(),
            crashed: false,
        }
    }

    /// Runs the schedule to its end, or until there is a finding.
    pub fn run(&mut self, schedule: &Schedule, length: Duration) {
        let start = Instant::now();
        self.environment
            .machines
            .set_playbook_fault_rate(PLAYBOOK_FAULT_PERCENT.0);
        let mut entries = schedule.entries.iter().peekable();
        while start.elapsed() < length && self.log.findings().is_empty() {
            while let Some(entry) = entries.next_if(|entry| entry.at <= start.elapsed()) {
                self.inject(entry.fault);
            }
            self.undo_due(false);
            self.processes.tick(self.log);
            if self.log.wait(Duration::from_millis(40)) {
                break;
            }
        }
    }

    /// Undoes all faults and waits until all processes run.
    pub fn undo_all(&mut self) {
        self.environment.machines.set_playbook_fault_rate(0);
        self.undo_due(true);
        self.processes.wait_for_all(self.log);
        // There may be new machines in the meantime.
        for machine in self.environment.machines.list() {
            self.environment.machines.set_fault(&machine.name, None);
        }
    }

    fn inject(&mut self, fault: Fault) {
        let done = self.try_inject(fault);
        self.log.write(&format!(
            "{} {fault:?}",
            if done { "INJECTED" } else { "skipped" }
        ));
        if done {
            let kind = format!("{fault:?}");
            let kind = kind.split('(').next().unwrap_or_default();
            let more = match fault {
                Fault::Kill(process, _)
                | Fault::Suspend(process, _)
                | Fault::Restart(process, _) => {
                    let name = self.processes.list[process].name;
                    format!(" {}", name.split('-').next().unwrap_or_default())
                }
                Fault::Ssh(_, ssh_fault, _) => format!(" {ssh_fault:?}"),
                _ => String::new(),
            };
            self.log.count(&format!("fault {kind}{more}"));
        }
    }

    /// Returns false if the fault is not possible now, for example because the process is down.
    fn try_inject(&mut self, fault: Fault) -> bool {
        let later = |time: Duration| Instant::now() + time;
        match fault {
            Fault::Kill(process, down) => self.processes.list[process].kill(down),
            Fault::Suspend(process, time) => self.processes.list[process].suspend(time),
            Fault::Restart(process, down) => self.processes.list[process].terminate(down),
            Fault::TerminateConnections(quantity) => self.terminate_backends(quantity),
            Fault::CrashDatabase(down) => {
                let Some(postgres) = self.environment.postgres.as_mut().filter(|_| !self.crashed)
                else {
                    return false;
                };
                postgres.stop_immediately();
                self.crashed = true;
                self.undo.push((later(down), Undo::StartDatabase));
                true
            }
            Fault::CutConnections(process) => {
                for (number, each) in self.processes.list.iter().enumerate() {
                    if let Some(proxy) = &each.proxy
                        && process.is_none_or(|process| process == number)
                    {
                        proxy.cut();
                    }
                }
                true
            }
            Fault::DelayConnections(process, by, time) => {
                self.delay_connections(process, by, time);
                true
            }
            Fault::SlowDatabase(by, time) => {
                for process in 0..self.processes.list.len() {
                    self.delay_connections(process, by, time);
                }
                true
            }
            Fault::StallConnections(process, time) => {
                if let Some(proxy) = &self.processes.list[process].proxy {
                    proxy.stall();
                    self.undo.push((later(time), Undo::Stall(process)));
                }
                true
            }
            Fault::Ssh(number, ssh_fault, time) => {
                let machines = self.environment.machines.list();
                if machines.is_empty() {
                    return false;
                }
                let name = &machines[number % machines.len()].name;
                self.set_ssh_fault(name, ssh_fault, time)
            }
            Fault::SshManyMachines(ssh_fault, time) => {
                let machines = self.environment.machines.list();
                for machine in machines.iter().step_by(3) {
                    self.set_ssh_fault(&machine.name, ssh_fault, time);
                }
                true
            }
            Fault::SlowSshThenStop(process, suspend_for) => {
                let slow = SshFault::Delay(Duration::from_millis(1200));
                for machine in self.environment.machines.list() {
                    self.set_ssh_fault(&machine.name, slow, Duration::from_secs(3));
                }
                let stop = match suspend_for {
                    Some(time) => Fault::Suspend(process, time),
                    None => Fault::Kill(process, Duration::from_millis(200)),
                };
                let soon = Duration::from_millis(900 + (process as u64) * 300);
                self.undo.push((later(soon), Undo::Inject(stop)));
                true
            }
            Fault::DestroyMachine(number) => {
                let machines = self.environment.machines.list();
                !machines.is_empty()
                    && self
                        .environment
                        .machines
                        .kill(&machines[number % machines.len()].name)
            }
            Fault::PlaybookFailures(time) => {
                self.environment
                    .machines
                    .set_playbook_fault_rate(PLAYBOOK_FAULT_PERCENT.1);
                self.undo.push((later(time), Undo::PlaybookFailures));
                true
            }
        }
    }

    fn delay_connections(&mut self, process: usize, by: Duration, time: Duration) {
        if let Some(proxy) = &self.processes.list[process].proxy {
            proxy.delay(by);
            self.undo
                .push((Instant::now() + time, Undo::Delay(process)));
        }
    }

    fn set_ssh_fault(&mut self, name: &str, ssh_fault: SshFault, time: Duration) -> bool {
        let done = self.environment.machines.set_fault(name, Some(ssh_fault));
        if done && !matches!(ssh_fault, SshFault::Die(_)) {
            let undo = Undo::Ssh(name.to_owned());
            self.undo.push((Instant::now() + time, undo));
        }
        done
    }

    fn terminate_backends(&self, quantity: usize) -> bool {
        const TERMINATE: [&str; 5] = [
            terminate!(1),
            terminate!(2),
            terminate!(3),
            terminate!(4),
            terminate!(5),
        ];
        let ended = self.environment.database.query(TERMINATE[quantity - 1]);
        ended.is_ok_and(|rows| !rows.is_empty())
    }

    /// Undoes the faults whose time is over, or all.
    fn undo_due(&mut self, all: bool) {
        let now = Instant::now();
        let due = self.undo.extract_if(.., |(until, _)| all || *until <= now);
        for (_, undo) in due.collect::<Vec<_>>() {
            match undo {
                Undo::Ssh(name) => {
                    self.environment.machines.set_fault(&name, None);
                }
                Undo::Inject(fault) if !all => self.inject(fault),
                Undo::Inject(_) => {}
                Undo::Delay(process) => {
                    if let Some(proxy) = &self.processes.list[process].proxy {
                        proxy.delay(Duration::ZERO);
                    }
                }
                Undo::Stall(process) => {
                    if let Some(proxy) = &self.processes.list[process].proxy {
                        proxy.resume();
                    }
                }
                Undo::PlaybookFailures => self
                    .environment
                    .machines
                    .set_playbook_fault_rate(if all { 0 } else { PLAYBOOK_FAULT_PERCENT.0 }),
                Undo::StartDatabase => {
                    if let Some(postgres) = &mut self.environment.postgres {
                        postgres.start_again();
                    }
                    self.crashed = false;
                }
            }
        }
    }
}
