//! The two programs under test, built with the profile of the program that asks.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use quorate_kubernetes::{Progress, command, components};

/// One of our two programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    /// The server.
    Store,
    /// The operator.
    Operator,
}

impl Program {
    /// The package, which is also the name of the file.
    #[must_use]
    pub fn package(self) -> &'static str {
        match self {
            Self::Store => "quorate",
            Self::Operator => "quorate-operator",
        }
    }

    /// The variable that names a file to be used instead of a fresh build.
    #[must_use]
    pub fn variable(self) -> &'static str {
        match self {
            Self::Store => "QUORATE_BIN",
            Self::Operator => "QUORATE_OPERATOR_BIN",
        }
    }

    /// The Containerfile that a user would build it with.
    #[must_use]
    pub fn containerfile(self) -> PathBuf {
        match self {
            Self::Store => root().join("node/Containerfile"),
            Self::Operator => root().join("operator/Containerfile"),
        }
    }

    /// Builds a variant of the program by a cargo feature, hands its file to `take`, and then builds the ordinary one again:
    /// cargo has one place for both.
    ///
    /// # Errors
    /// It does not compile, or `take` fails.
    pub fn build_variant<T>(
        self,
        feature: &str,
        progress: &Progress,
        take: impl FnOnce(&Path) -> Result<T>,
    ) -> Result<T> {
        let taken = take(&self.compile(&["--features", feature], progress)?)?;
        self.compile(&[], progress)?;
        Ok(taken)
    }

    /// Builds the server as it will be with the next feature level, a version one minor up
    /// (`docs/adr/0005-how-a-feature-level-is-added.md`), and hands its file to `take`. `$QUORATE_NEXT_BIN` names a file to be
    /// used instead.
    ///
    /// # Errors
    /// It does not compile, the variable names no file, or `take` fails.
    pub fn build_next_store<T>(
        progress: &Progress,
        take: impl FnOnce(&Path) -> Result<T>,
    ) -> Result<T> {
        match named_by("QUORATE_NEXT_BIN")? {
            Some(path) => take(&path),
            None => Self::Store.build_variant("next-level", progress, take),
        }
    }

    /// Builds the program, so that a run never meets the program of yesterday, and returns its file.
    ///
    /// Profile and target directory are those of the program that asks: what was compiled for it is
    /// not compiled again.
    ///
    /// # Errors
    /// It does not compile (the message quotes the compiler), or the variable names no file.
    pub fn build(self, progress: &Progress) -> Result<PathBuf> {
        match named_by(self.variable())? {
            Some(path) => Ok(path),
            None => self.compile(&[], progress),
        }
    }

    fn compile(self, features: &[&str], progress: &Progress) -> Result<PathBuf> {
        let own = std::env::current_exe().context("find the path of this program")?;
        // <target>/<profile>/demo, or <target>/<profile>/deps/<test>
        let directory = own.parent().context("a program lies in a directory")?;
        let directory = match directory.file_name().and_then(|name| name.to_str()) {
            Some("deps") => directory.parent().context("deps lies in a profile's directory")?,
            Some(_) | None => directory,
        };
        let target = directory.parent().context("a profile lies in a target directory")?;
        let profile = match directory.file_name().and_then(|name| name.to_str()) {
            Some("debug") | None => "dev",
            Some(name) => name,
        };
        let package = self.package();
        let log = components::cache().join(format!("build-{package}.log"));
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut build = Command::new(cargo);
        build.current_dir(root()).args(["build", "--locked", "--package", package]);
        build.args(features).args(["--profile", profile]).arg("--target-dir").arg(target);
        build.env("CARGO_TERM_COLOR", "never");
        command::run_logged(&mut build, &log, &format!("building {package}"), progress)?;
        let program = directory.join(package);
        ensure!(program.is_file(), "cargo built no {}", program.display());
        Ok(program)
    }
}

/// The file that a variable names, if it is set.
fn named_by(variable: &str) -> Result<Option<PathBuf>> {
    let Some(path) = std::env::var_os(variable).map(PathBuf::from) else { return Ok(None) };
    ensure!(path.is_file(), "{variable} names {}, no file", path.display());
    Ok(Some(path))
}

/// The root of the repository.
#[must_use]
pub fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).expect("this package lies two levels below the root").to_owned()
}
