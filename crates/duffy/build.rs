//! Asks the linker for a short table of relocations: each process reads all of it when it starts.

use std::env;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    // Other C libraries may not understand it. glibc does from version 2.36 on; a linker beside an older one ignores it.
    let is = |name: &str, value: &str| env::var(name).is_ok_and(|found| found == value);
    if is("CARGO_CFG_TARGET_OS", "linux") && is("CARGO_CFG_TARGET_ENV", "gnu") {
        println!("cargo::rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
    }
}
