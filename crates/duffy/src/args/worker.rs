//! The arguments of `duffy worker`. It accepts those of Celery's worker, so that unit files written for the Python original
//! still work.

use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches};

use super::values::OrDefault;
use crate::logging::{LogLevel, find_level};

/// How much to do in parallel, and the options of Celery's worker.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  duffy worker                             As the configuration's `tasks` section says
  duffy worker -c 16 -l debug              Sixteen nodes in parallel, logging more

The other options of Celery's worker (-B, -s, -n, -Q, -P, -E, -O, …) are accepted and ignored, so \
that unit files of the Python original still work. The worker keeps its own schedule, stays in the \
foreground and logs to the standard error.")]
pub struct WorkerArgs {
    /// How many nodes to work on in parallel; 0 or `auto` for the default [default: the
    /// configuration's]
    #[arg(short, long, value_parser = parse_concurrency)]
    pub concurrency: Option<OrDefault<u32>>,

    /// Log level, the same as `duffy --loglevel LEVEL worker`
    #[arg(short, long, value_parser = parse_celery_level)]
    pub loglevel: Option<LogLevel>,

    #[command(flatten)]
    pub ignored: IgnoredArgs,
}

fn parse_concurrency(text: &str) -> Result<OrDefault<u32>, String> {
    match text.parse() {
        Ok(0) => Ok(None),
        Ok(nodes) => Ok(Some(nodes)),
        Err(_) if text.eq_ignore_ascii_case("auto") => Ok(None),
        Err(_) => Err("give a number, or auto".to_owned()),
    }
}

fn parse_celery_level(text: &str) -> Result<LogLevel, String> {
    if text.eq_ignore_ascii_case("fatal") {
        return Ok(LogLevel::Critical);
    }
    find_level(text).ok_or_else(|| "give trace, debug, info, warning, error or critical".to_owned())
}

/// Celery's other options without a value: long name, short name, alias.
const FLAGS: [(&str, Option<char>, Option<&str>); 8] = [
    ("beat", Some('B'), None),
    ("detach", Some('D'), None),
    ("task-events", Some('E'), Some("events")),
    ("purge", None, Some("discard")),
    ("without-gossip", None, None),
    ("without-mingle", None, None),
    ("without-heartbeat", None, None),
    ("disable-prefetch", None, None),
];

/// Celery's other options with a value.
const OPTIONS: [(&str, Option<char>, Option<&str>); 23] = [
    ("hostname", Some('n'), None),
    ("statedb", Some('S'), None),
    ("optimization", Some('O'), None),
    ("prefetch-multiplier", None, None),
    ("pool", Some('P'), None),
    ("time-limit", None, None),
    ("soft-time-limit", None, None),
    ("max-tasks-per-child", None, None),
    ("pool-start-method", None, None),
    ("max-memory-per-child", None, None),
    ("queues", Some('Q'), None),
    ("exclude-queues", Some('X'), None),
    ("include", Some('I'), None),
    ("heartbeat-interval", None, None),
    ("autoscale", None, None),
    ("schedule-filename", Some('s'), Some("schedule")),
    ("scheduler", None, None),
    ("logfile", Some('f'), None),
    ("pidfile", None, None),
    ("uid", None, None),
    ("gid", None, None),
    ("umask", None, None),
    ("executable", None, None),
];

/// The given options of Celery's worker that have no effect, by their long names.
#[derive(Debug, Default)]
pub struct IgnoredArgs(pub Vec<String>);

impl Args for IgnoredArgs {
    fn augment_args(command: Command) -> Command {
        let arg = |(long, short, alias): (&'static str, Option<char>, Option<&'static str>)| {
            let arg = Arg::new(long).long(long).short(short).alias(alias);
            arg.hide(true)
        };
        let flags = FLAGS.map(|flag| arg(flag).action(ArgAction::SetTrue));
        let options = OPTIONS.map(|option| arg(option).allow_hyphen_values(true));
        command.args(flags).args(options)
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for IgnoredArgs {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut ignored = Self::default();
        ignored.update_from_arg_matches(matches)?;
        Ok(ignored)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        let given = FLAGS.iter().chain(&OPTIONS).map(|(long, ..)| *long);
        let given = given.filter(|id| matches.value_source(id) == Some(ValueSource::CommandLine));
        self.0.extend(given.map(|long| format!("--{long}")));
        Ok(())
    }
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
            (args.concurrency.flatten(), args.loglevel),
            (Some(4), Some(LogLevel::Info))
        );
        let args = parse("--concurrency=3 -c 5 --loglevel=FATAL").unwrap();
        assert_eq!(
            (args.concurrency.flatten(), args.loglevel),
            (Some(5), Some(LogLevel::Critical))
        );
        assert_eq!(parse("-c auto").unwrap().concurrency, Some(None));
        assert_eq!(parse("-c 0").unwrap().concurrency, Some(None));
        assert!(parse("").unwrap().ignored.0.is_empty());
        for bad in ["-c many", "-c -1", "-l loud", "--nonsense", "word"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn unit_files_of_the_original_still_work() {
        let args = parse(
            "-B --schedule-filename /var/lib/duffy/beat -n w1@%h -Q a,b -P threads -Ofair -E \
             --autoscale=10,3 --uid duffy --pidfile x -f - --max-tasks-per-child 10 --without-gossip",
        )
        .unwrap();
        assert_eq!(
            args.ignored.0,
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
                .ignored
                .0
                .len(),
            3
        );
    }
}
