//! Finds and ends the processes of a machine.

use std::mem::discriminant;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use russh::Sig;

/// Every process of a machine inherits this variable. Its value is the machine's directory.
pub(super) const MARK: &str = "DUFFY_SIM_MACHINE";

/// Sends a signal to a process group. A missing group is not an error.
pub(super) fn signal_group(leader: Pid, signal: Signal) {
    // Never 0 or 1: these mean this process's own group, or all processes.
    if leader.as_raw() > 1 {
        let _ = killpg(leader, signal);
    }
}

/// Kills all processes of the machines in these directories, also those that have left their sessions, as turning a
/// machine off does. Blocks; does nothing without `/proc`.
pub(crate) fn kill_processes(directories: &[PathBuf]) {
    let mark = |path: &PathBuf| [MARK.as_bytes(), b"=", path.as_os_str().as_bytes()].concat();
    let marks: Vec<_> = directories.iter().map(mark).collect();
    // The next round finds processes that forked during this one.
    for _ in 0..3 {
        let mut found = false;
        for pid in running_processes() {
            let Ok(environment) = std::fs::read(format!("/proc/{pid}/environ")) else {
                continue;
            };
            let marked = environment
                .split(|byte| *byte == 0)
                .any(|variable| marks.iter().any(|mark| mark == variable));
            if marked {
                found = true;
                let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            }
        }
        if !found {
            break;
        }
    }
}

/// Returns all processes except this one, which may itself run on a simulated machine.
fn running_processes() -> impl Iterator<Item = i32> {
    let own = std::process::id().cast_signed();
    std::fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok())
        .filter(move |pid| *pid > 1 && *pid != own)
}

/// The signals that have names in RFC 4254.
static SIGNALS: [(Sig, Signal); 12] = [
    (Sig::ABRT, Signal::SIGABRT),
    (Sig::ALRM, Signal::SIGALRM),
    (Sig::FPE, Signal::SIGFPE),
    (Sig::HUP, Signal::SIGHUP),
    (Sig::ILL, Signal::SIGILL),
    (Sig::INT, Signal::SIGINT),
    (Sig::KILL, Signal::SIGKILL),
    (Sig::PIPE, Signal::SIGPIPE),
    (Sig::QUIT, Signal::SIGQUIT),
    (Sig::SEGV, Signal::SIGSEGV),
    (Sig::TERM, Signal::SIGTERM),
    (Sig::USR1, Signal::SIGUSR1),
];

/// Returns the signal that a client names; none for a private name.
pub(super) fn signal_of(name: &Sig) -> Option<Signal> {
    let is_it = |known: &Sig| discriminant(known) == discriminant(name);
    let found = SIGNALS.iter().find(|(known, _)| is_it(known));
    found.map(|(_, signal)| *signal)
}

/// Returns the name of a signal; a private name if RFC 4254 has none.
pub(super) fn name_of(signal: Signal) -> Sig {
    let found = SIGNALS.iter().find(|(_, known)| *known == signal);
    found.map_or_else(
        || {
            Sig::Custom(format!(
                "{}@duffy",
                signal.as_str().trim_start_matches("SIG")
            ))
        },
        |(name, _)| name.clone(),
    )
}
