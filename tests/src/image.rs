//! The lab's container image, made without a registry: busybox and the lab's guest in a tarball.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};

use crate::{docker, guest, host::Host};

/// The image's name. Run without a command it is the echo server, HTTP on port 8080.
pub const NAME: &str = "echo";

/// The guest, in a container.
pub const GUEST: &str = "/bin/portway-lab-guest";

/// What busybox is called by in a container.
const APPLETS: [&str; 6] = ["sh", "ip", "ls", "cat", "sleep", "ping"];

/// Imports the image into the host's Docker.
///
/// # Errors
/// busybox or the guest is missing, or Docker refuses.
pub(crate) fn import(host: &Host) -> Result<()> {
    let folder = tempfile::tempdir().context("no temporary folder")?;
    let root = folder.path();
    let bin = root.join("bin");
    fs::create_dir(&bin)?;
    for program in [busybox()?, guest::program()?] {
        copy_with_libraries(&program, &bin, root)?;
    }
    for applet in APPLETS {
        symlink("busybox", bin.join(applet))?;
    }
    let archive = root.join("image.tar");
    let tar = host.command("tar").arg("-c").arg("-f").arg(&archive);
    tar.args(["--exclude", "./image.tar", "-C"])
        .arg(root)
        .arg(".")
        .text()?;
    let command = format!("CMD [{GUEST:?}, \"serve\", \"http/8080\"]");
    docker::command(host, "import --change")
        .arg(command)
        .arg(&archive)
        .arg(NAME)
        .text()?;
    Ok(())
}

/// Where busybox is on this machine.
///
/// # Errors
/// It is not.
pub fn busybox() -> Result<PathBuf> {
    let places = ["/bin/busybox", "/usr/bin/busybox", "/usr/sbin/busybox"];
    match places.iter().map(Path::new).find(|path| path.is_file()) {
        Some(path) => Ok(path.to_owned()),
        None => bail!("no busybox on this machine: install the package of that name"),
    }
}

/// Copies a program into `bin`, and the libraries it needs to where it looks for them below `root`.
fn copy_with_libraries(program: &Path, bin: &Path, root: &Path) -> Result<()> {
    let name = program.file_name().context("no file name")?;
    copy(program, &bin.join(name))?;
    // ldd fails on a static program, which needs nothing.
    let ldd = std::process::Command::new("ldd").arg(program).output();
    let listed = ldd.context("cannot run ldd")?.stdout;
    for line in String::from_utf8_lossy(&listed).lines() {
        // `libc.so.6 => /lib/... (0x...)` or `/lib64/ld-linux... (0x...)`.
        let library = line
            .split_whitespace()
            .map(Path::new)
            .find(|word| word.is_absolute());
        if let Some(library) = library {
            let target = root.join(library.strip_prefix("/").unwrap_or(library));
            if let Some(parent) = target.parent() {
                fs::create_dir_all(parent)?;
            }
            copy(library, &target)?;
        }
    }
    Ok(())
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::copy(from, to).with_context(|| format!("cannot copy {}", from.display()))?;
    Ok(())
}
