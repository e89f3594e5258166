//! `duffy client`: asks a Duffy API.

use std::process::ExitCode;

use clap::builder::NonEmptyStringValueParser;
use clap::{Args, Subcommand, ValueEnum};
use duffy_api::NodesSpec;

use crate::config::Loaded;
use crate::values::{parse_nodes_spec, parse_session_id};

/// Whom to ask, as whom, and how to print the answer.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  duffy client list-pools
  duffy client --format yaml show-pool virtual-centos9
  duffy client request-session pool=virtual-centos9,quantity=2
  duffy client --url http://duffy.example.org:8080/api/v1 --auth-name ci list-sessions

What is not given here comes from the configuration's `client` section. Other users of a machine \
can see a command's arguments: better put the key there, or in DUFFY_AUTH_KEY.

The answer, also an error of the API, goes to the standard output; exit code 1 when it is an error.")]
pub struct ClientArgs {
    /// Base URL of the API
    #[arg(long)]
    pub url: Option<String>,

    /// Name of the tenant
    #[arg(long, value_name = "NAME")]
    pub auth_name: Option<String>,

    /// Key of the tenant
    #[arg(
        long,
        value_name = "KEY",
        env = "DUFFY_AUTH_KEY",
        hide_env_values = true
    )]
    pub auth_key: Option<String>,

    /// How to print the answer
    #[arg(long, value_enum, ignore_case = true, default_value = "json")]
    pub format: Format,

    /// What to ask.
    #[command(subcommand)]
    pub command: ClientCommand,
}

/// The form in which replies are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Indented JSON, members in the server's order
    Json,
    /// YAML, members sorted
    Yaml,
    /// A line of shell assignments for each node or pool
    Flat,
}

/// What to ask.
#[derive(Debug, Subcommand)]
pub enum ClientCommand {
    /// List the tenant's running sessions
    #[command(after_help = "\
Example:
  duffy client --format flat list-sessions")]
    ListSessions,
    /// Show one session
    #[command(after_help = "\
Example:
  duffy client show-session 17")]
    ShowSession {
        /// Number of the session
        #[arg(value_parser = parse_session_id)]
        session_id: i64,
    },
    /// Ask for a session: all of these nodes, or none
    #[command(after_help = "\
Examples:
  duffy client request-session pool=virtual-centos9,quantity=2
  duffy client request-session pool=virtual-centos9,quantity=1 pool=metal-x86_64,quantity=3")]
    RequestSession {
        /// How many nodes of which pool
        #[arg(required = true, value_name = "pool=POOL,quantity=NUMBER", value_parser = parse_nodes_spec)]
        nodes_specs: Vec<NodesSpec>,
    },
    /// Give a session's nodes back
    #[command(after_help = "\
Example:
  duffy client retire-session 17")]
    RetireSession {
        /// Number of the session
        #[arg(value_parser = parse_session_id)]
        session_id: i64,
    },
    /// List the pools
    #[command(after_help = "\
Example:
  duffy client list-pools")]
    ListPools,
    /// Show one pool and how many of its nodes are in which state
    #[command(after_help = "\
Example:
  duffy client show-pool virtual-centos9")]
    ShowPool {
        /// Name of the pool
        #[arg(value_parser = NonEmptyStringValueParser::new())]
        name: String,
    },
}

/// Asks and prints.
#[cfg(feature = "client")]
pub fn main(args: ClientArgs, loaded: &Loaded) -> ExitCode {
    crate::logging::init(loaded.command_level());
    match ask::ask(args, loaded) {
        Ok(code) => code,
        Err(failure) => crate::output::finish(Err(failure)),
    }
}

/// Never reached: the feature is missing.
#[cfg(not(feature = "client"))]
pub fn main(_: ClientArgs, _: &Loaded) -> ExitCode {
    ExitCode::FAILURE
}

#[cfg(feature = "client")]
mod ask {
    use std::path::PathBuf;
    use std::process::ExitCode;
    use std::time::Duration;

    use duffy_client::{Client, ClientError, Reply, Settings};
    use secrecy::SecretString;
    use serde_json::{Map, Value};

    use super::{ClientArgs, ClientCommand};
    use crate::config::Loaded;
    use crate::failure::Failure;
    use crate::output;

    pub(super) fn ask(args: ClientArgs, loaded: &Loaded) -> Result<ExitCode, Failure> {
        let ClientArgs {
            url,
            auth_name,
            auth_key,
            format,
            command,
        } = args;
        let client =
            Client::new(&settings(url, auth_name, auth_key, loaded)?).map_err(Failure::new)?;
        let is_list = matches!(
            command,
            ClientCommand::ListPools | ClientCommand::ListSessions
        );
        match call(&client, command) {
            Ok(reply) => {
                let text = format.render(reply.json())?;
                // A list of nothing is no line, not an empty one.
                if !(is_list && text.is_empty()) {
                    output::data(&text)?;
                }
                Ok(ExitCode::SUCCESS)
            }
            Err(ClientError::Refused(refusal)) => {
                output::data(&format.render(&error_value(refusal.body))?)?;
                Ok(ExitCode::FAILURE)
            }
            Err(error) => Err(Failure::new(error)),
        }
    }

    fn call(client: &Client, command: ClientCommand) -> Result<Reply, ClientError> {
        match command {
            ClientCommand::ListSessions => client.list_sessions(),
            ClientCommand::ShowSession { session_id } => client.show_session(session_id),
            ClientCommand::RequestSession { nodes_specs } => {
                // By this the server knows it when it comes again.
                let key = duffy_client::new_key();
                let ask = |_| client.request_session(&nodes_specs, Some(&key));
                duffy_client::repeat(ask, say_again)
            }
            ClientCommand::RetireSession { session_id } => {
                client.retire_session_surely(session_id, say_again)
            }
            ClientCommand::ListPools => client.list_pools(),
            ClientCommand::ShowPool { name } => client.show_pool(&name),
        }
    }

    fn say_again(error: &ClientError, pause: Duration) {
        tracing::warn!(%error, "the answer was lost, asking again in {} s", pause.as_secs());
    }

    /// `{"error": BODY}`, with `detail` first.
    fn error_value(body: Value) -> Value {
        let mut error = Map::new();
        if let Value::Object(mut members) = body {
            if let Some(detail) = members.shift_remove("detail") {
                error.insert("detail".to_owned(), detail);
            }
            error.extend(members);
        }
        Value::Object(Map::from_iter([("error".to_owned(), Value::Object(error))]))
    }

    /// From the arguments, else from the configuration. An empty argument counts as none.
    fn settings(
        url: Option<String>,
        name: Option<String>,
        key: Option<String>,
        loaded: &Loaded,
    ) -> Result<Settings, Failure> {
        let configured = loaded.config.client.as_ref();
        let given = |value: Option<String>| value.filter(|text| !text.is_empty());
        let missing = |what: &str, option: &str, setting: &str| {
            Failure(format!(
                "{what} is not known: give {option} before the sub-command, or set `{setting}` in the configuration"
            ))
        };
        Ok(Settings {
            url: given(url)
                .or_else(|| configured.map(|client| client.url.clone()))
                .ok_or_else(|| missing("the URL of Duffy's API", "--url", "client.url"))?,
            name: given(name)
                .or_else(|| configured.map(|client| client.auth_name.clone()))
                .ok_or_else(|| missing("the tenant's name", "--auth-name", "client.auth.name"))?,
            key: given(key)
                .map(SecretString::from)
                .or_else(|| configured.map(|client| client.auth_key.clone()))
                .ok_or_else(|| {
                    missing(
                        "the tenant's key",
                        "--auth-key (or set DUFFY_AUTH_KEY)",
                        "client.auth.key",
                    )
                })?,
            timeout: None,
            user_agent: concat!("duffy/", env!("CARGO_PKG_VERSION")).to_owned(),
            // The variable that Python's and OpenSSL's clients heed.
            ca_file: std::env::var_os("SSL_CERT_FILE")
                .filter(|path| !path.is_empty())
                .map(PathBuf::from),
        })
    }
}
