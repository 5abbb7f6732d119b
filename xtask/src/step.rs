//! One step of set-up: what it is, in the user's words. [`crate::setup`] performs it.

use std::fmt;

/// The version of bpf-linker that is installed.
pub const LINKER_VERSION: &str = "0.13.0";

/// The version of cargo-deny that is installed.
pub const DENY_VERSION: &str = "0.20.2";

/// One thing to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Install Debian packages.
    Apt(Vec<&'static str>),
    /// Have rustup install the nightly toolchain with `rust-src`.
    RustupNightly,
    /// Tell rustup of the toolchain in /usr.
    LinkToolchain,
    /// Have cargo install bpf-linker for an LLVM that is in /usr/lib/llvm-N.
    Linker(u32),
    /// Have rustup install components of the toolchain in use.
    RustupComponents(Vec<&'static str>),
    /// Have cargo install cargo-deny.
    Deny,
    /// Mount /sys/fs/bpf.
    Bpffs,
}

impl Step {
    /// Whether only root may do it.
    pub fn needs_root(&self) -> bool {
        matches!(self, Self::Apt(_) | Self::Bpffs)
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Apt(packages) => {
                write!(f, "install with apt: {}", packages.join(" "))?;
                if packages.contains(&"rustc-web") {
                    write!(f, "\n    (takes the place of the packages rustc and cargo)")?;
                }
                if packages.contains(&"docker.io") {
                    write!(
                        f,
                        "\n    (its service is left switched off: the lab starts a daemon of its own)"
                    )?;
                }
                Ok(())
            }
            Self::RustupNightly => write!(
                f,
                "install with rustup: the nightly toolchain with rust-src"
            ),
            Self::LinkToolchain => {
                write!(f, "make the Rust in /usr known to rustup, as portway-bpf")
            }
            Self::Linker(llvm) => write!(
                f,
                "install with cargo: bpf-linker {LINKER_VERSION}, built for LLVM {llvm}"
            ),
            Self::RustupComponents(components) => {
                write!(f, "install with rustup: {}", components.join(" "))
            }
            Self::Deny => write!(f, "install with cargo: cargo-deny {DENY_VERSION}"),
            Self::Bpffs => write!(f, "mount the BPF file system at /sys/fs/bpf"),
        }
    }
}
