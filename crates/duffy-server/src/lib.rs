//! Duffy's server: database, lifecycle, nodes, worker, web API.

pub mod actor;
pub mod cause;
pub mod clock;
pub mod context;
pub mod credentials;
pub mod db;
pub mod http;
pub mod lifecycle;
pub mod node_state;
pub mod nodes;
pub mod process;
pub mod worker;
