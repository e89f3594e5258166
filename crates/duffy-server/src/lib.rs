//! Duffy's server: database, lifecycle, nodes, worker, web API.

pub mod credentials;
pub mod db;
pub mod nodes;
pub mod process;
