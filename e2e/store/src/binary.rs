//! The programs under test: our server, built with the profile of the tests themselves, and etcd's, from the cache.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use anyhow::{Context, Result, ensure};
use quorate_kubernetes::{Progress, command, components};

/// Our server. It is built once a process by the cargo that runs the tests, with their profile, so that one
/// `cargo test` never meets the server of yesterday. `$QUORATE_BIN` names another one.
///
/// # Errors
/// It does not compile.
pub fn quorate() -> Result<PathBuf> {
    static BUILT: OnceLock<std::result::Result<PathBuf, String>> = OnceLock::new();
    let built = BUILT.get_or_init(|| build().map_err(|error| format!("{error:#}")));
    built.clone().map_err(anyhow::Error::msg)
}

fn build() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("QUORATE_BIN") {
        let path = PathBuf::from(path);
        ensure!(path.is_file(), "QUORATE_BIN names {}, which is no file", path.display());
        return Ok(path);
    }
    // <target>/<profile>/deps/<test binary>
    let own = std::env::current_exe().context("find the test's own path")?;
    let profile_directory = own.ancestors().nth(2).context("a test lies in target/*/deps")?;
    let target = profile_directory.parent().context("a profile lies in a target directory")?;
    let profile = match profile_directory.file_name().and_then(|name| name.to_str()) {
        Some("debug") => "dev",
        Some(name) => name,
        None => "dev",
    };
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut build = Command::new(cargo);
    build.current_dir(root()).args([
        "build",
        "--locked",
        "--package=quorate",
        "--profile",
        profile,
    ]);
    build.arg("--target-dir").arg(target);
    command::output(&mut build).context("build the server under test")?;
    let program = profile_directory.join("quorate");
    ensure!(program.is_file(), "cargo built no {}", program.display());
    Ok(program)
}

/// A program of etcd 3.7.3: `etcd`, `etcdctl` or `etcdutl`.
///
/// # Errors
/// It is not in the cache and cannot be built.
pub fn etcd(program: &str) -> Result<PathBuf> {
    components::ETCD.ensure(&Progress::start())?;
    Ok(components::ETCD.program(program))
}

/// The root of the repository.
fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).expect("this package lies two levels below the root").to_owned()
}
