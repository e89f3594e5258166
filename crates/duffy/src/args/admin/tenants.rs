//! The arguments of `duffy admin` about tenants.

use std::path::PathBuf;

use chrono::TimeDelta;
use clap::builder::NonEmptyStringValueParser;
use clap::{Args, Subcommand};
use duffy_api::ApiKeyUpdate;

use crate::args::values::{OrDefault, parse_api_key, parse_interval, parse_quota};

/// What to do with tenants.
#[derive(Debug, Subcommand)]
pub enum TenantCommand {
    /// List tenants
    #[command(after_help = "\
Examples:
  duffy admin list-tenants
  duffy admin list-tenants --all --quiet   Include retired ones, print names only")]
    ListTenants(ListTenantsArgs),
    /// Show a tenant
    #[command(after_help = "\
Example:
  duffy admin show-tenant ci")]
    ShowTenant {
        /// Name of the tenant
        name: String,
    },
    /// Create a tenant; prints its API key, which is not shown again
    #[command(after_help = "\
Examples:
  duffy admin create-tenant ci \"$(cat id_ed25519.pub)\"
  duffy admin create-tenant --node-quota 5 --session-lifetime 6h ci \"$(cat id_ed25519.pub)\"")]
    CreateTenant(CreateTenantArgs),
    /// Change a tenant
    #[command(after_help = "\
Examples:
  duffy admin update-tenant --api-key reset ci
  duffy admin update-tenant --node-quota none --session-lifetime-max 2d ci")]
    UpdateTenant(UpdateTenantArgs),
    /// Retire a tenant, or reactivate it
    #[command(after_help = "\
Examples:
  duffy admin retire-tenant ci             Its sessions end soon after
  duffy admin retire-tenant --unretire ci")]
    RetireTenant(RetireTenantArgs),
    /// Import tenants from CSV dumps of the old Duffy
    #[command(after_help = "\
Examples:
  duffy admin import-tenants --dry-run users.csv userkeys.csv
  duffy admin import-tenants users.csv userkeys.csv

Fields are separated by commas and in single quotes; there is no header line. Tenants keep their \
API keys; the old limit is not imported. Tenants that are disabled, have no SSH key or exist \
already are reported and skipped. Either all others are imported or none.")]
    ImportTenants(ImportTenantsArgs),
}

/// Which tenants to list, and how to print them.
#[derive(Debug, Args)]
pub struct ListTenantsArgs {
    /// Print names only
    #[arg(long, overrides_with = "no_quiet")]
    pub quiet: bool,

    #[arg(long, hide = true, overrides_with = "quiet")]
    no_quiet: bool,

    /// List tenants that are not retired (the default)
    #[arg(long, overrides_with = "all")]
    active: bool,

    /// Include retired tenants
    #[arg(long, overrides_with = "active")]
    pub all: bool,
}

/// The limits of a tenant.
#[derive(Debug, Args)]
pub struct TenantLimits {
    /// How many nodes it can hold, or `none` for the configuration's default
    #[arg(long, value_name = "NUMBER", value_parser = parse_quota)]
    pub node_quota: Option<OrDefault<i64>>,

    /// Initial lifetime of its sessions (6h, 1d12h), or `none` for the configuration's default
    #[arg(long, value_name = "TIME", value_parser = parse_interval)]
    pub session_lifetime: Option<OrDefault<TimeDelta>>,

    /// Maximum lifetime of its sessions, or `none` for the configuration's default
    #[arg(long, value_name = "TIME", value_parser = parse_interval)]
    pub session_lifetime_max: Option<OrDefault<TimeDelta>>,
}

/// A new tenant.
#[derive(Debug, Args)]
pub struct CreateTenantArgs {
    /// Let it manage tenants and nodes, and act for others
    #[arg(long, overrides_with = "no_is_admin")]
    pub is_admin: bool,

    #[arg(long, hide = true, overrides_with = "is_admin")]
    no_is_admin: bool,

    #[command(flatten)]
    pub limits: TenantLimits,

    /// Name of the tenant; no other tenant can have it
    #[arg(value_parser = NonEmptyStringValueParser::new())]
    pub name: String,

    /// SSH public key to install on its nodes; put several keys on separate lines
    #[arg(value_parser = NonEmptyStringValueParser::new())]
    pub ssh_key: String,
}

/// What to change.
#[derive(Debug, Args)]
pub struct UpdateTenantArgs {
    /// New SSH public key to install on its nodes; put several keys on separate lines
    #[arg(long, value_name = "KEY")]
    pub ssh_key: Option<String>,

    /// New API key: a UUID, or `reset` to generate and print one
    #[arg(long, value_name = "KEY", value_parser = parse_api_key)]
    pub api_key: Option<ApiKeyUpdate>,

    #[command(flatten)]
    pub limits: TenantLimits,

    /// Name of the tenant
    pub name: String,
}

/// Which tenant to retire or reactivate.
#[derive(Debug, Args)]
pub struct RetireTenantArgs {
    /// Retire it (the default)
    #[arg(long, overrides_with = "unretire")]
    retire: bool,

    /// Reactivate it
    #[arg(long, overrides_with = "retire")]
    pub unretire: bool,

    /// Name of the tenant
    pub name: String,
}

/// The dumps.
#[derive(Debug, Args)]
pub struct OldDumpArgs {
    /// Users: API key, project, tenant, created, limit
    pub users: PathBuf,

    /// Users' SSH keys: id, API key, SSH key
    pub userkeys: PathBuf,
}

/// Which tenants to import.
#[derive(Debug, Args)]
pub struct ImportTenantsArgs {
    /// Report what would be imported, but write nothing
    #[arg(long)]
    pub dry_run: bool,

    #[command(flatten)]
    pub dump: OldDumpArgs,
}
