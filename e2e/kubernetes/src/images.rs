//! Builds container images without a container engine, and makes the ones that the bed itself needs.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::command;
use crate::components::cache;

/// The image of the process that holds a pod's namespaces.
pub const PAUSE_IMAGE: &str = "quorate.local/pause:1";

/// An image with a shell, `httpd`, `nc` and `nslookup`, on every node, for pods of tests.
pub const BUSYBOX_IMAGE: &str = "quorate.local/busybox:1";

/// Where Debian's busybox-static puts its program.
const BUSYBOX: &str = "/bin/busybox";

/// The names under which the busybox image offers it.
const APPLETS: [&str; 13] = [
    "cat", "date", "echo", "env", "hostname", "httpd", "id", "ls", "nc", "nslookup", "sh", "sleep",
    "touch",
];

/// An image to build.
#[derive(Debug, Clone, Copy)]
pub struct Image<'a> {
    /// Its full name, with a domain and a tag: `quorate.local/quorate:dev`.
    pub name: &'a str,
    /// The Containerfile.
    pub containerfile: &'a Path,
    /// The directory that its COPY lines read from.
    pub context: &'a Path,
    /// Values of its ARG lines.
    pub arguments: &'a [(&'a str, &'a str)],
}

/// Builds an image with buildah and returns its OCI archive, in the cache.
///
/// # Errors
/// The Containerfile is wrong, or names a base that is not in the local store (nothing is pulled).
pub fn build(image: &Image<'_>) -> Result<PathBuf> {
    if !image.name.split('/').next().is_some_and(|domain| domain.contains('.')) {
        bail!("image {} needs a domain and a tag, as in quorate.local/quorate:dev", image.name);
    }
    let (mut build, policy) = buildah("build")?;
    build.arg("--signature-policy").arg(&policy);
    build.args(["--isolation", "chroot", "--pull-never", "--format", "oci", "--quiet"]);
    build.arg("--file").arg(image.containerfile).args(["--tag", image.name]);
    for (name, value) in image.arguments {
        build.arg("--build-arg").arg(format!("{name}={value}"));
    }
    command::output(build.arg(image.context))
        .with_context(|| format!("build image {}", image.name))?;
    let archive = cache().join("images").join(format!("{}.oci", file_name(image.name)));
    if archive.exists() {
        // buildah would add to an archive that exists.
        fs::remove_file(&archive).with_context(|| format!("replace {}", archive.display()))?;
    }
    let (mut push, policy) = buildah("push")?;
    push.arg("--signature-policy").arg(&policy).args(["--quiet", image.name]);
    push.arg(format!("oci-archive:{}:{}", archive.display(), image.name));
    command::output(&mut push).with_context(|| format!("export image {}", image.name))?;
    Ok(archive)
}

/// Builds a base image that holds what a set of dynamically linked programs needs and nothing else: the loader, the
/// libraries that `ldd` names, a user `nonroot` (65532) and a `/tmp`. It stands in for a distroless base, which the same
/// Containerfile takes elsewhere by its build argument.
///
/// # Errors
/// A program cannot be read by `ldd`, or the build failed.
pub fn build_base(name: &str, programs: &[&Path]) -> Result<PathBuf> {
    let context = fresh_context(name)?;
    let root = context.join("rootfs");
    let mut files = BTreeSet::new();
    for program in programs {
        files.extend(libraries(&command::output(Command::new("ldd").arg(program))?));
    }
    for file in &files {
        let target = root.join(file.strip_prefix("/").unwrap_or(file));
        copy(file, &target)?;
    }
    fs::create_dir_all(root.join("etc"))?;
    fs::create_dir_all(root.join("tmp"))?;
    set_mode(&root.join("tmp"), 0o1777)?;
    let users = "root:x:0:0:root:/:/sbin/nologin\nnonroot:x:65532:65532:nonroot:/:/sbin/nologin\n";
    fs::write(root.join("etc/passwd"), users)?;
    fs::write(root.join("etc/group"), "root:x:0:\nnonroot:x:65532:\n")?;
    let containerfile = context.join("Containerfile");
    fs::write(&containerfile, "FROM scratch\nCOPY rootfs/ /\nUSER 65532:65532\n")?;
    build(&Image { name, containerfile: &containerfile, context: &context, arguments: &[] })
}

/// Builds the pause image and the busybox image, and returns their archives.
///
/// # Errors
/// Debian's busybox-static is not there, or the build failed.
pub(crate) fn build_own() -> Result<Vec<PathBuf>> {
    let context = fresh_context(BUSYBOX_IMAGE)?;
    let programs = context.join("rootfs/bin");
    copy(Path::new(BUSYBOX), &programs.join("busybox"))?;
    for applet in APPLETS {
        symlink("busybox", programs.join(applet)).with_context(|| format!("link {applet}"))?;
    }
    fs::create_dir_all(context.join("rootfs/tmp"))?;
    set_mode(&context.join("rootfs/tmp"), 0o1777)?;
    let containerfile = Path::new(env!("CARGO_MANIFEST_DIR")).join("images/busybox/Containerfile");
    let build_as = |name| {
        build(&Image { name, containerfile: &containerfile, context: &context, arguments: &[] })
    };
    Ok(vec![build_as(PAUSE_IMAGE)?, build_as(BUSYBOX_IMAGE)?])
}

/// buildah with a store of its own in the cache, so that no other store of the host is touched, and
/// its signature policy: Debian only recommends the package that brings one, and we do without that package.
fn buildah(verb: &str) -> Result<(Command, PathBuf)> {
    let store = cache().join("buildah");
    let archives = cache().join("images");
    for directory in [&store, &archives] {
        fs::create_dir_all(directory).with_context(|| format!("create {}", directory.display()))?;
    }
    let policy = store.join("policy.json");
    fs::write(&policy, r#"{"default": [{"type": "insecureAcceptAnything"}]}"#)
        .with_context(|| format!("write {}", policy.display()))?;
    let mut buildah = Command::new("buildah");
    buildah.arg("--root").arg(store.join("root")).arg("--runroot").arg(store.join("run"));
    buildah.args(["--storage-driver", "vfs", verb]);
    Ok((buildah, policy))
}

fn fresh_context(name: &str) -> Result<PathBuf> {
    let context = cache().join("images").join(file_name(name));
    if context.exists() {
        fs::remove_dir_all(&context).with_context(|| format!("clear {}", context.display()))?;
    }
    fs::create_dir_all(&context).with_context(|| format!("create {}", context.display()))?;
    Ok(context)
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    let parent = to.parent().expect("every file of an image has a directory");
    fs::create_dir_all(parent).with_context(|| format!("create {}", parent.display()))?;
    fs::copy(from, to).map(drop).with_context(|| format!("copy {}", from.display()))
}

fn set_mode(path: &Path, mode: u32) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
        .with_context(|| format!("set the mode of {}", path.display()))
}

fn file_name(image: &str) -> String {
    image.replace(['/', ':'], "_")
}

/// The files that `ldd` names: `libc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x…)`, and the loader by its bare path.
fn libraries(text: &str) -> Vec<PathBuf> {
    let path_of = |line: &str| {
        let line = line.split_once("=>").map_or(line, |(_, after)| after).trim();
        let path = line.split(' ').next()?;
        path.starts_with('/').then(|| PathBuf::from(path))
    };
    text.lines().filter_map(path_of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ldd_is_read() {
        let text = "\tlinux-vdso.so.1 (0x00007fff)\n\
                    \tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f)\n\
                    \t/lib64/ld-linux-x86-64.so.2 (0x00007f)\n";
        let found = libraries(text);
        let expected = ["/lib/x86_64-linux-gnu/libc.so.6", "/lib64/ld-linux-x86-64.so.2"];
        assert_eq!(found, expected.map(PathBuf::from));
        assert!(libraries("\tstatically linked\n").is_empty());
    }

    #[test]
    fn a_name_without_a_domain_is_refused() {
        let here = Path::new(".");
        let image = Image { name: "quorate", containerfile: here, context: here, arguments: &[] };
        assert!(build(&image).unwrap_err().to_string().contains("domain"));
    }
}
