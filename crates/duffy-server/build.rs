//! Puts the script that nodes run on one line, for `nodes/ssh/script.rs` to include.

#[path = "src/nodes/ssh/join_lines.rs"]
mod join_lines;

use std::error::Error;
use std::path::PathBuf;
use std::{env, fs};

const SCRIPT: &str = "src/nodes/ssh/authorized_keys.sh";

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed={SCRIPT}");
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("cargo sets no OUT_DIR")?);
    let line = join_lines::join_lines(&fs::read_to_string(SCRIPT)?)
        .map_err(|error| format!("{SCRIPT}:{error}"))?;
    fs::write(out.join("authorized_keys.sh"), line)?;
    Ok(())
}
