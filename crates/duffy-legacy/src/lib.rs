//! The old Duffy API, as a proxy to the current one.
