//! The arguments of `duffy quickstart`, `run`, `serve` and `serve-legacy`.

use std::path::PathBuf;

use clap::Args;

/// Where to listen. An argument overrides the configuration.
#[derive(Debug, Args)]
pub struct ListenArgs {
    /// Host name or address to listen on [default: the configuration's, else 127.0.0.1]
    #[arg(short = 'H', long)]
    pub host: Option<String>,

    /// Port to listen on, 0 for any free one [default: the configuration's, else 8080]
    #[arg(short, long)]
    pub port: Option<u16>,
}

/// Options of the original that have no effect.
#[derive(Debug, Args)]
pub struct ReloadArgs {
    /// Accepted for unit files of the Python original; has no effect
    #[arg(long, overrides_with = "no_reload")]
    reload: bool,

    #[arg(long, hide = true, overrides_with = "reload")]
    no_reload: bool,
}

/// Where to keep the installation, and where to listen.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  duffy quickstart                         Ctrl-C stops it; the next start continues
  duffy quickstart --dir /tmp/duffy -p 8090   Elsewhere, on another port")]
pub struct QuickstartArgs {
    /// Directory for the database, keys and configuration [default: duffy/quickstart in the XDG
    /// state home]
    #[arg(long)]
    pub dir: Option<PathBuf>,

    /// Host name or address to listen on [default: the installation's, at first 127.0.0.1]
    #[arg(short = 'H', long)]
    pub host: Option<String>,

    /// Port to listen on [default: the installation's, at first 8080 if it is free]
    #[arg(short, long, value_parser = clap::value_parser!(u16).range(1..))]
    pub port: Option<u16>,
}

/// Where to listen, and how much to do in parallel.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  duffy run                                As the configuration says
  duffy -c duffy.yaml run -p 8081          On another port")]
pub struct RunArgs {
    #[command(flatten)]
    pub listen: ListenArgs,

    /// How many nodes to work on in parallel [default: the configuration's]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    pub concurrency: Option<u32>,
}

/// Where to listen.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  duffy serve                              As the configuration's `app` section says
  duffy -l debug serve -H 0.0.0.0 -p 8080  On all addresses, logging more")]
pub struct ServeArgs {
    #[command(flatten)]
    pub listen: ListenArgs,

    #[command(flatten)]
    reload: ReloadArgs,
}

/// Where to listen, and which web API to call.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  duffy serve-legacy                       As the configuration's `metaclient` section says
  duffy serve-legacy -p 9091 --dest http://duffy.example.org:8080
                                           On another port, for a web API elsewhere")]
pub struct ServeLegacyArgs {
    /// Host name or address to listen on [default: the configuration's, else 127.0.0.1]
    #[arg(short = 'H', long)]
    pub host: Option<String>,

    /// Port to listen on, 0 for any free one [default: the configuration's, else 9090]
    #[arg(short, long)]
    pub port: Option<u16>,

    /// URL of the web API, without /api/v1 [default: the configuration's, else
    /// http://127.0.0.1:8080]
    #[arg(short = 'D', long, value_name = "URL")]
    pub dest: Option<String>,

    #[command(flatten)]
    reload: ReloadArgs,
}
