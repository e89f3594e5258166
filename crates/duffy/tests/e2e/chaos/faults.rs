//! The schedule of a run: which fault comes when. It is rolled before the run, from the seed alone.

use std::fmt;
use std::time::{Duration, Instant};

use duffy_sim::{Fault as SshFault, Moment};

use super::crew::Crew;
use super::dice::Dice;
use super::mishap::HOSTILE;
use super::record::Record;
use super::stage::Stage;

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

/// How many playbooks of a hundred go wrong, and how many in bad times.
const MISHAPS: (usize, usize) = (12, 70);

/// Something that is done to the run.
#[derive(Debug, Clone, Copy)]
enum Deed {
    /// kill -9 of a process, which is started again after a while.
    Kill(usize, Duration),
    /// A process does not run for longer than its leases last.
    Freeze(usize, Duration),
    /// A process is told to end, and started again.
    Restart(usize, Duration),
    /// So many connections are ended by PostgreSQL.
    Terminate(usize),
    /// PostgreSQL crashes, and is started again after a while.
    Crash(Duration),
    /// The connections of a process break, or of all.
    Cut(Option<usize>),
    /// All that a process and the database tell each other arrives late.
    Lag(usize, Duration, Duration),
    /// The database answers all processes slowly.
    SlowDatabase(Duration, Duration),
    /// Nothing that they tell each other arrives for a while.
    Stall(usize, Duration),
    /// A machine's SSH server misbehaves for a while.
    Ssh(usize, SshFault, Duration),
    /// One machine in three does.
    Quake(SshFault, Duration),
    /// All machines are slow, so that requests are in the middle of it when a process is killed or frozen.
    Ambush(usize, Option<Duration>),
    /// A machine dies for good.
    Die(usize),
    /// Most playbooks go wrong for a while.
    BadTimes(Duration),
}

/// A deed and when it is done.
#[derive(Debug, Clone, Copy)]
struct Entry {
    at: Duration,
    deed: Deed,
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:8.3} {:?}", self.at.as_secs_f64(), self.deed)
    }
}

/// See the module.
pub struct Schedule {
    entries: Vec<Entry>,
}

impl Schedule {
    /// Rolls a schedule that is so long.
    pub fn roll(seed: u64, length: Duration, on_postgres: bool) -> Self {
        let mut dice = Dice::new(seed, "schedule");
        let mut entries = Vec::new();
        let mut at = dice.millis(200, 1500);
        while at < length {
            let deed = roll_deed(&mut dice, on_postgres);
            entries.push(Entry { at, deed });
            at += dice.millis(150, 1800);
        }
        Self { entries }
    }

    pub fn lines(&self) -> Vec<String> {
        self.entries.iter().map(ToString::to_string).collect()
    }
}

/// Here new deeds are put in.
fn roll_deed(dice: &mut Dice, on_postgres: bool) -> Deed {
    let post = dice.below(4);
    let long = dice.millis(6000, 9000);
    let down = dice.millis(0, 3000);
    let some = dice.millis(1000, 6000);
    let machine = dice.below(1000);
    let fault = dice.weigh(&[
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
    let mut deeds = vec![
        (5, Deed::Kill(post, down)),
        (3, Deed::Restart(post, down)),
        (10, Deed::Ssh(machine, fault, some)),
        (1, Deed::Quake(fault, some)),
        (3, Deed::Freeze(post, long)),
        (2, Deed::Ambush(post, None)),
        (2, Deed::Ambush(post, Some(long))),
        (1, Deed::Die(machine)),
        (2, Deed::BadTimes(some)),
    ];
    if on_postgres {
        let lag = dice.millis(20, 400);
        let all = dice.happens(40);
        deeds.extend([
            (3, Deed::Terminate(1 + machine % 5)),
            (1, Deed::Crash(down / 2)),
            (2, Deed::Cut((!all).then_some(post))),
            (2, Deed::Lag(post, lag, some)),
            (2, Deed::SlowDatabase(lag, some)),
            (2, Deed::Stall(post, some)),
        ]);
    }
    dice.weigh(&deeds)
}

/// What ends by itself.
enum Undo {
    Ssh(String),
    Lag(usize),
    Stall(usize),
    BadTimes,
    Start,
    /// Not to be undone, but done, if it is time for that.
    Strike(Deed),
}

/// Does what the schedule says, and undoes it.
pub struct Director<'a> {
    stage: &'a mut Stage,
    crew: &'a mut Crew,
    record: &'a Record,
    undo: Vec<(Instant, Undo)>,
    crashed: bool,
}

impl<'a> Director<'a> {
    pub fn new(stage: &'a mut Stage, crew: &'a mut Crew, record: &'a Record) -> Self {
        Self {
            stage,
            crew,
            record,
            undo: Vec::new(),
            crashed: false,
        }
    }

    /// Plays the schedule to its end, or until something is found.
    pub fn play(&mut self, schedule: &Schedule, length: Duration) {
        let start = Instant::now();
        self.stage.room.set_mishaps(MISHAPS.0);
        let mut entries = schedule.entries.iter().peekable();
        while start.elapsed() < length && self.record.findings().is_empty() {
            while let Some(entry) = entries.next_if(|entry| entry.at <= start.elapsed()) {
                self.act(entry.deed);
            }
            self.relent(false);
            self.crew.tick(self.record);
            if self.record.wait(Duration::from_millis(40)) {
                break;
            }
        }
    }

    /// Ends all faults and waits until all processes run.
    pub fn heal(&mut self) {
        self.stage.room.set_mishaps(0);
        self.relent(true);
        self.crew.muster(self.record);
        // Machines may have come to be since.
        for machine in self.stage.room.machines() {
            self.stage.room.set_fault(&machine.name, None);
        }
    }

    fn act(&mut self, deed: Deed) {
        let done = self.try_act(deed);
        self.record.note(&format!(
            "{} {deed:?}",
            if done { "DID" } else { "passed over" }
        ));
        if done {
            let kind = format!("{deed:?}");
            let kind = kind.split('(').next().unwrap_or_default();
            let more = match deed {
                Deed::Kill(post, _) | Deed::Freeze(post, _) | Deed::Restart(post, _) => {
                    let name = self.crew.posts[post].name;
                    format!(" {}", name.split('-').next().unwrap_or_default())
                }
                Deed::Ssh(_, fault, _) => format!(" {fault:?}"),
                _ => String::new(),
            };
            self.record.count(&format!("fault {kind}{more}"));
        }
    }

    /// False when it cannot be done now: what it would be done to is down already, say.
    fn try_act(&mut self, deed: Deed) -> bool {
        let later = |time: Duration| Instant::now() + time;
        match deed {
            Deed::Kill(post, down) => self.crew.posts[post].kill(down),
            Deed::Freeze(post, time) => self.crew.posts[post].freeze(time),
            Deed::Restart(post, down) => self.crew.posts[post].terminate(down),
            Deed::Terminate(quantity) => self.terminate_backends(quantity),
            Deed::Crash(down) => {
                let Some(postgres) = self.stage.postgres.as_mut().filter(|_| !self.crashed) else {
                    return false;
                };
                postgres.stop_immediately();
                self.crashed = true;
                self.undo.push((later(down), Undo::Start));
                true
            }
            Deed::Cut(post) => {
                for (number, each) in self.crew.posts.iter().enumerate() {
                    if let Some(proxy) = &each.proxy
                        && post.is_none_or(|post| post == number)
                    {
                        proxy.cut();
                    }
                }
                true
            }
            Deed::Lag(post, by, time) => {
                self.slow_down(post, by, time);
                true
            }
            Deed::SlowDatabase(by, time) => {
                for post in 0..self.crew.posts.len() {
                    self.slow_down(post, by, time);
                }
                true
            }
            Deed::Stall(post, time) => {
                if let Some(proxy) = &self.crew.posts[post].proxy {
                    proxy.stall();
                    self.undo.push((later(time), Undo::Stall(post)));
                }
                true
            }
            Deed::Ssh(number, fault, time) => {
                let machines = self.stage.room.machines();
                if machines.is_empty() {
                    return false;
                }
                let name = &machines[number % machines.len()].name;
                self.disturb(name, fault, time)
            }
            Deed::Quake(fault, time) => {
                let machines = self.stage.room.machines();
                for machine in machines.iter().step_by(3) {
                    self.disturb(&machine.name, fault, time);
                }
                true
            }
            Deed::Ambush(post, freeze) => {
                let slow = SshFault::Delay(Duration::from_millis(1200));
                for machine in self.stage.room.machines() {
                    self.disturb(&machine.name, slow, Duration::from_secs(3));
                }
                let strike = match freeze {
                    Some(time) => Deed::Freeze(post, time),
                    None => Deed::Kill(post, Duration::from_millis(200)),
                };
                let soon = Duration::from_millis(900 + (post as u64) * 300);
                self.undo.push((later(soon), Undo::Strike(strike)));
                true
            }
            Deed::Die(number) => {
                let machines = self.stage.room.machines();
                !machines.is_empty()
                    && self
                        .stage
                        .room
                        .kill(&machines[number % machines.len()].name)
            }
            Deed::BadTimes(time) => {
                self.stage.room.set_mishaps(MISHAPS.1);
                self.undo.push((later(time), Undo::BadTimes));
                true
            }
        }
    }

    fn slow_down(&mut self, post: usize, by: Duration, time: Duration) {
        if let Some(proxy) = &self.crew.posts[post].proxy {
            proxy.lag(by);
            self.undo.push((Instant::now() + time, Undo::Lag(post)));
        }
    }

    fn disturb(&mut self, name: &str, fault: SshFault, time: Duration) -> bool {
        let done = self.stage.room.set_fault(name, Some(fault));
        if done && !matches!(fault, SshFault::Die(_)) {
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
        let ended = self.stage.base.ask(TERMINATE[quantity - 1]);
        ended.is_ok_and(|rows| !rows.is_empty())
    }

    /// Undoes what has lasted long enough, or all of it.
    fn relent(&mut self, all: bool) {
        let now = Instant::now();
        let due = self.undo.extract_if(.., |(until, _)| all || *until <= now);
        for (_, undo) in due.collect::<Vec<_>>() {
            match undo {
                Undo::Ssh(name) => {
                    self.stage.room.set_fault(&name, None);
                }
                Undo::Strike(deed) if !all => self.act(deed),
                Undo::Strike(_) => {}
                Undo::Lag(post) => {
                    if let Some(proxy) = &self.crew.posts[post].proxy {
                        proxy.lag(Duration::ZERO);
                    }
                }
                Undo::Stall(post) => {
                    if let Some(proxy) = &self.crew.posts[post].proxy {
                        proxy.resume();
                    }
                }
                Undo::BadTimes => self.stage.room.set_mishaps(if all { 0 } else { MISHAPS.0 }),
                Undo::Start => {
                    if let Some(postgres) = &mut self.stage.postgres {
                        postgres.start_again();
                    }
                    self.crashed = false;
                }
            }
        }
    }
}
