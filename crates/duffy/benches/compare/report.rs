//! Writes `docs/benchmarks.md` and its charts.

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::charts;
use crate::figures::{Results, Row, number};
use crate::programs::{find, of_original, of_postgres, output_of};
use crate::rig::POSTGRES;

/// The directory of the documents.
fn documents() -> PathBuf {
    let checkout = Path::new(env!("CARGO_MANIFEST_DIR"))
        .ancestors()
        .nth(2)
        .unwrap();
    checkout.join("docs")
}

/// Returns the directory of the charts, which exists.
pub fn chart_directory() -> PathBuf {
    let directory = documents().join("benchmarks");
    fs::create_dir_all(&directory).unwrap();
    directory
}

/// Prints a row.
pub fn print(row: &Row) {
    println!("{}", table_line(row));
}

/// Writes the document and the charts of a complete run.
pub fn write(results: &Results, quick: bool) {
    let directory = chart_directory();
    fs::write(directory.join("ratios.svg"), charts::ratios(&results.rows)).unwrap();
    let mut pictures = String::from("![Ratios](benchmarks/ratios.svg)\n");
    for chart in &results.charts {
        let file = format!("{}.svg", chart.file);
        fs::write(directory.join(&file), charts::lines(chart)).unwrap();
        writeln!(pictures, "\n![{}](benchmarks/{file})", chart.title).unwrap();
    }
    let mut text = format!(
        "# Benchmarks\n\n\
         `{command}` wrote this page. It runs Duffy and the Python original (`duffy` 3.4.0 from PyPI) in turn on one\n\
         machine, with the same configuration, PostgreSQL server, nodes and load generator. Compare the ratios: the figures depend on\n\
         the machine.{note}\n\n",
        command = if quick {
            "make bench QUICK=1"
        } else {
            "make bench"
        },
        note = if quick {
            " This was a quick run: shorter, with fewer rounds and without the slow rows (large histories,\n\
             10,000 nodes, ten minutes of load)."
        } else {
            ""
        }
    );
    text += "| what | original | ours | ratio | yardstick | to reach | reached |\n|---|---|---|---|---|---|---|\n";
    for row in &results.rows {
        writeln!(text, "{}", table_line(row)).unwrap();
    }
    write!(
        text,
        "\nThe ratio says how many times as good ours is as the original; in the column of the yardstick, as the yardstick. Rates and\n\
         percentiles are medians over the rounds.\n\n{pictures}\n{HOW}\n## Machine\n\n{}\n## Versions\n\n{}",
        machine(),
        versions()
    )
    .unwrap();
    text += &flame_graphs(&directory);
    // What people found out; a run does not change it.
    let notes = fs::read_to_string(directory.join("notes.md")).unwrap_or_default();
    if !notes.is_empty() {
        text.push('\n');
        text += &notes;
    }
    fs::write(documents().join("benchmarks.md"), text).unwrap();
}

fn table_line(row: &Row) -> String {
    let times =
        |ratio: Option<f64>| ratio.map_or("–".to_owned(), |ratio| format!("{} ×", number(ratio)));
    let yardstick = row.yardstick.as_ref().map_or("–".to_owned(), |yardstick| {
        format!("{}: {}", yardstick.text, two_digits(row.of_yardstick()))
    });
    let reached = match row.reached {
        Some(true) => "yes",
        Some(false) => "no",
        None => "–",
    };
    let reach = if row.reach.is_empty() {
        "–"
    } else {
        row.reach
    };
    format!(
        "| {} | {} | {} | {} | {yardstick} | {reach} | {reached} |",
        row.what,
        cell(&row.original.text),
        cell(&row.ours.text),
        times(row.ratio())
    )
}

fn two_digits(ratio: Option<f64>) -> String {
    ratio.map_or("–".to_owned(), |ratio| format!("{ratio:.2} ×"))
}

/// Replies of servers can be part of a figure.
fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace(['\n', '\r'], " ")
}

const HOW: &str = "\
## How it is measured

    make bench                  # all rows
    make bench QUICK=1          # without the slow rows, with fewer rounds
    make bench ROWS='reads'     # some rows, printed only
    make flamegraph             # the flame graphs

- `crates/duffy/benches/compare` is the program: a row is a function in `rows/`. The load generator (`load.rs`) sends HTTP/1.1 requests
  on keep-alive connections, one thread each. It runs on the same machine and takes CPU time from both programs alike.
- Each program has its own database in one PostgreSQL cluster. Ours is the release build.
- Nodes are real sshd processes on loopback addresses, or simulated nodes of our worker, which the original does not have. The pool of
  real nodes has `reuse-nodes` and a playbook that only returns its input, so that Ansible does not hide the programs.
- Without “worker refilling”, the worker is stopped (SIGSTOP) during the measurement: the nodes of ended sessions are not replaced.
- Sessions per second include retiring the sessions. Latencies of sessions are those of the requests.
- The rows about history compare the p50 of each request with that on an empty database, and show the worst.
- Memory is the proportional set size of all processes. The figure of the client is its maximum resident set.
- A round trip to the database is counted by a proxy: a client that sends data after a reply.
";

fn machine() -> String {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let field = |text: &str, name: &str| {
        let line = text
            .lines()
            .find(|line| line.starts_with(name))
            .unwrap_or_default();
        line.split(':').nth(1).unwrap_or_default().trim().to_owned()
    };
    let processors = std::thread::available_parallelism().map_or(0, usize::from);
    let memory = field(&read("/proc/meminfo"), "MemTotal");
    let memory = memory
        .split(' ')
        .next()
        .and_then(|size| size.parse::<f64>().ok());
    let types = output_of(
        Command::new("stat")
            .args(["-f", "-c", "%T"])
            .arg(std::env::temp_dir()),
    );
    format!(
        "- {processors} cores: {}\n- {:.0} GB of memory\n- Linux {}; the databases are on {types}\n",
        field(&read("/proc/cpuinfo"), "model name"),
        memory.unwrap_or_default() / 1024.0 / 1024.0,
        read("/proc/sys/kernel/osrelease").trim(),
    )
}

fn versions() -> String {
    let of = |program: PathBuf, argument: &str| {
        let output = Command::new(program).arg(argument).output();
        let output = output
            .map(|output| [output.stdout, output.stderr].concat())
            .unwrap_or_default();
        String::from_utf8_lossy(&output)
            .lines()
            .next()
            .unwrap_or_default()
            .to_owned()
    };
    let date = output_of(Command::new("date").args(["-u", "+%Y-%m-%d"]));
    let commit = Command::new("git")
        .args(["rev-parse", "--short", "HEAD"])
        .output();
    let commit = commit.map(|output| output.stdout).unwrap_or_default();
    let packages = output_of(Command::new(of_original("python")).args(["-m", "pip", "freeze"]));
    let wanted = [
        "ansible-core=",
        "asyncpg=",
        "bcrypt=",
        "celery=",
        "duffy=",
        "SQLAlchemy=",
        "uvicorn=",
    ];
    let packages: Vec<&str> = packages
        .lines()
        .filter(|line| wanted.iter().any(|name| line.starts_with(name)))
        .collect();
    format!(
        "- {date}, commit {}\n- {}, with {}\n- {}\n- {}\n- {}\n- {}; {}\n",
        String::from_utf8_lossy(&commit).trim(),
        of(of_postgres("postgres"), "--version"),
        POSTGRES
            .iter()
            .map(|setting| format!("`{setting}`"))
            .collect::<Vec<_>>()
            .join(", "),
        of(find("ssh"), "-V"),
        of(find("redis-server"), "--version"),
        of(find("rustc"), "--version"),
        of(of_original("python"), "--version"),
        packages.join(", "),
    )
}

fn flame_graphs(directory: &Path) -> String {
    let mut names: Vec<String> = fs::read_dir(directory)
        .unwrap()
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|name| name.starts_with("flame-"))
        .collect();
    names.sort();
    if names.is_empty() {
        return String::new();
    }
    let mut text = "\n## Flame graphs\n\n`make flamegraph` records them with perf. Open them in a browser to zoom.\n\n".to_owned();
    for name in names {
        let label = name
            .trim_start_matches("flame-")
            .trim_end_matches(".svg")
            .replace('-', ", ");
        writeln!(text, "- [{label}](benchmarks/{name})").unwrap();
    }
    text
}
