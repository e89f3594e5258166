//! `duffy serve-legacy`: the old API, as a proxy to a web API.

use std::process::ExitCode;

use clap::Args;

use crate::config::Loaded;
#[cfg(feature = "legacy")]
use crate::failure::Failure;
#[cfg(feature = "legacy")]
use crate::legacy::{Checked, Overrides};
#[cfg(feature = "legacy")]
use crate::output;
#[cfg(feature = "legacy")]
use crate::signals::Signals;

/// Where to listen, whom to ask.
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

    /// Accepted for unit files of the Python original; nothing reloads itself
    #[arg(long, overrides_with = "no_reload")]
    pub reload: bool,

    #[arg(long, hide = true, overrides_with = "reload")]
    no_reload: bool,
}

/// Serves until a signal ends it.
#[cfg(feature = "legacy")]
pub fn main(args: &ServeLegacyArgs, loaded: &Loaded) -> ExitCode {
    let configured = loaded.config.metaclient.as_ref();
    loaded.start_log_of(configured.and_then(|section| section.loglevel));
    let overrides = Overrides {
        host: args.host.clone(),
        port: args.port,
        dest: args.dest.clone(),
    };
    output::finish(Checked::new(&loaded.config, overrides).and_then(run))
}

#[cfg(feature = "legacy")]
fn run(checked: Checked) -> Result<(), Failure> {
    use tokio_util::sync::CancellationToken;

    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure(format!("cannot start threads: {error}")))?;
    let result = runtime.block_on(async {
        let signals = Signals::new(true)?;
        let (stop, at_once) = (CancellationToken::new(), CancellationToken::new());
        let serve = checked.bind().await?;
        let serve = serve.serve(None, stop.clone(), at_once.clone())?;
        let watching = tokio::spawn(signals.watch(stop, at_once));
        serve.await;
        watching.abort();
        Ok(())
    });
    // Calls to the web API may still block threads.
    runtime.shutdown_timeout(std::time::Duration::from_secs(1));
    result
}

/// Never reached: the feature is missing.
#[cfg(not(feature = "legacy"))]
pub fn main(_: &ServeLegacyArgs, _: &Loaded) -> ExitCode {
    ExitCode::FAILURE
}
