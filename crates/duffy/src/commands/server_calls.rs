//! What the commands ask of the server's crate, as calls that block.

#[cfg(feature = "admin")]
use duffy_api::{Tenant, TenantCreate, TenantCreated, TenantUpdate, TenantUpdated};

use crate::config::Loaded;
use crate::failure::Failure;

/// Why a tenant was not created or changed.
#[cfg(feature = "admin")]
#[derive(Debug, PartialEq, Eq)]
pub enum TenantFailure {
    /// For a reason of the tenant's.
    #[cfg_attr(
        not(test),
        expect(dead_code, reason = "the calls that refuse are not there yet")
    )]
    Refused(String),
    /// Nothing can be done at all.
    Failed(Failure),
}

/// The tenants in the database.
#[cfg(feature = "admin")]
pub trait Tenants {
    /// All of them, retired ones too.
    fn list(&self) -> Result<Vec<Tenant>, Failure>;
    /// The number of the tenant of this name.
    fn find(&self, name: &str) -> Result<Option<i64>, Failure>;
    /// Adds one.
    fn create(&self, tenant: TenantCreate) -> Result<TenantCreated, TenantFailure>;
    /// Changes one.
    fn update(&self, id: i64, update: TenantUpdate) -> Result<TenantUpdated, TenantFailure>;
    /// Retires one, or takes it back.
    fn set_active(&self, id: i64, active: bool) -> Result<TenantUpdated, TenantFailure>;
}

/// The tables of the database.
pub trait Schema {
    /// Makes them. With test data: names and keys of its tenants.
    fn setup(&self, test_data: bool) -> Result<Vec<(String, String)>, Failure>;
    /// Their version, with ` (head)` behind the newest.
    fn current(&self) -> Result<Option<String>, Failure>;
    /// Upgrades them. The version reached; `None` when there was nothing to do.
    fn upgrade(&self, version: &str) -> Result<Option<String>, Failure>;
    /// Downgrades them. The version reached, `<base>` for none; `None` when there was nothing to do.
    fn downgrade(&self, version: &str) -> Result<Option<String>, Failure>;
}

/// The configured database.
#[derive(Debug)]
pub struct Server;

/// Connects to the configured database.
pub fn connect(_loaded: &Loaded) -> Result<Server, Failure> {
    Err(unavailable())
}

fn unavailable() -> Failure {
    Failure("the database is not part of this build yet".to_owned())
}

impl Schema for Server {
    fn setup(&self, _test_data: bool) -> Result<Vec<(String, String)>, Failure> {
        Err(unavailable())
    }

    fn current(&self) -> Result<Option<String>, Failure> {
        Err(unavailable())
    }

    fn upgrade(&self, _version: &str) -> Result<Option<String>, Failure> {
        Err(unavailable())
    }

    fn downgrade(&self, _version: &str) -> Result<Option<String>, Failure> {
        Err(unavailable())
    }
}

#[cfg(feature = "admin")]
impl Tenants for Server {
    fn list(&self) -> Result<Vec<Tenant>, Failure> {
        Err(unavailable())
    }

    fn find(&self, _name: &str) -> Result<Option<i64>, Failure> {
        Err(unavailable())
    }

    fn create(&self, _tenant: TenantCreate) -> Result<TenantCreated, TenantFailure> {
        Err(TenantFailure::Failed(unavailable()))
    }

    fn update(&self, _id: i64, _update: TenantUpdate) -> Result<TenantUpdated, TenantFailure> {
        Err(TenantFailure::Failed(unavailable()))
    }

    fn set_active(&self, _id: i64, _active: bool) -> Result<TenantUpdated, TenantFailure> {
        Err(TenantFailure::Failed(unavailable()))
    }
}
