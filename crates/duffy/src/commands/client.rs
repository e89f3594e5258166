//! `duffy client`: calls a Duffy API.

mod flat;
mod json;

use std::path::PathBuf;
use std::time::Duration;

use duffy_client::{Client, ClientError, Reply, Settings};
use duffy_config::Config;
use secrecy::SecretString;
use serde_json::{Map, Value};

use crate::args::client::{ClientArgs, ClientCommand, Format};
use crate::failure::Failure;
use crate::output;

/// Calls the API and prints the reply.
pub fn run(args: ClientArgs, config: &Config) -> Result<(), Failure> {
    let (command, format) = (args.command, args.format);
    let is_list = matches!(
        command,
        ClientCommand::ListPools | ClientCommand::ListSessions
    );
    let settings = settings(args.url, args.auth_name, args.auth_key, config)?;
    match call(&Client::new(&settings)?, command) {
        Ok(reply) => {
            let text = render(format, reply.json())?;
            // An empty list prints no line at all.
            if !(is_list && text.is_empty()) {
                output::data(&text)?;
            }
            Ok(())
        }
        Err(ClientError::Refused(refusal)) => {
            output::data(&render(format, &error_value(refusal.body))?)?;
            Err(Failure::default())
        }
        Err(error) => Err(error.into()),
    }
}

/// Formats a reply. `flat` fails on a reply that lacks a member which it prints.
fn render(format: Format, reply: &Value) -> Result<String, Failure> {
    match format {
        Format::Json => Ok(json::render(reply)),
        Format::Yaml => Ok(duffy_config::yaml::dump(reply)),
        Format::Flat => flat::render(reply),
    }
}

fn call(client: &Client, command: ClientCommand) -> Result<Reply, ClientError> {
    match command {
        ClientCommand::ListSessions => client.list_sessions(),
        ClientCommand::ShowSession { session_id } => client.show_session(session_id),
        ClientCommand::RequestSession { nodes_specs } => {
            // By this key the server recognises a repeated request.
            let key = duffy_client::new_key();
            let request = |_| client.request_session(&nodes_specs, Some(&key));
            duffy_client::repeat(request, log_retry)
        }
        ClientCommand::RetireSession { session_id } => {
            client.retire_session_surely(session_id, log_retry)
        }
        ClientCommand::ListPools => client.list_pools(),
        ClientCommand::ShowPool { name } => client.show_pool(&name),
    }
}

fn log_retry(error: &ClientError, pause: Duration) {
    tracing::warn!(%error, "the answer was lost, asking again in {} s", pause.as_secs());
}

/// Returns `{"error": BODY}`, with `detail` first.
fn error_value(body: Value) -> Value {
    let mut error = Map::new();
    if let Value::Object(mut members) = body {
        if let Some(detail) = members.shift_remove("detail") {
            error.insert("detail".to_owned(), detail);
        }
        error.extend(members);
    }
    serde_json::json!({ "error": error })
}

/// Takes the settings from the arguments, or else from the configuration. An empty argument counts as none.
fn settings(
    url: Option<String>,
    name: Option<String>,
    key: Option<String>,
    config: &Config,
) -> Result<Settings, Failure> {
    let configured = config.client.as_ref();
    let given = |argument: Option<String>| argument.filter(|text| !text.is_empty());
    let missing = |what: &str, option: &str, setting: &str| {
        Failure::new(format_args!(
            "{what} is not known: give {option} before the sub-command, or set `{setting}` in the configuration"
        ))
    };
    let key_option = "--auth-key (or set DUFFY_AUTH_KEY)";
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
            .ok_or_else(|| missing("the tenant's key", key_option, "client.auth.key"))?,
        timeout: None,
        user_agent: concat!("duffy/", env!("CARGO_PKG_VERSION")).to_owned(),
        // The clients of Python and OpenSSL read this variable too.
        ca_file: std::env::var_os("SSL_CERT_FILE")
            .filter(|path| !path.is_empty())
            .map(PathBuf::from),
    })
}
