//! Simulated nodes with an SSH server each, and faults.
