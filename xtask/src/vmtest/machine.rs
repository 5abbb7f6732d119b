//! A virtual machine: an unpacked kernel, and qemu to run it.

use std::{
    fs::{self, File},
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail};

use super::{
    archive::{Archive, Package, unpack},
    kernel::Kernel,
};

/// What qemu is packaged as.
const QEMU: &str = "qemu-system-x86";

/// The system lies in memory, and tests fill maps.
const MEMORY_MB: &str = "3072";

/// Two, so that what only happens between CPUs can happen.
const CPUS: &str = "2";

/// qemu as Debian packages it, with all libraries, in a folder.
#[derive(Debug)]
pub struct Qemu {
    root: PathBuf,
    is_accelerated: bool,
}

impl Qemu {
    /// Fetches and unpacks it.
    ///
    /// # Errors
    /// The archive's.
    pub fn fetch(archive: &Archive, folder: &Path) -> Result<Self> {
        let packages = archive.with_dependencies(QEMU)?;
        Ok(Self {
            root: unpacked(archive, &packages, QEMU, folder)?,
            is_accelerated: has_kvm(),
        })
    }

    /// Whether the machine's own CPU does the work.
    pub fn is_accelerated(&self) -> bool {
        self.is_accelerated
    }

    /// Runs a kernel until it powers off. Each line that comes from its second serial port is `told`; the first,
    /// the console, goes to a file.
    ///
    /// # Errors
    /// qemu does not start.
    pub fn run(
        &self,
        kernel: &Path,
        initrd: &Path,
        console: &Path,
        mut told: impl FnMut(&str),
    ) -> Result<()> {
        // Ctrl-C reaches qemu as it does this program. If this one is killed, its machines end, too.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--"]);
        // Its libraries are those beside it, not this machine's.
        let libraries = ["lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu"]
            .map(|folder| self.root.join(folder).display().to_string());
        command
            .arg(self.root.join("lib64/ld-linux-x86-64.so.2"))
            .args(["--library-path", &libraries.join(":")])
            .arg(self.root.join("usr/bin/qemu-system-x86_64"))
            .env(
                "QEMU_MODULE_DIR",
                self.root.join("usr/lib/x86_64-linux-gnu/qemu"),
            );
        for data in ["usr/share/qemu", "usr/share/seabios"] {
            command.arg("-L").arg(self.root.join(data));
        }
        let (accelerator, cpu) = if self.is_accelerated {
            ("kvm", "host")
        } else {
            ("tcg,thread=multi", "max")
        };
        command
            .args(["-M", "q35", "-accel", accelerator, "-cpu", cpu])
            .args(["-m", MEMORY_MB, "-smp", CPUS])
            .args(["-nodefaults", "-display", "none", "-no-reboot"])
            .arg("-serial")
            .arg(format!("file:{}", console.display()))
            .args(["-serial", "stdio"])
            .arg("-kernel")
            .arg(image_of(kernel)?)
            .arg("-initrd")
            .arg(initrd)
            .args(["-append", "console=ttyS0 panic=-1"]);
        File::create(console)?;
        let mut qemu = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .context("qemu does not start")?;
        let output = qemu.stdout.take().context("qemu without output")?;
        let mut output = BufReader::new(output);
        let mut line = Vec::new();
        while output.read_until(b'\n', &mut line)? > 0 {
            told(String::from_utf8_lossy(&line).trim_end());
            line.clear();
        }
        let status = qemu.wait()?;
        if !status.success() {
            bail!("qemu failed: {status}");
        }
        Ok(())
    }
}

/// Fetches and unpacks a kernel.
///
/// # Errors
/// The archive's.
pub fn fetch_kernel(kernel: Kernel, archive: &Archive, folder: &Path) -> Result<PathBuf> {
    let mut packages = archive.with_dependencies(kernel.package())?;
    packages.retain(|package| Kernel::consists_of(package.name()));
    unpacked(archive, &packages, "linux-image", folder)
}

/// The folder with the modules of an unpacked kernel, which has its release for a name.
///
/// # Errors
/// There is none.
pub fn modules_of(kernel: &Path) -> Result<PathBuf> {
    let folders = ["lib/modules", "usr/lib/modules"].map(|folder| kernel.join(folder));
    folders
        .iter()
        .filter_map(|folder| fs::read_dir(folder).ok()?.next()?.ok())
        .map(|entry| entry.path())
        .next()
        .with_context(|| format!("no modules in {}", kernel.display()))
}

/// The kernel itself, which is among its modules since Debian 14.
fn image_of(kernel: &Path) -> Result<PathBuf> {
    let modules = modules_of(kernel)?;
    let release = modules.file_name().unwrap_or_default().to_string_lossy();
    let places = [
        kernel.join(format!("boot/vmlinuz-{release}")),
        modules.join("vmlinuz"),
    ];
    places
        .into_iter()
        .find(|place| place.is_file())
        .with_context(|| format!("no kernel in {}", kernel.display()))
}

/// Packages in one folder, named after the last of them that begins with `main`: the others come with it.
fn unpacked(archive: &Archive, packages: &[Package], main: &str, folder: &Path) -> Result<PathBuf> {
    let name = packages
        .iter()
        .filter(|package| package.name().starts_with(main))
        .map(Package::stem)
        .max_by_key(|stem| stem.len())
        .with_context(|| format!("Debian's {main} consists of nothing"))?;
    let root = folder.join(name);
    if root.is_dir() {
        return Ok(root);
    }
    let part = folder.join(format!("{name}.part"));
    if part.exists() {
        fs::remove_dir_all(&part)?;
    }
    fs::create_dir_all(&part)?;
    eprintln!("xtask: fetching {name}: {} packages", packages.len());
    for package in packages {
        unpack(&archive.fetch(package)?, &part)?;
    }
    fs::rename(&part, &root)?;
    Ok(root)
}

/// Whether KVM can be used. A machine that is virtual itself may have the device and not the instructions; qemu
/// then ends instead of going on without.
fn has_kvm() -> bool {
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    has_virtualization(&cpu)
        && File::options()
            .read(true)
            .write(true)
            .open("/dev/kvm")
            .is_ok()
}

fn has_virtualization(cpuinfo: &str) -> bool {
    cpuinfo
        .lines()
        .filter(|line| line.starts_with("flags"))
        .any(|line| {
            line.split_whitespace()
                .any(|flag| flag == "vmx" || flag == "svm")
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kvm_takes_its_instructions() {
        assert!(has_virtualization(
            "processor : 0\nflags\t\t: fpu vmx sse\n"
        ));
        assert!(!has_virtualization(
            "model name : svm\nflags\t\t: fpu svm_lock\n"
        ));
    }
}
