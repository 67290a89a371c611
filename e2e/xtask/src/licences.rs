//! The licences, bans and sources of every dependency, by cargo-deny and `deny.toml`.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};
use quorate_kubernetes::{Progress, command, components};

use crate::cargo;

/// Pinned, as every tool of the gate: a new version may read `deny.toml` differently.
const VERSION: &str = "0.20.2";

/// Makes sure that cargo-deny is in the cache and returns its path. Built without default features: we check neither
/// advisories nor anything else that needs the network.
///
/// # Errors
/// cargo could not install it.
pub(crate) fn ensure(progress: &Progress) -> Result<PathBuf> {
    let home = components::cache().join(format!("cargo-deny-{VERSION}"));
    let program = home.join("bin/cargo-deny");
    if program.is_file() {
        return Ok(program);
    }
    progress.say(format!("installing cargo-deny {VERSION}"));
    fs::create_dir_all(&home).with_context(|| format!("create cache {}", home.display()))?;
    let mut install = cargo::command(&["install", "cargo-deny", "--version", VERSION, "--locked"]);
    install.args(["--no-default-features", "--root"]).arg(&home);
    // In a directory of its own, thrown away afterwards: its packages are not ours.
    let target = home.join("build");
    install.env("CARGO_TARGET_DIR", &target);
    // It runs for a second; its own release profile would optimise for minutes.
    install.env("CARGO_PROFILE_RELEASE_LTO", "off").env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "1");
    install.env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "16");
    command::run_logged(&mut install, &home.join("install.log"), "building cargo-deny", progress)?;
    fs::remove_dir_all(&target).with_context(|| format!("remove {}", target.display()))?;
    Ok(program)
}

/// The check itself.
///
/// # Errors
/// cargo-deny could not be installed.
pub(crate) fn check(progress: &Progress) -> Result<Command> {
    let mut deny = Command::new(ensure(progress)?);
    deny.args(["--locked", "--workspace", "check", "--hide-inclusion-graph"]);
    deny.args(["licenses", "bans", "sources"]).current_dir(cargo::root());
    Ok(deny)
}
