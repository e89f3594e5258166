//! `duffy admin`: lists, shows, changes and imports tenants.

use chrono::{DateTime, Timelike, Utc};
use duffy_api::duration::display;
use duffy_api::{Tenant, TenantCreate, TenantUpdate, TenantUpdated};
use duffy_server::context::Ctx;
use duffy_server::credentials::{check_ssh_keys, lines_without_key};
use duffy_server::db::tenants::find_tenant_by_name;
use duffy_server::lifecycle::tenants::{self, ImportedTenant, TenantError};
use duffy_server::lifecycle::views;
use secrecy::SecretString;
use serde_json::{Value, json};

use super::old_dump::{self, OldTenant};
use crate::args::admin::tenants::{
    CreateTenantArgs, ImportTenantsArgs, ListTenantsArgs, OldDumpArgs, TenantCommand,
    UpdateTenantArgs,
};
use crate::failure::Failure;
use crate::output;

/// Refuses what can be refused without the database.
pub fn check(command: &TenantCommand) -> Result<(), Failure> {
    if let TenantCommand::UpdateTenant(args) = command
        && update(args) == TenantUpdate::default()
    {
        return Err(Failure {
            text: "nothing to change: give --ssh-key, --api-key, --node-quota, \
                   --session-lifetime or --session-lifetime-max"
                .to_owned(),
            prefix: "ERROR: ",
        });
    }
    match ssh_key(command) {
        Some((name, key)) => check_ssh_keys(key).map_err(|error| refused(name, error)),
        None => Ok(()),
    }
}

/// Runs a command that `check` accepts.
pub async fn run(ctx: &Ctx, command: &TenantCommand) -> Result<(), Failure> {
    let text = manage(ctx, command).await?;
    if !text.is_empty() {
        output::data(&text)?;
    }
    if let Some((name, key)) = ssh_key(command) {
        warn_of_useless_lines(name, key);
    }
    Ok(())
}

/// Returns the SSH key in a command, and the name of its tenant.
fn ssh_key(command: &TenantCommand) -> Option<(&str, &str)> {
    let (name, key) = match command {
        TenantCommand::CreateTenant(args) => (&args.name, args.ssh_key.as_str()),
        TenantCommand::UpdateTenant(args) => (&args.name, args.ssh_key.as_deref()?),
        _ => return None,
    };
    (!key.is_empty()).then_some((name.as_str(), key))
}

/// Warns if an SSH key has lines with which nobody can log in.
fn warn_of_useless_lines(name: &str, ssh_key: &str) {
    if let Some(warning) = useless_lines(name, ssh_key) {
        output::words(&warning);
    }
}

fn useless_lines(name: &str, ssh_key: &str) -> Option<String> {
    let lines = lines_without_key(ssh_key);
    let numbers: Vec<_> = lines.iter().map(ToString::to_string).collect();
    let (noun, verb) = match lines[..] {
        [] => return None,
        [_] => ("line", "is not an OpenSSH public key"),
        _ => ("lines", "are not OpenSSH public keys"),
    };
    Some(format!(
        "WARNING: {name}: {noun} {} of the SSH key {verb}: nobody can log in to nodes with it",
        numbers.join(", ")
    ))
}

/// Runs a command and returns what to print.
async fn manage(ctx: &Ctx, command: &TenantCommand) -> Result<String, Failure> {
    match command {
        TenantCommand::ListTenants(args) => Ok(list(views::list_tenants(ctx, None).await?, args)),
        TenantCommand::ShowTenant { name } => {
            let tenants = views::list_tenants(ctx, None).await?;
            let found = tenants.iter().find(|tenant| tenant.name == *name);
            found.map(shown).ok_or_else(|| refused(name, "Not Found"))
        }
        TenantCommand::CreateTenant(args) => {
            let created = tenants::create_tenant(ctx, create(args)).await;
            let created = created.map_err(|error| refusal(&args.name, error))?;
            Ok(format!("OK: {}: {}", args.name, created.api_key))
        }
        TenantCommand::UpdateTenant(args) => {
            let id = find(ctx, &args.name).await?;
            let updated = tenants::update_tenant(ctx, id, update(args)).await;
            let updated = updated.map_err(|error| refusal(&args.name, error))?;
            Ok(changed(&args.name, &updated))
        }
        TenantCommand::ImportTenants(args) => import(ctx, args).await,
        TenantCommand::RetireTenant(args) => {
            let id = find(ctx, &args.name).await?;
            let changed = tenants::set_tenant_active(ctx, id, args.unretire).await;
            let changed = changed.map_err(|error| refusal(&args.name, error))?;
            let active = python_bool(changed.active);
            Ok(format!("OK: {}: active={active}", args.name))
        }
    }
}

/// Reports what the server refuses for a tenant.
fn refusal(name: &str, error: TenantError) -> Failure {
    match error {
        TenantError::Credentials(_) | TenantError::Db(_) => error.into(),
        TenantError::NotFound => refused(name, "Not Found"),
        TenantError::Retired { .. } | TenantError::NameTaken { .. } => refused(name, error),
    }
}

fn refused(name: &str, detail: impl std::fmt::Display) -> Failure {
    Failure {
        text: format!("ERROR: {name}\nERROR DETAIL: {detail}"),
        prefix: "",
    }
}

/// Returns the number of the tenant with this name.
async fn find(ctx: &Ctx, name: &str) -> Result<i64, Failure> {
    let found = find_tenant_by_name(&ctx.db, name).await?;
    let tenant = found.ok_or_else(|| refused(name, "Not Found"))?;
    Ok(tenant.id)
}

/// Reads the dumps, and reports which of their rows cannot be used.
fn read_dump(args: &OldDumpArgs) -> Result<Vec<OldTenant>, Failure> {
    let dump = old_dump::read(&args.users, &args.userkeys)?;
    for skipped in &dump.skipped {
        output::words(&format!("SKIPPED: {skipped}"));
    }
    Ok(dump.tenants)
}

async fn import(ctx: &Ctx, args: &ImportTenantsArgs) -> Result<String, Failure> {
    let mut old = read_dump(&args.dump)?;
    let new = old.iter().map(|tenant| ImportedTenant {
        name: tenant.name.clone(),
        ssh_key: tenant.ssh_key.clone(),
        api_key: SecretString::from(tenant.api_key.clone()),
    });
    let new: Vec<_> = new.collect();
    let taken = tenants::import_tenants(ctx, &new, args.dry_run).await;
    let users = args.dump.users.display().to_string();
    let taken = taken.map_err(|error| refusal(&users, error))?;
    for name in &taken {
        output::words(&format!("SKIPPED: {name}: exists"));
    }
    old.retain(|tenant| !taken.contains(&tenant.name));
    for tenant in &old {
        warn_of_useless_lines(&tenant.name, &tenant.ssh_key);
    }
    if args.dry_run {
        output::words("This was a dry run: nothing has been written.");
    }
    let lines: Vec<_> = old
        .iter()
        .map(|tenant| format!("OK: {}", tenant.name))
        .collect();
    Ok(lines.join("\n"))
}

/// Prints a configuration file with the tenants of dumps by their API keys.
pub fn generate_usermap(args: &OldDumpArgs) -> Result<(), Failure> {
    let tenants = read_dump(args)?.into_iter();
    let users: serde_json::Map<_, _> = tenants
        .map(|tenant| (tenant.api_key, Value::String(tenant.name)))
        .collect();
    let tree = json!({ "metaclient": { "usermap": users } });
    output::data(&duffy_config::yaml::dump(&tree))
}

fn create(args: &CreateTenantArgs) -> TenantCreate {
    TenantCreate {
        name: args.name.clone(),
        is_admin: args.is_admin,
        ssh_key: args.ssh_key.clone(),
        node_quota: args.limits.node_quota.flatten(),
        session_lifetime: args.limits.session_lifetime.flatten(),
        session_lifetime_max: args.limits.session_lifetime_max.flatten(),
    }
}

/// An empty SSH key counts as none given, as in the original.
fn update(args: &UpdateTenantArgs) -> TenantUpdate {
    TenantUpdate {
        ssh_key: args.ssh_key.clone().filter(|key| !key.is_empty()),
        api_key: args.api_key.clone(),
        node_quota: args.limits.node_quota,
        session_lifetime: args.limits.session_lifetime,
        session_lifetime_max: args.limits.session_lifetime_max,
    }
}

fn list(mut tenants: Vec<Tenant>, args: &ListTenantsArgs) -> String {
    tenants.retain(|tenant| tenant.active || args.all);
    tenants.sort_by(|a, b| a.name.cmp(&b.name));
    let mark = if args.quiet { "" } else { "OK: " };
    let lines: Vec<_> = tenants
        .iter()
        .map(|tenant| format!("{mark}{}", tenant.name))
        .collect();
    lines.join("\n")
}

fn shown(tenant: &Tenant) -> String {
    format!(
        "OK: {}: id={} node_quota={} effective_node_quota={} session_lifetime={} \
         effective_session_lifetime={} session_lifetime_max={} effective_session_lifetime_max={} \
         active={} created_at={} retired_at={}",
        tenant.name,
        tenant.id,
        or_none(tenant.node_quota, |quota| quota.to_string()),
        tenant.effective_node_quota,
        or_none(tenant.session_lifetime, display),
        display(tenant.effective_session_lifetime),
        or_none(tenant.session_lifetime_max, display),
        display(tenant.effective_session_lifetime_max),
        python_bool(tenant.active),
        python_time(tenant.created_at),
        or_none(tenant.retired_at, python_time),
    )
}

fn changed(name: &str, tenant: &TenantUpdated) -> String {
    format!(
        "OK: {name}: ssh_key={} api_key={} node_quota={} effective_node_quota={} \
         session_lifetime={} effective_session_lifetime={} session_lifetime_max={} \
         effective_session_lifetime_max={}",
        tenant.ssh_key,
        or_none(tenant.api_key.as_ref(), ToString::to_string),
        or_none(tenant.node_quota, |quota| quota.to_string()),
        tenant.effective_node_quota,
        or_none(tenant.session_lifetime, display),
        display(tenant.effective_session_lifetime),
        or_none(tenant.session_lifetime_max, display),
        display(tenant.effective_session_lifetime_max),
    )
}

// Scripts read these lines, so values are formatted as Python formats them.

fn or_none<T>(value: Option<T>, show: impl FnOnce(T) -> String) -> String {
    value.map_or_else(|| "None".to_owned(), show)
}

fn python_bool(value: bool) -> &'static str {
    if value { "True" } else { "False" }
}

fn python_time(time: DateTime<Utc>) -> String {
    let micros = time.nanosecond() / 1000;
    let seconds = time.format("%Y-%m-%d %H:%M:%S");
    if micros == 0 {
        format!("{seconds}+00:00")
    } else {
        format!("{seconds}.{micros:06}+00:00")
    }
}

#[cfg(feature = "sqlite")]
#[cfg(test)]
#[path = "tenants_tests.rs"]
mod tests;
