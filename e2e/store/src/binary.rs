//! The programs under test: our server, built with the profile of the tests themselves, and etcd's, from the cache.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, OnceLock, PoisonError};

use anyhow::{Context, Result, ensure};
use quorate_kubernetes::{Progress, command, components};

/// Our server. It is built once a process by the cargo that runs the tests, with their profile, so that one
/// `cargo test` never meets the server of yesterday. `$QUORATE_BIN` names another one.
///
/// # Errors
/// It does not compile.
pub fn quorate() -> Result<PathBuf> {
    static BUILT: OnceLock<Built> = OnceLock::new();
    let built = BUILT.get_or_init(|| {
        let built = under_test("QUORATE_BIN", || build("quorate", &[]));
        built.map_err(|error| format!("{error:#}"))
    });
    built.clone().map_err(anyhow::Error::msg)
}

/// Our server as it will be with the next feature level: a version that is one minor up
/// (`docs/adr/0005-how-a-feature-level-is-added.md`). `$QUORATE_NEXT_BIN` names another one.
///
/// # Errors
/// It does not compile.
pub fn next_quorate() -> Result<PathBuf> {
    static BUILT: OnceLock<Built> = OnceLock::new();
    let built = BUILT.get_or_init(|| {
        let built = under_test("QUORATE_NEXT_BIN", || {
            let next = build("quorate-next", &["--features=next-level"])?;
            // Cargo has one place for both: whoever looks there expects the ordinary one.
            build("quorate", &[])?;
            Ok(next)
        });
        built.map_err(|error| format!("{error:#}"))
    });
    built.clone().map_err(anyhow::Error::msg)
}

type Built = std::result::Result<PathBuf, String>;

fn under_test(variable: &str, build: impl FnOnce() -> Result<PathBuf>) -> Result<PathBuf> {
    let Some(path) = std::env::var_os(variable) else { return build() };
    let path = PathBuf::from(path);
    ensure!(path.is_file(), "{variable} names {}, which is no file", path.display());
    Ok(path)
}

/// Builds the server and gives the file a name of its own, which no later build replaces.
fn build(name: &str, features: &[&str]) -> Result<PathBuf> {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
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
    build.args(features).arg("--target-dir").arg(target);
    command::output(&mut build).context("build the server under test")?;
    let program = profile_directory.join("quorate");
    ensure!(program.is_file(), "cargo built no {}", program.display());
    let directory = profile_directory.join("under-test");
    fs::create_dir_all(&directory).with_context(|| format!("create {}", directory.display()))?;
    // By way of a name of this process: a server that another one runs from there stays what it is.
    let (own, place) =
        (directory.join(format!("{name}.{}", std::process::id())), directory.join(name));
    fs::hard_link(&program, &own).with_context(|| format!("link {}", own.display()))?;
    fs::rename(&own, &place).with_context(|| format!("rename to {}", place.display()))?;
    // Two names of one file are left alone by a rename.
    fs::remove_file(&own).ok();
    Ok(place)
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
