//! What a virtual machine starts from: folders packed the way the kernel reads them (newc,
//! Documentation/driver-api/early-userspace/buffer-format.rst), one after the other.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail};

use super::suite::Built;
use crate::{
    command::{run, text},
    toolchain::find_program,
};

/// The first process.
const INIT: &str = include_str!("init.sh");

/// What the tests and [`INIT`] run, beside busybox's shell and small tools.
const PROGRAMS: [&str; 8] = [
    "ethtool",
    "ip",
    "ip6tables",
    "ip6tables-save",
    "iptables",
    "iptables-save",
    "nft",
    "tc",
];

/// Drivers that the tests make links of; the rest of what they need is under net.
const DRIVERS: [&str; 4] = ["veth", "tun", "tap", "dummy"];

/// Packs the programs of this machine that the tests want, with their libraries, the tests themselves and
/// `run`, a shell script for after the start. They all take the libraries they were built and installed with.
///
/// # Errors
/// A program is missing.
pub fn pack_system(folder: &Path, built: &Built, run: &str) -> Result<PathBuf> {
    let root = empty(&folder.join("system"))?;
    let busybox =
        find_program("busybox").context("busybox is missing: cargo xtask test installs it")?;
    copy_with_libraries(&root, &busybox, Path::new("bin/busybox"))?;
    for applet in text(Command::new(&busybox).arg("--list"))?.lines() {
        let link = root.join("bin").join(applet);
        if !link.exists() {
            symlink("busybox", link)?;
        }
    }
    // Where the kernel looks for it.
    fs::create_dir_all(root.join("sbin"))?;
    symlink("/bin/busybox", root.join("sbin/modprobe"))?;
    for name in PROGRAMS {
        let Some(program) = find_program(name) else {
            bail!("{name} is missing: cargo xtask test installs it");
        };
        // Ahead of busybox's on the path.
        copy_with_libraries(&root, &program, &Path::new("usr/sbin").join(name))?;
        if name == "iptables" {
            copy_extensions(&root, &program)?;
        }
    }
    for (name, program) in built.programs() {
        let inside = Path::new("tests").join(name);
        copy_with_libraries(&root, program, &inside)?;
        strip(&root.join(inside))?;
    }
    fs::write(root.join("init"), INIT)?;
    make_executable(&root.join("init"))?;
    fs::write(root.join("tests/run"), run)?;
    pack(&root, &folder.join("system.cpio"))
}

/// Packs the modules that the tests want of an unpacked kernel.
///
/// # Errors
/// The kernel has none.
pub fn pack_modules(folder: &Path, kernel: &Path) -> Result<PathBuf> {
    let root = empty(&folder.join("modules"))?;
    let modules = super::machine::modules_of(kernel)?;
    let release = modules.file_name().context("modules without a release")?;
    let inside = root.join("lib/modules").join(release);
    fs::create_dir_all(&inside)?;
    for entry in files_below(&modules)? {
        let relative = entry.strip_prefix(&modules)?;
        let name = entry.file_name().unwrap_or_default().to_string_lossy();
        let is_driver = relative.starts_with("kernel/drivers/net")
            && DRIVERS
                .iter()
                .any(|driver| name.split('.').next() == Some(*driver));
        let is_wanted = ["kernel/net", "kernel/lib", "kernel/crypto", "kernel/arch"]
            .iter()
            .any(|wanted| relative.starts_with(wanted));
        if is_driver || is_wanted || name.starts_with("modules.") {
            let target = inside.join(relative);
            fs::create_dir_all(target.parent().unwrap_or(&inside))?;
            fs::hard_link(&entry, &target)
                .with_context(|| format!("cannot link {}", entry.display()))?;
        }
    }
    let mut depmod = Command::new("busybox");
    depmod.arg("depmod").arg("-b").arg(&root).arg(release);
    run(&mut depmod)?;
    pack(&root, &folder.join("modules.cpio"))
}

/// Several of them in one file.
///
/// # Errors
/// The file system's.
pub fn concatenate(parts: &[&Path], whole: PathBuf) -> Result<PathBuf> {
    let mut file = File::create(&whole)?;
    for part in parts {
        io::copy(&mut File::open(part)?, &mut file)
            .with_context(|| format!("cannot write {}", whole.display()))?;
    }
    Ok(whole)
}

fn pack(root: &Path, file: &Path) -> Result<PathBuf> {
    let mut cpio = Command::new("busybox")
        .args(["cpio", "-o", "-H", "newc"])
        .current_dir(root)
        .stdin(Stdio::piped())
        .stdout(File::create(file)?)
        .stderr(Stdio::null())
        .spawn()
        .context("busybox does not start")?;
    let mut names = cpio.stdin.take().context("busybox without input")?;
    for path in paths_below(root)? {
        writeln!(names, "{}", path.strip_prefix(root)?.display())?;
    }
    drop(names);
    if !cpio.wait()?.success() {
        bail!("busybox cpio cannot pack {}", root.display());
    }
    Ok(file.to_owned())
}

fn empty(folder: &Path) -> Result<PathBuf> {
    if folder.exists() {
        fs::remove_dir_all(folder).with_context(|| format!("cannot empty {}", folder.display()))?;
    }
    fs::create_dir_all(folder.join("bin"))?;
    Ok(folder.to_owned())
}

fn copy_with_libraries(root: &Path, program: &Path, inside: &Path) -> Result<()> {
    copy(program, &root.join(inside))?;
    for library in libraries_of(program) {
        let target = root.join(library.strip_prefix("/").unwrap_or(&library));
        if !target.exists() {
            copy(&library, &target)?;
        }
    }
    Ok(())
}

/// iptables loads its matches and targets as libraries, from a folder beside libxtables.
fn copy_extensions(root: &Path, iptables: &Path) -> Result<()> {
    let libraries = libraries_of(iptables);
    let folder = libraries
        .iter()
        .find(|library| library.to_string_lossy().contains("libxtables"))
        .and_then(|library| Some(fs::canonicalize(library).ok()?.with_file_name("xtables")))
        .context("iptables is none of Debian's: it has no libxtables")?;
    for extension in files_below(&folder)? {
        copy_with_libraries(root, &extension, extension.strip_prefix("/")?)?;
    }
    Ok(())
}

/// The shared libraries of a program, the loader too; none of a static one.
fn libraries_of(program: &Path) -> Vec<PathBuf> {
    let listed = text(Command::new("ldd").arg(program)).unwrap_or_default();
    libraries_in(&listed)
}

fn libraries_in(listed: &str) -> Vec<PathBuf> {
    listed
        .lines()
        .filter_map(|line| line.split_whitespace().find(|word| word.starts_with('/')))
        .map(PathBuf::from)
        .collect()
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to.parent().context("a file without a folder")?)?;
    // What is there may be a link, to busybox.
    let _ = fs::remove_file(to);
    fs::copy(from, to).with_context(|| format!("cannot copy {}", from.display()))?;
    Ok(())
}

/// What debuggers want would fill the machine's memory.
fn strip(program: &Path) -> Result<()> {
    run(Command::new("strip").arg(program))
}

fn make_executable(path: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))?;
    Ok(())
}

fn files_below(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut paths = paths_below(folder)?;
    paths.retain(|path| path.is_file());
    Ok(paths)
}

/// All below a folder, folders before what is in them.
fn paths_below(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    let entries =
        fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    for entry in entries {
        let entry = entry?;
        paths.push(entry.path());
        if entry.file_type()?.is_dir() {
            paths.extend(paths_below(&entry.path())?);
        }
    }
    Ok(paths)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_read_off_ldd() {
        let listed = "\tlinux-vdso.so.1 (0x00007fe289c57000)\n\
                      \tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007fe28813e000)\n\
                      \t/lib64/ld-linux-x86-64.so.2 (0x00007fe289c59000)\n";
        assert_eq!(
            libraries_in(listed),
            [
                "/lib/x86_64-linux-gnu/libc.so.6",
                "/lib64/ld-linux-x86-64.so.2"
            ]
            .map(PathBuf::from)
        );
        assert!(libraries_in("\tstatically linked\n").is_empty());
    }
}
