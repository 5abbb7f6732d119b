//! Which Rust toolchain compiles the eBPF programs, and which linker links them.
//!
//! One answer for two askers: xtask, and (by `#[path]`) the build scripts of eBPF programs, so that
//! plain `cargo build` takes the same toolchain as `cargo xtask build`. Hence std and anyhow only.
//!
//! Two ways lead to a `core` for the BPF target:
//! - a nightly with the `rust-src` component, whose cargo builds `core` itself (`-Z build-std`);
//! - a stable toolchain that carries it prebuilt, as Debian's packages do.

use std::{
    env, fmt,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

/// Names the rustup toolchain to use for the eBPF programs, instead of the choice made here.
pub const TOOLCHAIN_VARIABLE: &str = "PORTWAY_EBPF_TOOLCHAIN";

/// The name under which rustup knows the system's toolchain once it is linked.
pub const LINKED_TOOLCHAIN: &str = "portway-bpf";

/// The program that links eBPF objects.
pub const LINKER: &str = "bpf-linker";

/// The workspace's `rust-version`, as (major, minor).
pub const MINIMUM_RUST: (u32, u32) = (1, 88);

/// A toolchain that can compile eBPF programs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Toolchain {
    /// Its name with rustup; `None` where there is no rustup and PATH's cargo is taken.
    pub name: Option<String>,
    /// Rust's version, as `1.96.0`.
    pub release: String,
    /// LLVM's major version; the linker's must not be older.
    pub llvm: u32,
    /// Whether `core` is built from `rust-src` rather than there already.
    pub nightly: bool,
}

impl Toolchain {
    /// The toolchain to use on this machine, if there is one that works.
    ///
    /// # Errors
    /// If the toolchain that the environment asks for does not work.
    pub fn find() -> Result<Option<Self>> {
        let wanted = env::var(TOOLCHAIN_VARIABLE)
            .ok()
            .filter(|name| !name.is_empty());
        let Some(rustup) = find_program("rustup") else {
            return Ok(Self::probe(Command::new("rustc"), None));
        };
        let through_rustup = |name: &str| {
            let mut rustc = Command::new(&rustup);
            rustc.args(["run", name, "rustc"]);
            Self::probe(rustc, Some(name))
        };
        if let Some(name) = wanted {
            let Some(toolchain) = through_rustup(&name) else {
                bail!(
                    "{TOOLCHAIN_VARIABLE} names the toolchain `{name}`, which cannot compile eBPF programs \
                     here; unset it, or `rustup toolchain install {name} --component rust-src`"
                );
            };
            return Ok(Some(toolchain));
        }
        let installed =
            output(Command::new(&rustup).args(["toolchain", "list"])).unwrap_or_default();
        Ok(["nightly", LINKED_TOOLCHAIN]
            .into_iter()
            .filter(|name| is_listed(&installed, name))
            .find_map(through_rustup))
    }

    /// Asks one rustc what it is; `None` if it is not there, too old, or cannot compile for BPF.
    pub fn probe(mut rustc: Command, name: Option<&str>) -> Option<Self> {
        let mut verbose = Command::new(rustc.get_program());
        verbose.args(rustc.get_args()).arg("-vV");
        let sysroot = output(rustc.args(["--print", "sysroot"]))?;
        let rustlib = Path::new(sysroot.trim()).join("lib/rustlib");
        let verbose = output(&mut verbose)?;
        let field = |name: &str| {
            verbose
                .lines()
                .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
        };
        let release = field("release")?;
        (major_minor(release)? >= MINIMUM_RUST).then_some(())?;
        let nightly = release.contains("-nightly");
        // aya-build asks a nightly for build-std, and any other channel for a prebuilt `core`.
        let core = if nightly {
            rustlib.join("src/rust/library")
        } else {
            rustlib.join(BPF_TARGET)
        };
        core.is_dir().then_some(())?;
        Some(Self {
            name: name.map(str::to_owned),
            release: release.to_owned(),
            llvm: field("LLVM version")?.split('.').next()?.parse().ok()?,
            nightly,
        })
    }
}

impl fmt::Display for Toolchain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.nightly {
            "with rust-src"
        } else {
            "with core for BPF"
        };
        write!(f, "Rust {} {kind} (LLVM {}", self.release, self.llvm)?;
        match &self.name {
            Some(name) => write!(f, ", rustup toolchain `{name}`)"),
            None => write!(f, ", the system's)"),
        }
    }
}

/// An installed bpf-linker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Linker {
    /// Where it is; not necessarily on PATH.
    pub path: PathBuf,
    /// The major version of the LLVM library it loads; `None` if LLVM is built into it.
    pub llvm: Option<u32>,
}

impl Linker {
    /// The bpf-linker on PATH, else the one where `cargo install` puts it.
    pub fn find() -> Option<Self> {
        let path = find_program(LINKER)
            .or_else(|| Some(cargo_bin()?.join(LINKER)).filter(|path| path.is_file()))?;
        let llvm = loaded_llvm(&path);
        Some(Self { path, llvm })
    }

    /// Whether it can read what a compiler with this LLVM writes: bitcode is read by the same
    /// LLVM and newer ones. A linker with LLVM built in does not say, and is given the chance.
    pub fn reads(&self, llvm: u32) -> bool {
        self.llvm.is_none_or(|own| own >= llvm)
    }
}

/// Little-endian BPF stands for both: Debian's package always has the two.
const BPF_TARGET: &str = "bpfel-unknown-none";

/// `1.96.0+dfsg1-1~deb12u2` or `1.97.0-nightly` -> (1, 96), (1, 97)
pub fn major_minor(version: &str) -> Option<(u32, u32)> {
    let mut numbers = version
        .split(|c: char| !c.is_ascii_digit())
        .map(|number| number.parse().ok());
    Some((numbers.next()??, numbers.next()??))
}

/// Where `cargo install` puts programs.
pub fn cargo_bin() -> Option<PathBuf> {
    let home = |variable| {
        env::var_os(variable)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    Some(
        home("CARGO_HOME")
            .or_else(|| Some(home("HOME")?.join(".cargo")))?
            .join("bin"),
    )
}

/// A program on PATH.
pub fn find_program(name: &str) -> Option<PathBuf> {
    env::split_paths(&env::var_os("PATH")?)
        .map(|dir| dir.join(name))
        .find(|path| path.is_file())
}

/// What a command prints, if it succeeds.
pub fn output(command: &mut Command) -> Option<String> {
    let output = command
        .output()
        .ok()
        .filter(|output| output.status.success())?;
    String::from_utf8(output.stdout).ok()
}

/// Whether `rustup toolchain list` names a toolchain, with or without the host's triple.
fn is_listed(list: &str, name: &str) -> bool {
    list.lines()
        .filter_map(|line| line.split_whitespace().next())
        .any(|listed| {
            listed.strip_prefix(name).is_some_and(|rest| {
                rest.is_empty()
                    || (rest.starts_with('-')
                        && !rest[1..].starts_with(|c: char| c.is_ascii_digit()))
            })
        })
}

/// The LLVM library a program loads, read off the file: running `ldd` on it costs more than the
/// whole probe may. The names of needed libraries stand near an ELF file's start.
fn loaded_llvm(program: &Path) -> Option<u32> {
    use std::io::Read as _;
    const PREFIX: &[u8] = b"libLLVM";
    let mut start = Vec::new();
    std::fs::File::open(program)
        .ok()?
        .take(256 * 1024)
        .read_to_end(&mut start)
        .ok()?;
    let at = start
        .windows(PREFIX.len())
        .position(|window| window == PREFIX)?;
    // `libLLVM.so.22.1`, `libLLVM-22.so` or `libLLVM-22.so.1`
    let name = start[at + PREFIX.len()..].split(|&byte| byte == 0).next()?;
    let digits = String::from_utf8_lossy(name);
    digits
        .split(|c: char| !c.is_ascii_digit())
        .find(|part| !part.is_empty())?
        .parse()
        .ok()
}

/// Checks that a linker fits a toolchain, for the error that says so before LLVM's obscure one.
///
/// # Errors
/// If there is none, or it is too old.
pub fn fitting_linker(toolchain: &Toolchain) -> Result<Linker> {
    let linker = Linker::find().with_context(|| format!("{LINKER} is not installed"))?;
    if !linker.reads(toolchain.llvm) {
        bail!(
            "{} was built for LLVM {} and cannot read the LLVM {} of {toolchain}",
            linker.path.display(),
            linker.llvm.unwrap_or_default(),
            toolchain.llvm,
        );
    }
    Ok(linker)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn toolchains_are_found_in_rustups_list() {
        let list = "stable-x86_64-unknown-linux-gnu (active, default)\n\
                    nightly-2026-05-20-x86_64-unknown-linux-gnu\n\
                    portway-bpf\n";
        assert!(is_listed(list, "stable"));
        assert!(is_listed(list, "portway-bpf"));
        assert!(
            !is_listed(list, "portway-b"),
            "a name that another one starts with"
        );
        assert!(
            !is_listed(list, "nightly"),
            "a dated nightly is not `nightly`"
        );
        assert!(is_listed("nightly-x86_64-unknown-linux-gnu\n", "nightly"));
    }

    #[test]
    fn a_linker_reads_its_own_llvm_and_older() {
        let linker = |llvm| Linker {
            path: PathBuf::new(),
            llvm,
        };
        assert!(linker(Some(22)).reads(22));
        assert!(linker(Some(23)).reads(22));
        assert!(!linker(Some(21)).reads(22));
        assert!(linker(None).reads(22), "LLVM is built in: unknown");
    }
}
