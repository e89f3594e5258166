//! What keeps pools at their level.

pub mod drain;
pub mod fill;
pub mod repair;
