//! The arguments of each command. Every build has them all, so that a command whose feature is missing can say so.

pub mod admin;
pub mod client;
pub mod config;
pub mod database;
pub mod servers;
pub mod values;
pub mod worker;
