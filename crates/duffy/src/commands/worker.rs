//! `duffy worker`: provisions nodes and cleans up. Takes the arguments of Celery's worker, so
//! that unit files written for the Python original go on working.

use std::process::ExitCode;

use clap::Args;

use crate::config::Loaded;
use crate::logging::LogLevel;
#[cfg(feature = "server")]
use crate::output;
#[cfg(feature = "server")]
use crate::server::{self, Parts};

/// How much to do at once; and what Celery's worker takes.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  duffy worker                             As the configuration's `tasks` section says
  duffy worker -c 16 -l debug              Sixteen nodes at once, logging more

The other options of Celery's worker (-B, -s, -n, -Q, -P, -E, -O, …) are accepted, so that unit \
files of the Python original go on working, and change nothing: the worker keeps its own \
schedule, stays in the foreground and logs to the standard error.")]
pub struct WorkerArgs {
    /// How many nodes to work on at once; 0 or `auto` for the default [default: the
    /// configuration's]
    #[arg(short, long, value_parser = parse_concurrency)]
    concurrency: Option<Concurrency>,

    /// Log level, the same as `duffy --loglevel LEVEL worker`
    #[arg(short, long, value_parser = parse_celery_level)]
    loglevel: Option<LogLevel>,

    #[command(flatten)]
    celery: CeleryArgs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Concurrency {
    Default,
    Nodes(u32),
}

fn parse_concurrency(text: &str) -> Result<Concurrency, String> {
    match text.parse() {
        Ok(0) => Ok(Concurrency::Default),
        Ok(nodes) => Ok(Concurrency::Nodes(nodes)),
        Err(_) if text.eq_ignore_ascii_case("auto") => Ok(Concurrency::Default),
        Err(_) => Err("give a number, or auto".to_owned()),
    }
}

fn parse_celery_level(text: &str) -> Result<LogLevel, String> {
    if text.eq_ignore_ascii_case("fatal") {
        return Ok(LogLevel::Critical);
    }
    LogLevel::from_name(text)
        .ok_or_else(|| "give trace, debug, info, warning, error or critical".to_owned())
}

/// Declares Celery's other options, and how to tell which of them were given.
macro_rules! celery_args {
    (
        flags { $($flag:ident: $flag_long:literal $($flag_short:literal)? $([$($flag_alias:literal),*])?),* $(,)? }
        values { $($value:ident: $value_long:literal $($value_short:literal)? $([$($value_alias:literal),*])?),* $(,)? }
    ) => {
        #[derive(Debug, Args)]
        struct CeleryArgs {
            $(#[arg(long = $flag_long, hide = true $(, short = $flag_short)? $(, aliases = [$($flag_alias),*])?)]
            $flag: bool,)*
            $(#[arg(long = $value_long, hide = true, allow_hyphen_values = true
                $(, short = $value_short)? $(, aliases = [$($value_alias),*])?)]
            $value: Option<String>,)*
        }

        #[cfg(any(test, feature = "server"))]
        impl CeleryArgs {
            fn given(&self) -> Vec<&'static str> {
                let mut given = Vec::new();
                $(if self.$flag { given.push(concat!("--", $flag_long)); })*
                $(if self.$value.is_some() { given.push(concat!("--", $value_long)); })*
                given
            }
        }
    };
}

celery_args! {
    flags {
        beat: "beat" 'B',
        detach: "detach" 'D',
        task_events: "task-events" 'E' ["events"],
        purge: "purge" ["discard"],
        without_gossip: "without-gossip",
        without_mingle: "without-mingle",
        without_heartbeat: "without-heartbeat",
        disable_prefetch: "disable-prefetch",
    }
    values {
        hostname: "hostname" 'n',
        statedb: "statedb" 'S',
        optimization: "optimization" 'O',
        prefetch_multiplier: "prefetch-multiplier",
        pool: "pool" 'P',
        time_limit: "time-limit",
        soft_time_limit: "soft-time-limit",
        max_tasks_per_child: "max-tasks-per-child",
        pool_start_method: "pool-start-method",
        max_memory_per_child: "max-memory-per-child",
        queues: "queues" 'Q',
        exclude_queues: "exclude-queues" 'X',
        include: "include" 'I',
        heartbeat_interval: "heartbeat-interval",
        autoscale: "autoscale",
        schedule_filename: "schedule-filename" 's' ["schedule"],
        scheduler: "scheduler",
        logfile: "logfile" 'f',
        pidfile: "pidfile",
        uid: "uid",
        gid: "gid",
        umask: "umask",
        executable: "executable",
    }
}

#[cfg(any(test, feature = "server"))]
impl WorkerArgs {
    /// How many nodes to work on at once; `None` for the configuration's number.
    pub fn concurrency(&self) -> Option<u32> {
        match self.concurrency {
            Some(Concurrency::Nodes(nodes)) => Some(nodes),
            Some(Concurrency::Default) | None => None,
        }
    }

    /// The options given that change nothing, by their long names; to be said once at start.
    pub fn unused(&self) -> Vec<&'static str> {
        self.celery.given()
    }
}

/// Works until a signal ends it.
#[cfg(feature = "server")]
pub fn main(args: &WorkerArgs, loaded: &Loaded) -> ExitCode {
    loaded.start_server_log(args.loglevel);
    let unused = args.unused();
    if !unused.is_empty() {
        tracing::warn!(
            options = unused.join(" "),
            "options of Celery's worker are accepted and change nothing"
        );
    }
    let parts = Parts::worker(concurrency(args.concurrency(), loaded));
    output::finish(server::run(loaded.config.clone(), parts, |_, _| async {}))
}

/// How much to do at once: what the command says goes before the configuration.
#[cfg(feature = "server")]
pub(super) fn concurrency(of_command: Option<u32>, loaded: &Loaded) -> usize {
    let of_command = of_command.and_then(|nodes| usize::try_from(nodes).ok());
    of_command.unwrap_or(loaded.config.tasks.concurrency)
}

/// Never reached: the feature is missing.
#[cfg(not(feature = "server"))]
pub fn main(_: &WorkerArgs, _: &Loaded) -> ExitCode {
    ExitCode::FAILURE
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Debug, Parser)]
    #[command(args_override_self = true)]
    struct Worker {
        #[command(flatten)]
        args: WorkerArgs,
    }

    fn parse(line: &str) -> Result<WorkerArgs, clap::Error> {
        Worker::try_parse_from(std::iter::once("worker").chain(line.split_whitespace()))
            .map(|worker| worker.args)
    }

    #[test]
    fn concurrency_and_level_mean_the_same() {
        let args = parse("-c4 -l INFO").unwrap();
        assert_eq!(
            (args.concurrency(), args.loglevel),
            (Some(4), Some(LogLevel::Info))
        );
        let args = parse("--concurrency=3 -c 5 --loglevel=FATAL").unwrap();
        assert_eq!(
            (args.concurrency(), args.loglevel),
            (Some(5), Some(LogLevel::Critical))
        );
        assert_eq!(parse("-c auto").unwrap().concurrency(), None);
        assert_eq!(parse("-c 0").unwrap().concurrency(), None);
        assert!(parse("").unwrap().unused().is_empty());
        for bad in ["-c many", "-c -1", "-l loud", "--nonsense", "word"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn unit_files_of_the_original_go_on_working() {
        let args = parse(
            "-B --schedule-filename /var/lib/duffy/beat -n w1@%h -Q a,b -P threads -Ofair -E \
             --autoscale=10,3 --uid duffy --pidfile x -f - --max-tasks-per-child 10 --without-gossip",
        )
        .unwrap();
        assert_eq!(
            args.unused(),
            [
                "--beat",
                "--task-events",
                "--without-gossip",
                "--hostname",
                "--optimization",
                "--pool",
                "--max-tasks-per-child",
                "--queues",
                "--autoscale",
                "--schedule-filename",
                "--logfile",
                "--pidfile",
                "--uid",
            ]
        );
        assert_eq!(
            parse("--schedule x -s y --events --discard")
                .unwrap()
                .unused()
                .len(),
            3
        );
    }
}
