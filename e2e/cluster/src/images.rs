//! The images of store and operator, built from the Containerfiles that a user would build.

use std::fs;
use std::hash::{DefaultHasher, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use quorate_kubernetes::images::{self, Image};
use quorate_kubernetes::{Progress, command, components};

use crate::programs::Program;

/// Where the images say that they come from. No such host exists: what a node lacks cannot be pulled.
pub const REGISTRY: &str = "quorate.local";

/// The tag of both images: the version that manifests ask for.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The version after [`VERSION`], as a patch release counts.
#[must_use]
pub fn next_version() -> String {
    let (minor, patch) = VERSION.rsplit_once('.').expect("a version has three numbers");
    let patch: u32 = patch.parse().expect("the workspace is at a release");
    format!("{minor}.{}", patch + 1)
}

/// The minor version after [`VERSION`]: that of the server which knows a further feature level.
#[must_use]
pub fn next_minor_version() -> String {
    let mut numbers = VERSION.split('.').map(str::parse::<u32>);
    let mut number = || numbers.next().and_then(std::result::Result::ok);
    let (major, minor) = (number(), number());
    let (major, minor) = major.zip(minor).expect("the workspace is at a release");
    format!("{major}.{}.0", minor + 1)
}

/// Stands in for a distroless base: the loader, and the libraries that both programs need.
pub(crate) const BASE: &str = "quorate.local/base:1";

/// An image that was built.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Built {
    /// Its full name, with the tag.
    pub name: String,
    /// The OCI archive.
    pub archive: PathBuf,
    /// Begins the digest of the program in it: changes when the program does.
    pub digest: String,
}

/// Both images.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Images {
    /// The server's.
    pub store: Built,
    /// The operator's.
    pub operator: Built,
}

impl Images {
    /// Builds both programs and an image of each.
    ///
    /// # Errors
    /// A program does not compile, or buildah refuses.
    pub fn build(progress: &Progress) -> Result<Self> {
        progress.say("building the store and the operator");
        let store = Program::Store.build(progress)?;
        let operator = Program::Operator.build(progress)?;
        progress.say("building their images");
        images::build_base(BASE, &[&store, &operator])?;
        let (for_store, for_operator) = (context("quorate"), context("quorate-operator"));
        stage(Program::Store, &store, &for_store)?;
        stage(Program::Operator, &operator, &for_operator)?;
        Ok(Self {
            store: image(Program::Store, VERSION, &for_store)?,
            operator: image(Program::Operator, VERSION, &for_operator)?,
        })
    }

    /// The server once more, under the tag of the version after this one: what a patch release is to
    /// Kubernetes.
    ///
    /// # Errors
    /// buildah refuses.
    pub fn next_store(&self) -> Result<Built> {
        image(Program::Store, &next_version(), &context("quorate"))
    }

    /// The server of the next minor version, which adds a command and rows that this version does not know. After
    /// [`Images::build`], whose base it takes.
    ///
    /// # Errors
    /// It does not compile, or buildah refuses.
    pub fn next_minor_store(&self, progress: &Progress) -> Result<Built> {
        progress.say("building the store of the next feature level");
        let directory = context("quorate-next");
        Program::build_next_store(progress, |file| stage(Program::Store, file, &directory))?;
        image(Program::Store, &next_minor_version(), &directory)
    }

    /// Both.
    #[must_use]
    pub fn all(&self) -> [&Built; 2] {
        [&self.store, &self.operator]
    }
}

/// The repository of a program's image: its name without the tag.
#[must_use]
pub fn repository(program: Program) -> String {
    format!("{REGISTRY}/{}", program.package())
}

/// Lays out what goes into a program's image: the program, without its line tables.
fn stage(program: Program, file: &Path, context: &Path) -> Result<()> {
    let root = context.join("rootfs");
    if root.exists() {
        fs::remove_dir_all(&root).with_context(|| format!("clear {}", root.display()))?;
    }
    fs::create_dir_all(&root).with_context(|| format!("create {}", root.display()))?;
    // Line tables would be most of the image, and every node would unpack them; names of functions stay.
    let mut strip = Command::new("strip");
    let staged = root.join(program.package());
    command::output(strip.arg("--strip-debug").arg("-o").arg(&staged).arg(file)).map(drop)
}

fn context(name: &str) -> PathBuf {
    components::cache().join("images/context").join(name)
}

/// An image of what was staged.
fn image(program: Program, version: &str, context: &Path) -> Result<Built> {
    let name = format!("{}:{version}", repository(program));
    let containerfile = program.containerfile();
    let arguments = [("BASE", BASE)];
    let archive = images::build(&Image {
        name: &name,
        containerfile: &containerfile,
        context,
        arguments: &arguments,
    })?;
    let digest = digest(&context.join("rootfs").join(program.package()))?;
    Ok(Built { name, archive, digest })
}

/// Tells one build from another; nothing more is asked of it.
fn digest(file: &Path) -> Result<String> {
    let mut hasher = DefaultHasher::new();
    hasher.write(&fs::read(file).with_context(|| format!("read {}", file.display()))?);
    Ok(format!("{:016x}", hasher.finish()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_versions_that_follow_are_a_patch_and_a_minor_up() {
        assert_eq!((VERSION, next_version().as_str()), ("0.1.0", "0.1.1"));
        assert_eq!(next_minor_version(), "0.2.0");
    }
}
